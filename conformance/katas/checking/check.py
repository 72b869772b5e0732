"""Run a kata's tests on a learner's file, in a process of its own, and believe nothing but its signed record."""

import json
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance import ROOT
from conformance.katas.course import Kata

TIME_LIMIT = 60.0  # seconds; a check takes two or three, most of it to import torch


@dataclass(frozen=True)
class Outcome:
    """What a check found."""

    trouble: dict[str, Any] | None  # why no test could say anything: {"problem", "where"}
    tests: list[dict[str, Any]] = field(default_factory=list)
    looks_like: str | None = None
    printed: dict[str, str] = field(default_factory=dict)  # by the learner's code in each test, and in none: ""

    @property
    def passed(self) -> bool:
        """Whether tests ran, and every one of them passed."""
        return self.trouble is None and bool(self.tests) and all(test["problem"] is None for test in self.tests)


def check(kata: Kata, file: Path, seconds: float = TIME_LIMIT) -> Outcome:
    """Test this file. Anything but a complete record of this very check is a failure."""
    secret, mark = secrets.token_hex(16), secrets.token_hex(16)
    job = {"kata": kata.name, "file": str(file.resolve()), "secret": secret, "mark": mark}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-B", "-u", "-X", "utf8", "-m", "conformance.katas.checking.child"],
            input=json.dumps(job).encode(),
            capture_output=True,
            timeout=seconds,
            env=os.environ | {"PYTHONPATH": path},
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        printed = by_test(late.stderr, mark)
        problem = f"was still running after {seconds:g} seconds, and was stopped: is there a loop that doesn't end?"
        return Outcome(ended(problem, printed), printed=printed)
    printed = by_test(done.stderr, mark)
    record = believed(done.stdout, secret)
    if record is None:
        return Outcome(ended(f"ended the whole program, with status {done.returncode}", printed), printed=printed)
    return verdict(kata, file.resolve(), record, printed)


def ended(problem: str, printed: dict[str, str]) -> dict[str, Any]:
    """What to say of a check without a record: where it was then."""
    where = list(printed)[-1] or "your file, when it was imported,"
    return {"problem": f"{where} {problem}", "where": []}


def verdict(kata: Kata, file: Path, record: dict[str, Any], printed: dict[str, str]) -> Outcome:
    """The outcome of a record, if it is about this file and all of the kata's tests."""
    names = [test["name"] for test in record["tests"]]
    trouble = record["trouble"]
    if trouble is None and Path(record["file"]) != file:
        trouble = {"problem": f"{record['file']} was tested, not this file", "where": []}
    if trouble is None and (names != kata.test_names or not names):
        trouble = {"problem": f"{len(names)} tests ran where {len(kata.test_names)} should", "where": []}
    return Outcome(trouble, record["tests"], record["looks_like"], printed)


def believed(raw: bytes, secret: str) -> dict[str, Any] | None:
    """The child's record; None unless it is whole and carries the secret of this check."""
    try:
        record = json.loads(raw)
    except ValueError:
        return None
    return record if isinstance(record, dict) and record.pop("secret", None) == secret else None


def by_test(raw: bytes | None, mark: str) -> dict[str, str]:
    """What was printed, by the name of the test that ran then; "" is before the first."""
    text = (raw or b"").decode("utf-8", "replace").replace("\r\n", "\n")
    parts = [part.partition("\n") for part in f" \n{text}".split(f"\n{mark} ")]
    return {name.strip(): output.strip("\n") for name, _, output in parts}

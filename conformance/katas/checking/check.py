"""Run a kata's tests on a learner's file in a child process, and accept only the child's signed report."""

import json
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from conformance import ROOT
from conformance.katas.checking.records import Report, ReportedTest, Trouble, report_from_json
from conformance.katas.course import Kata

TIME_LIMIT = 60.0  # seconds; a check takes two or three, most of it to import torch


@dataclass(frozen=True)
class Outcome:
    """The result of a check. `printed`: the output of the learner's code by test, "" for the output before the first test."""

    trouble: Trouble | None
    tests: list[ReportedTest] = field(default_factory=list)
    looks_like: str | None = None
    printed: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether tests ran, and every one of them passed."""
        return self.trouble is None and bool(self.tests) and all(test.problem is None for test in self.tests)


def check(kata: Kata, file: Path, seconds: float = TIME_LIMIT) -> Outcome:
    """Test this file. Anything but a complete report of this very check is a failure."""
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
        return Outcome(no_report(problem, printed), printed=printed)
    printed = by_test(done.stderr, mark)
    report = signed_report(done.stdout, secret)
    if report is None:
        return Outcome(no_report(f"ended the whole program, with status {done.returncode}", printed), printed=printed)
    return outcome_of(kata, file.resolve(), report, printed)


def no_report(problem: str, printed: dict[str, str]) -> Trouble:
    """The trouble of a check without a report: it names the last test that began."""
    return Trouble(f"{list(printed)[-1] or 'your file, when it was imported,'} {problem}")


def outcome_of(kata: Kata, file: Path, report: Report, printed: dict[str, str]) -> Outcome:
    """The outcome of a report, if it is about this file and all of the kata's tests."""
    names = [test.name for test in report.tests]
    trouble = report.trouble
    if trouble is None and Path(report.file) != file:
        trouble = Trouble(f"{report.file} was tested, not this file")
    if trouble is None and (names != kata.test_names or not names):
        trouble = Trouble(f"{len(names)} tests ran where {len(kata.test_names)} should")
    return Outcome(trouble, report.tests, report.looks_like, printed)


def signed_report(raw: bytes, secret: str) -> Report | None:
    """The child's report; None unless it is whole and carries the secret of this check."""
    try:
        record = json.loads(raw)
        if not isinstance(record, dict) or record.pop("secret", None) != secret:
            return None
        return report_from_json(record)
    except (ValueError, KeyError, TypeError):
        return None


def by_test(raw: bytes | None, mark: str) -> dict[str, str]:
    """The printed text by the name of the test that ran then; "" is before the first."""
    text = (raw or b"").decode("utf-8", "replace").replace("\r\n", "\n")
    parts = [part.partition("\n") for part in f" \n{text}".split(f"\n{mark} ")]
    return {name.strip(): output.strip("\n") for name, _, output in parts}

"""The child process of `check`: one kata, one file, one record of what happened.

The job comes on stdin, the record leaves on a copy of stdout that nobody else knows, with the secret of the job in it. Whatever
the learner's code prints goes to stderr, with a mark and a name before each test. How this process ends says nothing: a record
with the right secret does.
"""

import json
import linecache
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from conformance.katas.checking.diagnose import known_bugs, look_alikes
from conformance.katas.checking.running import (
    NotTheirs,
    Sat,
    forget,
    load_tests,
    make_ready,
    prove,
    put_in_front,
    sit_all,
    untouched,
    watched,
)
from conformance.katas.course import Kata, find_kata
from conformance.katas.testing.compare import Disagreement

Record = dict[str, Any]


def examine(kata: Kata, file: Path, begins: Callable[[str], object] = id, *, diagnosed: bool = True) -> Record:
    """Test this file as the kata's module: {"file", "trouble", "tests", "looks_like"}; `begins` hears each test before.

    The last is what known mistake it looks like, if that is asked for.
    """
    forget()
    make_ready(kata)
    before = watched()
    record: Record = {"file": str(file), "trouble": None, "tests": [], "looks_like": None}
    try:
        put_in_front(kata, file)
        untouched(before)
        prove(kata, file)
        sats = sit_all(load_tests(kata), before, begins)
        prove(kata, file)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a learner's file may raise whatever it likes
        return record | {"trouble": {"problem": said(error), "where": frames(error, file)}}
    found = look_alikes(kata, sats) if diagnosed else []
    return record | {
        "tests": [described(sat, file) for sat in sats],
        "looks_like": known_bugs()[found[0]].what if len(found) == 1 else None,
    }


def described(sat: Sat, file: Path) -> Record:
    """One test for the page."""
    problem = None if sat.error is None else said(sat.error)
    where = [] if sat.error is None or isinstance(sat.error, Disagreement) else frames(sat.error, file)
    return {"name": sat.name, "about": sat.about, "problem": problem, "where": where, "unwritten": sat.unwritten}


def said(error: BaseException) -> str:
    """What an error says, to its author."""
    if isinstance(error, (Disagreement, NotTheirs)) or Sat("", error=error).unwritten:
        return str(error)
    if isinstance(error, SyntaxError):
        return f"this is not Python: {error.msg}"
    if isinstance(error, SystemExit):
        return "this file ends the program (sys.exit), so nothing was tested"
    return f"{type(error).__name__}: {str(error).strip() or 'without a message'}"


def frames(error: BaseException, file: Path) -> list[tuple[int, str, str]]:
    """Where in the learner's file it happened: line number, function, text; nobody else's frames."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return [(error.lineno or 1, "", (error.text or "").strip())]
    linecache.checkcache(str(file))
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return [(frame.lineno or 1, frame.name, frame.line or "") for frame in own[-5:]]


def main() -> None:
    """Do the job on stdin."""
    job = json.load(sys.stdin)
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    mark, say = job["mark"], os.write
    record = examine(find_kata(job["kata"]), Path(job["file"]), lambda name: say(2, f"\n{mark} {name}\n".encode()))
    report.write(json.dumps(record | {"secret": job["secret"]}))
    report.flush()
    os._exit(0)  # a thread that the learner left behind must not keep this waiting


if __name__ == "__main__":
    main()

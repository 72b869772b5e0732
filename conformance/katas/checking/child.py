"""The child process of `check`: one kata, one file, one report.

The job comes on stdin. The report goes to a copy of stdout that only this module knows, with the job's secret in it. What the
learner's code prints goes to stderr, with a mark and a name before each test. The exit status proves nothing; only a report
with the right secret does.
"""

import json
import linecache
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from conformance.katas.checking.diagnose import known_bugs, look_alikes
from conformance.katas.checking.records import Line, Report, ReportedTest, Trouble, report_to_json
from conformance.katas.checking.running import (
    FinishedTest,
    InvalidRun,
    import_dependencies,
    import_learners_file,
    load_tests,
    require_targets,
    require_unpatched,
    run_tests,
    unload,
    watched_names,
)
from conformance.katas.course import Kata, find_kata
from conformance.katas.testing.compare import Disagreement


def check_file(kata: Kata, file: Path, begins: Callable[[str], object] = id, *, diagnosed: bool = True) -> Report:
    """Test this file as the kata's module; `begins` is called with each test's name before the test.

    `diagnosed`: also find the known mistake that it looks like.
    """
    unload()
    import_dependencies(kata)
    before = watched_names()
    try:
        import_learners_file(kata, file)
        require_unpatched(before)
        require_targets(kata, file)
        finished = run_tests(load_tests(kata), before, begins)
        require_targets(kata, file)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a learner's file may raise whatever it likes
        return Report(str(file), Trouble(error_message(error), lines_in(error, file)))
    found = look_alikes(kata, finished) if diagnosed else []
    looks_like = known_bugs()[found[0]].what if len(found) == 1 else None
    return Report(str(file), None, [reported(test, file) for test in finished], looks_like)


def reported(test: FinishedTest, file: Path) -> ReportedTest:
    """One test for the page."""
    problem = None if test.error is None else error_message(test.error)
    where = [] if test.error is None or isinstance(test.error, Disagreement) else lines_in(test.error, file)
    return ReportedTest(test.name, test.about, problem, where, test.unwritten)


def error_message(error: BaseException) -> str:
    """An error as the learner reads it."""
    if isinstance(error, (Disagreement, InvalidRun)) or FinishedTest("", error=error).unwritten:
        return str(error)
    if isinstance(error, SyntaxError):
        return f"this is not Python: {error.msg}"
    if isinstance(error, SystemExit):
        return "this file ends the program (sys.exit), so nothing was tested"
    return f"{type(error).__name__}: {str(error).strip() or 'without a message'}"


def lines_in(error: BaseException, file: Path) -> list[Line]:
    """The lines of the learner's file in an error's traceback, the last five; frames of other files are left out."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return [Line(error.lineno or 1, "", (error.text or "").strip())]
    linecache.checkcache(str(file))
    inside = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return [Line(frame.lineno or 1, frame.name, frame.line or "") for frame in inside[-5:]]


def main() -> None:
    """Do the job on stdin."""
    job = json.load(sys.stdin)
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    mark, write = job["mark"], os.write
    report = check_file(find_kata(job["kata"]), Path(job["file"]), lambda name: write(2, f"\n{mark} {name}\n".encode()))
    output.write(json.dumps(report_to_json(report) | {"secret": job["secret"]}))
    output.flush()
    os._exit(0)  # must not wait for the learner's threads


if __name__ == "__main__":
    main()

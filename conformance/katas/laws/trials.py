"""Trials for the laws: learners' files are checked, bugs and mutants are seeded into the runtime. Each trial runs in a fork of
this process, so that nothing is imported twice and no damage outlives the trial."""

import importlib
import os
import signal
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterable
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, TypeVar

from conformance.katas.checking.child import check_file
from conformance.katas.checking.diagnose import known_bugs
from conformance.katas.checking.records import Report
from conformance.katas.checking.running import load_tests, run_test, unload
from conformance.katas.course import Kata
from conformance.katas.stub import fitted, function_text, replace
from conformance.score.zoo.entries import Bug
from conformance.score.zoo.mutants import mutants

T = TypeVar("T")
TRIAL_LIMIT = 300.0  # seconds for one trial
TEST_LIMIT = 3.0  # seconds after which a test of a mutant counts as failed


def forked(work: Callable[[], T]) -> T | None:
    """The result of `work` in a fork of this process; None if the fork ends before it returns. Its output is dropped."""
    ours, theirs = Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            theirs.send(work())
        except Exception:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(0)
    theirs.close()
    try:
        return ours.recv() if ours.poll(TRIAL_LIMIT) else None
    except EOFError:
        return None
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def check_source(kata: Kata, source: str, *, diagnosed: bool = False) -> Report | None:
    """Check a learner's file with this text; None if it ended the process."""

    def work() -> Report:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, kata.reference.name)
            file.write_bytes(source.encode())
            return check_file(kata, file, diagnosed=diagnosed)

    return forked(work)


def failing(report: Report | None) -> list[str]:
    """The tests that failed, or why none ran; empty if the file passed."""
    if report is None:
        return ["it ended the process"]
    if report.trouble:
        return [report.trouble.problem]
    return [test.name for test in report.tests if test.problem is not None] if report.tests else ["no test ran"]


def places(kata: Kata) -> set[str]:
    """The kata's targets, as zoo entries name them."""
    return {f"{kata.module}:{target}" for target in kata.targets}


def zoo_of(kata: Kata) -> dict[str, Bug]:
    """The zoo entries whose edits all lie in the kata's targets."""
    targets = places(kata)
    return {name: bug for name, bug in known_bugs().items() if bug.edits and all(edit.at in targets for edit in bug.edits)}


def mutants_of(kata: Kata) -> dict[str, Bug]:
    """Every mutant of the kata's targets."""
    package, _, module = kata.module.partition(".")
    made = mutants(module) if package == "nanollama" else ()
    return {bug.name: bug for bug in made if bug.edits[0].at in places(kata)}


def as_learner(kata: Kata, bug: Bug) -> str:
    """The file of a learner who makes this mistake."""
    unload()
    seeding = importlib.import_module("conformance.score.zoo.seeding")
    live = importlib.import_module("conformance.score.zoo.live")
    source = kata.source
    with seeding.seeded(bug):
        for at in {edit.at for edit in bug.edits}:
            target, text = at.partition(":")[2], live.source_text(at)
            source = replace(source, {target: fitted(source, target, text)})
            if textwrap.dedent(function_text(source, target)).rstrip() != text.rstrip():
                raise ValueError(f"{bug.name} edits {target} outside its body")
    return source


class TestHangs(BaseException):
    """A test took too long. Code under test with `except Exception` does not catch this."""


def interrupt(*_: Any) -> None:
    """The signal handler of the time limit."""
    raise TestHangs


def sweep(kata: Kata, bugs: Iterable[Bug]) -> dict[str, list[str]]:
    """Seed each bug into the real runtime: {its name: the tests that fail}. After a test that hangs, no other is run."""

    def work() -> dict[str, list[str]]:
        unload()
        seeding = importlib.import_module("conformance.score.zoo.seeding")
        tests = load_tests(kata)
        signal.signal(signal.SIGALRM, interrupt)
        kills = {}
        for bug in bugs:
            with seeding.seeded(bug):
                kills[bug.name] = failures(tests)
        return kills

    found = forked(work)
    if found is None:
        raise RuntimeError(f"kata {kata.name}: the process that seeds bugs did not finish; see above")
    return found


def failures(tests: list[Callable[[], None]]) -> list[str]:
    """The names of the tests that fail now."""
    names = []
    for test in tests:
        signal.setitimer(signal.ITIMER_REAL, TEST_LIMIT)
        finished = run_test(test)
        signal.setitimer(signal.ITIMER_REAL, 0)
        names += [finished.name] if finished.error is not None else []
        if isinstance(finished.error, TestHangs):
            break
    return names

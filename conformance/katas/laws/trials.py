"""What the laws of the katas try out: files as a learner might write them, bugs and mutants seeded into the runtime. Each trial
runs in a copy of this process (fork), so that nothing is imported twice and whatever it breaks is gone afterwards."""

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

from conformance.katas.checking.child import Record, examine
from conformance.katas.checking.diagnose import known_bugs
from conformance.katas.checking.running import forget, load_tests, sit
from conformance.katas.course import Kata
from conformance.katas.stub import fitted, function_text, replace
from conformance.score.zoo.entries import Bug
from conformance.score.zoo.mutants import mutants

T = TypeVar("T")
PATIENCE = 300.0  # seconds for one trial
HANGS = 3.0  # seconds after which a test of a mutant counts as failed, by a loop without an end


def forked(work: Callable[[], T]) -> T | None:
    """What `work` returns in a copy of this process; None if the copy ends before it returns. What it prints is lost."""
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
        return ours.recv() if ours.poll(PATIENCE) else None
    except EOFError:
        return None
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def tried(kata: Kata, source: str, *, diagnosed: bool = False) -> Record | None:
    """The record of a learner's file with this text."""

    def work() -> Record:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, kata.reference.name)
            file.write_bytes(source.encode())
            return examine(kata, file, diagnosed=diagnosed)

    return forked(work)


def failing(record: Record | None) -> list[str]:
    """Why a file did not pass: the tests that failed, or what kept them from running. Empty if it passed."""
    if record is None:
        return ["it ended the process"]
    if record["trouble"]:
        return [record["trouble"]["problem"]]
    return [test["name"] for test in record["tests"] if test["problem"] is not None] if record["tests"] else ["no test ran"]


def places(kata: Kata) -> set[str]:
    """The kata's targets, as zoo entries name them."""
    return {f"{kata.module}:{target}" for target in kata.targets}


def zoo_of(kata: Kata) -> dict[str, Bug]:
    """The zoo entries whose edits all lie in the kata's targets."""
    own = places(kata)
    return {name: bug for name, bug in known_bugs().items() if bug.edits and all(edit.at in own for edit in bug.edits)}


def mutants_of(kata: Kata) -> dict[str, Bug]:
    """Every mutant of the kata's targets."""
    package, _, module = kata.module.partition(".")
    made = mutants(module) if package == "nanollama" else ()
    return {bug.name: bug for bug in made if bug.edits[0].at in places(kata)}


def as_learner(kata: Kata, bug: Bug) -> str:
    """The file of a learner who makes this mistake."""
    forget()
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


class Hangs(BaseException):
    """A test that takes too long; no `except Exception` of the code under test stops it."""


def interrupt(*_: Any) -> None:
    """What the alarm does."""
    raise Hangs


def sweep(kata: Kata, bugs: Iterable[Bug]) -> dict[str, list[str]]:
    """Seed each into the real runtime: {its name: the tests that fail then}. After a test that hangs, no other is run."""

    def work() -> dict[str, list[str]]:
        forget()
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
        raise RuntimeError(f"kata {kata.name}: the process that seeds bugs came to no end; see above")
    return found


def failures(tests: list[Callable[[], None]]) -> list[str]:
    """The names of the tests that fail now."""
    names = []
    for test in tests:
        signal.setitimer(signal.ITIMER_REAL, HANGS)
        sat = sit(test)
        signal.setitimer(signal.ITIMER_REAL, 0)
        names += [sat.name] if sat.error is not None else []
        if isinstance(sat.error, Hangs):
            break
    return names

"""Judge bugs: each is seeded into a fork of this process, and the checks that can see it run until one fails."""

import math
import multiprocessing
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType

from conformance.checks import Check, Failed
from conformance.models.fixtures import FIXTURES
from conformance.score.impact import reached
from conformance.score.zoo.seeding import Bug, ZooBroken, seeded

LIMIT = 20  # seconds of CPU for one check on a runtime with a bug; a clean one takes less than one
PATIENCE = 6  # times as long on the clock: others may be at work here, and what waits for ever takes no CPU
GRACE = 2  # seconds for what runs when the time is up


@dataclass(frozen=True)
class Result:
    """What the checks said of one entry of the zoo. `cases`: where the check that killed it runs on the families'
    fixtures, the place that it names on each that runs the changed code, "" where it passes."""

    name: str
    kind: str
    area: str
    killed_by: str = ""
    place: str = ""
    detail: str = ""
    localised: bool = False
    checks: int = 0
    seconds: float = 0.0  # of CPU
    cases: Mapping[str, str] = field(default_factory=dict)

    @property
    def killed(self) -> bool:
        """Whether any check failed."""
        return bool(self.killed_by)

    @property
    def group(self) -> str:
        """Which of the scores it counts for: semantic, mutants, precision or decoy."""
        return "mutants" if self.area == "mutants" else self.kind


def judge(bug: Bug, checks: Sequence[Check]) -> Iterator[Result]:
    """Seed a bug in this process and run the checks until one fails, then that one's other cases; yields what is known after
    each of the two. The process may be spoilt afterwards."""
    for kind in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(kind, out_of_time)
    started = time.process_time()
    with seeded(bug):
        for ran, check in enumerate(checks, 1):
            if failure := failure_of(check):
                localised = re.search(bug.module, failure.place) is not None
                told = (check.name, failure.place, failure.detail[:300], localised)
                result = Result(bug.name, bug.kind, bug.area, *told, ran, time.process_time() - started)
                yield result
                if siblings := [other for other in checks if other.case in FIXTURES and other.function == check.function]:
                    cases = {other.case: place_in(other) for other in siblings}
                    yield replace(result, cases=cases, seconds=time.process_time() - started)
                return
        yield Result(bug.name, bug.kind, bug.area, checks=len(checks), seconds=time.process_time() - started)


def failure_of(check: Check) -> Failed | None:
    """Run a check for as long as a check may take."""
    limit(LIMIT)
    try:
        check.run()
        return None
    except Failed as failure:
        return failure
    finally:
        limit(0)


def limit(seconds: float) -> None:
    """Raise TimeoutError after so many seconds of CPU, or PATIENCE times as many on the clock; 0: never."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE * seconds)


def place_in(check: Check) -> str:
    """The place that a check names now, "" if none."""
    failure = failure_of(check)
    return failure.place if failure else ""


def out_of_time(_: int, frame: FrameType | None) -> None:
    """A check that hangs fails, where it hangs."""
    raise TimeoutError(f"the check takes longer than {LIMIT} s")


def judge_in_child(bug: Bug, checks: Sequence[Check], pipe: Connection, cases: bool) -> None:
    """Judge, and send what is known as it is: a bug may end the process at any time."""
    try:
        for result in judge(bug, checks):
            pipe.send(result)
            if not cases:
                return
    except ZooBroken as error:
        pipe.send(error)


@dataclass
class Running:
    """A child at work, and what it has said so far."""

    bug: Bug
    child: BaseProcess
    pipe: Connection
    said: Result | ZooBroken | None = None

    def outcome(self) -> Result:
        """The result; a child that died without a word was killed by the bug, nobody knows where."""
        if isinstance(self.said, ZooBroken):
            raise self.said
        return self.said or Result(self.bug.name, self.bug.kind, self.bug.area, "the process died", "unknown")


def score(
    bugs: Sequence[Bug],
    checks: Sequence[Check],
    impact: Mapping[str, frozenset[str]],
    workers: int,
    until: float = math.inf,
    cases: bool = True,
    expected: Mapping[str, str] | None = None,
) -> Iterator[Result]:
    """Judge every bug in a fork of its own, `workers` at a time; results as they come.

    `expected`: by bug, the check that is asked first, because it was the first in their order that killed it another time.
    Nothing is begun after the time `until` (as perf_counter counts), and what is not done soon after is given up, not counted.
    """
    waiting, running = list(reversed(bugs)), list[Running]()
    while running or (waiting and time.perf_counter() < until):
        while waiting and len(running) < workers and time.perf_counter() < until:
            bug = waiting.pop()
            running.append(begin(bug, asked(bug, reached(bug, checks, impact), (expected or {}).get(bug.name)), cases))
        for run in heard(running, until + GRACE - time.perf_counter()):
            running.remove(run)
            yield run.outcome()
        if time.perf_counter() > until + GRACE:
            for run in running:
                run.child.terminate()
            return


def asked(bug: Bug, checks: Sequence[Check], first: str | None = None) -> list[Check]:
    """The checks that have a say; what tells precision policies from ours must not judge anything else."""
    having = [check for check in checks if bug.kind == "precision" or not check.policies]
    return sorted(having, key=lambda check: check.name != first)


def begin(bug: Bug, checks: Sequence[Check], cases: bool) -> Running:
    """A fork of this process that judges one bug."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=judge_in_child, args=(bug, checks, theirs, cases), daemon=True)
    child.start()
    theirs.close()
    return Running(bug, child, ours)


def heard(running: Sequence[Running], seconds: float) -> list[Running]:
    """Wait until children say something; those that have nothing to add."""
    ready = wait([run.pipe for run in running], None if math.isinf(seconds) else max(0.0, seconds))
    return [run for run in running if run.pipe in ready and not hear(run)]


def hear(run: Running) -> bool:
    """Take what a child says; False after its last word."""
    try:
        run.said = run.pipe.recv()
    except EOFError:
        run.child.join()
        return False
    return True

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

CPU_LIMIT = 20  # seconds of CPU for one check on a runtime with a bug; a clean one takes less than one
WALL_FACTOR = 6  # the wall-clock limit in multiples of CPU_LIMIT: other processes may be running, and a deadlock takes no CPU
GRACE = 2  # seconds that running children get after the deadline


@dataclass(frozen=True)
class Result:
    """The outcome of one zoo entry. `cases`, if the check that killed it runs on the families' fixtures: the place that it
    names on each fixture that runs the changed code, "" where it passes."""

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
        """The score that it counts for: semantic, mutants, precision or decoy."""
        return "mutants" if self.area == "mutants" else self.kind


@dataclass(frozen=True)
class Jury:
    """How bugs are judged.

    `impact`: the functions that each check runs, by the check's name. `deadline`: a time of perf_counter after which no bug is
    begun; what is not done soon after is dropped and not counted. `cases`: after the first kill, run that check's other cases
    too. `first`: by bug, the check to run first, because it killed the bug in the last full run.
    """

    checks: Sequence[Check]
    impact: Mapping[str, frozenset[str]]
    workers: int = 1
    deadline: float = math.inf
    cases: bool = True
    first: Mapping[str, str] = field(default_factory=dict)

    def checks_for(self, bug: Bug) -> list[Check]:
        """The checks that judge a bug, in order. Checks that tell rounding policies apart judge precision entries only."""
        seeing = reached(bug, self.checks, self.impact)
        chosen = [check for check in seeing if bug.kind == "precision" or not check.policies]
        return sorted(chosen, key=lambda check: check.name != self.first.get(bug.name))


def judge_bug(bug: Bug, checks: Sequence[Check]) -> Iterator[Result]:
    """Seed a bug in this process and run the checks until one fails, then that check's other cases; yields the result after
    each of the two. The process may be corrupted afterwards."""
    for kind in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(kind, out_of_time)
    started = time.process_time()
    with seeded(bug):
        for ran, check in enumerate(checks, 1):
            if failure := failure_of(check):
                localised = re.search(bug.module, failure.place) is not None
                found = (check.name, failure.place, failure.detail[:300], localised)
                result = Result(bug.name, bug.kind, bug.area, *found, ran, time.process_time() - started)
                yield result
                if siblings := [other for other in checks if other.case in FIXTURES and other.function == check.function]:
                    cases = {other.case: place_in(other) for other in siblings}
                    yield replace(result, cases=cases, seconds=time.process_time() - started)
                return
        yield Result(bug.name, bug.kind, bug.area, checks=len(checks), seconds=time.process_time() - started)


def failure_of(check: Check) -> Failed | None:
    """Run a check within its time limit."""
    set_limit(CPU_LIMIT)
    try:
        check.run()
        return None
    except Failed as failure:
        return failure
    finally:
        set_limit(0)


def set_limit(seconds: float) -> None:
    """Raise TimeoutError after so many seconds of CPU, or WALL_FACTOR times as many of wall time; 0: never."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, WALL_FACTOR * seconds)


def place_in(check: Check) -> str:
    """The place that a check names now, "" if it passes."""
    failure = failure_of(check)
    return failure.place if failure else ""


def out_of_time(_: int, frame: FrameType | None) -> None:
    """A check that hangs fails at the line where it hangs."""
    raise TimeoutError(f"the check takes longer than {CPU_LIMIT} s")


def judge_in_child(bug: Bug, checks: Sequence[Check], pipe: Connection, cases: bool) -> None:
    """Judge, and send each result at once: a bug may end the process at any time."""
    try:
        for result in judge_bug(bug, checks):
            pipe.send(result)
            if not cases:
                return
    except ZooBroken as error:
        pipe.send(error)


@dataclass
class Running:
    """A child process that judges one bug, and the last message that it sent."""

    bug: Bug
    child: BaseProcess
    pipe: Connection
    latest: Result | ZooBroken | None = None

    def outcome(self) -> Result:
        """The result; if the child died without a message, the bug killed it at an unknown place."""
        if isinstance(self.latest, ZooBroken):
            raise self.latest
        return self.latest or Result(self.bug.name, self.bug.kind, self.bug.area, "the process died", "unknown")


def judge_bugs(bugs: Sequence[Bug], jury: Jury) -> Iterator[Result]:
    """Judge every bug in a fork of this process, `jury.workers` at a time; yields results as they come."""
    waiting, running = list(reversed(bugs)), list[Running]()
    while running or (waiting and time.perf_counter() < jury.deadline):
        while waiting and len(running) < jury.workers and time.perf_counter() < jury.deadline:
            running.append(begin(waiting.pop(), jury))
        for run in finished(running, jury.deadline + GRACE - time.perf_counter()):
            running.remove(run)
            yield run.outcome()
        if time.perf_counter() > jury.deadline + GRACE:
            for run in running:
                run.child.terminate()
            return


def begin(bug: Bug, jury: Jury) -> Running:
    """Fork this process to judge one bug."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=judge_in_child, args=(bug, jury.checks_for(bug), theirs, jury.cases), daemon=True)
    child.start()
    theirs.close()
    return Running(bug, child, ours)


def finished(running: Sequence[Running], seconds: float) -> list[Running]:
    """Wait until children send something, `seconds` at most; returns those that have ended."""
    ready = wait([run.pipe for run in running], None if math.isinf(seconds) else max(0.0, seconds))
    return [run for run in running if run.pipe in ready and not receive(run)]


def receive(run: Running) -> bool:
    """Store a child's message; False if the child has ended."""
    try:
        run.latest = run.pipe.recv()
    except EOFError:
        run.child.join()
        return False
    return True

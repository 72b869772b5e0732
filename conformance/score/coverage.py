"""Which requirements have been seen to catch a bug: checks that have never failed may be unable to fail.

A bug counts for the first check that kills it, and for that check's other cases. Every other requirement's checks then run
alone on a few bugs that change the code they run, for TRIAL_SECONDS in all.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from conformance.checks import Check
from conformance.score.impact import reached
from conformance.score.judge import Jury, Result, judge_bugs
from conformance.score.zoo.seeding import Bug

TRIAL_BUGS = 6  # bugs per requirement that has caught none
TRIAL_SECONDS = 120


def kills_by_check(results: Iterable[Result]) -> Iterator[tuple[str, str]]:
    """(check, bug) for every kill that was seen."""
    for result in results:
        if result.killed and result.kind != "decoy":
            yield result.killed_by, result.name
            function = result.killed_by.partition("[")[0]
            yield from ((f"{function}[{case}]", result.name) for case, place in result.cases.items() if place)


def by_requirement(checks: Iterable[Check]) -> dict[str, list[Check]]:
    """The checks of each requirement."""
    found: dict[str, list[Check]] = {}
    for check in checks:
        for id in check.requirements:
            found.setdefault(id, []).append(check)
    return found


def caught(results: Iterable[Result], checks: Sequence[Check]) -> dict[str, str]:
    """For each requirement, a bug that its checks have killed."""
    killed = dict(kills_by_check(results))
    pairs = ((id, killed[check.name]) for id, its in by_requirement(checks).items() for check in its if check.name in killed)
    return dict(pairs)


def candidates(bugs: Sequence[Bug], checks: Sequence[Check], impact: Mapping[str, frozenset[str]]) -> list[Bug]:
    """A few bugs that some of these checks can see: those of the checks' area first, mutants last."""
    areas = {check.area for check in checks}
    seen = [bug for bug in bugs if bug.kind != "decoy" and bug.edits and reached(bug, checks, impact)]
    return sorted(seen, key=lambda bug: (bug.area not in areas, bug.area == "mutants"))[:TRIAL_BUGS]


def caught_in_trials(results: Sequence[Result], bugs: Sequence[Bug], jury: Jury) -> dict[str, str]:
    """As `caught`, with the requirements added whose checks kill a bug when they run alone."""
    found, deadline = caught(results, jury.checks), time.perf_counter() + TRIAL_SECONDS
    for id, its in by_requirement(jury.checks).items():
        if id not in found:
            alone = replace(jury, checks=its, deadline=deadline, cases=False, first={})
            for result in judge_bugs(candidates(bugs, its, jury.impact), alone):
                if result.killed:
                    found[id] = result.name
    return dict(sorted(found.items()))

"""Which requirements have been seen to catch a bug: one whose checks never failed may be judged by checks that can't.

A bug counts for the first check that kills it, and for that check's other cases. What is left is tried on its own: the
requirement's checks alone, on a few bugs that change what they run, for as long as TRYING says.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from conformance.checks import Check
from conformance.score.impact import reached
from conformance.score.judge import Result, score
from conformance.score.zoo.seeding import Bug

TRIES = 6  # bugs for a requirement that has caught none
TRYING = 120  # seconds for all of them


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
    """A bug that the checks of a requirement have killed, by requirement."""
    killed = dict(kills_by_check(results))
    pairs = ((id, killed[check.name]) for id, its in by_requirement(checks).items() for check in its if check.name in killed)
    return dict(pairs)


def candidates(bugs: Sequence[Bug], checks: Sequence[Check], impact: Mapping[str, frozenset[str]]) -> list[Bug]:
    """Bugs that some of these checks can see: of their own area first, and those that fewest functions come before."""
    areas = {check.area for check in checks}
    seen = [bug for bug in bugs if bug.kind != "decoy" and bug.edits and reached(bug, checks, impact)]
    return sorted(seen, key=lambda bug: (bug.area not in areas, bug.area == "mutants"))[:TRIES]


def tried(
    results: Sequence[Result], bugs: Sequence[Bug], checks: Sequence[Check], impact: Mapping[str, frozenset[str]], workers: int
) -> dict[str, str]:
    """As `caught`, with those added that catch one when they are tried on their own."""
    found, until = caught(results, checks), time.perf_counter() + TRYING
    for id, its in by_requirement(checks).items():
        if id not in found:
            for result in score(candidates(bugs, its, impact), its, impact, workers, until, cases=False):
                if result.killed:
                    found[id] = result.name
    return dict(sorted(found.items()))

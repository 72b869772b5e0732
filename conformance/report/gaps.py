"""Open gaps: requirements without a test, without a test that is known to kill a bug, or of which a run says nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conformance.checks import Check
from conformance.requirements import Requirement, unjudged
from conformance.results import Run


@dataclass(frozen=True)
class Gaps:
    """Requirements that may be judged and are not, or not by a test that is known to see anything."""

    untested: list[Requirement]  # no check, and no result in any of the runs
    unproven: list[Requirement] | None  # none of its checks is among those that killed a bug; None: that is not known
    absent: list[Requirement]  # has checks, and no result in any of the runs


def open_gaps(runs: Sequence[Run], known: Mapping[str, Requirement], checks: Sequence[Check], killers: set[str]) -> Gaps:
    """The gaps that runs leave; `killers`: the checks that were the first to kill a bug of the zoo."""
    spoken_of = {result.requirement for run in runs for result in run.results}
    unchecked = {requirement.id for requirement in unjudged(checks, dict(known))}
    proven = {id for check in checks if check.name in killers for id in check.requirements}
    judged = [requirement for requirement in known.values() if requirement.is_judged]
    return Gaps(
        untested=[each for each in judged if each.id in unchecked - spoken_of],
        unproven=[each for each in judged if each.id not in unchecked | proven] if killers else None,
        absent=[each for each in judged if each.id not in unchecked | spoken_of],
    )

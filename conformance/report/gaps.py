"""Open gaps: requirements without a test, without a test that is known to kill a bug, or of which a run says nothing."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from conformance.checks import Check
from conformance.requirements.requirement import Requirement, judged_on_engines, toothless, unjudged
from conformance.requirements.results import Run


@dataclass(frozen=True)
class Gaps:
    """Requirements that may be judged and are not, or not by a test that is known to see anything."""

    untested: list[Requirement]  # no check, nothing that judges engines from outside, and no result in any of the runs
    unproven: list[Requirement] | None  # none of its checks has killed a bug of the zoo; None: that is not known
    absent: list[Requirement]  # can be judged, and has no result in any of the runs


def open_gaps(runs: Sequence[Run], known: Mapping[str, Requirement], checks: Sequence[Check], caught: Collection[str]) -> Gaps:
    """The gaps that runs leave; `caught`: requirements whose checks have killed a bug."""
    spoken_of = {result.requirement for run in runs for result in run.results}
    unchecked = {requirement.id for requirement in unjudged(checks, dict(known))} - judged_on_engines()
    silent = [each for each in known.values() if each.is_judged and each.id not in spoken_of]
    return Gaps(
        untested=[each for each in silent if each.id in unchecked],
        unproven=toothless(checks, dict(known), caught) if caught else None,
        absent=[each for each in silent if each.id not in unchecked],
    )

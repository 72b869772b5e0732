"""Open gaps: requirements that no test checks, that no seeded bug has proven a test of, or that this run does not speak of."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.checks import Check
from conformance.requirements import Requirement, unjudged
from conformance.results import Run
from nanollama.errors import NanollamaError


@dataclass(frozen=True)
class Gaps:
    """Requirements that may be judged and are not, or not by a test that is known to see anything."""

    untested: list[Requirement]  # no check and no test of any of the runs
    unproven: list[Requirement] | None  # tested, but none of their checks has killed a bug; None: no score was given
    absent: list[Requirement]  # tested elsewhere, but not in any of these runs


def open_gaps(runs: Sequence[Run], known: Mapping[str, Requirement], checks: Iterable[Check], killers: set[str] | None) -> Gaps:
    """The gaps that runs leave; `killers`: the checks that killed a bug."""
    checks = list(checks)
    spoken_of = {result.requirement for run in runs for result in run.results}
    unchecked = {requirement.id for requirement in unjudged(checks, dict(known))}
    silent = [requirement for id, requirement in known.items() if requirement.is_judged and id not in spoken_of]
    proven = {id for check in checks if check.name in (killers or ()) for id in check.requirements}
    untested = [requirement for requirement in silent if requirement.id in unchecked]
    left = {requirement.id for requirement in untested} | proven
    unproven = [requirement for id, requirement in known.items() if requirement.is_judged and id not in left]
    absent = [requirement for requirement in silent if requirement.id not in unchecked]
    return Gaps(untested, None if killers is None else unproven, absent)


def read_killers(path: Path) -> set[str]:
    """The checks that killed a bug, from what `python -m conformance score --json` wrote."""
    try:
        found = {entry["killed_by"] for entry in json.loads(path.read_text(encoding="utf-8")) if entry["kind"] != "decoy"}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise NanollamaError(f"{path} is not what `python -m conformance score --json` writes: {error!r}") from error
    return found - {""}

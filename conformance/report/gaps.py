"""Gaps of the suite: requirements that nothing judges, or that only checks judge which have never detected a seeded bug.

`python -m conformance.report.gaps` prints the number of requirements per area, tier and level, then every gap. The last
published score has stored which checks detected a bug.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.checks import Check, all_checks
from conformance.requirements.requirement import AREAS, LEVELS, TIERS, Requirement, load_requirements
from conformance.requirements.results import Run
from conformance.score.ranking import read_ranking

SUITE = Path(__file__).parents[1]
ENGINE_ROOMS = ("judging", "engines")
QUOTED_ID = re.compile(r'"([A-Z]{4}-[0-9]{3})"')
Requirements = Mapping[str, Requirement]  # by id


@dataclass(frozen=True)
class Gaps:
    """Requirements that may be judged and are not, or not by a check that is known to detect anything."""

    untested: list[Requirement]  # no check, nothing that judges engines from outside, and no result in any of the runs
    unproven: list[Requirement] | None  # no check of it has detected a bug of the zoo; None: that is not known
    absent: list[Requirement]  # can be judged, and has no result in any of the runs


def open_gaps(runs: Sequence[Run], known: Requirements, checks: Sequence[Check], caught: Collection[str]) -> Gaps:
    """The gaps that runs leave; `caught`: requirements whose checks have detected a bug."""
    with_result = {result.requirement for run in runs for result in run.results}
    unchecked = {requirement.id for requirement in without_check(checks, known)} - judged_on_engines()
    missing = [each for each in known.values() if each.is_judged and each.id not in with_result]
    return Gaps(
        untested=[each for each in missing if each.id in unchecked],
        unproven=without_detection(checks, known, caught) if caught else None,
        absent=[each for each in missing if each.id not in unchecked],
    )


def invalid_references(checks: Iterable[Check], known: Requirements) -> list[str]:
    """Faults of the ids that checks name: unknown ones, none at all, and unspecified ones, which must not be judged."""
    problems = []
    for check in checks:
        if not check.requirements:
            problems.append(f"{check.name} names no requirement")
        if check.area not in AREAS:
            problems.append(f"{check.name} has the area {check.area!r}, which is not known")
        for id in check.requirements:
            if id not in known:
                problems.append(f"{check.name} names {id}, which requirements.toml does not have")
            elif not known[id].is_judged:
                problems.append(f"{check.name} judges {id}, which is unspecified")
    return problems


def without_check(checks: Iterable[Check], known: Requirements) -> list[Requirement]:
    """The requirements that may be judged and that no check names."""
    named = {id for check in checks for id in check.requirements}
    return [requirement for id, requirement in known.items() if id not in named and requirement.is_judged]


def without_detection(checks: Iterable[Check], known: Requirements, caught: Collection[str]) -> list[Requirement]:
    """The requirements whose checks have never detected a bug of the zoo; `caught` are those whose checks have."""
    named = {id for check in checks for id in check.requirements}
    return [requirement for id, requirement in known.items() if id in named and id not in caught]


def judged_on_engines(folder: Path = SUITE) -> frozenset[str]:
    """The requirements that are judged on engines from outside, by text or by taps: the ids quoted in that code."""
    files = (path for room in ENGINE_ROOMS for path in (folder / room).rglob("*.py"))
    return frozenset(id for path in files for id in QUOTED_ID.findall(path.read_text(encoding="utf-8")))


def requirement_table(requirements: Sequence[Requirement], checks: Sequence[Check]) -> str:
    """Counts per area: requirements by tier and by level, and checks."""
    per_area: dict[str, Counter[str]] = {area: Counter() for area in AREAS}
    for requirement in requirements:
        per_area[requirement.area].update((requirement.tier, requirement.level, "all"))
    for check in checks:
        per_area.setdefault(check.area, Counter())["checks"] += 1
    columns = ("all", *TIERS, *LEVELS, "checks")
    total = sum(per_area.values(), Counter[str]())
    lines = ["area".ljust(15) + "".join(column.rjust(12) for column in columns)]
    for area, counts in [*per_area.items(), ("total", total)]:
        lines.append(area.ljust(15) + "".join(str(counts[column]).rjust(12) for column in columns))
    return "\n".join(lines)


def print_requirements(title: str, requirements: Sequence[Requirement]) -> None:
    """Print a title with the count, then one line a requirement."""
    print(f"\n{title}: {len(requirements) or 'none'}")
    for requirement in requirements:
        print(f"  {requirement.id} ({requirement.level}, {requirement.tier}): {requirement.text}")


def main(arguments: list[str] | None = None) -> int:
    """Print the table, the gaps and the faults; the exit status is 1 if there are faults."""
    argparse.ArgumentParser(prog="python -m conformance.report.gaps", description=__doc__).parse_args(arguments)
    known, checks = load_requirements(), all_checks()
    print(requirement_table(list(known.values()), checks))
    outside, problems = judged_on_engines(), invalid_references(checks, known)
    gaps = [gap for gap in without_check(checks, known) if gap.id not in outside]
    rooms = ", ".join(f"conformance/{room}" for room in ENGINE_ROOMS)
    print(f"\n{len(outside)} requirements are judged on engines from outside ({rooms})")
    print_requirements(f"of {len(known)} requirements nothing judges", gaps)
    print_requirements("no check has detected a bug of the zoo for", without_detection(checks, known, read_ranking().caught))
    if problems:
        print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())

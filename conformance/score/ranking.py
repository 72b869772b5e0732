"""The checks ranked by kills per second: what each kills first and how long it takes, stored by the last full score.

A smoke run takes the checks that kill most bugs per second until its time for checks is up. Then it judges as many of the bugs
that these kill as fit, spread over the areas, in an order that a stated seed shuffles.
"""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, zip_longest
from pathlib import Path

from conformance.checks import Check
from conformance.score.impact import Survey
from conformance.score.judge import Result
from conformance.score.published import provenance
from conformance.score.zoo.entries import ZOO
from conformance.score.zoo.seeding import Bug

RANKING = ZOO / "check_ranking.json"


@dataclass(frozen=True)
class RankedCheck:
    """One check on the clean runtime: its seconds of CPU, and the bugs that it is the first to kill."""

    seconds: float
    kills: list[str]


@dataclass(frozen=True)
class Ranking:
    """What the last full run stored. `caught`: for each requirement, a bug that its checks have killed."""

    checks: dict[str, RankedCheck] = field(default_factory=dict)
    caught: dict[str, str] = field(default_factory=dict)

    def killers(self) -> dict[str, str]:
        """For each bug, the check that kills it first."""
        return {bug: check for check, entry in self.checks.items() for bug in entry.kills}


def read_ranking(path: Path = RANKING) -> Ranking:
    """The stored ranking; an empty one if there is none."""
    if not path.exists():
        return Ranking()
    stored = json.loads(path.read_text(encoding="utf-8"))
    return Ranking({name: RankedCheck(**entry) for name, entry in stored["checks"].items()}, stored["caught"])


def write_ranking(
    results: Iterable[Result], surveys: Mapping[str, Survey], caught: Mapping[str, str], path: Path = RANKING
) -> None:
    """Store the kills and times of a full run."""
    checks: dict[str, RankedCheck] = {}
    for result in sorted(results, key=lambda result: result.name):
        if result.killed_by in surveys:
            entry = checks.setdefault(result.killed_by, RankedCheck(round(surveys[result.killed_by].seconds, 3), []))
            entry.kills.append(result.name)
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(asdict(entry))}" for name, entry in sorted(checks.items()))
    parts = f'"provenance": {json.dumps(provenance())},\n "caught": {json.dumps(dict(caught))},\n "checks": {{\n{lines}\n}}'
    path.write_text(f"{{{parts}}}\n", encoding="utf-8")


def ranked(checks: Sequence[Check], ranking: Ranking) -> list[Check]:
    """The checks that kill something, most kills per second first."""
    known = [check for check in checks if check.name in ranking.checks]
    return sorted(known, key=lambda check: ranking.checks[check.name].seconds / len(ranking.checks[check.name].kills))


def killed_first_by(checks: Iterable[Check], bugs: Sequence[Bug], ranking: Ranking) -> list[Bug]:
    """The bugs that these checks are the first to kill, and the decoys."""
    killed = set(chain.from_iterable(ranking.checks[check.name].kills for check in checks))
    return [bug for bug in bugs if bug.kind == "decoy" or bug.name in killed]


def shuffled_by_area(bugs: Iterable[Bug], seed: int) -> list[Bug]:
    """Shuffled by a seed, the areas taking turns: every beginning of the list has about as many of each area."""
    generator = random.Random(seed)
    areas: dict[str, list[Bug]] = {}
    for bug in bugs:
        areas.setdefault(bug.area, []).append(bug)
    for each in areas.values():
        generator.shuffle(each)
    return [bug for turn in zip_longest(*areas.values()) for bug in turn if bug is not None]

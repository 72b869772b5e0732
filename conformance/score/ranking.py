"""Which checks say most for their time: what each kills first, and how long it takes, kept from the last full score.

A smoke run has a minute. It takes the checks that kill most bugs per second until its time for checks is up, and then as many
of the bugs that those kill as fit, spread over the areas in an order that a stated seed shuffles.
"""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from conformance.checks import Check
from conformance.score.impact import Survey
from conformance.score.judge import Result
from conformance.score.published import provenance
from conformance.score.zoo.entries import ZOO
from conformance.score.zoo.seeding import Bug

TELLING = ZOO / "check_ranking.json"


def stored(path: Path = TELLING) -> dict[str, Any]:
    """What the last full run has stored: "checks", and for each requirement of "caught" a bug that its checks have killed."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"checks": {}, "caught": {}}
    return found


def read_telling(path: Path = TELLING) -> dict[str, Any]:
    """By check, its seconds and the bugs that it kills first."""
    return dict(stored(path)["checks"])


def write_telling(
    results: Iterable[Result], surveys: Mapping[str, Survey], caught: Mapping[str, str], path: Path = TELLING
) -> None:
    """Store what a full run has seen."""
    checks: dict[str, Any] = {}
    for result in sorted(results, key=lambda result: result.name):
        if result.killed_by in surveys:
            entry = checks.setdefault(result.killed_by, {"seconds": round(surveys[result.killed_by].seconds, 3), "kills": []})
            entry["kills"].append(result.name)
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(checks.items()))
    parts = f'"provenance": {json.dumps(provenance())},\n "caught": {json.dumps(dict(caught))},\n "checks": {{\n{lines}\n}}'
    path.write_text(f"{{{parts}}}\n", encoding="utf-8")


def most_telling(checks: Sequence[Check], telling: Mapping[str, Any]) -> list[Check]:
    """The checks that kill something, most kills per second first."""
    known = [check for check in checks if check.name in telling]
    return sorted(known, key=lambda check: telling[check.name]["seconds"] / len(telling[check.name]["kills"]))


def in_their_reach(bugs: Sequence[Bug], checks: Iterable[Check], telling: Mapping[str, Any]) -> list[Bug]:
    """The bugs that these checks kill first, and the decoys."""
    killed = set(chain.from_iterable(telling[check.name]["kills"] for check in checks))
    return [bug for bug in bugs if bug.kind == "decoy" or bug.name in killed]


def spread(bugs: Iterable[Bug], seed: int) -> list[Bug]:
    """Shuffled by a seed, and so that each beginning of the list has about as many of every area."""
    generator = random.Random(seed)
    areas: dict[str, list[Bug]] = {}
    for bug in bugs:
        areas.setdefault(bug.area, []).append(bug)
    for each in areas.values():
        generator.shuffle(each)
    return [bug for turn in zip_longest(*areas.values()) for bug in turn if bug is not None]

"""The published score: kept in golden/score.json, shown in README.md, and the bar that later runs are held to."""

import datetime
import json
import math
import platform
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from conformance import GOLDEN, ROOT
from conformance.numerics.check import Alarms
from conformance.numerics.statistics import interval
from conformance.score.judge import Result
from conformance.score.report import GROUPS, share
from conformance.score.zoo.entries import ZOO, ZooBroken

PUBLISHED = GOLDEN / "score.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- score -->\n", "<!-- /score -->"
ALARM_RATE = 0.01  # of honest runs that may be flagged


def summary(
    results: Sequence[Result], alarms: Alarms, controls: Mapping[str, str], checks: int, seconds: tuple[float, float]
) -> dict[str, Any]:
    """All figures of one run; `seconds` on the clock and of CPU."""
    decoys = [result for result in results if result.group == "decoy"]
    pairs = [place for result in results if result.group != "decoy" for place in result.cases.values()]
    return {
        **{group: counts([result for result in results if result.group == group]) for group in GROUPS},
        "decoys": {"runs": len(decoys), "flagged": [result.name for result in decoys if result.killed]},
        "variants": {
            **{"runs": alarms.runs, "flagged": [list(flag[:4]) for flag in alarms.flagged]},
            **{"same_rounding_runs": alarms.runs - alarms.policy_runs, "called_policy": len(alarms.policy_flags)},
        },
        "controls": dict(controls),
        "fixtures": {"pairs": len(pairs), "killed": sum(map(bool, pairs))},
        **{"checks": checks, "seconds": round(seconds[0]), "cpu_seconds": round(seconds[1]), "golden_bytes": golden_bytes()},
    }


def counts(results: Sequence[Result]) -> dict[str, Any]:
    """One group's figures."""
    killed = [result for result in results if result.killed]
    return {
        **{"bugs": len(results), "killed": len(killed), "localised": sum(result.localised for result in killed)},
        "killed_interval": rounded(interval(len(killed), len(results))),
        "localised_interval": rounded(interval(sum(result.localised for result in killed), len(killed))),
        "survive": [result.name for result in results if not result.killed],
        "elsewhere": [result.name for result in killed if not result.localised],
    }


def rounded(numbers: tuple[float, float]) -> list[float]:
    """An interval with as many digits as it is worth."""
    return [round(number, 4) for number in numbers]


def golden_bytes() -> int:
    """How large all goldens are together."""
    return sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file() and path != PUBLISHED)


def provenance() -> dict[str, str]:
    """Where a score comes from."""
    return {
        "command": "python -m conformance score --write",
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def explanations() -> dict[str, str]:
    """Why what survives survives, by name."""
    found = tomllib.loads((ZOO / "survivors.toml").read_text(encoding="utf-8"))
    return {entry["name"]: entry["reason"] for entry in found.get("survivor", [])}


def stale(reasons: Mapping[str, str], known: Sequence[str]) -> None:
    """Raise ZooBroken where a bug is explained that isn't in the zoo."""
    if gone := sorted(reasons.keys() - set(known)):
        raise ZooBroken(f"survivors.toml explains {', '.join(gone)}, which the zoo does not have")


def read_published() -> dict[str, Any]:
    """The stored score; empty where none is."""
    found: dict[str, Any] = json.loads(PUBLISHED.read_text()) if PUBLISHED.exists() else {}
    return found


def worse(now: Mapping[str, Any], published: Mapping[str, Any], reasons: Mapping[str, str], all_run: bool) -> Iterator[str]:
    """Why a score is not good enough: unexplained survivors, wrong flags, less than what is published."""
    for group in GROUPS:
        mine, theirs = now[group], published.get(group, {"elsewhere": [], "killed": 0, "bugs": math.inf, "localised": 0})
        for name in mine["survive"]:
            if name not in reasons:
                yield f"{name} survives, and survivors.toml does not say why"
        for name in set(mine["elsewhere"]) - set(theirs["elsewhere"]):
            yield f"{name} is named at another place, which the published score does not have"
        for part, whole in (("killed", "bugs"), ("localised", "killed")) if all_run else ():
            if mine[part] * theirs[whole] < theirs[part] * mine[whole]:
                yield f"{group}: {mine[part]} of {mine[whole]} {part}, published are {theirs[part]} of {theirs[whole]}"
    for name in now["decoys"]["flagged"]:
        yield f"{name} is right and was flagged"
    flagged, runs = len(now["variants"]["flagged"]), now["variants"]["runs"]
    if flagged > ALARM_RATE * runs:
        yield f"{flagged} of {runs} honest runs were flagged, allowed are {ALARM_RATE:.0%}"


def markdown(score: Mapping[str, Any]) -> Iterator[str]:
    """The table of README.md."""
    if not score:
        yield "No score has been published yet."
        return
    yield "| | of | share, with its 95 % interval |"
    yield "|---|---|---|"
    names = {"semantic": "real bugs, re-seeded", "mutants": "mechanical mutants", "precision": "precision policies"}
    for group, name in names.items():
        entry = score[group]
        yield row(f"{name}: killed", entry["killed"], entry["bugs"])
        yield row(f"{name}: first named place is the wrong one's", entry["localised"], entry["killed"])
    decoys, variants = score["decoys"], score["variants"]
    yield row("correct code that was reported as a bug (decoys): flagged", len(decoys["flagged"]), decoys["runs"])
    yield row("honest variants x family x dtype (bf16, fp16, fp32): flagged", len(variants["flagged"]), variants["runs"])
    seen = score["provenance"]
    yield ""
    yield (
        f"{score['checks']} checks, {score['cpu_seconds']} s of CPU, {score['golden_bytes'] / 1e6:.1f} MB of goldens, "
        f"torch {seen['torch']}, {seen['date']}."
    )


def row(name: str, hits: int, total: int) -> str:
    """One line of the table."""
    percent, _, counted = share(hits, total).rpartition(", ")
    return f"| {name} | {counted} | {percent.strip()} |"


def with_table(text: str, score: Mapping[str, Any]) -> str:
    """README.md with the table of this score between its markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md has no lines {BEGIN.strip()} and {END}")
    return before + begin + "\n".join(markdown(score)) + "\n" + end + after


def publish(score: Mapping[str, Any], path: Path = PUBLISHED, readme: Path = README) -> None:
    """Store a score and show it in README.md."""
    score = {**score, "provenance": provenance()}
    path.write_text(json.dumps(score, indent=1) + "\n", encoding="utf-8")
    readme.write_text(with_table(readme.read_text(encoding="utf-8"), score), encoding="utf-8")

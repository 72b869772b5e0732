"""The published score: stored in golden/score.json, shown in conformance/README.md, and the bar for later runs."""

import datetime
import json
import platform
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
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
README = ROOT / "conformance" / "README.md"
ALARM_RATE = 0.01  # of honest runs that may be flagged


@dataclass(frozen=True)
class GroupScore:
    """One group's figures. `survive`: names of bugs that no check killed; `elsewhere`: of those killed at another place."""

    bugs: int
    killed: int
    localised: int
    killed_interval: list[float]
    localised_interval: list[float]
    survive: list[str]
    elsewhere: list[str]


@dataclass(frozen=True)
class DecoyScore:
    """How many decoys were run, and the names of those that a check flagged."""

    runs: int
    flagged: list[str]


@dataclass(frozen=True)
class VariantScore:
    """How many honest runs there were, and [variant, family, dtype, seed] of those flagged; of the runs with the runtime's own
    roundings, how many there were and how many were called a precision policy."""

    runs: int
    flagged: list[list[Any]]
    same_rounding_runs: int
    called_policy: int


@dataclass(frozen=True)
class FixtureScore:
    """Pairs of a bug and a model fixture that runs the changed code, and how many of them were killed."""

    pairs: int
    killed: int


@dataclass(frozen=True)
class Score:
    """All figures of one run: golden/score.json is this as JSON. `seconds` are wall time."""

    semantic: GroupScore
    mutants: GroupScore
    precision: GroupScore
    decoys: DecoyScore
    variants: VariantScore
    controls: dict[str, str]  # what was flagged, by control, in words
    fixtures: FixtureScore
    checks: int
    seconds: int
    cpu_seconds: int
    golden_bytes: int
    provenance: dict[str, str] = field(default_factory=dict)

    def group(self, name: str) -> GroupScore:
        """The figures of one of GROUPS."""
        found: GroupScore = getattr(self, name)
        return found


@dataclass(frozen=True)
class Spent:
    """What a run took: seconds of wall time and of CPU, all processes together."""

    seconds: float
    cpu_seconds: float


def score_to_json(score: Score) -> dict[str, Any]:
    """As it is stored; a run that is not published has no provenance."""
    return {key: value for key, value in asdict(score).items() if value or key != "provenance"}


def score_from_json(stored: Mapping[str, Any]) -> Score:
    """Back from JSON."""
    parts: dict[str, Any] = {name: GroupScore(**stored[name]) for name in GROUPS}
    parts |= {"decoys": DecoyScore(**stored["decoys"]), "variants": VariantScore(**stored["variants"])}
    return Score(**{**stored, **parts, "fixtures": FixtureScore(**stored["fixtures"])})


def summary(results: Sequence[Result], alarms: Alarms, controls: Mapping[str, str], checks: int, spent: Spent) -> Score:
    """All figures of one run of so many checks."""
    decoys = [result for result in results if result.group == "decoy"]
    pairs = [place for result in results if result.group != "decoy" for place in result.cases.values()]
    groups = {group: group_score([result for result in results if result.group == group]) for group in GROUPS}
    same_rounding = alarms.runs - alarms.policy_runs
    return Score(
        semantic=groups["semantic"],
        mutants=groups["mutants"],
        precision=groups["precision"],
        decoys=DecoyScore(len(decoys), [result.name for result in decoys if result.killed]),
        variants=VariantScore(
            alarms.runs, [list(flag[:4]) for flag in alarms.flagged], same_rounding, len(alarms.policy_flags)
        ),
        controls=dict(controls),
        fixtures=FixtureScore(len(pairs), sum(map(bool, pairs))),
        checks=checks,
        seconds=round(spent.seconds),
        cpu_seconds=round(spent.cpu_seconds),
        golden_bytes=golden_bytes(),
    )


def group_score(results: Sequence[Result]) -> GroupScore:
    """One group's figures."""
    killed = [result for result in results if result.killed]
    localised = sum(result.localised for result in killed)
    return GroupScore(
        bugs=len(results),
        killed=len(killed),
        localised=localised,
        killed_interval=rounded(interval(len(killed), len(results))),
        localised_interval=rounded(interval(localised, len(killed))),
        survive=[result.name for result in results if not result.killed],
        elsewhere=[result.name for result in killed if not result.localised],
    )


def rounded(numbers: Iterable[float]) -> list[float]:
    """An interval with four decimals."""
    return [round(number, 4) for number in numbers]


def golden_bytes() -> int:
    """The size of all goldens together."""
    return sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file() and path != PUBLISHED)


def provenance() -> dict[str, str]:
    """How, with what and when a score was made."""
    return {
        "command": "python -m conformance score --write",
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def explanations() -> dict[str, str]:
    """The reason why each known survivor survives, by name."""
    found = tomllib.loads((ZOO / "survivors.toml").read_text(encoding="utf-8"))
    return {entry["name"]: entry["reason"] for entry in found.get("survivor", [])}


def refuse_stale(reasons: Mapping[str, str], known: Sequence[str]) -> None:
    """Raise ZooBroken if survivors.toml explains a bug that is not in the zoo."""
    if gone := sorted(reasons.keys() - set(known)):
        raise ZooBroken(f"survivors.toml explains {', '.join(gone)}, which the zoo does not have")


def read_published(path: Path = PUBLISHED) -> Score | None:
    """The stored score; None if there is none."""
    return score_from_json(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def worse(now: Score, published: Score | None, reasons: Mapping[str, str], all_run: bool) -> Iterator[str]:
    """Why a score is not good enough: unexplained survivors, wrong flags, a smaller share than published (if all was run)."""
    for group in GROUPS:
        mine, theirs = now.group(group), published and published.group(group)
        for name in mine.survive:
            if name not in reasons:
                yield f"{name} survives without a reason in survivors.toml"
        for name in set(mine.elsewhere) - set(theirs.elsewhere if theirs else ()):
            yield f"{name} is killed at another place, which the published score does not list"
        if theirs and all_run and mine.killed * theirs.bugs < theirs.killed * mine.bugs:
            yield f"{group}: {mine.killed} of {mine.bugs} killed, published are {theirs.killed} of {theirs.bugs}"
        if theirs and all_run and mine.localised * theirs.killed < theirs.localised * mine.killed:
            yield f"{group}: {mine.localised} of {mine.killed} localised, published are {theirs.localised} of {theirs.killed}"
    for name in now.decoys.flagged:
        yield f"{name} is a decoy and was flagged"
    flagged, runs = len(now.variants.flagged), now.variants.runs
    if flagged > ALARM_RATE * runs:
        yield f"{flagged} of {runs} honest runs were flagged, allowed are {ALARM_RATE:.0%}"


def score_lines(score: Score | None) -> Iterator[str]:
    """The table of conformance/README.md."""
    if score is None:
        yield "No score has been published yet."
        return
    yield "| | of | share, with its 95 % interval |"
    yield "|---|---|---|"
    names = {"semantic": "real bugs, re-seeded", "mutants": "mechanical mutants", "precision": "precision policies"}
    for group, name in names.items():
        entry = score.group(group)
        yield score_row(f"{name}: killed", entry.killed, entry.bugs)
        yield score_row(f"{name}: localised correctly", entry.localised, entry.killed)
    decoys, variants = score.decoys, score.variants
    yield score_row("decoys (correct code that was reported as a bug): flagged", len(decoys.flagged), decoys.runs)
    yield score_row("honest variants × family × dtype (bf16, fp16, fp32): flagged", len(variants.flagged), variants.runs)
    yield ""
    yield (
        f"{score.checks} checks, {score.cpu_seconds} s of CPU, {score.golden_bytes / 1e6:.1f} MB of goldens, "
        f"torch {score.provenance['torch']}, {score.provenance['date']}."
    )


def score_row(name: str, hits: int, total: int) -> str:
    """One line of the table."""
    percent, _, counted = share(hits, total).rpartition(", ")
    return f"| {name} | {counted} | {percent.strip()} |"


def with_lines(text: str, name: str, lines: Iterable[str]) -> str:
    """A text with these lines between <!-- name --> and <!-- /name -->; ValueError if it has no such markers."""
    first, last = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise ValueError(f"the text has no lines {first.strip()} and {last}")
    return before + begin + "\n".join(lines) + "\n" + end + after


def publish(score: Score, path: Path = PUBLISHED, readme: Path = README) -> None:
    """Store a score and show it in conformance/README.md."""
    score = replace(score, provenance=provenance())
    path.write_text(json.dumps(score_to_json(score), indent=1) + "\n", encoding="utf-8")
    readme.write_text(with_lines(readme.read_text(encoding="utf-8"), "score", score_lines(score)), encoding="utf-8")

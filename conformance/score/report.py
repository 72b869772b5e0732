"""A score as text: tables by group and area, and a list of all entries that need a look."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from conformance.numerics.statistics import interval
from conformance.score.judge import Result

GROUPS = {
    "semantic": "real bugs: another function than the right one",
    "mutants": "mechanical mutants: one small change of the code each",
    "precision": "precision policies: the same function, rounded elsewhere",
}


def share(hits: int, total: int) -> str:
    """ "97.5 % (95.0–99.0), 195 of 200", with the 95 % interval."""
    low, high = interval(hits, total)
    return f"{100 * hits / max(1, total):5.1f} % ({100 * low:.1f}–{100 * high:.1f}), {hits} of {total}"


def group_table(results: Sequence[Result], group: str) -> Iterator[str]:
    """One line per area, then the sum."""
    found = [result for result in results if result.group == group]
    areas = {result.area: [other for other in found if other.area == result.area] for result in found}
    yield f"{group}: {GROUPS[group]}"
    yield f"  {'area':16} {'bugs':>5} {'killed':>7} {'localised':>10}"
    for area, each in sorted(areas.items()):
        yield f"  {area:16} {len(each):5} {sum(r.killed for r in each):7} {sum(r.localised for r in each):10}"
    killed = [result for result in found if result.killed]
    yield f"  killed     {share(len(killed), len(found))}"
    yield f"  localised  {share(sum(result.localised for result in killed), len(killed))}"


def on_models(results: Iterable[Result]) -> str:
    """How many pairs of a bug and a model fixture that runs the changed code were killed."""
    pairs = [place for result in results if result.kind != "decoy" for place in result.cases.values()]
    return f"bug x model fixture: {sum(map(bool, pairs))} of {len(pairs)} killed, where the fixture runs the changed code"


def needs_a_look(results: Iterable[Result], reasons: Mapping[str, str]) -> Iterator[str]:
    """Decoys that were flagged, bugs that survive or are killed at another place; `reasons` explain survivors."""
    for result in results:
        if result.kind == "decoy" and result.killed:
            yield f"FALSE ALARM {result.name}: {result.killed_by} names {result.place}: {result.detail}"
        elif result.kind != "decoy" and not result.killed:
            why = reasons.get(result.name, "NOT EXPLAINED")
            yield f"SURVIVES    {result.name} ({result.area}), {result.checks} checks: {why}"
        elif result.kind != "decoy" and not result.localised:
            yield f"ELSEWHERE   {result.name} ({result.area}): {result.killed_by} names {result.place}"
        if result.killed and result.name in reasons:
            yield f"EXPLAINED   {result.name} is killed by {result.killed_by}; remove it from survivors.toml"

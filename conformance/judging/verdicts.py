"""From comparisons to verdicts by elimination.

A comparison that is off makes every requirement that it covers a suspect. A requirement is cleared by a case in which every
comparison that it covers, at the same kind of tap, fits: a passing family clears what it shares with a failing one. If one
suspect is left, or only one explains all comparisons that are off at that kind of tap, it FAILs; else the verdict is
INCONCLUSIVE, with the list of suspects. In either case the whole case FAILs NUMR-001 (float64) or NUMR-002.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from conformance.judging.evidence.coverage import WHOLE_PROMPTS
from conformance.judging.evidence.observations import Observation, Pair, State
from conformance.requirements.results import Result, Verdict

TEST = "model"
ROUNDS_ELSEWHERE = "NUMR-009"


def cleared(found: Iterable[Observation]) -> dict[Pair, str]:
    """The cleared requirements, each with a case in which all its comparisons fit."""
    good: dict[tuple[str, Pair], bool] = {}
    for o in found:
        for pair in o.covers if o.made else ():
            good[o.case, pair] = good.get((o.case, pair), True) and o.state is State.FITS
    return {pair: case for (case, pair), fits in good.items() if fits}


def accused(found: Sequence[Observation], clear: dict[Pair, str]) -> dict[Observation, tuple[str, ...]]:
    """For every comparison that is off, the requirements that may be to blame: the only one that explains all that is off at
    this kind of tap, else one that must be to blame elsewhere, else all that are not cleared."""
    suspects = {o: suspected(o, clear) for o in found if o.state is State.OFF}
    alike: dict[tuple[str, bool], list[set[str]]] = defaultdict(list)
    for o, names in suspects.items():
        if names:
            alike[kind(o)].append(names)
    guilty = {key: set.intersection(*lists) for key, lists in alike.items()}
    for key, lists in alike.items():
        if len(guilty[key]) != 1:
            guilty[key] = {name for names in lists if len(names) == 1 for name in names}
    return {o: tuple(sorted(names & guilty.get(kind(o), set()) or names)) for o, names in suspects.items()}


def suspected(o: Observation, clear: dict[Pair, str]) -> set[str]:
    """The suspects of one comparison. Requirements on the whole (every key is read, every tensor is in its place) are suspects
    only if there is no other: any fault breaks them."""
    left = {pair for pair in o.covers if pair not in clear}
    parts = {requirement for requirement, shows in left if not shows.startswith("whole")}
    return parts or {requirement for requirement, _ in left}


def kind(o: Observation) -> tuple[str, bool]:
    """The key of comparable comparisons: the same part of a layer, by itself or not."""
    return ".".join(o.place.split(".")[2:]) or o.place, o.local


def undecided(found: Sequence[Observation], vouchers: Sequence[Observation] = ()) -> list[Observation]:
    """Comparisons of whole prompts that are off for a reason that could be any of several."""
    blame = accused(found, cleared([*found, *vouchers]))
    return [o for o, suspects in blame.items() if len(suspects) > 1 and set(o.prompt.split()) <= set(WHOLE_PROMPTS)]


def verdicts(found: Sequence[Observation], vouchers: Sequence[Observation], exact: bool) -> list[Result]:
    """One result per requirement and case, and one per case for the whole. `vouchers` are further comparisons that clear."""
    clear = cleared([*found, *vouchers])
    blame = accused(found, clear)
    by_case: dict[str, list[Observation]] = defaultdict(list)
    for o in found:
        by_case[o.case].append(o)
    results: list[Result] = []
    for case, mine in by_case.items():
        results.append(on_the_whole(case, mine, "NUMR-001" if exact else "NUMR-002"))
        for requirement in sorted({requirement for o in mine for requirement, _ in o.covers}):
            covering = [o for o in mine if any(requirement == mine_too for mine_too, _ in o.covers)]
            results.append(on_requirement(requirement, case, covering, blame, clear))
        results += elsewhere(case, mine)
    return results


def on_requirement(
    requirement: str, case: str, found: list[Observation], blame: dict[Observation, tuple[str, ...]], clear: dict[Pair, str]
) -> Result:
    """The result of one requirement in one case."""
    made, off = [o for o in found if o.made], [o for o in found if o.state is State.OFF]
    guilty = [o for o in off if requirement in blame[o]]
    if guilty:
        o = min(guilty, key=lambda o: len(blame[o]))
        others = [suspect for suspect in blame[o] if suspect != requirement]
        if not others:
            return result(requirement, case, Verdict.FAIL, o, made, o.detail or "by elimination")
        return result(requirement, case, Verdict.INCONCLUSIVE, o, made, f"this or {', '.join(others)}")
    fits = [o for o in made if o.state is State.FITS]
    if fits:
        worst = max(fits, key=lambda o: o.excess)
        ties = Verdict.EXCUSED if worst.place == "tokens" and any(o.excused for o in fits) else Verdict.PASS
        return result(requirement, case, ties, worst, made, "" if len(fits) == len(made) else "where nothing before it is off")
    if made:
        clearing = sorted({clear[pair] for o in made for pair in o.covers if pair[0] == requirement and pair in clear})
        if clearing:
            return result(requirement, case, Verdict.PASS, made[0], made, f"cleared by {clearing[0]}; here another is off")
        return result(requirement, case, Verdict.INCONCLUSIVE, made[0], made, "only seen together with another fault")
    return result(requirement, case, Verdict.UNSUPPORTED, found[0], made, found[0].detail)


def on_the_whole(case: str, found: list[Observation], requirement: str) -> Result:
    """The result of one case as a whole, with the first place that is off."""
    made = [o for o in found if o.made and o.place != "tokens"]
    broken = next((o for o in found if o.state is State.BROKEN), None)
    if broken is not None:
        return result(requirement, case, Verdict.ERROR, broken, made, f"{broken.prompt}: {broken.detail}")
    off = [o for o in made if o.state is State.OFF]
    if off:
        return result(requirement, case, Verdict.FAIL, off[0], made, f"{off[0].prompt}: {off[0].detail}".removesuffix(": "))
    if not made:
        return result(requirement, case, Verdict.UNSUPPORTED, found[0], made, found[0].detail)
    return result(requirement, case, Verdict.PASS, max(made, key=lambda o: o.excess), made)


def elsewhere(case: str, found: list[Observation]) -> Iterator[Result]:
    """A note if the engine rounds at other places than the runtime."""
    other = next((o for o in found if o.state is State.FITS and not o.alike), None)
    if other is not None:
        yield result(ROUNDS_ELSEWHERE, case, Verdict.NOTE, other, [other], "rounds elsewhere than the runtime does")


def result(
    requirement: str, case: str, verdict: Verdict, o: Observation, made: Sequence[Observation], detail: str = ""
) -> Result:
    """A result with the numbers of one comparison."""
    tokens = sum(x.compared for x in made)
    return Result(requirement, case, TEST, verdict, detail, o.place, o.error, o.bar, tokens, sum(x.excused for x in made))

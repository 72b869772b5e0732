"""The summary of a run: one verdict per requirement, the count of each, and a sentence."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from conformance.requirements.requirement import AREAS, Requirement
from conformance.requirements.results import Result, Run, Verdict, worst

ELSEWHERE = "not in the list"  # the area of a requirement that requirements.toml does not have
WORST_FIRST = tuple(reversed(Verdict))
PHRASES = {
    Verdict.NOTE: ("differs where engines may", "differ where engines may"),
    Verdict.UNSUPPORTED: ("is not judged", "are not judged"),
    Verdict.INCONCLUSIVE: ("can't be decided", "can't be decided"),
    Verdict.FAIL: ("fails", "fail"),
    Verdict.ERROR: ("breaks down", "break down"),
}


@dataclass(frozen=True)
class Group:
    """Results of one verdict by one test, and at one place where something is wrong; most often each in another case."""

    results: tuple[Result, ...]

    @property
    def first(self) -> Result:
        """The first result; the others differ in case, detail, error and counts only."""
        return self.results[0]

    @property
    def cases(self) -> list[str]:
        """Where it holds."""
        return cases_of(self.results)

    @property
    def place(self) -> str:
        """Where it is wrong."""
        return where_wrong(self.first)

    @property
    def details(self) -> dict[str, list[str]]:
        """The cases of each detail."""
        found: dict[str, list[str]] = {}
        for result in self.results:
            found.setdefault(result.detail, []).append(result.case)
        return found

    @property
    def measured(self) -> str:
        """The errors and the bar: "error 1.2e-14 to 3e-14, bar 1e-10"; empty where nothing was measured."""
        errors = [result.error for result in self.results if result.error is not None]
        bars = [result.bar for result in self.results if result.bar is not None]
        parts = [f"{name} {spread(found)}" for name, found in (("error", errors), ("bar", bars)) if found]
        return ", ".join(parts)


def cases_of(results: Iterable[Result]) -> list[str]:
    """Their cases, each once."""
    return list(dict.fromkeys(result.case for result in results))


def spread(values: Sequence[float]) -> str:
    """One number, or the smallest and the largest."""
    ordered = sorted(values, key=lambda value: (value != value, value))  # NaN is the worst
    ends = dict.fromkeys(f"{value:.2g}" for value in (ordered[0], ordered[-1]))
    return " to ".join(ends)


def cases_in_words(cases: Sequence[str], most: int = 3) -> str:
    """ "LlamaForCausalLM, Qwen2ForCausalLM and 10 more"."""
    named = ", ".join(cases[:most])
    return f"{named} and {len(cases) - most} more" if len(cases) > most else named


def by_requirement(results: Iterable[Result], known: Mapping[str, Requirement]) -> dict[str, list[Result]]:
    """The results of each requirement, in the order of requirements.toml; what it does not have comes last."""
    order = {id: i for i, id in enumerate(known)}
    found: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: order.get(result.requirement, len(order))):
        found.setdefault(result.requirement, []).append(result)
    return found


def by_area(run: Run, known: Mapping[str, Requirement]) -> dict[str, Counter[Verdict]]:
    """How many requirements of each area have which verdict; only areas that the run has something of."""
    areas: dict[str, Counter[Verdict]] = {area: Counter() for area in (*AREAS, ELSEWHERE)}
    for id, results in by_requirement(run.results, known).items():
        areas[area_of(id, known)][worst(results)] += 1
    return {area: counts for area, counts in areas.items() if counts}


def area_of(id: str, known: Mapping[str, Requirement]) -> str:
    """The area of a requirement."""
    return known[id].area if id in known else ELSEWHERE


def grouped(results: Iterable[Result]) -> list[Group]:
    """Results of one requirement, the worst first; those of one test together, at one place where they are wrong."""

    def key(result: Result) -> tuple[int, str, str]:
        return WORST_FIRST.index(result.verdict), test_of(result), where_wrong(result)

    return [Group(tuple(group)) for _, group in groupby(sorted(results, key=key), key=key)]


def where_wrong(result: Result) -> str:
    """The place of a fault; empty for a good verdict."""
    return "" if result.verdict.good else result.place


def test_of(result: Result) -> str:
    """The test's name without the case that it was given."""
    return result.test.removesuffix(f"[{result.case}]")


def counts_of(run: Run) -> Counter[Verdict]:
    """How many requirements have which verdict, the worst of their cases."""
    found: dict[str, list[Result]] = {}
    for result in run.results:
        found.setdefault(result.requirement, []).append(result)
    return Counter(worst(results) for results in found.values())


def passed_and_judged(run: Run) -> tuple[int, int]:
    """How many requirements pass, and how many were judged: not those that the engine does not offer, or only noted."""
    return of_judged(counts_of(run))


def of_judged(counts: Counter[Verdict]) -> tuple[int, int]:
    """The same of any counts."""
    judged = counts.total() - counts[Verdict.UNSUPPORTED] - counts[Verdict.NOTE]
    return counts[Verdict.PASS] + counts[Verdict.EXCUSED], judged


def reasons_invalid(run: Run) -> list[str]:
    """Why the results are not valid; empty if they are."""
    reasons = [f"the {name} was not flagged, as it must be" for name, seen in run.controls.items() if not seen]
    return reasons if run.compared else ["nothing was compared", *reasons]


class Outcome(StrEnum):
    """The verdict on a run, in a few words."""

    INVALID = "The run is invalid"
    FAILS = "Does not conform"
    OPEN = "Not decided"
    IN_PART = "Conforms as far as judged"
    CONFORMS = "Conforms"


def outcome(run: Run) -> Outcome:
    """The verdict on all requirements together."""
    counts = counts_of(run)
    if reasons_invalid(run):
        return Outcome.INVALID
    if counts[Verdict.FAIL] or counts[Verdict.ERROR]:
        return Outcome.FAILS
    if counts[Verdict.INCONCLUSIVE]:
        return Outcome.OPEN
    return Outcome.IN_PART if counts[Verdict.UNSUPPORTED] else Outcome.CONFORMS


def sentence(run: Run) -> str:
    """What passed, what did not, and what was not judged: "2 of 5 judged requirements pass, 3 fail; 1 is not judged."."""
    counts, (passed, judged) = counts_of(run), passed_and_judged(run)
    parts = [f"{passed} of {judged} judged requirements pass"]
    wrong = (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE)
    parts += [phrase(verdict, counts[verdict]) for verdict in wrong if counts[verdict]]
    unjudged = [phrase(verdict, counts[verdict]) for verdict in (Verdict.UNSUPPORTED, Verdict.NOTE) if counts[verdict]]
    invalid = "".join(f"{reason[0].upper()}{reason[1:]}. " for reason in reasons_invalid(run))
    return invalid + ", ".join(parts) + "".join(f"; {part}" for part in unjudged) + "."


def phrase(verdict: Verdict, count: int) -> str:
    """ "1 fails", "2 fail"."""
    return f"{count} {PHRASES[verdict][count != 1]}"


def top_level(run: Run) -> str:
    """The highest level that the engine offers."""
    return max(run.engine.levels, default="no level")

"""The likely causes of an engine's errors, and what a run could not have detected, from the values of the run."""

from collections.abc import Iterable, Iterator

from conformance.diagnosis.causes.likely_causes import causes
from conformance.diagnosis.causes.observed import Observation
from conformance.diagnosis.causes.tolerances import Excess, float64_excess, floor_excess
from conformance.diagnosis.detectability.probes import prompts
from conformance.diagnosis.detectability.smallest_change import detectability
from conformance.engines.engine import Taps
from conformance.judging.evidence.case_comparison import CaseComparison
from conformance.judging.evidence.coverage import PIECES, WHOLE_PROMPTS
from conformance.judging.evidence.observations import State
from conformance.models.fixtures import FIXTURES
from conformance.requirements.results import Cause, Detectable


def excess_of(comparison: CaseComparison) -> Excess:
    """The tolerance as a function. With taps, each value is judged after the engine's values before it; logits alone contain
    the errors of the whole model."""
    if comparison.bars.floors is None:
        return float64_excess()
    alone = all(taps.keys() <= {"logits"} for taps in comparison.whole.values())
    return floor_excess(comparison.bars.dtype, comparison.bars.device, "accumulated" if alone else "local")


def likely(comparisons: Iterable[CaseComparison]) -> Iterator[Cause]:
    """The likely causes, each once: in every family's fixture, or in its variations if the fixture is right. Pairs of causes,
    which take seconds, are tried in the first such case only."""
    by_family: dict[str, list[Cause]] = {}
    for comparison in comparisons:
        family = comparison.subject.spec.architecture
        if family not in by_family and any(o.state is State.OFF for o in comparison.found):
            found = causes(comparison.subject.case, [*shown(comparison)], excess_of(comparison), pairs=not by_family)
            by_family[family] = list(dict.fromkeys(found))
            yield from by_family[family]


def shown(comparison: CaseComparison) -> Iterator[Observation]:
    """The runs to explain: modules on true inputs if the engine takes them, else the whole model; prompts in pieces only if
    those are right."""
    for name in WHOLE_PROMPTS:
        if name in comparison.local:
            yield Observation(
                comparison.subject.prompt(name), without_masks(comparison.local[name]), comparison.truths[name].inputs
            )
        elif name in comparison.whole:
            yield Observation(comparison.subject.prompt(name), without_masks(comparison.whole[name]))
    if not any(o.state is State.OFF and o.prompt not in PIECES for o in comparison.found):
        for prompt, log in comparison.pieces.items():
            yield Observation(prompt, {"logits": log})


def without_masks(taps: Taps) -> Taps:
    """The taps that the engine itself showed."""
    return {name: value for name, value in taps.items() if not name.endswith(".mask")}


def detectable(comparisons: Iterable[CaseComparison]) -> Iterator[Detectable]:
    """The smallest change of each config field that this run would have detected, by its prompts and the engine's taps."""
    for comparison in comparisons:
        if comparison.subject.name in FIXTURES and comparison.whole:
            taps = {tap for shown in comparison.whole.values() for tap in shown}
            probes = [probe for probe in prompts(comparison.subject.case) if probe.name in comparison.whole]
            yield from detectability(comparison.subject.case, probes, excess_of(comparison), taps.__contains__)

"""The likely causes of an engine's faults, and what a run could not have seen: both from the values that the run has anyway."""

from collections.abc import Iterable, Iterator

from conformance.diagnosis.causes.likely_causes import Observation, by_floor, causes, exact
from conformance.diagnosis.causes.tolerances import Judge
from conformance.diagnosis.detectability.smallest_change import detectability, prompts
from conformance.engines.engine import Taps
from conformance.judging.evidence.case_comparison import CaseComparison
from conformance.judging.evidence.coverage import PIECES, WHOLE_PROMPTS
from conformance.judging.evidence.observations import State
from conformance.models.fixtures import FIXTURES
from conformance.requirements.results import Cause, Detectable


def judge_of(look: CaseComparison) -> Judge:
    """How far values may be off, in the form that both take it. Beside its own taps each value is judged by itself; where an
    engine shows logits alone, the errors of a whole model are in them."""
    if look.bars.floors is None:
        return exact()
    alone = all(taps.keys() <= {"logits"} for taps in look.whole.values())
    return by_floor(look.bars.dtype, look.bars.device, "accumulated" if alone else "local")


def likely(compared: Iterable[CaseComparison]) -> Iterator[Cause]:
    """The causes of what is off, each once: in every family's fixture, and in its variations where that is right. Pairs of
    causes, which take seconds, are tried in the first such case only."""
    told: dict[str, list[Cause]] = {}
    for look in compared:
        family = look.subject.spec.architecture
        if family not in told and any(o.state is State.OFF for o in look.found):
            found = causes(look.subject.case, [*shown(look)], judge_of(look), pairs=not told)
            told[family] = list(dict.fromkeys(found))
            yield from told[family]


def shown(look: CaseComparison) -> Iterator[Observation]:
    """Every run that was made: modules on true inputs where the engine takes them, else the whole; prompts in pieces only
    where those are right."""
    for name in WHOLE_PROMPTS:
        if name in look.local:
            yield Observation(look.subject.prompt(name), without_masks(look.local[name]), look.truths[name].inputs)
        elif name in look.whole:
            yield Observation(look.subject.prompt(name), without_masks(look.whole[name]))
    if not any(o.state is State.OFF and o.prompt not in PIECES for o in look.found):
        for prompt, log in look.pieces.items():
            yield Observation(prompt, {"logits": log})


def without_masks(taps: Taps) -> Taps:
    """What the engine itself showed."""
    return {name: value for name, value in taps.items() if not name.endswith(".mask")}


def detectable(compared: Iterable[CaseComparison]) -> Iterator[Detectable]:
    """What this run would have caught of each family, by its prompts and the taps that the engine showed."""
    for look in compared:
        if look.subject.name in FIXTURES and look.whole:
            taps = {tap for shown in look.whole.values() for tap in shown}
            probes = [probe for probe in prompts(look.subject.case) if probe.name in look.whole]
            yield from detectability(look.subject.case, probes, judge_of(look), taps.__contains__)

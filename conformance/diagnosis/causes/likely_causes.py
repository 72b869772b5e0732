"""The likely causes of an engine's errors.

    causes("LlamaForCausalLM", [Observation(prompt, engine.run(prompt, taps=True).taps), …])

names them, the likeliest first, from the values that the engine shows: all taps (L3), better on injected inputs
of its modules (L4: `Observation(prompt, engine.inject(prompt, inputs), inputs)`), or the logits alone (L2:
`Observation(prompt, {"logits": logits.log_softmax(-1)})`). Give it several runs: a short prompt, one with far positions, one
token by token. A correct engine has no causes.
"""

import json
from collections.abc import Sequence
from functools import lru_cache

from conformance import GOLDEN
from conformance.diagnosis.causes.features import described
from conformance.diagnosis.causes.naming import Named, Naming, Tap
from conformance.diagnosis.causes.observed import Observation
from conformance.diagnosis.causes.tolerances import Excess, float64_excess
from conformance.requirements.results import Cause
from conformance.truth.cases import Case
from conformance.truth.cases import case as case_of

STORED = GOLDEN / "diagnosis.json"


def causes(case: str | Case, runs: Sequence[Observation], excess: Excess | None = None, pairs: bool = True) -> list[Cause]:
    """The likely causes of the errors in one case, in the order of the data path; equally likely ones follow each other.

    `case`: a name of `conformance.truth.cases.CASES`, or a Case whose truth has other weights (rounded ones).
    `excess`: an error over its tolerance; `float64_excess()` for an engine in float64, else such as `floor_excess("bfloat16")`.
    `pairs`: try two hypotheses at once where none alone explains a value, which takes seconds.
    """
    name = case if isinstance(case, str) else case.name
    return [Cause(name, place(each), each.sentence, share_of(each)) for each in name_causes(case, runs, excess, pairs)]


def name_causes(case: str | Case, runs: Sequence[Observation], excess: Excess | None = None, pairs: bool = True) -> list[Named]:
    """The same, with the class of each cause."""
    naming = Naming(case_of(case) if isinstance(case, str) else case, runs, excess or float64_excess())
    found = [*naming.named(pairs)]
    order = {tap: n for n, tap in enumerate(naming.wrong)}
    return sorted([*found, *described(naming)], key=lambda each: (min(order[tap] for tap in each.explains), each.rank))


def place(named: Named) -> str:
    """The first tap that a cause explains."""
    first: Tap = named.explains[0]
    return first.name


def share_of(named: Named) -> float | None:
    """How often a cause named in this way was the right one on the zoo; None if not measured."""
    shares = stored_shares()
    how = "reproduced" if named.certain else "by features"
    return shares.get(how) if named.rank == 1 else shares.get(f"{how}, not first")


@lru_cache
def stored_shares() -> dict[str, float]:
    """The shares that `python -m conformance.diagnosis.causes --write` stored."""
    if not STORED.is_file():
        return {}
    shares: dict[str, float] = json.loads(STORED.read_text(encoding="utf-8"))["shares"]
    return shares

"""Negative controls: plainly broken engines must be flagged on every family, or the score is void."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from conformance.checks import Check, Failed, judged
from conformance.score.judge import Jury, Result, judge_bugs
from conformance.score.zoo.seeding import Bug
from nanollama.model.transformer import Transformer

NOISE = 1e-6
CONTROL_CHECK = "model.semantics.every_tap_equals_the_golden"


class VoidScore(Exception):
    """The score means nothing: a plainly broken engine was not flagged, or nothing was judged."""


@contextmanager
def changed_logits(change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Every model returns changed logits while inside."""
    forward = Transformer.forward

    def changed(self: Transformer, *args: Any, **options: Any) -> Tensor:
        return change(forward(self, *args, **options))

    Transformer.forward = changed  # type: ignore[method-assign]
    try:
        yield
    finally:
        Transformer.forward = forward  # type: ignore[method-assign]


def null_engine() -> Any:
    """Every logit is 0."""
    return changed_logits(torch.zeros_like)


def constant_engine() -> Any:
    """The same logits for every token and every context."""
    return changed_logits(lambda logits: torch.linspace(0, 5, logits.shape[-1], dtype=logits.dtype).expand_as(logits))


def noisy_engine() -> Any:
    """The right logits with a little noise."""
    return changed_logits(lambda logits: logits + NOISE * torch.randn(logits.shape, dtype=logits.dtype))


def control(name: str) -> Bug:
    """A broken engine as an entry of the zoo."""
    return Bug(name, "control", "model", "own", "", "controls", custom=f"{__name__}:{name}")


def run_controls(checks: Sequence[Check], impact: Mapping[str, frozenset[str]], workers: int) -> dict[str, str]:
    """On how many families each control was flagged, in words; VoidScore if one passes on any family."""
    families = [check for check in checks if check.function == CONTROL_CHECK]
    if not families:
        raise VoidScore(f"none of the {len(checks)} checks that were run is {CONTROL_CHECK}, which judges the controls")
    jury = Jury(families, impact, workers)
    engines = [control(name) for name in ("null_engine", "constant_engine", "noisy_engine")]
    found = {result.name: flagged(result, len(families)) for result in judge_bugs(engines, jury)}
    return {**found, "check_without_comparisons": comparing_nothing()}


def flagged(result: Result, families: int) -> str:
    """On how many families a broken engine was flagged; VoidScore unless on all."""
    count = sum(map(bool, result.cases.values()))
    if count != families:
        raise VoidScore(f"{result.name} was flagged on {count} of {families} families only")
    return f"flagged on {count} of {families} families"


def comparing_nothing() -> str:
    """A check that compares nothing must fail."""
    try:
        judged(lambda: None)
    except Failed:
        return "failed"
    raise VoidScore("a check that compares nothing has passed")

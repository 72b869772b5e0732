"""Negative controls: engines that are plainly broken must be flagged on every family, or the score says nothing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from conformance.checks import Check, Failed, judged
from conformance.score.judge import Result, score
from conformance.score.zoo.seeding import Bug
from nanollama.model.transformer import Transformer

NOISE = 1e-6
WHOLE = "model_semantics.every_tap_equals_the_golden"


class Void(Exception):
    """A score that says nothing: something that is plainly broken was not flagged, or nothing was judged."""


@contextmanager
def answering(change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Models give changed logits."""
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
    return answering(torch.zeros_like)


def constant_engine() -> Any:
    """The same logits for every token, whatever came before."""
    return answering(lambda logits: torch.linspace(0, 5, logits.shape[-1], dtype=logits.dtype).expand_as(logits))


def noisy_engine() -> Any:
    """The right logits and a little noise."""
    return answering(lambda logits: logits + NOISE * torch.randn(logits.shape, dtype=logits.dtype))


def control(name: str) -> Bug:
    """A broken engine as an entry of the zoo."""
    return Bug(name, "control", "model", "own", "", "controls", custom=f"{__name__}:{name}")


def run_controls(checks: Sequence[Check], impact: Mapping[str, frozenset[str]], workers: int) -> dict[str, str]:
    """What was flagged, by control, in words; Void where one passes on any family."""
    families = [check for check in checks if check.function == WHOLE]
    if not families:
        raise Void(f"none of the {len(checks)} checks that were run is {WHOLE}, which judges the controls")
    engines = [control(name) for name in ("null_engine", "constant_engine", "noisy_engine")]
    found = {result.name: flagged(result, len(families)) for result in score(engines, families, impact, workers)}
    return {**found, "check_without_comparisons": comparing_nothing()}


def flagged(result: Result, families: int) -> str:
    """How many families a broken engine was flagged on; Void unless on all of them."""
    count = sum(map(bool, result.cases.values()))
    if count != families:
        raise Void(f"{result.name} was flagged on {count} of {families} families only")
    return f"flagged on {count} of {families} families"


def comparing_nothing() -> str:
    """A check that compares nothing must fail."""
    try:
        judged(lambda: None)
    except Failed:
        return "failed"
    raise Void("a check that compares nothing has passed")

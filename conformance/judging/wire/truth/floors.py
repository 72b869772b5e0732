"""The tolerance of a correct server: measured, on the checkpoint and the tokens in question.

The runtime runs them in every correct order of computation (`conformance.numerics.variants`), with the roundings that servers
do, from the finest class to the coarsest that is usual for such a file:

* float32
* attention in float16 (llama.cpp's default cache) and the rest in float32
* everything in the 16 bits in which the file is stored (vLLM, transformers)
* quantized files: activations rounded to 8 bits, too (ggml multiplies such weights so)

A class's floor is the largest error of its ensemble. The margin for engines unseen is measured by leave-one-out: each variant
on each answer is judged by the others on the other answers, and the largest excess is the factor by which the floor is
multiplied.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from conformance.judging.wire.truth.roundings import ATTENTION, EIGHT_BITS, Rounding, rounded
from conformance.judging.wire.truth.truth import Served, Truth
from conformance.numerics import ways
from conformance.numerics.variants import AS_IS, Variant, applicable, fixed_positions
from nanollama.lm import load
from nanollama.model.config import ModelConfig
from nanollama.model.transformer import Transformer
from nanollama.quant.modules import QuantLinear

SHIFTS = (1, 7, 100, 1000)  # of all positions: the same function, with other keys to round


@dataclass(frozen=True)
class Floor:
    """A class of precision and what it allows: the ensemble's largest error in nats, and the factor for engines unseen."""

    name: str
    nats: float
    factor: float

    @property
    def bar(self) -> float:
        """The largest error that is allowed."""
        return self.nats * self.factor

    def __str__(self) -> str:
        return f"{self.name}: {self.nats:.2g} nats × {self.factor:.2g}"


def measure_floors(truth: Truth, answers: Sequence[Served]) -> list[Floor]:
    """The floors of all classes that are usual for this checkpoint, each at least as wide as the one before."""
    found: list[Floor] = []
    for name, dtype, roundings in classes(truth):
        model = load(truth.source, dtype=dtype, device="cpu").model
        errors = torch.tensor([[s.error(rows) for s, rows in each] for each in runs(model, roundings, answers)])
        floor = Floor(name, float(errors.max()), leave_one_out(errors))
        found.append(floor if not found or floor.bar > found[-1].bar else replace(found[-1], name=name))
    return found


def classes(truth: Truth) -> Iterator[tuple[str, str, list[Rounding]]]:
    """Name, dtype and possible roundings of each class: a server may round at any of these places."""
    quantized = any(isinstance(module, QuantLinear) for module in truth.lm.model.modules())
    stored = str(load(truth.source, device="cpu").model.dtype).removeprefix("torch.")
    yield "float32", "float32", [Rounding()]
    yield "attention in float16", "float32", [Rounding(places) for places in ATTENTION]
    if stored in ("float16", "bfloat16"):
        yield stored, stored, [Rounding()]
    if quantized:
        places = (*ATTENTION, frozenset[str]())
        yield "activations in 8 bits", "float32", [Rounding(each, how) for how in EIGHT_BITS for each in places]


def runs(model: Transformer, roundings: list[Rounding], answers: Sequence[Served]) -> Iterator[list[tuple[Served, Tensor]]]:
    """Every correct way to compute: its log-probabilities [T, V] of every answer."""
    for rounding, variant, shift in honest(model.config, roundings):
        with torch.inference_mode(), variant.patch(model) as changed, rounded(changed, rounding):
            yield [(served, log_probs(changed, served, shift)) for served in answers]


def honest(config: ModelConfig, roundings: list[Rounding]) -> Iterator[tuple[Rounding, Variant, int]]:
    """Every order of computation with the first rounding, every other rounding, and each of them at shifted positions."""
    for variant in applicable(config):
        if variant.way is ways.whole and not variant.policy and not variant.held_out:
            yield roundings[0], variant, 0
    for rounding in roundings:
        for shift in (0, *SHIFTS) if fixed_positions(config) is None else (0,):
            if shift or rounding is not roundings[0]:
                yield rounding, AS_IS, shift


def log_probs(model: Transformer, served: Served, shift: int) -> Tensor:
    """Of every step of an answer, in one call: float64 [T, V]."""
    ids = torch.tensor([[*served.prompt, *served.ids[:-1]]])
    logits = model(ids, positions=torch.arange(ids.shape[1])[None] + shift)[0, len(served.prompt) - 1 :]
    return logits.double().log_softmax(-1)


def leave_one_out(errors: Tensor) -> float:
    """The largest excess of a variant on an answer over the others on the others; errors [V, A]; at least 1."""
    worst = 1.0
    for v, a in torch.cartesian_prod(*(torch.arange(size) for size in errors.shape)).tolist():
        others = torch.cat((errors[:v], errors[v + 1 :]))
        others = torch.cat((others[:, :a], others[:, a + 1 :]), 1)
        if others.numel() and float(others.max()) > 0:
            worst = max(worst, float(errors[v, a] / others.max()))
    return worst

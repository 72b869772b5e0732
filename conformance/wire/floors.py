"""How far an honest server may be from the truth: measured, on the checkpoint and the very tokens in question.

The runtime runs them in every honest order of computation (`conformance.numerics.variants`), with the roundings that servers
do, from the finest class to the coarsest that is usual for such a file:

* float32
* attention in float16 (llama.cpp's default cache) and the rest in float32
* everything in the 16 bits in which the file is stored (vLLM, transformers)
* quantized files: activations rounded to 8 bits, too (ggml multiplies such weights so: 32 or 256 values share a scale)

A class's floor is the largest error of its ensemble. How much more another honest engine may need is measured by
leave-one-out: each variant on each answer is judged by the others on the other answers, and the largest excess is the factor
by which the floor is multiplied.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from conformance.numerics import ways
from conformance.numerics.variants import AS_IS, applicable
from conformance.wire.truth import Served, Truth
from nanollama.lm import load
from nanollama.model import Transformer
from nanollama.quant.linear import QuantLinear

QUERIES, KEYS_VALUES, CONTEXT = frozenset({"q_proj"}), frozenset({"k_proj", "v_proj"}), frozenset({"o_proj"})


@dataclass(frozen=True)
class Rounding:
    """Where a server rounds: what these projections make (o_proj: take) to float16, what quantized matrices take to 8 bits."""

    to_float16: frozenset[str] = frozenset()
    eight_bits: "EightBits | None" = None


@dataclass(frozen=True)
class EightBits:
    """How activations become 8 bits: how many values share a scale (None: a row), and the scale's own dtype."""

    block: int | None
    scale: torch.dtype

    def __call__(self, x: Tensor) -> Tensor:
        """[..., columns] rounded, with the scale max/127; columns that fill no block share one scale."""
        blocks = x.unflatten(-1, (-1, self.block if self.block and x.shape[-1] % self.block == 0 else x.shape[-1]))
        scale = (blocks.abs().amax(-1, keepdim=True) / 127).to(self.scale).to(x.dtype)
        return torch.where(scale > 0, (blocks / scale).round().clamp(-127, 127) * scale, 0.0).flatten(-2)


EIGHT_BITS = [EightBits(block, scale) for block in (32, 256, None) for scale in (torch.float16, torch.float32)]


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
        errors = torch.tensor([[s.error(rows) for s, rows in each] for each in runs(truth, dtype, roundings, answers)])
        floor = Floor(name, float(errors.max()), leave_one_out(errors))
        found.append(floor if not found or floor.bar > found[-1].bar else replace(found[-1], name=name))
    return found


def classes(truth: Truth) -> Iterator[tuple[str, str, Sequence[Rounding]]]:
    """Name, dtype and honest roundings of each class: which of these places a server rounds at is its own affair."""
    quantized = any(isinstance(module, QuantLinear) for module in truth.lm.model.modules())
    stored = str(load(truth.source, device="cpu").model.dtype).removeprefix("torch.")
    yield "float32", "float32", [Rounding()]
    places = [KEYS_VALUES | QUERIES | CONTEXT, KEYS_VALUES, KEYS_VALUES | QUERIES, KEYS_VALUES | CONTEXT]
    yield "attention in float16", "float32", [Rounding(each) for each in places]
    if stored in ("float16", "bfloat16"):
        yield stored, stored, [Rounding()]
    if quantized:
        places.append(frozenset())
        yield "activations in 8 bits", "float32", [Rounding(each, eight_bits) for eight_bits in EIGHT_BITS for each in places]


def runs(
    truth: Truth, dtype: str, roundings: Sequence[Rounding], answers: Sequence[Served]
) -> Iterator[list[tuple[Served, Tensor]]]:
    """Every honest order of computation with the first rounding, and the others: log-probabilities [T, V] of every answer."""
    model = load(truth.source, dtype=dtype, device="cpu").model
    orders = [v for v in applicable(model.config) if v.way is ways.whole and not v.policy and not v.held_out]
    for rounding, variant in [(roundings[0], each) for each in orders] + [(each, AS_IS) for each in roundings[1:]]:
        with torch.inference_mode(), rounded(model, rounding), variant.patch(model) as changed:
            yield [(served, log_probs(changed, served)) for served in answers]


def log_probs(model: Transformer, served: Served) -> Tensor:
    """Of every step of an answer, in one call: float64 [T, V]."""
    logits = model(torch.tensor([[*served.prompt, *served.ids[:-1]]]))[0, len(served.prompt) - 1 :]
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


@contextmanager
def rounded(model: Transformer, rounding: Rounding) -> Iterator[None]:
    """A model that rounds at these places while inside."""
    handles = []
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if last in rounding.to_float16 - CONTEXT:
            handles.append(module.register_forward_hook(lambda _, __, out: to_float16(out)))
        if last in rounding.to_float16 & CONTEXT:
            handles.append(module.register_forward_pre_hook(lambda _, args: (to_float16(args[0]),)))
        if rounding.eight_bits and isinstance(module, QuantLinear):
            handles.append(module.register_forward_pre_hook(lambda _, args: (rounding.eight_bits(args[0]),)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def to_float16(x: Tensor) -> Tensor:
    """Rounded to float16, in the dtype that it has."""
    return x.half().to(x.dtype)

"""How far an honest server may be from the truth: measured, on the checkpoint and the very tokens in question.

The runtime runs them in every honest order of computation (`conformance.numerics.variants`), with the roundings that servers
do, from the finest class to the coarsest that is usual for such a file:

* float32
* attention in float16 (llama.cpp's default cache) and the rest in float32
* everything in the 16 bits in which the file is stored (vLLM, transformers)
* quantized files: activations rounded to 8 bits in blocks of 32, too (ggml multiplies such weights so)

A class's floor is the largest error of its ensemble. How much more another honest engine may need is measured by
leave-one-out: each variant on each answer is judged by the others on the other answers, and the largest excess is the factor
by which the floor is multiplied.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from conformance.numerics import ways
from conformance.numerics.variants import applicable
from conformance.wire.truth import Served, Truth
from nanollama.lm import load
from nanollama.model import Transformer
from nanollama.quant.linear import QuantLinear

BLOCK = 32  # values that share a scale in ggml's Q8_0, which is what activations are rounded to


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
    for name, dtype, rounding in classes(truth):
        errors = torch.tensor([[s.error(rows) for s, rows in each] for each in runs(truth, dtype, rounding, answers)])
        found.append(Floor(name, float(errors.max()), leave_one_out(errors)))
    for i in range(1, len(found)):
        if found[i].bar < found[i - 1].bar:
            found[i] = Floor(found[i].name, found[i - 1].nats, found[i - 1].factor)
    return found


Rounding = Callable[[Transformer], Any]


def classes(truth: Truth) -> Iterator[tuple[str, str, Rounding]]:
    """Name, dtype and roundings of each class."""
    quantized = any(isinstance(module, QuantLinear) for module in truth.lm.model.modules())
    stored = load(truth.source, device="cpu").model.dtype
    yield "float32", "float32", lambda model: rounded(model, attention=False, products=False)
    yield "attention in float16", "float32", lambda model: rounded(model, attention=True, products=False)
    if stored in (torch.float16, torch.bfloat16):
        name = str(stored).removeprefix("torch.")
        yield name, name, lambda model: rounded(model, attention=False, products=False)
    if quantized:
        yield "activations in 8 bits", "float32", lambda model: rounded(model, attention=True, products=True)


def runs(truth: Truth, dtype: str, rounding: Rounding, answers: Sequence[Served]) -> Iterator[list[tuple[Served, Tensor]]]:
    """Every honest order of computation: its log-probabilities [T, V] of every answer."""
    model = load(truth.source, dtype=dtype, device="cpu").model
    variants = [v for v in applicable(model.config) if v.way is ways.whole and not v.policy and not v.held_out]
    for variant in variants:
        with torch.inference_mode(), rounding(model), variant.patch(model) as changed:
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
def rounded(model: Transformer, attention: bool, products: bool) -> Iterator[None]:
    """Round what goes into and comes out of attention to float16, and what enters quantized matrices to 8 bits."""
    handles = []
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if attention and last in ("q_proj", "k_proj", "v_proj"):
            handles.append(module.register_forward_hook(lambda _, __, out: to_float16(out)))
        if attention and last == "o_proj":
            handles.append(module.register_forward_pre_hook(lambda _, args: (to_float16(args[0]),)))
        if products and isinstance(module, QuantLinear | nn.Linear):
            handles.append(module.register_forward_pre_hook(lambda _, args: (to_8_bits(args[0]),)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def to_float16(x: Tensor) -> Tensor:
    """Rounded to float16, in the dtype that it has."""
    return x.half().to(x.dtype)


def to_8_bits(x: Tensor) -> Tensor:
    """[..., columns] rounded to 8 bits, blocks of 32 with the scale max/127; columns that fill no block stay as they are."""
    if x.shape[-1] % BLOCK:
        return x
    blocks = x.unflatten(-1, (-1, BLOCK))
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    return torch.where(scale > 0, (blocks / scale).round() * scale, 0.0).flatten(-2)

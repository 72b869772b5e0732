"""Roundings of servers that otherwise compute in float32: attention in float16, products with activations in 8 bits."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from conformance.numerics.variants import put
from nanollama.model.kv_cache import KVView
from nanollama.model.layers import Attend
from nanollama.model.transformer import Transformer
from nanollama.quant.modules import QuantLinear

CACHE, QUERIES, WEIGHTS, CONTEXT = frozenset({"k", "v"}), frozenset({"q"}), frozenset({"weights"}), frozenset({"context"})
ATTENTION = [CACHE | QUERIES | WEIGHTS, CACHE, CACHE | QUERIES, CACHE | QUERIES | CONTEXT, CACHE | QUERIES | WEIGHTS | CONTEXT]
"""What is rounded to float16: with ggml's plain products, a cache alone, and fused kernels of several kinds."""


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
"""ggml's Q8_0 and Q8_K, and a scale for each row."""


@dataclass(frozen=True)
class Rounding:
    """The values of attention that a server rounds to float16, and how it rounds activations before quantized matrices."""

    places: frozenset[str] = frozenset()
    eight_bits: EightBits | None = None


@contextmanager
def rounded(model: Transformer, rounding: Rounding) -> Iterator[None]:
    """The model rounds like this while inside."""
    products = [module for module in model.modules() if rounding.eight_bits and isinstance(module, QuantLinear)]
    handles = [module.register_forward_pre_hook(rounds_input(rounding.eight_bits)) for module in products]
    try:
        with put(model, (Attend, "forward", attention(Attend.forward, rounding.places))):
            yield
    finally:
        for handle in handles:
            handle.remove()


def rounds_input(how: Any) -> Any:
    """A hook that rounds what a module takes."""

    def hook(_: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
        return (how(arguments[0]),)

    return hook


def attention(before: Any, places: frozenset[str]) -> Any:
    """Attend.forward with these values rounded to float16; with rounded weights it is the definition, term by term."""

    def forward(self: Attend, q: Tensor, k: Tensor, v: Tensor, view: KVView) -> Tensor:
        q, k, v = (to_float16(x) if name in places else x for name, x in (("q", q), ("k", k), ("v", v)))
        out = weighted(self, q, k, v, view) if "weights" in places else before(self, q, k, v, view)
        return to_float16(out) if "context" in places else out

    return forward


def weighted(attend: Attend, q: Tensor, k: Tensor, v: Tensor, view: KVView) -> Tensor:
    """Attention whose weights are rounded before they meet the values."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    weights = to_float16(attend.scores(q, k, view.allowed).softmax(-1))
    return (weights @ v.to(weights.dtype)).to(q.dtype)


def to_float16(x: Tensor) -> Tensor:
    """Rounded to float16, in the dtype that it has."""
    return x.half().to(x.dtype)

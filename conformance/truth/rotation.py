"""Rotary frequencies of every scaling type and the rotation, in float64 and independent of the runtime.

Sources: RoFormer (arXiv 2104.09864), position interpolation (2306.15595), YaRN (2309.00071), LongRoPE (2402.13753), and
transformers' `modeling_rope_utils.py` for the details that the papers leave open.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Rope:
    """A rotation: the rotated dimensions of a head, and the parameters of its frequencies and its attention factor."""

    dim: int
    theta: float
    kind: str
    scaling: Mapping[str, Any]
    max_length: int
    original: int  # trained length
    sharpness: float  # multiplies cos and sin


def frequencies(rope: Rope, length: int) -> list[float]:
    """Radians per position of each rotated pair, for a sequence of this length."""
    theta, dim, scaling, factor = rope.theta, rope.dim, rope.scaling, float(rope.scaling["factor"])
    if rope.kind == "dynamic":
        longest = max(length, rope.max_length)
        theta *= (factor * longest / rope.max_length - (factor - 1)) ** (dim / (dim - 2))
    plain = [theta ** (-2 * j / dim) for j in range(dim // 2)]
    if rope.kind == "linear":
        return [f / factor for f in plain]
    if rope.kind == "llama3":
        return [llama3(f, rope, factor) for f in plain]
    if rope.kind == "yarn":
        return [f / factor * (1 - keep) + f * keep for f, keep in zip(plain, yarn_kept(rope), strict=True)]
    if rope.kind == "longrope":
        divisors = scaling["long_factor"] if length > rope.original else scaling["short_factor"]
        return [f / divisor for f, divisor in zip(plain, divisors, strict=True)]
    return plain


def llama3(frequency: float, rope: Rope, factor: float) -> float:
    """Llama 3.1: scales a frequency by its wavelength in trained lengths."""
    wave, low, high = 2 * math.pi / frequency, rope.scaling["low_freq_factor"], rope.scaling["high_freq_factor"]
    if wave < rope.original / high:
        return frequency
    if wave > rope.original / low:
        return frequency / factor
    smooth = (rope.original / wave - low) / (high - low)
    return (1 - smooth) * frequency / factor + smooth * frequency


def yarn_kept(rope: Rope) -> list[float]:
    """YaRN: the share of each frequency that is not interpolated."""

    def dimension(turns: float) -> float:
        return rope.dim * math.log(rope.original / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    fast, slow = rope.scaling.get("beta_fast") or 32.0, rope.scaling.get("beta_slow") or 1.0
    low, high = dimension(fast), dimension(slow)
    if rope.scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    high += 0.001 if low == high else 0
    return [1 - min(max((j - low) / (high - low), 0.0), 1.0) for j in range(rope.dim // 2)]


def cos_sin(rope: Rope, positions: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """cos and sin of every position, float64 [T, dim/2]."""
    angles = positions.double()[:, None] * torch.tensor(frequencies(rope, length), dtype=torch.float64)
    return angles.cos() * rope.sharpness, angles.sin() * rope.sharpness


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (j, j + dim/2) of x [heads, T, D]; dimensions beyond `dim` are unchanged."""
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((a * cos - b * sin, a * sin + b * cos, rest), -1)


def read_rope_config(raw: Raw, given: Raw, theta: float, head_dim: int) -> Rope:
    """The rotation of one rope_scaling or rope_parameters object."""
    kind = str(given.get("rope_type") or given.get("type") or "default").replace("su", "longrope")
    partial = given.get("partial_rotary_factor") or raw.get("partial_rotary_factor") or 1.0
    length = raw["max_position_embeddings"] if "max_position_embeddings" in raw else raw["n_positions"]
    outside = raw.get("original_max_position_embeddings") or (4096 if raw["architectures"][0].startswith("Phi3") else length)
    original = given.get("original_max_position_embeddings") or outside
    factor = given.get("factor") or length / original
    return Rope(
        dim=int(head_dim * partial),
        theta=given.get("rope_theta") or theta,
        kind=kind,
        scaling={**given, "factor": factor},
        max_length=length,
        original=original,
        sharpness=sharpness_of(kind, given, factor, original),
    )


def sharpness_of(kind: str, given: Raw, factor: float, original: int) -> float:
    """The factor of cos and sin: YaRN (arXiv 2309.00071, 3.4) and LongRoPE (Phi-3 report) scale attention with it."""
    if given.get("attention_factor") is not None and kind in ("yarn", "longrope"):
        return float(given["attention_factor"])
    if kind == "longrope":
        return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    if kind != "yarn" or factor <= 1:
        return 1.0
    if given.get("mscale") and given.get("mscale_all_dim"):
        return (0.1 * given["mscale"] * math.log(factor) + 1) / (0.1 * given["mscale_all_dim"] * math.log(factor) + 1)
    return 0.1 * math.log(factor) + 1

"""Derived weights: any program on any machine makes the same bits from a seed, a tensor's name and an element's index.

The definition, all integers modulo 2^64:

    key   = fnv1a64(name in UTF-8) + seed · 0x9E3779B97F4A7C15
    z     = key + (index + 1) · 0x9E3779B97F4A7C15          index counts the elements in row-major order, from 0
    z     = (z ^ z>>30) · 0xBF58476D1CE4E5B9;  z = (z ^ z>>27) · 0x94D049BB133111EB;  z = z ^ z>>31      (splitmix64)
    unit  = (z >> 11) · 2^-52 - 1                            float64 in [-1, 1), exact
    value = centre + spread · unit                           both by the kind of tensor, see `spread_of`
"""

import math
from collections.abc import Mapping

import numpy as np
import torch

GOLDEN_RATIO = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
GAIN = 1.5  # standard deviation of a matrix's output for unit input: attention is sharp, and a flat softmax hides no bug


def fnv1a64(text: str) -> int:
    """FNV-1a of the text's UTF-8 bytes, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def unit(seed: int, name: str, count: int) -> np.ndarray:
    """`count` float64 numbers, uniform in [-1, 1)."""
    key = (fnv1a64(name) + seed * GOLDEN_RATIO) & MASK
    with np.errstate(over="ignore"):
        z = np.uint64(key) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN_RATIO)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0


def spread_of(name: str, shape: tuple[int, ...], norm_centre: float, transposed: bool) -> tuple[float, float]:
    """Centre and spread of a tensor: norm weights around 1 (around 0 where 1 is added later), biases and embeddings
    around 0, matrices so that unit input gives output of standard deviation GAIN."""
    if len(shape) == 1:
        is_norm = name.endswith("weight")
        return (norm_centre, 0.5) if is_norm else (0.0, 0.5)
    if any(table in name for table in ("embed_tokens", "wte", "wpe")):
        return 0.0, 1.0
    fan_in = shape[0] if transposed else shape[1]
    return 0.0, GAIN * math.sqrt(3 / fan_in)


def derived_tensors(
    shapes: Mapping[str, tuple[int, ...]], seed: int, norm_centre: float = 1.0, transposed: bool = False
) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, float64."""
    tensors = {}
    for name, shape in shapes.items():
        centre, spread = spread_of(name, shape, norm_centre, transposed)
        values = centre + spread * unit(seed, name, math.prod(shape))
        tensors[name] = torch.from_numpy(values.reshape(shape))
    return tensors


def derived_ids(seed: int, name: str, count: int, vocab_size: int) -> list[int]:
    """A prompt of `count` token ids, derived the same way."""
    return [int(v) for v in np.floor((unit(seed, name, count) + 1) / 2 * vocab_size)]

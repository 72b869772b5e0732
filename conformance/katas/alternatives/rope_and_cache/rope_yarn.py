"""Other right ways to write yarn_frequencies."""

import math

import torch
from torch import Tensor

from nanollama.model.rope import RopeConfig, default_frequencies


def kept_and_slowed(rope: RopeConfig, length: int) -> Tensor:
    """as transformers has it: how much of each wave is extrapolated, from powers of theta"""
    powers = rope.theta ** (torch.arange(0, rope.dim, 2, dtype=torch.float64) / rope.dim)
    ends = [
        rope.dim * math.log(rope.original_length / (beta * math.tau)) / (2 * math.log(rope.theta))
        for beta in (rope.beta_fast, rope.beta_slow)
    ]
    if rope.truncate:
        ends = [float(math.floor(ends[0])), float(math.ceil(ends[1]))]
    first, last = max(ends[0], 0), min(ends[1], rope.dim - 1)
    if first == last:
        last += 0.001
    ramp = torch.clamp((torch.arange(rope.dim // 2, dtype=torch.float64) - first) / (last - first), 0, 1)
    extrapolated = 1 - ramp
    return 1 / (rope.factor * powers) * (1 - extrapolated) + 1 / powers * extrapolated


def one_by_one(rope: RopeConfig, length: int) -> Tensor:
    """a loop in plain Python, the logarithm to the base theta"""

    def wave(turns: float) -> float:
        return math.log(rope.original_length / (2 * math.pi * turns), rope.theta) * rope.dim / 2

    first, last = wave(rope.beta_fast), wave(rope.beta_slow)
    if rope.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(0, first), min(rope.dim - 1, last)
    found = []
    for j, frequency in enumerate(default_frequencies(rope.theta, rope.dim).tolist()):
        slowed = min(1.0, max(0.0, (j - first) / ((last - first) or 0.001)))
        found.append(frequency * (1 - slowed) + frequency * slowed / rope.factor)
    return torch.tensor(found, dtype=torch.float64)

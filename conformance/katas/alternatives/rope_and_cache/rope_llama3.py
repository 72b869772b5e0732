"""Other right ways to write llama3_frequencies."""

import math

import torch
from torch import Tensor

from nanollama.model.rope import RopeConfig, default_frequencies


def by_wavelength(rope: RopeConfig, length: int) -> Tensor:
    """by the lengths of the waves, as in Llama's code and transformers"""
    freq = default_frequencies(rope.theta, rope.dim)
    waves = 2 * math.pi / freq
    smooth = (rope.original_length / waves - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    mixed = (1 - smooth) * freq / rope.factor + smooth * freq
    slowed = torch.where(waves > rope.original_length / rope.low_freq_factor, freq / rope.factor, mixed)
    return torch.where(waves < rope.original_length / rope.high_freq_factor, freq, slowed)


def divisors(rope: RopeConfig, length: int) -> Tensor:
    """one number that multiplies every frequency: between 1 / factor and 1"""
    freq = default_frequencies(rope.theta, rope.dim)
    low, high = (turns * 2 * math.pi / rope.original_length for turns in (rope.low_freq_factor, rope.high_freq_factor))
    return freq * torch.lerp(
        torch.full_like(freq, 1 / rope.factor), torch.ones_like(freq), ((freq - low) / (high - low)).clamp(0, 1)
    )


def one_by_one(rope: RopeConfig, length: int) -> Tensor:
    """a loop in plain Python"""
    found = []
    for frequency in default_frequencies(rope.theta, rope.dim).tolist():
        turns = frequency * rope.original_length / math.tau
        keep = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
        keep = min(max(keep, 0.0), 1.0)
        found.append(frequency / rope.factor + keep * (frequency - frequency / rope.factor))
    return torch.tensor(found, dtype=torch.float64)

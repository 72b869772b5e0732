"""Llama 3's way to longer contexts, written again: one wave at a time, then all of them, then the numbers of Llama 3.1."""

import math

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree, answers
from nanollama.model.rope import RopeConfig, llama3_frequencies

TRAINED = 64  # positions; a wave of f radians a position makes 64 · f / 2π turns within them


def rope(slowed: float, kept: float, dim: int = 2, factor: float = 4.0) -> RopeConfig:
    """Waves up to `slowed` radians per position are slowed, those from `kept` on kept. theta 16: 1, 1/2, 1/4, 1/8 radians."""
    low, high = (TRAINED * frequency / (2 * math.pi) for frequency in (slowed, kept))
    return RopeConfig(dim, 16.0, "llama3", factor, TRAINED, low_freq_factor=low, high_freq_factor=high)


def radians(*numbers: float) -> Tensor:
    """Frequencies in float64."""
    return torch.tensor(numbers, dtype=torch.float64)


def by_wavelength(rope: RopeConfig, frequency: float) -> float:
    """One frequency as in Llama's code, which uses wavelengths in positions."""
    length = 2 * math.pi / frequency
    if length < rope.original_length / rope.high_freq_factor:
        return frequency
    if length > rope.original_length / rope.low_freq_factor:
        return frequency / rope.factor
    smooth = (rope.original_length / length - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    return (1 - smooth) * frequency / rope.factor + smooth * frequency


def test_a_fast_wave_is_kept() -> None:
    """1 radian per position is above both limits: it makes many turns within the trained length."""
    answers(llama3_frequencies, rope(slowed=0.25, kept=0.5), 0, want=radians(1.0))


def test_a_slow_wave_is_slowed_by_the_factor() -> None:
    """1 radian per position is below both limits: 1/4 with factor 4, so that four times as many positions fit one turn."""
    answers(llama3_frequencies, rope(slowed=2.0, kept=4.0), 0, want=radians(0.25))


def test_between_the_limits_both_are_mixed() -> None:
    """1 is halfway between 1/2 and 3/2: half of 1 and half of 1/4 is 5/8."""
    answers(llama3_frequencies, rope(slowed=0.5, kept=1.5), 0, want=radians(0.625))


def test_the_nearer_to_the_upper_limit_the_more_is_kept() -> None:
    """1 is three quarters of the way from 1/4 to 5/4: 3/4 of 1 and 1/4 of 1/4 is 13/16."""
    answers(llama3_frequencies, rope(slowed=0.25, kept=1.25), 0, want=radians(0.8125))


def test_four_waves_of_one_head() -> None:
    """1 and 1/2 are kept, 1/8 is slowed to 1/32; 1/4 is a third of the way up: (1/3)(1/4) + (2/3)(1/16) is 1/8."""
    answers(llama3_frequencies, rope(slowed=0.125, kept=0.5, dim=8), 0, want=radians(1.0, 0.5, 0.125, 1 / 32))


def test_a_factor_of_one_changes_nothing() -> None:
    """With factor 1 both parts are equal, whatever the blend."""
    answers(llama3_frequencies, rope(slowed=0.2, kept=0.6, dim=8, factor=1.0), 0, want=radians(1.0, 0.5, 0.25, 0.125))


def test_the_length_of_the_call_plays_no_part() -> None:
    """Only the trained length matters: 64 here, for any length of the call."""
    for length in (1, 64, 1_000_000):
        answers(llama3_frequencies, rope(slowed=0.5, kept=1.5), length, want=radians(0.625))


def test_no_wave_gets_faster_nor_slower_than_by_the_factor() -> None:
    """Thirty configurations: every frequency stays between a quarter of itself and itself."""
    for step in range(1, 31):
        plain = 16.0 ** (-torch.arange(8, dtype=torch.float64) / 8)
        got = llama3_frequencies(rope(slowed=step / 40, kept=step / 20, dim=16), 0)
        agree("how many are out of bounds", int(((got > plain + 1e-12) | (got < plain / 4 - 1e-12)).sum()), 0)


def test_the_frequencies_of_llama_3_1() -> None:
    """theta 500,000, heads of 128, trained on 8,192 positions, made eight times longer: compared with one wave at a time."""
    published = RopeConfig(128, 500_000.0, "llama3", 8.0, 8192, low_freq_factor=1.0, high_freq_factor=4.0)
    want = [by_wavelength(published, 500_000.0 ** (-2 * j / 128)) for j in range(64)]
    answers(llama3_frequencies, published, 0, want=radians(*want), within=1e-12)

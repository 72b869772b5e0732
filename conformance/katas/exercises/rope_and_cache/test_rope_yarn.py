"""YaRN, written again: a ramp over four waves on paper, its ends one by one, then a model's numbers."""

import math

import torch
from torch import Tensor

from conformance.katas.testing.compare import answers
from nanollama.model.rope import RopeConfig, yarn_frequencies

TRAINED = 64  # positions


def rope(first: float, last: float, *, truncate: bool = False, factor: float = 4.0) -> RopeConfig:
    """Eight dimensions, theta 16: four waves of 1, 1/2, 1/4, 1/8 radians per position. The ramp is from wave `first` to `last`:
    the betas are the turns that these make within 64 positions."""
    fast, slow = (TRAINED * 0.5**wave / (2 * math.pi) for wave in (first, last))
    return RopeConfig(8, 16.0, "yarn", factor, TRAINED, beta_fast=fast, beta_slow=slow, truncate=truncate)


def radians(*numbers: float) -> Tensor:
    """Frequencies in float64."""
    return torch.tensor(numbers, dtype=torch.float64)


def in_plain_python(rope: RopeConfig) -> list[float]:
    """The paper's formulas, one wave at a time, rounded outwards."""
    ends = []
    for beta, rounded in ((rope.beta_fast, math.floor), (rope.beta_slow, math.ceil)):
        ends.append(rounded(rope.dim * math.log(rope.original_length / (beta * math.tau), rope.theta) / 2))
    found = []
    for wave in range(rope.dim // 2):
        slowed = min(max((wave - ends[0]) / (ends[1] - ends[0]), 0), 1)
        frequency = rope.theta ** (-2 * wave / rope.dim)
        found.append(frequency * (1 - slowed + slowed / rope.factor))
    return found


def test_waves_before_the_ramp_are_kept_and_those_behind_it_slowed() -> None:
    """A step between the waves 1 and 2: 1 and 1/2 stay, 1/4 and 1/8 are divided by 4."""
    answers(yarn_frequencies, rope(1.4, 1.6), 0, want=radians(1.0, 0.5, 1 / 16, 1 / 32))


def test_on_the_ramp_both_are_mixed() -> None:
    """From 1/2 to 5/2: waves 1 and 2 are slowed to a quarter and to three quarters: (3/4)/2 + (1/4)/8, (1/4)/4 + (3/4)/16."""
    answers(yarn_frequencies, rope(0.5, 2.5), 0, want=radians(1.0, 13 / 32, 7 / 64, 1 / 32))


def test_its_ends_are_rounded_outwards() -> None:
    """0.4 becomes 0 and 2.6 becomes 3: the waves are slowed by 0, 1/3, 2/3, 1."""
    answers(yarn_frequencies, rope(0.4, 2.6, truncate=True), 0, want=radians(1.0, 3 / 8, 1 / 8, 1 / 32))


def test_unless_the_file_says_otherwise() -> None:
    """truncate: false. 0.4 and 2.4 stay: wave 1 is slowed by 0.3, wave 2 by 0.8."""
    want = radians(1.0, 0.7 / 2 + 0.3 / 8, 0.2 / 4 + 0.8 / 16, 1 / 32)
    answers(yarn_frequencies, rope(0.4, 2.4), 0, want=want, within=1e-12)


def test_the_ramp_begins_at_wave_0_at_the_earliest() -> None:
    """beta_fast gives wave -1.5: wave 0 is kept unchanged, and the ramp goes from 0 to 2."""
    answers(yarn_frequencies, rope(-1.5, 1.5, truncate=True), 0, want=radians(1.0, 5 / 16, 1 / 16, 1 / 32))


def test_the_ramp_ends_at_dim_minus_1_at_the_latest() -> None:
    """beta_slow gives wave 11: the end is 7, although there are only four waves; they are slowed by 0, 1/7, 2/7, 3/7."""
    want = radians(*(0.5**wave * (1 - wave / 7 + wave / 28) for wave in range(4)))
    answers(yarn_frequencies, rope(0.4, 10.5, truncate=True), 0, want=want)


def test_a_ramp_without_a_width_is_a_step() -> None:
    """Both ends at 1.5: nothing is divided by zero."""
    answers(yarn_frequencies, rope(1.5, 1.5), 0, want=radians(1.0, 0.5, 1 / 16, 1 / 32))


def test_a_factor_of_one_changes_nothing() -> None:
    """With factor 1, kept and slowed are equal."""
    answers(yarn_frequencies, rope(0.5, 2.5, factor=1.0), 0, want=radians(1.0, 0.5, 0.25, 0.125))


def test_the_length_of_the_call_plays_no_part() -> None:
    """Only the trained length matters."""
    for length in (1, 1_000_000):
        answers(yarn_frequencies, rope(1.4, 1.6), length, want=radians(1.0, 0.5, 1 / 16, 1 / 32))


def test_the_frequencies_of_a_long_qwen_2_5() -> None:
    """theta 1,000,000, heads of 128, trained on 32,768 positions, made four times longer: compared with one wave at a time."""
    published = RopeConfig(128, 1_000_000.0, "yarn", 4.0, 32768)
    answers(yarn_frequencies, published, 0, want=radians(*in_plain_python(published)), within=1e-12)

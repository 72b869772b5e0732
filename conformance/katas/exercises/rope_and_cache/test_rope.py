"""Rotary positions, written again: the frequencies, then the rotation, by hand; then relative positions."""

import math

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree, answers
from nanollama.model.rope import default_frequencies, rotate

COSINES = {0: 1.0, 90: 0.0, 180: -1.0}
SINES = {0: 0.0, 90: 1.0, 180: 0.0}


def angles(*degrees: int) -> tuple[Tensor, Tensor]:
    """cos and sin [1, 1, 1, dim/2], exact."""
    return head(*(COSINES[each] for each in degrees)), head(*(SINES[each] for each in degrees))


def head(*numbers: float) -> Tensor:
    """One head of one token: [1, 1, 1, D]."""
    return torch.tensor(numbers).view(1, 1, 1, -1)


def turned(x: Tensor, position: int) -> Tensor:
    """x at this position, with the frequencies of theta 100."""
    angle = position * default_frequencies(100.0, x.shape[-1])
    return rotate(x, angle.cos().view(1, 1, 1, -1), angle.sin().view(1, 1, 1, -1))


def test_the_first_pair_turns_by_one_radian_a_position() -> None:
    """theta to the power 0 is 1 for any theta."""
    answers(default_frequencies, 7.0, 2, want=torch.tensor([1.0], dtype=torch.float64))


def test_each_pair_is_slower_than_the_one_before() -> None:
    """theta 16, 8 dimensions: 16^(-2j/8) for j = 0, 1, 2, 3 is 1, 1/2, 1/4, 1/8."""
    answers(default_frequencies, 16.0, 8, want=torch.tensor([1.0, 0.5, 0.25, 0.125], dtype=torch.float64))


def test_no_turn_changes_nothing() -> None:
    """Position 0: cos 1, sin 0."""
    answers(rotate, head(1.0, 2.0, 3.0, 4.0), *angles(0, 0), want=head(1.0, 2.0, 3.0, 4.0))


def test_a_quarter_turn_takes_the_first_of_a_pair_to_the_second() -> None:
    """(1, 0) becomes (0, 1); with two dimensions there is only one pairing."""
    answers(rotate, head(1.0, 0.0), *angles(90), want=head(0.0, 1.0))


def test_a_quarter_turn_takes_the_second_of_a_pair_to_minus_the_first() -> None:
    """(0, 1) becomes (-1, 0): a · cos - b · sin."""
    answers(rotate, head(0.0, 1.0), *angles(90), want=head(-1.0, 0.0))


def test_pairs_are_half_a_head_apart() -> None:
    """Four dimensions, both pairs rotated: 0 is paired with 2 and 1 with 3, as in Hugging Face checkpoints."""
    answers(rotate, head(1.0, 2.0, 3.0, 4.0), *angles(90, 90), want=head(-3.0, -4.0, 1.0, 2.0))


def test_each_pair_turns_by_its_own_angle() -> None:
    """The first pair by 90 degrees, the second not at all."""
    answers(rotate, head(1.0, 2.0, 3.0, 4.0), *angles(90, 0), want=head(-3.0, 2.0, 1.0, 4.0))


def test_dimensions_beyond_the_rotated_ones_pass() -> None:
    """One angle for six dimensions: 0 and 1 are rotated, the others stay."""
    answers(rotate, head(1.0, 2.0, 3.0, 4.0, 5.0, 6.0), *angles(90), want=head(-2.0, 1.0, 3.0, 4.0, 5.0, 6.0))


def test_every_token_turns_by_the_angle_of_its_own_position() -> None:
    """Two heads, two tokens: the first token stays, the second is rotated by 180 degrees, in both heads."""
    cos, sin = (each.view(1, 1, 2, 1) for each in angles(0, 180))
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]])
    want = torch.tensor([[[[1.0, 2.0], [-3.0, -4.0]], [[5.0, 6.0], [-7.0, -8.0]]]])
    answers(rotate, x, cos, sin, want=want)


def test_low_precision_comes_back_in_low_precision() -> None:
    """The product is computed in the dtype of the angles (float64 here), the result has x's: float16."""
    cos, sin = (each.double() for each in angles(90, 90))
    answers(rotate, head(1.0, 2.0, 3.0, 4.0).half(), cos, sin, want=head(-3.0, -4.0, 1.0, 2.0).half())


def test_a_rotation_keeps_the_length() -> None:
    """At any position the sum of squares stays the same."""
    x = torch.randn(1, 1, 1, 8, dtype=torch.float64)
    agree("the length of rotate(x)", turned(x, 5).square().sum().item(), x.square().sum().item(), within=1e-12)


def test_only_the_distance_of_two_tokens_matters() -> None:
    """q at 9 and k at 7 have the same product as q at 2 and k at 0: rotation encodes relative positions."""
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)
    far, near = (turned(q, 9) * turned(k, 7)).sum().item(), (turned(q, 2) * turned(k, 0)).sum().item()
    agree("q·k, two positions apart", far, near, within=1e-12)


def test_the_angle_of_a_real_position() -> None:
    """Position 3 at one radian per position, computed with the cosine and sine of 3."""
    want = torch.tensor([[[[math.cos(3), math.sin(3)]]]], dtype=torch.float64)
    agree("rotate, at position 3", turned(head(1.0, 0.0).double(), 3), want)

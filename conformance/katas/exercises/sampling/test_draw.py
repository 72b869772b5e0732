"""The draw, written again: one number between 0 and 1 picks a token. Sums can be added on paper."""

import math

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree, answers
from nanollama.generation.sampling import draw

INF = math.inf


def logits(*probabilities: float) -> Tensor:
    """Logits [1, V] whose softmax is this."""
    return torch.tensor([probabilities], dtype=torch.float64).log()


def test_the_first_token_whose_sum_reaches_u() -> None:
    """1/2, 1/4, 1/4 sum to 1/2, 3/4, 1: the second is the first to reach u = 0.6."""
    answers(draw, logits(0.5, 0.25, 0.25), 0.6, want=torch.tensor([1]))


def test_each_token_has_an_interval_as_long_as_its_probability() -> None:
    """0.1 is in the first half, 0.7 in the third quarter, 0.9 in the last."""
    for u, token in ((0.1, 0), (0.7, 1), (0.9, 2)):
        answers(draw, logits(0.5, 0.25, 0.25), u, want=torch.tensor([token]))


def test_tokens_are_summed_by_id() -> None:
    """Not by rank: the small probability comes first here, and u = 0.2 draws it."""
    answers(draw, logits(0.25, 0.125, 0.625), 0.2, want=torch.tensor([0]))


def test_a_u_of_one_is_the_last_possible_token() -> None:
    """The last token with a probability; the ones after it are banned."""
    answers(draw, torch.tensor([[0.0, 0.0, -INF]]), 1.0, want=torch.tensor([1]))


def test_the_smallest_u_is_the_first_possible_token() -> None:
    """2^-53 is the smallest u; the tokens before have probability 0 and are never drawn."""
    answers(draw, torch.tensor([[-INF, -INF, 0.0, 0.0]]), 2.0**-53, want=torch.tensor([2]))


def test_banned_tokens_between_are_jumped() -> None:
    """1/2, 0, 1/2: u = 0.5 draws the first, slightly more the third."""
    row = torch.tensor([[0.0, -INF, 0.0]])
    answers(draw, row, 0.5, want=torch.tensor([0]))
    answers(draw, row, 0.51, want=torch.tensor([2]))


def test_a_sum_that_rounds_below_one_still_ends_in_the_last_possible_token() -> None:
    """Equal tokens in float32, whose sum rounds to less than 1, then a banned one: u = 1 draws the last of them."""
    for count in (54_321, 100_001):
        row = torch.zeros(1, count + 1)
        row[0, -1] = -INF
        agree(f"draw(logits, 1.0) of {count} equal tokens and a banned one", draw(row, 1.0), torch.tensor([count - 1]))


def test_each_row_draws_with_the_same_u() -> None:
    """Two rows, one u."""
    answers(draw, torch.cat([logits(0.5, 0.25, 0.25), logits(0.9, 0.05, 0.05)]), 0.8, want=torch.tensor([2, 0]))


def test_logits_need_not_be_normalised() -> None:
    """10 more everywhere is the same distribution."""
    answers(draw, logits(0.5, 0.25, 0.25) + 10, 0.6, want=torch.tensor([1]))


def test_even_steps_of_u_give_every_token_its_share() -> None:
    """u = 1/1600 … 1600/1600 (a midpoint each): tokens of 1/2, 1/4, 3/16, 1/16 are drawn 800, 400, 300, 100 times."""
    row, drawn = logits(1 / 2, 1 / 4, 3 / 16, 1 / 16), [0] * 4
    for step in range(1600):
        drawn[int(draw(row, (step + 0.5) / 1600)[0])] += 1
    agree("how often each token was drawn", drawn, [800, 400, 300, 100])

"""Min-p, written again: a floor that depends on the model's certainty."""

import math

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree, answers
from nanollama.generation.sampling import min_p

INF = math.inf


def logits(*probabilities: float) -> Tensor:
    """Logits [1, V] whose softmax is this."""
    return torch.tensor([probabilities]).log()


def kept(row: Tensor, *keep: int) -> Tensor:
    """The row with -inf where keep is 0."""
    return torch.where(torch.tensor([keep]).bool(), row, -INF)


def test_the_floor_is_a_share_of_the_largest_probability() -> None:
    """p = 0.3 of 1/2 is 0.15: 1/4 is kept, 1/8 dropped. As an absolute floor, 0.3 would drop 1/4 too."""
    row = logits(0.5, 0.25, 0.125, 0.125)
    answers(min_p, row, 0.3, want=kept(row, 1, 1, 0, 0))


def test_a_sure_model_leaves_less_choice() -> None:
    """The same p = 0.1: of 0.9 it is 0.09, and 0.08 and 0.02 are dropped; of 0.4 it is 0.04, and all three are kept."""
    sure, unsure = logits(0.9, 0.08, 0.02), logits(0.4, 0.35, 0.25)
    answers(min_p, sure, 0.1, want=kept(sure, 1, 0, 0))
    answers(min_p, unsure, 0.1, want=unsure.clone())


def test_a_probability_of_exactly_the_floor_stays() -> None:
    """p = 1/2 of 1/2 is 1/4, which two tokens have exactly."""
    row = logits(0.5, 0.25, 0.25)
    answers(min_p, row, 0.5, want=row.clone())


def test_one_keeps_the_largest_and_its_ties() -> None:
    """p = 1: only tokens as probable as the most probable one."""
    row = torch.tensor([[1.0, 3.0, 3.0, 2.0]])
    answers(min_p, row, 1.0, want=kept(row, 0, 1, 1, 0))


def test_logits_are_not_probabilities() -> None:
    """Logits of -1 and -2: odds of e to 1, so p = 0.3 keeps both. Compared as logits, 0.3 · (-1) is above both."""
    row = torch.tensor([[-1.0, -2.0]])
    answers(min_p, row, 0.3, want=row.clone())


def test_a_constant_added_to_all_logits_changes_nothing() -> None:
    """100 more everywhere: the same softmax."""
    row = logits(0.5, 0.25, 0.125, 0.125) + 100
    answers(min_p, row, 0.3, want=kept(row, 1, 1, 0, 0))


def test_each_row_has_its_own_largest() -> None:
    """A certain row and an uncertain one."""
    rows = torch.cat([logits(0.96, 0.03, 0.01), logits(0.4, 0.3, 0.3)])
    answers(min_p, rows, 0.2, want=torch.cat([kept(rows[:1], 1, 0, 0), rows[1:]]))


def test_the_most_probable_token_always_stays() -> None:
    """Fifty random rows at five floors."""
    rows = torch.randn(50, 40, dtype=torch.float64) * 4
    best = rows.argmax(-1, keepdim=True)
    for p in (0.01, 0.1, 0.5, 0.9, 1.0):
        agree(f"the largest logits that min_p(…, {p}) keeps", min_p(rows, p).gather(-1, best), rows.gather(-1, best))

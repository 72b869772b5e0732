"""Nucleus sampling, written again: probabilities added on paper, then the pitfalls of sorting."""

import math

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree, answers
from nanollama.generation.sampling import top_p

INF = math.inf


def logits(*probabilities: float) -> Tensor:
    """Logits [1, V] whose softmax is this."""
    return torch.tensor([probabilities]).log()


def kept(row: Tensor, *keep: int) -> Tensor:
    """The row with -inf where keep is 0."""
    return torch.where(torch.tensor([keep]).bool(), row, -INF)


def test_the_tokens_that_reach_p_are_kept() -> None:
    """1/2 is less than 0.7; 1/2 + 1/4 is enough: the token that crosses p is kept."""
    row = logits(0.5, 0.25, 0.125, 0.125)
    answers(top_p, row, 0.7, want=kept(row, 1, 1, 0, 0))


def test_the_order_of_the_vocabulary_plays_no_part() -> None:
    """The same four probabilities, shuffled."""
    row = logits(0.125, 0.5, 0.125, 0.25)
    answers(top_p, row, 0.7, want=kept(row, 0, 1, 0, 1))


def test_a_sort_is_undone_by_its_inverse() -> None:
    """A cycle of three: unsorting with the sort's indices would keep other tokens."""
    row = logits(0.2, 0.1, 0.7)
    answers(top_p, row, 0.75, want=kept(row, 1, 0, 1))


def test_a_sum_of_exactly_p_is_enough() -> None:
    """Four equal tokens of 1/4 each: two make 1/2. Of tied tokens the lower id ranks first."""
    row = torch.zeros(1, 4)
    answers(top_p, row, 0.5, want=kept(row, 1, 1, 0, 0))


def test_logits_are_not_probabilities_yet() -> None:
    """The same four probabilities with 7 added to each logit: the same softmax."""
    row = logits(0.5, 0.25, 0.125, 0.125) + 7
    answers(top_p, row, 0.7, want=kept(row, 1, 1, 0, 0))


def test_one_token_is_always_kept() -> None:
    """p may be smaller than any probability, even 0."""
    row = logits(0.1, 0.9)
    answers(top_p, row, 1e-9, want=kept(row, 0, 1))
    answers(top_p, row, 0.0, want=kept(row, 0, 1))


def test_a_p_of_one_keeps_everything() -> None:
    """Even tokens so improbable that the sum before them is rounded to 1."""
    row = torch.tensor([[0.0, -200.0]])
    answers(top_p, row, 1.0, want=row.clone())


def test_each_row_of_a_batch_is_alone() -> None:
    """Two rows, the second reversed."""
    rows = torch.cat([logits(0.5, 0.25, 0.125, 0.125), logits(0.125, 0.125, 0.25, 0.5)])
    want = torch.cat([kept(rows[:1], 1, 1, 0, 0), kept(rows[1:], 0, 0, 1, 1)])
    answers(top_p, rows, 0.7, want=want)


def test_banned_tokens_stay_banned() -> None:
    """-inf is a probability of 0: it is never needed to reach p."""
    row = torch.tensor([[-INF, 0.0, 0.0, -INF]])
    answers(top_p, row, 0.9, want=row.clone())


def test_many_equal_tokens_keep_their_order() -> None:
    """1024 equal tokens, p 1/4: the first 256. An unstable sort mixes them."""
    row = torch.zeros(1, 1024)
    agree("which tokens are kept", top_p(row, 0.25).isfinite().nonzero()[:, 1], torch.arange(256))


def test_float64_stays_float64() -> None:
    """The dtype stays the same."""
    row = logits(0.5, 0.3, 0.2).double()
    answers(top_p, row, 0.6, want=kept(row, 1, 1, 0))


def test_kept_tokens_reach_p_and_all_are_needed() -> None:
    """Fifty random rows: the sum reaches p, but not without the least likely kept token."""
    rows = torch.randn(50, 20, dtype=torch.float64) * 3
    probabilities = rows.softmax(-1).masked_fill(top_p(rows, 0.8) == -INF, 0.0)
    total, least = probabilities.sum(-1), probabilities.masked_fill(probabilities == 0, INF).amin(-1)
    agree("rows whose kept tokens reach p", int((total >= 0.8).sum()), 50)
    agree("rows that could spare a token", int((total - least >= 0.8).sum()), 0)

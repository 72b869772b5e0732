"""Top-k, written again: how many tokens are kept, which, and ties."""

import math

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree, answers
from nanollama.generation.sampling import top_k

INF = math.inf


def row(*logits: float) -> Tensor:
    """Logits [1, V]."""
    return torch.tensor([logits])


def test_the_largest_two_stay() -> None:
    """4 and 3; all others become impossible."""
    answers(top_k, row(1.0, 4.0, 2.0, 3.0), 2, want=row(-INF, 4.0, -INF, 3.0))


def test_one_is_the_largest_alone() -> None:
    """k = 1 is greedy, not "off"."""
    answers(top_k, row(0.5, -1.0, 2.0), 1, want=row(-INF, -INF, 2.0))


def test_zero_switches_it_off() -> None:
    """k = 0 means no top-k."""
    answers(top_k, row(1.0, 2.0, 3.0), 0, want=row(1.0, 2.0, 3.0))


def test_a_k_beyond_the_vocabulary_keeps_all() -> None:
    """3 tokens, k = 50, which is the default of many clients; and k = 3."""
    answers(top_k, row(1.0, 2.0, 3.0), 50, want=row(1.0, 2.0, 3.0))
    answers(top_k, row(1.0, 2.0, 3.0), 3, want=row(1.0, 2.0, 3.0))


def test_tokens_tied_with_the_kth_all_stay() -> None:
    """The second largest is 2, three times: keeping one of them would be a choice by the order of the vocabulary."""
    answers(top_k, row(2.0, 5.0, 2.0, 1.0, 2.0), 2, want=row(2.0, 5.0, 2.0, -INF, 2.0))


def test_negative_logits_are_ranked_too() -> None:
    """-1 is larger than -2; a dropped token must be below every kept one, so 0 is wrong."""
    answers(top_k, row(-3.0, -1.0, -2.0), 2, want=row(-INF, -1.0, -2.0))


def test_each_row_has_its_own_kth() -> None:
    """The second row is smaller throughout."""
    rows = torch.tensor([[9.0, 8.0, 7.0], [1.0, 2.0, 3.0]])
    answers(top_k, rows, 2, want=torch.tensor([[9.0, 8.0, -INF], [-INF, 2.0, 3.0]]))


def test_banned_tokens_stay_banned() -> None:
    """Two of four can be chosen; k = 3 does not restore a third."""
    answers(top_k, row(-INF, 1.0, -INF, 2.0), 3, want=row(-INF, 1.0, -INF, 2.0))


def test_exactly_k_stay_where_there_are_no_ties() -> None:
    """Fifty random rows of 30, all k."""
    rows = torch.randn(50, 30, dtype=torch.float64)
    for k in (1, 2, 7, 29):
        agree(f"tokens that top_k(…, {k}) keeps", top_k(rows, k).isfinite().sum(-1), torch.full((50,), k))

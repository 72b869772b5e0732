"""Attention's scores, written again: single products that can be worked out on paper, then half precision, then a sweep."""

import math

import torch
from torch import Tensor

from conformance.katas.testing.compare import answers
from nanollama.model.layers import Scores

INF = math.inf
LN2 = math.log(2)  # tanh(ln 2) is 3/5: e^ln 2 = 2, and (2 - 1/2) / (2 + 1/2) = 3/5


def heads(*tokens: list[float]) -> Tensor:
    """One row, one head, a vector a token: [1, 1, T, D]."""
    return torch.tensor([[tokens]])


def seen(*rows: list[int]) -> Tensor:
    """Which keys (columns) each query (row) may see: bool [1, 1, T, S]."""
    return torch.tensor([[rows]]).bool()


def in_plain_python(q: Tensor, k: Tensor, allowed: Tensor, scale: float, cap: float) -> Tensor:
    """Every score from its definition, one number at a time."""
    want = torch.full((*q.shape[:3], k.shape[2]), -INF, dtype=torch.float64)
    for row in range(q.shape[0]):
        for head in range(q.shape[1]):
            for query, key in allowed[row, 0].nonzero().tolist():
                product = sum(a * b for a, b in zip(q[row, head, query].tolist(), k[row, head, key].tolist(), strict=True))
                want[row, head, query, key] = cap * math.tanh(product * scale / cap)
    return want


def test_a_score_is_the_product_of_query_and_key() -> None:
    """3 · 3 + 4 · 4 is 25; an orthogonal key, (4, -3), gets 12 - 12 = 0."""
    q, k = heads([3.0, 4.0]), heads([3.0, 4.0], [4.0, -3.0])
    answers(Scores(1.0, None).forward, q, k, seen([1, 1]), want=torch.tensor([[[[25.0, 0.0]]]]))


def test_the_scale_multiplies_each_score_once() -> None:
    """25 · 1/5 is 5. Twice it would be 1."""
    q = k = heads([3.0, 4.0])
    answers(Scores(0.2, None).forward, q, k, seen([1]), want=torch.tensor([[[[5.0]]]]))


def test_queries_are_rows_and_keys_are_columns() -> None:
    """Two queries, three keys: query 1 and key 2 meet in row 1, column 2."""
    q, k = heads([1.0, 0.0], [0.0, 1.0]), heads([1.0, 2.0], [3.0, 4.0], [5.0, 6.0])
    want = torch.tensor([[[[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]]])
    answers(Scores(1.0, None).forward, q, k, seen([1, 1, 1], [1, 1, 1]), want=want)


def test_masked_scores_are_minus_infinity() -> None:
    """Not 0, which a softmax turns into something: e^0 is 1, e^-inf is 0."""
    q, k = heads([1.0], [1.0]), heads([5.0], [7.0])
    want = torch.tensor([[[[5.0, -INF], [5.0, 7.0]]]])
    answers(Scores(1.0, None).forward, q, k, seen([1, 0], [1, 1]), want=want)


def test_every_head_of_a_row_has_the_rows_mask() -> None:
    """Two rows, three heads each: the mask is [2, 1, T, S] and broadcasts to all three."""
    q, k = torch.ones(2, 3, 1, 1), torch.ones(2, 3, 2, 1)
    allowed = torch.cat((seen([1, 0]), seen([0, 1])))
    want = torch.tensor([[[[1.0, -INF]]] * 3, [[[-INF, 1.0]]] * 3])
    answers(Scores(1.0, None).forward, q, k, allowed, want=want)


def test_a_cap_bends_large_scores() -> None:
    """cap · tanh(score / cap), with a score of 5 ln 2 and a cap of 5: 5 · 3/5 is 3."""
    answers(Scores(1.0, 5.0).forward, heads([5 * LN2]), heads([1.0]), seen([1]), want=torch.tensor([[[[3.0]]]]))


def test_the_cap_is_for_the_scaled_score() -> None:
    """q·k is 50 ln 2, scaled by 1/10 it is 5 ln 2: 3 again. Capped first it would be 5/10."""
    answers(Scores(0.1, 5.0).forward, heads([50 * LN2]), heads([1.0]), seen([1]), want=torch.tensor([[[[3.0]]]]))


def test_the_mask_comes_after_the_cap() -> None:
    """cap · tanh(-inf / cap) is -cap, which has a weight; -inf has none."""
    q, k = heads([5 * LN2]), heads([1.0], [1.0])
    answers(Scores(1.0, 5.0).forward, q, k, seen([1, 0]), want=torch.tensor([[[[3.0, -INF]]]]))


def test_float16_does_not_overflow() -> None:
    """300 · 300 + 300 · 300 is 180,000, above float16's 65,504: the product needs float32, and stays in it."""
    q = heads([300.0, 300.0]).half()
    answers(Scores(1.0, None).forward, q, q, seen([1]), want=torch.tensor([[[[180_000.0]]]]))


def test_bfloat16_keeps_neighbouring_scores_apart() -> None:
    """257 and 256: bfloat16 has no 257, so a product rounded to it would make them equal."""
    q, k = heads([16.0, 1.0]).bfloat16(), heads([16.0, 1.0], [16.0, 0.0]).bfloat16()
    answers(Scores(1.0, None).forward, q, k, seen([1, 1]), want=torch.tensor([[[[257.0, 256.0]]]]))


def test_a_sweep_in_float64_against_the_definition() -> None:
    """Two rows, three heads, two queries, four keys of size 5, with scale, cap and a random mask."""
    q, k = torch.randn(2, 3, 2, 5, dtype=torch.float64), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    allowed = torch.rand(2, 1, 2, 4) < 0.7
    want = in_plain_python(q, k, allowed, 0.7, 1.5)
    answers(Scores(0.7, 1.5).forward, q, k, allowed, want=want, within=1e-12)

"""Attention, written again: two keys and their weights on paper, then heads that share keys, then a model's numbers."""

import math

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree, answers
from conformance.katas.testing.golden import AGREES, tap, weight
from nanollama.model.kv_cache import KVView
from nanollama.model.layers import Attend
from nanollama.model.rope import default_frequencies, rotate

LN3 = math.log(3)  # scores of 0 and ln 3 become weights of 1/4 and 3/4
FAMILY = "MistralForCausalLM"


def attend(scale: float = 1.0, cap: float | None = None) -> Attend:
    """The module, without a fused kernel."""
    made = Attend(scale, cap)
    made.implementation = "eager"
    return made


def heads(*tokens: list[float]) -> Tensor:
    """One row, one head, a vector a token: [1, 1, T, D]."""
    return torch.tensor([[tokens]])


def seen(*rows: list[int]) -> KVView:
    """Which keys (columns) each query (row) may see."""
    made = KVView(torch.zeros(1, 1, dtype=torch.int64), None, None, torch.device("cpu"))
    made.causal, made.allowed = False, torch.tensor([[rows]]).bool()
    return made


def projected(name: str, count: int) -> Tensor:
    """The output of q_proj, k_proj or v_proj of the model's first layer: [1, heads, 16, 8]."""
    matrix = weight(FAMILY, f"model.layers.0.self_attn.{name}.weight", count * 8, 60)
    return (tap(FAMILY, "near/layers.0.input_layernorm") @ matrix.T).unflatten(-1, (count, 8)).transpose(1, 2)


def test_a_query_collects_values_by_the_softmax_of_its_scores() -> None:
    """Scores 0 and ln 3, so weights 1/4 and 3/4: 1/4 of 8 and 3/4 of 4 is 5."""
    q, k, v = heads([LN3]), heads([0.0], [1.0]), heads([8.0], [4.0])
    answers(attend().eager, q, k, v, seen([1, 1]), want=torch.tensor([[[[5.0]]]]))


def test_equal_scores_give_the_mean() -> None:
    """Three keys that match equally: (1 + 2 + 6) / 3 is 3."""
    q, k, v = heads([1.0]), heads([1.0], [1.0], [1.0]), heads([1.0], [2.0], [6.0])
    answers(attend().eager, q, k, v, seen([1, 1, 1]), want=torch.tensor([[[[3.0]]]]))


def test_a_value_is_mixed_whole() -> None:
    """Weights 1/4 and 3/4 for each of its numbers."""
    q, k, v = heads([LN3]), heads([0.0], [1.0]), heads([8.0, 0.0, 4.0], [4.0, 4.0, 0.0])
    answers(attend().eager, q, k, v, seen([1, 1]), want=torch.tensor([[[[5.0, 3.0, 1.0]]]]))


def test_the_scale_and_the_cap_are_those_of_the_scores() -> None:
    """2 ln 3 at scale 1/2 is ln 3. With a cap of ln √3 a huge score is ln √3: the weights are as 1 to √3."""
    q, k, v = heads([2 * LN3]), heads([0.0], [1.0]), heads([8.0], [4.0])
    answers(attend(0.5).eager, q, k, v, seen([1, 1]), want=torch.tensor([[[[5.0]]]]))
    want = torch.tensor([[[[8 - 4 * 3**0.5 / (1 + 3**0.5)]]]])
    answers(attend(100.0, LN3 / 2).eager, q, k, v, seen([1, 1]), want=want)


def test_masked_keys_have_no_weight() -> None:
    """Two queries: the first sees the first key only, the second both, whose weights are equal."""
    q, k, v = heads([0.0], [0.0]), heads([1.0], [1.0]), heads([8.0], [4.0])
    answers(attend().eager, q, k, v, seen([1, 0], [1, 1]), want=torch.tensor([[[[8.0], [6.0]]]]))


def test_neighbouring_heads_share_a_value() -> None:
    """Four query heads, two key/value heads: 0 and 1 use the first, 2 and 3 the second. Not 0 and 2, 1 and 3."""
    q, k, v = torch.ones(1, 4, 1, 1), torch.ones(1, 2, 1, 1), torch.tensor([[[[8.0]], [[4.0]]]])
    answers(attend().eager, q, k, v, seen([1]), want=torch.tensor([8.0, 8.0, 4.0, 4.0]).view(1, 4, 1, 1))


def test_neighbouring_heads_share_a_key() -> None:
    """Six query heads, two key heads: the first prefers the token with value 8 (3/4: 7), the second the one with 4 (5)."""
    q = torch.full((1, 6, 1, 1), LN3)
    k = torch.tensor([[[[1.0], [0.0]], [[0.0], [1.0]]]])
    v = torch.tensor([[[[8.0], [4.0]], [[8.0], [4.0]]]])
    want = torch.tensor([7.0, 7.0, 7.0, 5.0, 5.0, 5.0]).view(1, 6, 1, 1)
    answers(attend().eager, q, k, v, seen([1, 1]), want=want)


def test_rows_don_t_meet() -> None:
    """Two rows of one token each: each gets its value back."""
    q = k = torch.ones(2, 1, 1, 1)
    v = torch.tensor([3.0, 7.0]).view(2, 1, 1, 1)
    answers(attend().eager, q, k, v, seen([1]), want=v.clone())


def test_low_precision_comes_back_in_low_precision() -> None:
    """float16, with products of 180,000 and 0, which overflow it: all weight is on the first key, and the result is 8."""
    q, k = heads([300.0, 300.0]).half(), heads([300.0, 300.0], [300.0, -300.0]).half()
    want = torch.tensor([[[[8.0]]]]).half()
    answers(attend().eager, q, k, heads([8.0], [4.0]).half(), seen([1, 1]), want=want)


def test_weights_add_up_to_one() -> None:
    """If all values are equal, the result equals them, whatever the scores."""
    q, k = torch.randn(2, 6, 3, 4, dtype=torch.float64), torch.randn(2, 3, 5, 4, dtype=torch.float64)
    v = torch.full((2, 3, 5, 4), 7.0, dtype=torch.float64)
    got = attend().eager(q, k, v, seen([1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [0, 0, 1, 0, 0]))
    agree("Attend.eager, of values that are all 7", got, torch.full_like(q, 7.0), within=1e-12)


def test_the_first_layer_of_a_mistral_model() -> None:
    """12 heads share 3 keys, and a window of 5: transformers' float64 results."""
    positions = torch.arange(16)
    angles = (positions[:, None] * default_frequencies(12345.0, 8))[None, None]
    q, k = (rotate(projected(*each), angles.cos(), angles.sin()) for each in (("q_proj", 12), ("k_proj", 3)))
    view = KVView(positions[None], 5, None, torch.device("cpu"))
    want = tap(FAMILY, "near/layers.0.self_attn.context").unflatten(-1, (12, 8)).transpose(1, 2)
    answers(attend(8**-0.5).eager, q, k, projected("v_proj", 3), view, want=want, within=AGREES)

"""Attention by torch's fused kernel, written again: the same result as the definition, with the best arguments."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from conformance.katas.testing.compare import agree
from conformance.models.fixtures import fixture_config
from nanollama.model.config import read_config
from nanollama.model.kv_cache import KVCache, KVView
from nanollama.model.layers import Attend

CLOSE = 1e-12  # two honest float64 programs differ by about 1e-15 here


class Calls(TorchFunctionMode):
    """Records how the fused kernel is called inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.queries: list[list[int]] = []
        self.plainly_causal: list[bool] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called instead of every function of torch."""
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args, strict=False)) | kwargs
            self.queries.append(list(given["query"].shape))
            self.plainly_causal.append(given.get("attn_mask") is None and given.get("is_causal", False))
        return func(*args, **kwargs)


def seen(positions: list[list[int]], window: int | None = None) -> KVView:
    """The view of a call without a cache."""
    return KVView(torch.tensor(positions), window, None, torch.device("cpu"))


def next_token(count: int, slots: int) -> KVView:
    """The view of one token after `count` others, in a cache of so many slots."""
    config = replace(read_config(fixture_config("LlamaForCausalLM")), windows=(None,))
    cache = KVCache(config, 1, slots, torch.float64)
    cache.advance(KVView(torch.arange(count)[None], None, cache, torch.device("cpu")).positions)
    return KVView(torch.tensor([[count]]), None, cache, torch.device("cpu"))


def heads(B: int, H: int, T: int, D: int = 6) -> Tensor:
    """Random vectors, float64 [B, H, T, D], spread widely enough that attention is sharp."""
    return 2 * torch.randn(B, H, T, D, dtype=torch.float64)


def definition(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, scale: float) -> Tensor:
    """Every query head alone: softmax of q · k · scale over the allowed keys, then the weighted sum of values."""
    share = q.shape[1] // k.shape[1]
    out = []
    for head in range(q.shape[1]):
        scores = torch.einsum("btd,bsd->bts", q[:, head], k[:, head // share]) * scale
        weights = scores.masked_fill(~allowed[:, 0], -torch.inf).exp()
        out.append(torch.einsum("bts,bsd->btd", weights / weights.sum(-1, keepdim=True), v[:, head // share]))
    return torch.stack(out, 1)


def same(q: Tensor, k: Tensor, v: Tensor, view: KVView, scale: float = 0.3) -> Calls:
    """Attend.sdpa must compute the definition, in one call of the fused kernel; returns how it was called."""
    with Calls() as calls:
        got = Attend(scale, None).sdpa(q, k, v, view)
    agree("Attend.sdpa", got, definition(q, k, v, view.allowed, scale), within=CLOSE)
    agree("how often the fused kernel was called", len(calls.queries), 1)
    return calls


def test_one_query_collects_the_mean_of_equal_keys() -> None:
    """Two keys with equal scores: half of 2 and half of 4 is 3."""
    q, k, v = torch.ones(1, 1, 1, 2), torch.ones(1, 1, 2, 2), torch.tensor([[[[2.0, 0.0], [4.0, 8.0]]]])
    agree("Attend.sdpa", Attend(1.0, None).sdpa(q, k, v, next_token(1, 2)), torch.tensor([[[[3.0, 4.0]]]]))


def test_the_scale_is_the_models_own() -> None:
    """q · k is 2 and 0; times ln 3 / 2 it is ln 3 and 0: weights 3/4 and 1/4. The kernel's default scale is 1/2."""
    scale, k = math.log(3) / 2, torch.tensor([[[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]]])
    q, v = torch.tensor([[[[2.0, 0.0, 0.0, 0.0]]]]), torch.tensor([[[[4.0] * 4, [8.0] * 4]]])
    one = Attend(scale, None).sdpa(q, k, v, next_token(1, 2))
    agree("Attend.sdpa, one query", one, torch.full((1, 1, 1, 4), 5.0))
    two = Attend(scale, None).sdpa(q.repeat(1, 1, 2, 1), k, v, seen([[0, 1]]))
    agree("Attend.sdpa, two queries", two, torch.tensor([[[[4.0] * 4, [5.0] * 4]]]))


def test_several_queries_see_what_is_before_them() -> None:
    """Five tokens in order: a plain causal call, so the kernel needs no mask and skips masked keys."""
    calls = same(heads(2, 3, 5), heads(2, 3, 5), heads(2, 3, 5), seen([[0, 1, 2, 3, 4]] * 2))
    agree("whether the kernel got is_causal and no mask", calls.plainly_causal, [True])


def test_a_window_and_padding_need_the_mask() -> None:
    """A window of 2 over five tokens; rows that begin with padding."""
    same(heads(1, 3, 5), heads(1, 3, 5), heads(1, 3, 5), seen([[0, 1, 2, 3, 4]], window=2))
    same(heads(2, 3, 4), heads(2, 3, 4), heads(2, 3, 4), seen([[-1, 0, 1, 2], [0, 1, 2, 3]]))


def test_neighbouring_query_heads_share_a_key_head() -> None:
    """Six query heads, two key heads: 0, 1, 2 use the first, 3, 4, 5 the second."""
    same(heads(2, 6, 5), heads(2, 2, 5), heads(2, 2, 5), seen([[0, 1, 2, 3, 4]] * 2))
    same(heads(2, 6, 5), heads(2, 2, 5), heads(2, 2, 5), seen([[-1, -1, 0, 1, 2], [0, 1, 2, 3, 4]]))


def test_no_other_size_is_taken_for_the_heads() -> None:
    """As many rows and keys as query heads: four of each, with two key heads."""
    same(heads(4, 4, 4), heads(4, 2, 4), heads(4, 2, 4), seen([[0, 1, 2, 3]] * 4))


def test_a_single_query_sees_what_is_in_the_cache() -> None:
    """The fourth token after three; the fifth slot is empty, and its key must not count."""
    same(heads(1, 3, 1), heads(1, 3, 5), heads(1, 3, 5), next_token(3, 5))


def test_for_a_single_query_the_heads_that_share_a_key_become_queries() -> None:
    """Six heads over two: the kernel gets [1, 2, 3, 6], three queries for each key head, and no key is copied."""
    calls = same(heads(1, 6, 1), heads(1, 2, 5), heads(1, 2, 5), next_token(3, 5))
    agree("the shape of the queries that the kernel got", calls.queries, [[1, 2, 3, 6]])


def test_two_queries_are_several() -> None:
    """Several queries, grouped like a single one, would lose their order."""
    same(heads(1, 6, 2), heads(1, 2, 2), heads(1, 2, 2), seen([[0, 1]]))


def test_the_dtype_is_that_of_the_queries() -> None:
    """bfloat16 in, bfloat16 out; for one query and for several."""
    for T, view in ((1, next_token(1, 2)), (2, seen([[0, 1]]))):
        q, k, v = heads(1, 4, T).bfloat16(), heads(1, 2, 2).bfloat16(), heads(1, 2, 2).bfloat16()
        agree("the dtype of Attend.sdpa", str(Attend(1.0, None).sdpa(q, k, v, view).dtype), "torch.bfloat16")

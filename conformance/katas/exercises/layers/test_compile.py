"""Shapes that rarely change: buckets counted on paper, then the number of programs that torch.compile makes."""

import math

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree, answers
from conformance.katas.testing.programs import programs
from nanollama.model.kv_cache import bucketed


def attend(keys: Tensor, values: Tensor, allowed: Tensor, slots: int) -> Tensor:
    """Attention of a query of ones to the first `slots` slots, with a mask over all slots."""
    scores = keys[:slots].sum(1).masked_fill(~allowed[:slots], -math.inf)
    return scores.softmax(0) @ values[:slots]


def test_a_bucket_is_read_whole() -> None:
    """Buckets of 64: 1 to 64 tokens need one bucket; the 65th needs another."""
    for tokens, slots in ((1, 64), (63, 64), (64, 64), (65, 128), (128, 128), (129, 192)):
        answers(bucketed, tokens, 1000, want=slots)


def test_no_more_is_read_than_there_is() -> None:
    """150 slots are two buckets and a part; a ring of 10 is less than one."""
    for tokens, size, slots in ((128, 150, 128), (129, 150, 150), (150, 150, 150), (3, 10, 10), (64, 64, 64)):
        answers(bucketed, tokens, size, want=slots)


def test_a_long_ago_full_ring_is_read_whole() -> None:
    """A ring with 500 tokens still has 100 slots."""
    answers(bucketed, 500, 100, want=100)


def test_every_token_is_read_and_few_empty_slots() -> None:
    """For any number of tokens and any cache size: all tokens are read, and fewer than 64 other slots."""
    for size in (1, 63, 64, 65, 200):
        for tokens in range(1, size + 1):
            agree(f"whether all of {tokens} tokens are read, of {size} slots", bucketed(tokens, size) >= tokens, True)
            agree(
                f"whether {bucketed(tokens, size)} slots for {tokens} are too many", bucketed(tokens, size) - tokens < 64, True
            )


def test_a_thousand_tokens_make_sixteen_shapes() -> None:
    """1000 / 64 is 15.6."""
    agree("how many numbers bucketed returns for 1 … 1000 tokens", len({bucketed(n, 1000) for n in range(1, 1001)}), 16)


def test_slots_that_are_empty_change_nothing() -> None:
    """Masked slots have no weight: 64 slots with 5 tokens give the same as the 5 alone."""
    keys, values = torch.randn(100, 4), torch.randn(100, 3)
    for tokens in (1, 5, 70):
        allowed = torch.arange(100) < tokens
        got = attend(keys, values, allowed, bucketed(tokens, 100))
        agree(f"attention over {tokens} tokens", got, attend(keys, values, allowed, tokens), within=1e-5)


def test_seven_tokens_need_two_programs() -> None:
    """Tokens 61 … 67, compiled for exact shapes: one program up to 64, then another; not seven."""
    keys, values = torch.randn(100, 4), torch.randn(100, 3)
    calls = [(keys, values, torch.arange(100) < tokens, bucketed(tokens, 100)) for tokens in range(61, 68)]
    agree("how many programs torch.compile makes for tokens 61 … 67", programs(attend, calls), 2)

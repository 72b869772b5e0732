"""The key/value cache, written again: one number per token, so that a cache is a list of numbers; then attention in pieces."""

from dataclasses import replace

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree, answers
from conformance.models.fixtures import fixture_config
from nanollama.model.config import read_config
from nanollama.model.kv_cache import KVCache, KVView
from nanollama.model.layers import Attend

CPU = torch.device("cpu")


def cache(slots: int, rows: int = 1, window: int | None = None, heads: int = 1, size: int = 1) -> KVCache:
    """An empty cache of one layer."""
    config = read_config(fixture_config("LlamaForCausalLM"))
    config = replace(config, num_key_value_heads=heads, head_dim=size, windows=(window,))
    return KVCache(config, rows, slots, torch.float32)


def call(held: KVCache, *positions: list[int]) -> KVView:
    """The view of a call with tokens at these positions, one list per row."""
    [window] = held.positions
    return KVView(torch.tensor(positions), window, held, CPU)


def numbers(*rows: list[int]) -> Tensor:
    """One number per token: [B, 1, T, 1]."""
    return torch.tensor(rows, dtype=torch.float32)[:, None, :, None]


def filled(held: KVCache, *keys: list[int]) -> KVCache:
    """The cache after one call with these keys, at positions 0, 1, 2, …; a value is minus its key."""
    view = call(held, *(list(range(len(row))) for row in keys))
    held.layers[0].append(numbers(*keys), -numbers(*keys), view)
    held.advance(view.positions)
    return held


def test_the_first_call_sees_its_own_keys_and_values() -> None:
    """The cache is empty: the result is the input."""
    held = cache(6)
    k, v = numbers([1, 2, 3]), numbers([4, 5, 6])
    answers(held.layers[0].append, k, v, call(held, [0, 1, 2]), want=(k, v))


def test_the_keys_and_values_of_a_call_are_stored() -> None:
    """Three tokens in slots 0, 1, 2 of six; the seventh is for padding."""
    held = cache(6)
    held.layers[0].append(numbers([1, 2, 3]), numbers([4, 5, 6]), call(held, [0, 1, 2]))
    agree("the cache's keys", held.layers[0].k, numbers([1, 2, 3, 0, 0, 0, 0]))
    agree("the cache's values", held.layers[0].v, numbers([4, 5, 6, 0, 0, 0, 0]))


def test_the_next_token_sees_what_was_kept_and_itself() -> None:
    """The fourth token, with key 4: all six slots are returned. The mask decides which of them count."""
    held = filled(cache(6), [1, 2, 3])
    want = numbers([1, 2, 3, 4, 0, 0]), numbers([-1, -2, -3, -4, 0, 0])
    answers(held.layers[0].append, numbers([4]), numbers([-4]), call(held, [3]), want=want)


def test_no_more_slots_are_read_than_the_views_extent() -> None:
    """A cache of 100 slots, of which the view reads 64: four tokens and sixty zeros."""
    held = filled(cache(100), [1, 2, 3])
    got, _ = held.layers[0].append(numbers([4]), numbers([-4]), call(held, [3]))
    agree("the keys that are returned", got, numbers([1, 2, 3, 4, *[0] * 60]))


def test_a_token_goes_into_the_slot_of_its_position() -> None:
    """Two rows, of three tokens and of one: their next tokens belong in slots 3 and 1."""
    held = cache(4, rows=2)
    first = call(held, [0, 1, 2], [0, -1, -1])
    held.layers[0].append(numbers([1, 2, 3], [7, 0, 0]), numbers([1, 2, 3], [7, 0, 0]), first)
    held.advance(first.positions)
    want = numbers([1, 2, 3, 4], [7, 8, 0, 0])
    answers(held.layers[0].append, numbers([4], [8]), numbers([4], [8]), call(held, [3], [1]), want=(want, want))


def test_padding_is_not_kept_where_anybody_reads() -> None:
    """The first of three tokens is padding (-1) with key 9: it must not be in one of the four slots."""
    held = cache(4)
    held.layers[0].append(numbers([9, 1, 2]), numbers([9, 1, 2]), call(held, [-1, 0, 1]))
    agree("the four slots", held.layers[0].k[:, :, :4], numbers([1, 2, 0, 0]))


def test_heads_and_tokens_are_not_mixed() -> None:
    """Two heads of three numbers, four tokens: each keeps its place."""
    held = cache(5, heads=2, size=3)
    k = torch.arange(24.0).view(1, 2, 4, 3)
    held.layers[0].append(k, -k, call(held, [0, 1, 2, 3]))
    agree("the keys of four slots", held.layers[0].k[:, :, :4], k)
    agree("the values of four slots", held.layers[0].v[:, :, :4], -k)


def test_a_ring_takes_the_place_of_its_oldest_token() -> None:
    """A window of 3, three tokens held; the fourth, at position 3, goes into slot 0 and sees itself and the two before."""
    held = filled(cache(9, window=3), [1, 2, 3])
    want = numbers([4, 2, 3]), numbers([-4, -2, -3])
    answers(held.layers[0].append, numbers([4]), numbers([-4]), call(held, [3]), want=want)


def test_a_chunk_reads_a_ring_before_it_overwrites_it() -> None:
    """Two tokens: the first still needs key 2, whose slot the second overwrites. So: the ring from before, and then both."""
    held = filled(cache(9, window=3), [1, 2, 3])
    want = numbers([1, 2, 3, 4, 5]), numbers([-1, -2, -3, -4, -5])
    answers(held.layers[0].append, numbers([4, 5]), numbers([-4, -5]), call(held, [3, 4]), want=want)
    agree("the ring afterwards", held.layers[0].k[:, :, :3], numbers([4, 5, 3]))


def test_a_text_in_pieces_gives_what_it_gives_at_once() -> None:
    """Twelve tokens in five calls, without a window and with one of 3: the result of attention must be the same."""
    q, k, v = torch.randn(3, 1, 2, 12, 4)
    attend = Attend(0.5, None)
    for window in (None, 3):
        at_once = attend.eager(q, k, v, KVView(torch.arange(12)[None], window, None, CPU))
        held, outs = cache(12, window=window, heads=2, size=4), []
        for piece in torch.arange(12).split([3, 1, 4, 1, 3]):
            view = call(held, piece.tolist())
            outs.append(attend.eager(q[:, :, piece], *held.layers[0].append(k[:, :, piece], v[:, :, piece], view), view))
            held.advance(view.positions)
        agree(f"attention in five pieces, window {window}", torch.cat(outs, 2), at_once, within=1e-5)

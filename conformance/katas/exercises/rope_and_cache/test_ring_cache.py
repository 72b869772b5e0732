"""Slots, written again: a ring of three by hand, then the table of the position in every slot."""

import random
from dataclasses import replace

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree, answers
from conformance.models.fixtures import fixture_config
from nanollama.model.config import read_config
from nanollama.model.kv_cache import KVCache, KVView, slots_of


def at(*rows: list[int]) -> Tensor:
    """Positions or slots, int64 [B, T]."""
    return torch.tensor(rows)


def cache(slots: int, rows: int = 1, window: int | None = None) -> KVCache:
    """An empty cache of one layer."""
    config = replace(read_config(fixture_config("LlamaForCausalLM")), windows=(window,))
    return KVCache(config, rows, slots, torch.float32)


def call(held: KVCache, *positions: list[int]) -> KVView:
    """The view of a call with tokens at these positions; the cache counts them afterwards."""
    [window] = held.positions
    view = KVView(at(*positions), window, held, torch.device("cpu"))
    held.advance(view.positions)
    return view


def table(held: KVCache) -> Tensor:
    """The position of the token in every readable slot."""
    [(window, positions)] = held.positions.items()
    return positions[:, : held.size(window)]


def test_position_p_has_slot_p() -> None:
    """While the ring has room."""
    answers(slots_of, at([0, 1, 2]), 8, want=at([0, 1, 2]))
    answers(slots_of, at([5]), 8, want=at([5]))


def test_a_ring_begins_again() -> None:
    """Three slots: positions 3, 4, 5 use those of 0, 1, 2; 7 mod 3 is 1."""
    answers(slots_of, at([3, 4, 5]), 3, want=at([0, 1, 2]))
    answers(slots_of, at([7]), 3, want=at([1]))


def test_padding_goes_to_the_extra_slot() -> None:
    """-1 mod 3 would be slot 2, which belongs to a token; slot 3, after the ring, is for padding."""
    answers(slots_of, at([-1, -1, 0]), 3, want=at([3, 3, 0]))


def test_of_a_long_call_a_ring_keeps_the_end() -> None:
    """Five tokens for three slots: 2, 3, 4 are kept. 0 and 1 can't be overwritten in the same call: a scatter has no order."""
    answers(slots_of, at([0, 1, 2, 3, 4]), 3, want=at([3, 3, 2, 0, 1]))


def test_each_row_has_its_own_end() -> None:
    """Row 0 ends at 3 and keeps 2 and 3, row 1 ends at 1 and keeps both of its tokens."""
    answers(slots_of, at([0, 1, 2, 3], [0, 1, -1, -1]), 2, want=at([2, 2, 0, 1], [0, 1, 2, 2]))


def test_no_slot_is_taken_twice() -> None:
    """Thirty calls: each readable slot has one token at most, and the newest token has a slot."""
    draw = random.Random(0)
    for _ in range(30):
        start, count, size = draw.randrange(9), draw.randrange(1, 12), draw.randrange(1, 7)
        slots = slots_of(torch.arange(start, start + count)[None], size)[0].tolist()
        taken = [slot for slot in slots if slot != size]
        agree("how many slots are taken", len(set(taken)), min(count, size))
        agree("how often", len(taken), min(count, size))
        agree("the slot of the newest", slots[-1], (start + count - 1) % size)


def test_the_table_holds_the_position_of_every_slot() -> None:
    """Three tokens in four slots, then two more, the second of which uses slot 0 again; -1 marks empty slots."""
    held = cache(9, window=4)
    call(held, [0, 1, 2])
    agree("the table after three tokens", table(held), at([0, 1, 2, -1]))
    call(held, [3, 4])
    agree("the table after five", table(held), at([4, 1, 2, 3]))


def test_the_view_knows_row_and_slot_of_every_token() -> None:
    """Two rows; the layers index with these two tensors."""
    held = cache(9, rows=2, window=3)
    view = call(held, [2, 3], [0, -1])
    agree("KVView.slots", view.slots, at([2, 0], [0, 3]))
    agree("KVView.rows", view.rows, at([0], [1]))


def test_one_token_reads_the_table_with_itself_in_it() -> None:
    """A ring of three, four tokens: the fourth is in slot 0."""
    held = cache(9, window=3)
    call(held, [0, 1, 2])
    agree("KVView.key_positions", call(held, [3]).key_positions, at([3, 1, 2]))


def test_a_chunk_reads_a_ring_as_it_was_and_then_itself() -> None:
    """Two tokens after three: 0, 1, 2 from before, then 3 and 4."""
    held = cache(9, window=3)
    call(held, [0, 1, 2])
    agree("KVView.key_positions", call(held, [3, 4]).key_positions, at([0, 1, 2, 3, 4]))
    agree("the table", table(held), at([3, 4, 2]))


def test_an_empty_cache_is_not_read() -> None:
    """The first call sees its own tokens, padding included; the next call reads the table."""
    held = cache(9, window=3)
    agree("KVView.key_positions", call(held, [-1, 0, 1]).key_positions, at([-1, 0, 1]))
    agree("the table", table(held), at([0, 1, -1]))


def test_the_key_positions_of_a_view_do_not_change() -> None:
    """A later call changes the table, but not the key positions of an earlier one."""
    held = cache(4)
    call(held, [0])
    view = call(held, [1])
    call(held, [2])
    agree("KVView.key_positions, a call later", view.key_positions, at([0, 1, -1, -1]))


def test_slots_are_read_in_buckets_of_64() -> None:
    """64 tokens fit one bucket, the 65th needs a second; the third would end after the 150 slots."""
    held = cache(150)
    call(held, list(range(63)))
    for position, extent in ((63, 64), (64, 128), (127, 128), (128, 150)):
        view = call(held, [position])
        agree(f"KVView.extent, with the token at {position}", view.extent, extent)
        agree("how many key positions there are", view.key_positions.shape[1], extent)


def test_the_longest_row_decides_how_many_are_read() -> None:
    """One row has 70 tokens and gets none, the other gets its second: 128 slots, whichever row is the long one."""
    many, few = list(range(70)), [0] + [-1] * 69
    for long_row, rows, new in ((0, (many, few), ([-1], [1])), (1, (few, many), ([1], [-1]))):
        held = cache(200, rows=2)
        call(held, *rows)
        agree(f"KVView.extent, where row {long_row} is the long one", call(held, *new).extent, 128)


def test_any_calls_leave_the_newest_of_every_slot() -> None:
    """Twenty rings, filled in random pieces: slot s holds the last position that is s mod the size of the ring."""
    draw = random.Random(0)
    for _ in range(20):
        window, total = draw.randrange(1, 7), draw.randrange(1, 30)
        held, start = cache(40, window=window), 0
        while start < total:
            end = min(total, start + draw.randrange(1, 9))
            call(held, list(range(start, end)))
            start = end
        want = [max((p for p in range(total) if p % window == slot), default=-1) for slot in range(window)]
        agree(f"the table of a ring of {window} after {total} tokens", table(held), at(want))

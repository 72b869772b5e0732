"""The mask, written again: small tables, then windows, then padding, then arbitrary positions."""

import random

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree, answers
from nanollama.model.kv_cache import visible


def at(*rows: list[int]) -> Tensor:
    """Positions [B, T]."""
    return torch.tensor(rows)


def table(*rows: list[int]) -> Tensor:
    """Queries are rows, keys are columns: bool [1, 1, T, S]."""
    return torch.tensor([[rows]]).bool()


def in_plain_python(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """The rule for one query and one key, applied to every pair."""
    want = torch.zeros(len(queries), 1, queries.shape[1], keys.shape[1], dtype=torch.bool)
    for row, (ours, theirs) in enumerate(zip(queries.tolist(), keys.tolist(), strict=True)):
        for i, query in enumerate(ours):
            oldest = 0 if window is None else max(0, query - window + 1)
            for j, key in enumerate(theirs):
                want[row, 0, i, j] = key in range(oldest, query + 1)
    return want


def test_a_token_sees_itself_and_earlier_tokens() -> None:
    """Three tokens: a triangle, with its diagonal."""
    want = table([1, 0, 0], [1, 1, 0], [1, 1, 1])
    answers(visible, at([0, 1, 2]), at([0, 1, 2]), None, want=want)


def test_the_next_token_sees_every_key_so_far() -> None:
    """One query at position 3 and four keys: three earlier ones and its own."""
    answers(visible, at([3]), at([0, 1, 2, 3]), None, want=table([1, 1, 1, 1]))


def test_a_chunk_sees_what_came_before_it() -> None:
    """Queries at 3 and 4 over five keys. Their places in the call are 0 and 1, but the positions decide."""
    want = table([1, 1, 1, 1, 0], [1, 1, 1, 1, 1])
    answers(visible, at([3, 4]), at([0, 1, 2, 3, 4]), None, want=want)


def test_keys_may_lie_in_any_order() -> None:
    """A ring of four, in which position 4 has taken the place of 0."""
    want = table([0, 1, 1, 0], [1, 1, 1, 1])
    answers(visible, at([2, 4]), at([4, 1, 2, 3]), None, want=want)


def test_a_window_counts_the_token_itself() -> None:
    """A window of 2: itself and one before. A window of 1: itself."""
    positions = at([0, 1, 2, 3])
    want = table([1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1])
    answers(visible, positions, positions, 2, want=want)
    answers(visible, positions, positions, 1, want=torch.eye(4).bool()[None, None])


def test_a_window_for_one_token() -> None:
    """The query at 5 with a window of 3 sees 3, 4 and 5."""
    answers(visible, at([5]), at([0, 1, 2, 3, 4, 5]), 3, want=table([0, 0, 0, 1, 1, 1]))


def test_a_window_is_one_sided() -> None:
    """The query at 1 with a window of 3 sees 0 and 1, but not 2, although it is near."""
    answers(visible, at([1]), at([0, 1, 2, 3]), 3, want=table([1, 1, 0, 0]))


def test_a_window_wider_than_the_text_hides_nothing() -> None:
    """Like no window."""
    answers(visible, at([0, 1]), at([0, 1]), 2, want=table([1, 0], [1, 1]))


def test_each_row_has_its_own_positions() -> None:
    """Two rows: the first is at 1, the second at 2."""
    want = torch.cat((table([1, 1, 0]), table([1, 1, 1])))
    answers(visible, at([1], [2]), at([0, 1, 2], [0, 1, 2]), None, want=want)


def test_where_there_is_no_token_nobody_looks() -> None:
    """-1 means padding or an empty cache slot: lower than any query, but never seen."""
    want = table([0, 1, 0, 0], [0, 1, 1, 0])
    answers(visible, at([0, 1]), at([-1, 0, 1, -1]), None, want=want)
    answers(visible, at([0, 1]), at([-1, 0, 1, -1]), 4, want=want)


def test_a_padded_query_sees_something() -> None:
    """Which key is irrelevant, as the result is never read. But a softmax over no keys is 0 / 0, and NaN spreads."""
    for window in (None, 1):
        got = visible(at([-1, 0, 1]), at([-1, 0, 1]), window)
        agree("visible, does the padded query see a key", got[0, 0, 0].any().item(), True)
        want = table([0, 1, 0], [0, 1, 1]) if window is None else table([0, 1, 0], [0, 0, 1])
        agree("visible, for the other two", got[:, :, 1:], want)


def test_any_positions_against_the_rule_itself() -> None:
    """Twenty draws of two rows, three queries, nine keys in any order, some of them empty, and a window or none."""
    draw = random.Random(0)
    for _ in range(20):
        queries = torch.tensor([[draw.randrange(12) for _ in range(3)] for _ in range(2)])
        keys = torch.tensor([[draw.randrange(-1, 12) for _ in range(9)] for _ in range(2)])
        window = draw.choice([None, 1, 2, 5, 20])
        answers(visible, queries, keys, window, want=in_plain_python(queries, keys, window))

"""The loop, written again: a fake model that counts, so that every token is known in advance."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree
from nanollama.generation.loop import run
from nanollama.generation.request import GenerationDefaults, Piece, Request
from nanollama.generation.row import Row
from nanollama.generation.sampling import SamplingParams

END = 9


class Counting:
    """A model for which the next number is one more: after 3 comes 4. The end token is 9."""

    def __init__(self) -> None:
        self.config = SimpleNamespace(vocab_size=10)
        self.fed: list[list[list[int]]] = []  # the positions of each call
        self.asked: dict[str, Any] = {}  # what new_cache was asked for

    def new_cache(self, batch: int, max_len: int, limits: Any = None) -> str:
        self.asked = {"batch": batch, "max_len": max_len, "limits": limits}
        return "the cache"

    def __call__(self, ids: Tensor, *, cache: Any, positions: Tensor, last_only: bool = False) -> Tensor:
        agree("the cache that the model is given", cache, "the cache")
        self.fed.append(positions.tolist())
        return torch.nn.functional.one_hot((ids[:, -1:] + 1) % 10, 10).double()


def row(index: int, prompt: list[int], most: int | None = None) -> Row:
    """A greedy request, in a context of 20."""
    request = Request(prompt, SamplingParams(temperature=0.0), max_tokens=most)
    return Row(index, request, GenerationDefaults(None, (END,)), None, 10, 20)


def pieces(rows: list[Row], model: Counting | None = None, chunk: int = 100) -> Iterator[Piece]:
    """The loop on these rows; each reading of the clock is a second later than the last."""
    model = model or Counting()
    ticks = iter(range(1000))
    return run(model, model, rows, chunk, lambda: float(next(ticks)))  # type: ignore[arg-type]


def summary(rows: list[Row]) -> list[tuple[int, int | None, str | None]]:
    """Index in the batch, token and finish reason of each piece."""
    return [(piece.index, piece.token_id, piece.finish_reason) for piece in pieces(rows)]


def test_tokens_come_until_the_limit() -> None:
    """After 1 2, three tokens: 3, 4, 5. The third is the last one allowed."""
    agree("the pieces", summary([row(0, [1, 2], 3)]), [(0, 3, None), (0, 4, None), (0, 5, "length")])


def test_the_end_token_ends_it() -> None:
    """After 7 comes 8, then 9: the end, long before the limit of 10."""
    agree("the pieces", summary([row(0, [7], 10)]), [(0, 8, None), (0, 9, "stop")])


def test_a_single_token_may_be_all() -> None:
    """The first token comes from the prefill. With a limit of 1 the model isn't called again."""
    model = Counting()
    agree("the tokens", [piece.token_id for piece in pieces([row(0, [1, 2, 3], 1)], model)], [4])
    agree("the positions of each call", model.fed, [[[0, 1, 2]]])


def test_every_token_but_the_last_goes_back_into_the_model() -> None:
    """Prompt at 0 and 1; then 3 at position 2, 4 at 3; and 5, the last, is not fed."""
    model = Counting()
    list(pieces([row(0, [1, 2], 3)], model))
    agree("the positions of each call", model.fed, [[[0, 1]], [[2]], [[3]]])


def test_the_prompt_goes_in_by_chunks() -> None:
    """Five tokens, two at a time."""
    model = Counting()
    list(pieces([row(0, [1, 2, 3, 4, 5], 1)], model, chunk=2))
    agree("the positions of each call", model.fed, [[[0, 1]], [[2, 3]], [[4]]])


def test_rows_take_turns() -> None:
    """A token of each row, in their order, then the next of each."""
    want = [(0, 2, None), (1, 6, None), (0, 3, "length"), (1, 7, "length")]
    agree("the pieces", summary([row(0, [1], 2), row(1, [5], 2)]), want)


def test_a_row_that_is_done_yields_nothing_more() -> None:
    """After 7 the end comes with the second token; the other row continues alone."""
    want = [(0, 8, None), (1, 2, None), (0, 9, "stop"), (1, 3, None), (1, 4, None), (1, 5, "length")]
    agree("the pieces", summary([row(0, [7], 10), row(1, [1], 4)]), want)


def test_a_row_that_is_done_keeps_its_place() -> None:
    """The model gets padding at -1, so that the shapes don't change."""
    model = Counting()
    list(pieces([row(0, [7], 10), row(1, [1], 4)], model))
    agree("the positions of each call", model.fed, [[[0], [0]], [[1], [1]], [[-1], [2]], [[-1], [3]]])


def test_a_request_for_no_token_gets_a_piece_without_one() -> None:
    """Its piece comes first, and the row is never fed; the others keep their indices."""
    model = Counting()
    rows = [row(0, [1], 1), row(1, [2, 3], 0), row(2, [5], 1)]
    got = [(piece.index, piece.token_id, piece.finish_reason) for piece in pieces(rows, model)]
    agree("the pieces", got, [(1, None, "length"), (0, 2, "length"), (2, 6, "length")])
    agree("the positions of each call", model.fed, [[[0], [0]]])


def test_without_a_token_to_sample_the_model_is_left_alone() -> None:
    """One row, no token: no cache is made."""
    model = Counting()
    agree("the tokens", [piece.token_id for piece in pieces([row(0, [1], 0)], model)], [None])
    agree("the model's calls, and what the cache was asked for", [model.fed, model.asked], [[], {}])


def test_the_cache_has_room_for_prompt_and_answer() -> None:
    """3 + 2 and 1 + 7 tokens: a batch of 2, columns for 8, and each row no longer than it is alone."""
    model = Counting()
    list(pieces([row(0, [1, 2, 3], 2), row(1, [1], 7)], model))
    agree("what new_cache is asked for", model.asked, {"batch": 2, "max_len": 8, "limits": [5, 8]})


def test_nothing_runs_before_it_is_asked_for() -> None:
    """A stream: the first piece needs only the prefill."""
    model = Counting()
    stream = pieces([row(0, [1, 2], 3)], model)
    agree("calls before the first piece", len(model.fed), 0)
    agree("the first token", next(stream).token_id, 3)
    agree("calls after the first piece", len(model.fed), 1)


def test_the_clock_runs_while_the_model_does() -> None:
    """Each step reads the clock before and after: 1 second for the prefill, 1 for each of two more tokens."""
    usage = list(pieces([row(0, [1, 2], 3)]))[-1].usage
    agree("prefill and decode, in seconds", usage and [usage.prefill_seconds, usage.decode_seconds], [1.0, 2.0])


def test_the_clock_stands_still_while_the_caller_is_busy() -> None:
    """A caller that reads the clock 5 times after each piece does not change the times."""
    ticks = iter(range(1000))
    model, usage = Counting(), None
    for piece in run(model, model, [row(0, [1, 2], 3)], 9, lambda: float(next(ticks))):  # type: ignore[arg-type]
        [next(ticks) for _ in range(5)]
        usage = piece.usage
    agree("prefill and decode, in seconds", usage and [usage.prefill_seconds, usage.decode_seconds], [1.0, 2.0])

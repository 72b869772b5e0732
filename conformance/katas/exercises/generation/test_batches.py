"""Batches of prompts, written again: prompts of different length end together, and every row keeps its own positions."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree
from nanollama.generation.loop import decode, prefill

Calls = list[dict[str, Any]]
CACHE: Any = None  # the model here needs none


def row(prompt: list[int], generated: tuple[int, ...] = (), done: bool = False) -> Any:
    """A running request, with the fields that these two functions use."""
    return SimpleNamespace(prompt=prompt, generated=list(generated), done=done)


def model(calls: Calls) -> Any:
    """A model that records its arguments; its logits [B, 1, 3] are the number of calls so far."""

    def forward(ids: Tensor, **options: Any) -> Tensor:
        calls.append({**options, "ids": ids.tolist(), "positions": options["positions"].tolist()})
        return torch.full((len(ids), 1, 3), float(len(calls)))

    return forward


def fed(rows: list[Any], chunk: int = 100) -> list[list[list[list[int]]]]:
    """The arguments of the model in a prefill: ids and positions of each call."""
    calls: Calls = []
    prefill(model(calls), CACHE, rows, chunk)
    return [[call["ids"], call["positions"]] for call in calls]


def test_one_prompt_goes_in_whole() -> None:
    """Three tokens at positions 0, 1, 2."""
    agree("ids and positions", fed([row([7, 8, 9])]), [[[[7, 8, 9]], [[0, 1, 2]]]])


def test_a_shorter_prompt_is_padded_on_the_left() -> None:
    """Both end in the last column. Padding has position -1, and the prompt after it begins at 0."""
    want = [[[[5, 6, 7, 8], [0, 0, 3, 4]], [[0, 1, 2, 3], [-1, -1, 0, 1]]]]
    agree("ids and positions", fed([row([5, 6, 7, 8]), row([3, 4])]), want)


def test_the_token_that_pads_is_a_token_in_a_prompt() -> None:
    """Id 0 pads, but a prompt may contain it: only the position marks padding."""
    agree("ids and positions", fed([row([1, 2, 3]), row([0, 0])]), [[[[1, 2, 3], [0, 0, 0]], [[0, 1, 2], [-1, 0, 1]]]])


def test_long_prompts_go_in_by_chunks() -> None:
    """Five tokens, two at a time: 2, 2 and 1. The last chunk counts like any other."""
    calls = fed([row([1, 2, 3, 4, 5])], chunk=2)
    agree("ids and positions", calls, [[[[1, 2]], [[0, 1]]], [[[3, 4]], [[2, 3]]], [[[5]], [[4]]]])


def test_a_chunk_may_be_all_padding_in_a_short_row() -> None:
    """The first chunk of the second row is only padding."""
    want = [[[[1, 2], [0, 0]], [[0, 1], [-1, -1]]], [[[3, 4], [8, 9]], [[2, 3], [0, 1]]]]
    agree("ids and positions", fed([row([1, 2, 3, 4]), row([8, 9])], chunk=2), want)


def test_the_logits_are_those_of_the_last_chunk() -> None:
    """[B, V] after the prompts' last tokens: the third of three calls, for short prompts too, as all end there."""
    agree("prefill", prefill(model([]), CACHE, [row([1, 2, 3, 4, 5]), row([1])], 2), torch.full((2, 3), 3.0))


def test_the_model_needs_the_last_logits_only_and_the_cache() -> None:
    """A vocabulary of 150,000 times a prompt of 8,000 would be gigabytes."""
    calls: Calls = []
    prefill(model(calls), "the cache", [row([1, 2])], 8)  # type: ignore[arg-type]
    agree("last_only and cache", [calls[0].get("last_only"), calls[0].get("cache")], [True, "the cache"])


def test_a_new_token_comes_after_the_prompt() -> None:
    """A prompt of 3 at 0, 1, 2: the first generated token is at 3."""
    calls: Calls = []
    decode(model(calls), CACHE, [row([1, 2, 3], (44,))])
    agree("ids and positions", [calls[0]["ids"], calls[0]["positions"]], [[[44]], [[3]]])


def test_only_the_newest_token_is_fed() -> None:
    """Of 44, 45 the cache has the first; 45 is at 4. Of 44, 45, 46 it has two; 46 is at 5."""
    calls: Calls = []
    decode(model(calls), CACHE, [row([1, 2, 3], (44, 45))])
    decode(model(calls), CACHE, [row([1, 2, 3], (44, 45, 46))])
    agree("ids and positions", [[call["ids"], call["positions"]] for call in calls], [[[[45]], [[4]]], [[[46]], [[5]]]])


def test_every_row_continues_at_its_own_position() -> None:
    """Prompts of 4 and 1, one token generated: positions 4 and 1, not twice 4."""
    calls: Calls = []
    decode(model(calls), CACHE, [row([1, 2, 3, 4], (9,)), row([1], (8,))])
    agree("ids and positions", [calls[0]["ids"], calls[0]["positions"]], [[[9], [8]], [[4], [1]]])


def test_a_row_that_is_done_is_padding_in_its_old_place() -> None:
    """The middle one of three is done: it is not stored, and the others keep their rows."""
    calls: Calls = []
    rows = [row([1], (5,)), row([1, 2], (6,), done=True), row([1, 2, 3], (7,))]
    logits = decode(model(calls), CACHE, rows)
    agree(
        "positions, and the tokens of live rows", [calls[0]["positions"], calls[0]["ids"][::2]], [[[1], [-1], [3]], [[5], [7]]]
    )
    agree("the shape of decode's logits", list(logits.shape), [3, 3])


def test_prompts_of_every_length_end_in_the_last_column() -> None:
    """Random prompts: without padding, each row has its own tokens at 0, 1, 2 …"""
    lengths = torch.randint(1, 9, (6,)).tolist()
    prompts = [torch.randint(1, 50, (n,)).tolist() for n in lengths]
    calls = fed([row(prompt) for prompt in prompts], chunk=3)
    for b, prompt in enumerate(prompts):
        ids, places = ([each for call in calls for each in call[part][b]] for part in (0, 1))
        real = [(i, p) for i, p in zip(ids, places, strict=True) if p >= 0]
        agree("tokens and positions of a row", real, list(zip(prompt, range(len(prompt)), strict=True)))
        agree("the last position", places[-1], len(prompt) - 1)

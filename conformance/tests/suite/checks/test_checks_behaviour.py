"""The checks of everything around the forward pass: they pass right implementations, and name what is wrong."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.checks import Check, Failed, all_checks
from conformance.checks.generation.rigged import NAN, Pieces, RiggedModel, greedy_answer, hashed
from nanollama.generation import loop, sampling
from nanollama.generation import request as requests
from nanollama.text import detokenizer as stream
from nanollama.text.bpe import merge as segment

AROUND = ("quant.", "gguf.", "tokenizer.", "chat.", "generation.", "checkpoint.")
CHECKS = [check for check in all_checks() if check.name.startswith(AROUND)]


def first_failure(*beginnings: str) -> Failed | None:
    """What the first failing check of these modules says."""
    for check in CHECKS:
        if check.name.startswith(beginnings):
            try:
                check.run()
            except Failed as failed:
                return failed
    return None


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_the_clean_runtime_passes_twice(check: Check) -> None:
    check.run()
    check.run()


@contextmanager
def exchanged(module: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, before)


def top_k_by_rank(logits: Tensor, k: int) -> Tensor:
    """Another algorithm for the same: how many are larger decides."""
    if k == 0:
        return logits.clone()
    larger = (logits[..., None, :] > logits[..., :, None]).sum(-1)
    return torch.where(larger < k, logits, -math.inf)


def top_p_by_token(logits: Tensor, p: float) -> Tensor:
    """Another algorithm for the same: token by token, in Python."""
    if p >= 1:
        return logits
    kept = torch.full_like(logits, -math.inf)
    for row, out in zip(logits, kept, strict=True):
        mass = 0.0
        for token in sorted(range(len(row)), key=lambda i: (-float(row[i]), i)):
            if mass >= p and mass > 0:
                break
            out[token], mass = row[token], mass + float(row.softmax(-1)[token])
    return kept


def draw_by_search(logits: Tensor, u: float) -> Tensor:
    """Another algorithm for the same: binary search in the sums of the tokens that can be drawn."""
    chosen = []
    for row in logits:
        living = row.isfinite().nonzero().flatten()
        if not len(living):
            living = torch.tensor([0])  # nothing to draw from: `pick` says so
        sums = row[living].double().softmax(-1).cumsum(-1)
        place = min(int(torch.searchsorted(sums, u * float(sums[-1]))), len(living) - 1)
        chosen.append(int(living[place]))
    return torch.tensor(chosen)


def merge_naively(symbols: list[str], rank: segment.Rank) -> list[str]:
    """The definition of merging, in quadratic time."""
    while True:
        ranks = [(found, i) for i in range(len(symbols) - 1) if (found := rank(symbols[i], symbols[i + 1])) is not None]
        if not ranks:
            return symbols
        _, at = min(ranks)
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]


def unfinished_by_length(text: str, stops: Sequence[str]) -> int:
    """From the longest end to the shortest, stop by stop."""
    lengths = [n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
    return len(text) - max(lengths, default=0)


@pytest.mark.parametrize(
    ("module", "name", "variant", "beginnings"),
    [
        (sampling, "top_k", top_k_by_rank, ("generation.sampling",)),
        (sampling, "top_p", top_p_by_token, ("generation.sampling",)),
        (sampling, "draw", draw_by_search, ("generation.sampling", "generation.")),
        (sampling, "temperature", lambda logits, t: logits * (1 / t), ("generation.sampling",)),
        (segment, "merge_pairs", merge_naively, ("tokenizer.",)),
        (stream, "unfinished", unfinished_by_length, ("generation.stream", "generation.")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_right_implementation_passes(
    module: Any, name: str, variant: Callable[..., Any], beginnings: tuple[str, ...]
) -> None:
    with exchanged(module, name, variant):
        failed = first_failure(*beginnings)
    assert failed is None, str(failed)


@pytest.mark.parametrize(
    ("module", "name", "wrong", "place", "beginnings"),
    [
        (sampling, "last", lambda ids, window: ids[-window:], "generation.sampling.last", ("generation.sampling",)),
        (sampling, "greedy", lambda logits: logits.argmin(-1), "generation.sampling.greedy", ("generation.sampling",)),
        (sampling, "top_k", lambda logits, k: logits, "generation.sampling.top_k", ("generation.sampling",)),
        (
            sampling,
            "process",
            lambda logits, params, prompt, said: logits,
            "generation.sampling.process",
            ("generation.sampling",),
        ),
        (stream, "unfinished", lambda text, stops: len(text), "text.detokenizer.unfinished", ("generation.stream",)),
        (segment, "merge_pairs", lambda symbols, rank: symbols, "text.bpe.merge.merge_pairs", ("tokenizer.",)),
        (requests, "end_ids", lambda request, model, tokenizer: frozenset(), "generation.request.end_ids", ("generation.",)),
        (loop, "choose", lambda logits, rows: [0] * len(rows), "generation.loop.choose", ("generation.",)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_function_is_named(
    module: Any, name: str, wrong: Callable[..., Any], place: str, beginnings: tuple[str, ...]
) -> None:
    with exchanged(module, name, wrong):
        failed = first_failure(*beginnings)
    assert failed is not None
    assert failed.place == place


def test_a_rigged_model_answers_by_its_rule_and_refuses_gaps() -> None:
    rule = hashed(7)
    model = RiggedModel(rule, 7)
    cache = model.new_cache(batch=2, max_len=3)
    ids, positions = torch.tensor([[1, 2], [0, 3]]), torch.tensor([[0, 1], [-1, 0]])
    logits = model(ids, cache=cache, positions=positions)
    assert logits[0, 1].tolist() == rule([1, 2])
    assert logits[1, 1].tolist() == rule([3])
    assert logits[1, 0].isnan().all()
    assert cache.rows == [[1, 2], [3]]
    for wrong in ([[3], [1]], [[2], [2]]):
        with pytest.raises(Failed, match="was fed position"):
            model(torch.tensor([[4], [4]]), cache=cache, positions=torch.tensor(wrong))
    assert greedy_answer(lambda ids: [float(i == len(ids)) for i in range(5)], [0, 0], 2) == [2, 3]


def test_pieces_decode_like_the_tokenizers_they_stand_for() -> None:
    tokenizer = Pieces([b" a", b"b", b"<s>"], special_ids=frozenset({2}), byte_from=3, strips=True)
    byte = {value: 3 + value for value in range(256)}
    assert tokenizer.decode([0, 1, 2]) == "ab"
    assert tokenizer.decode([0, 1, 2], skip_special=False) == "ab<s>"
    assert tokenizer.decode([byte[0xC3], 2, byte[0xA9]]) == "é"
    assert tokenizer.decode([byte[0xC3], 1]) == "\ufffdb"
    assert tokenizer.decode([byte[0xE2], byte[0x82], 1]) == "\ufffd\ufffdb"
    assert tokenizer.token_to_id("<0xC3>") == byte[0xC3]
    assert math.isnan(NAN)

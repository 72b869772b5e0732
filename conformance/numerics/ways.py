"""Ways to call a model that must give the same result: whole, in pieces, padded, in a batch, from a cache, shifted."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from conformance.numerics.observe import Prompt, Step, Way, offsets
from nanollama.model.transformer import Transformer

DECODED = 3  # tokens of every prompt that a ragged batch decodes one by one


def tokens_of(prompts: Sequence[Prompt]) -> list[Tensor]:
    """The workload numbers of every prompt's tokens."""
    return [torch.arange(len(p.ids)) + start for p, start in zip(prompts, offsets(prompts), strict=True)]


def whole(model: Transformer, prompts: Sequence[Prompt]) -> Iterator[Step]:
    """Each prompt in one call, alone, without a cache."""
    for prompt, tokens in zip(prompts, tokens_of(prompts), strict=True):
        yield Step(prompt.ids[None], prompt.positions[None], tokens[None])


def chunks(size: int | list[int]) -> Way:
    """Each prompt in pieces of `size` tokens, or of these sizes in turn, from a cache of exactly the needed size; positions
    that follow from the cache are not passed to the model."""

    def way(model: Transformer, prompts: Sequence[Prompt]) -> Iterator[Step]:
        for prompt, tokens in zip(prompts, tokens_of(prompts), strict=True):
            cache = model.new_cache(1, int(prompt.positions.max()) + 1)
            parts = zip(prompt.ids.split(size), prompt.positions.split(size), tokens.split(size), strict=True)
            for ids, positions, numbers in parts:
                known = torch.arange(len(ids)) + cache.lengths[0]
                yield Step(ids[None], positions[None], numbers[None], cache, implicit=torch.equal(positions, known))

    return way


def copies(count: int) -> Way:
    """Each prompt `count` times in one batch."""

    def way(model: Transformer, prompts: Sequence[Prompt]) -> Iterator[Step]:
        for step in whole(model, prompts):
            yield Step(step.ids.expand(count, -1), step.positions.expand(count, -1), step.tokens.expand(count, -1))

    return way


def shifted(by: int) -> Way:
    """Every position larger by a constant: attention sees distances only (RoFormer, arXiv 2104.09864, eq. 11)."""

    def way(model: Transformer, prompts: Sequence[Prompt]) -> Iterator[Step]:
        for step in whole(model, prompts):
            yield Step(step.ids, step.positions + by, step.tokens)

    return way


def padded(rows: Sequence[Tensor], left: bool, to: int) -> Tensor:
    """Rows of different lengths as one tensor, filled with -1."""
    out = torch.full((len(rows), to), -1)
    for row, values in zip(out, rows, strict=True):
        if left:
            row[to - len(values) :] = values
        else:
            row[: len(values)] = values
    return out


def spans(prompts: Sequence[Prompt], start: Sequence[int], end: Sequence[int], left: bool, extra: int) -> Step:
    """A piece of every prompt, from start to end, as one padded batch with `extra` columns more than needed."""
    pieces = [slice(a, b) for a, b in zip(start, end, strict=True)]
    width = max(b - a for a, b in zip(start, end, strict=True)) + extra

    def cut(rows: Sequence[Tensor]) -> Tensor:
        return padded([row[piece] for row, piece in zip(rows, pieces, strict=True)], left, width)

    ids, positions = cut([p.ids for p in prompts]), cut([p.positions for p in prompts])
    return Step(ids.clamp(min=0), positions, cut(tokens_of(prompts)))


def batch(left: bool) -> Way:
    """All prompts in one batch, padded on one side to two more than the longest needs; then once more for the last tokens."""

    def way(model: Transformer, prompts: Sequence[Prompt]) -> Iterator[Step]:
        step = spans(prompts, [0] * len(prompts), [len(p.ids) for p in prompts], left, 2)
        yield step
        yield replace(step, last_only=True)

    return way


def ragged(model: Transformer, prompts: Sequence[Prompt]) -> Iterator[Step]:
    """As in a server: the first row joins a batch in which the others are decoding already, then all are decoded token by
    token, each at its length."""
    ends, none = [len(p.ids) - DECODED for p in prompts], [0] * len(prompts)
    early = [0, *(end - 1 for end in ends[1:])]
    limits = [int(p.positions.max()) + 1 for p in prompts]
    cache = model.new_cache(len(prompts), max(limits), limits)
    yield replace(spans(prompts, none, early, False, 2), cache=cache)
    yield replace(spans(prompts, early, ends, False, 0), cache=cache)
    for n in range(DECODED):
        step = spans(prompts, [end + n for end in ends], [end + n + 1 for end in ends], False, 0)
        yield replace(step, cache=cache, implicit=True)

"""Other right ways to write the loop."""

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from nanollama.generation.loop import choose, decode, prefill
from nanollama.generation.request import Piece
from nanollama.generation.row import Row
from nanollama.model.transformer import Transformer


def run__counts_down(
    model: Transformer, forward: Callable[..., Tensor], rows: Sequence[Row], chunk: int, clock: Callable[[], float]
) -> Iterator[Piece]:
    """as long as a row lives, with the first step before the loop"""
    for row in rows:
        if row.budget == 0:
            yield row.piece(None, "", row.limit)
    rows = [row for row in rows if row.budget > 0]
    if len(rows) == 0:
        return
    start = clock()
    limits = [row.budget + len(row.prompt) for row in rows]
    cache = model.new_cache(limits=limits, max_len=max(limits), batch=len(limits))
    logits = prefill(forward, cache, rows, chunk)
    while any(not row.done for row in rows):
        ids = choose(logits, rows)
        took = clock() - start
        for place, row in enumerate(rows):
            if not row.done:
                yield row.advance(ids[place], took)
        start = clock()
        if not all(row.done for row in rows):
            logits = decode(forward, cache, rows)


def run__one_step_for_both(
    model: Transformer, forward: Callable[..., Tensor], rows: Sequence[Row], chunk: int, clock: Callable[[], float]
) -> Iterator[Piece]:
    """the prefill is the first round of the loop"""
    for row in rows:
        if not row.budget:
            yield row.piece(None, "", row.limit)
    live = rows = [row for row in rows if row.budget]
    cache = None
    while live:
        started = clock()
        if cache is None:
            limits = [len(row.prompt) + row.budget for row in rows]
            cache = model.new_cache(len(rows), max(limits), limits)
            logits = prefill(forward, cache, rows, chunk)
        else:
            logits = decode(forward, cache, rows)
        picked = dict(zip(map(id, rows), choose(logits, rows), strict=True))
        seconds = clock() - started
        yield from (row.advance(picked[id(row)], seconds) for row in live)
        live = [row for row in live if not row.done]

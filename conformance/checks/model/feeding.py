"""Ways to feed a sequence to a model, and the keys that a cache must show, from the tokens' positions alone.

A *call* is positions int64 [B, T], -1 for padding. The token at position p of row b is always the same one, so every way must
give the logits of the row run alone in one piece.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

import nanollama.model.kv_cache
from conformance.checks import Failed, compared, place_of
from conformance.truth.compare import row_error
from nanollama.model.config import ModelConfig
from nanollama.model.transformer import Transformer

Calls = Sequence[Tensor]
PADDING_ID = 3


def chunks(*sizes: int, start: int = 0, rows: int = 1) -> list[Tensor]:
    """Consecutive positions in pieces, the same for all rows."""
    return [piece.expand(rows, -1) for piece in torch.arange(start, start + sum(sizes))[None].split(list(sizes), 1)]


def ragged(lengths: Sequence[int], side: str, steps: int) -> list[Tensor]:
    """A padded prefill of rows of these lengths, then one token per row and call."""
    first = torch.full((len(lengths), max(lengths)), -1)
    for row, length in enumerate(lengths):
        start = 0 if side == "right" else max(lengths) - length
        first[row, start : start + length] = torch.arange(length)
    return [first, *(torch.tensor(lengths)[:, None] + step for step in range(steps))]


def paused() -> list[Tensor]:
    """Two rows: both, then only one, then both, then only the other, several tokens at once."""
    calls = chunks(6, 1, rows=2)
    calls += [torch.tensor([[t], [-1]]) for t in range(7, 19)]
    calls += [torch.tensor([[19], [7]]), torch.tensor([[-1, -1, -1], [8, 9, 10]]), torch.tensor([[20, 21], [11, -1]])]
    return calls


def late() -> list[Tensor]:
    """Two rows, of which the first has no token in the first calls."""
    calls = [torch.tensor([[-1] * 3, [0, 1, 2]]), torch.tensor([[-1], [3]]), torch.tensor([[0, 1, 2], [4, 5, 6]])]
    return [*calls, *(torch.tensor([[3 + t], [7 + t]]) for t in range(6)), torch.tensor([[9, 10, -1], [-1, 13, 14]])]


def fed(
    model: Transformer, rows: Sequence[Tensor], calls: Calls, cache: Any, counted: bool = False, last_only: bool = False
) -> Iterator[tuple[int, int, Tensor]]:
    """Run the calls; row, position and log-probabilities of every real token (of each row's last ones with `last_only`).
    `counted`: the model counts positions itself, where a call has no padding."""
    for positions in calls:
        ids = torch.stack([row[place.clamp(min=0)] for row, place in zip(rows, positions, strict=True)])
        ids = torch.where(positions < 0, PADDING_ID, ids)
        given = None if counted and (positions >= 0).all() else positions
        out = model(ids, cache=cache, positions=given, last_only=last_only).log_softmax(-1)
        for row, places in enumerate(positions.tolist()):
            real = [t for t, p in enumerate(places) if p >= 0]
            for t in real[-1:] if last_only else real:
                yield row, places[t], out[row, 0 if last_only else t]


def error_of(answers: Iterator[tuple[int, int, Tensor]], truths: Sequence[Tensor]) -> float:
    """The largest row error of all logits against their row's truth [positions, V]."""
    got = list(answers)
    compared(len(got))
    if not got:
        return torch.inf
    return row_error(torch.stack([value for _, _, value in got]), torch.stack([truths[row][p] for row, p, _ in got]))


# The keys that a cache shows


def code(positions: Tensor, heads: int, size: int) -> Tensor:
    """Keys that encode their row and position, float64 [B, heads, T, size]."""
    rows = torch.arange(len(positions))[:, None]
    return (1e5 * rows + positions).double()[:, None, :, None].expand(-1, heads, -1, size).contiguous()


def cache_faults(config: ModelConfig, max_len: int, calls: Calls) -> list[Failed]:
    """Replay the calls on a cache without a model: every query must see exactly the keys that it may, with their values."""
    try:
        return list(played(config, max_len, calls))[:1]
    except Exception as error:
        return [Failed(place_of(error.__traceback__), f"{type(error).__name__}: {str(error)[:200]}")]


def played(config: ModelConfig, max_len: int, calls: Calls) -> Iterator[Failed]:
    """The faults of every call."""
    batch, held = len(calls[0]), [set[int]() for _ in calls[0]]
    cache = nanollama.model.kv_cache.KVCache(config, batch, max_len, torch.float64)
    for positions in calls:
        views = {w: nanollama.model.kv_cache.KVView(positions, w, cache, torch.device("cpu")) for w in set(config.windows)}
        keys = code(positions, config.num_key_value_heads, config.head_dim)
        for row, places in enumerate(positions.tolist()):
            held[row] |= {p for p in places if p >= 0}
        for layer, window in zip(cache.layers, config.windows, strict=True):
            shown = layer.append(keys, keys + 0.5, views[window])
            yield from view_faults(cache, layer, views[window], window, positions, held, shown)
        cache.advance(positions)
        compared()
        if list(cache.lengths) != [max(row, default=-1) + 1 for row in held]:
            yield Failed(
                "model.kv_cache.KVCache.advance", f"rows count {cache.lengths} tokens, and hold {[len(row) for row in held]}"
            )


def view_faults(
    cache: Any,
    layer: Any,
    view: Any,
    window: int | None,
    positions: Tensor,
    held: Sequence[set[int]],
    shown: tuple[Tensor, Tensor],
) -> Iterator[Failed]:
    """Faults of the keys that the queries of one call see in one layer."""
    T, S = positions.shape[1], shown[0].shape[2]
    allowed = torch.ones(T, S).tril().bool().expand(len(positions), 1, T, S) if view.causal else view.allowed
    if allowed.shape[-2:] != (T, S):
        detail = f"a mask of {list(allowed.shape)} for {T} queries and {S} keys"
        yield Failed(culprit(cache, layer, view, window, held), detail)
        return
    for row, places in enumerate(positions.tolist()):
        for t, p in enumerate(places):
            if p < 0:
                continue
            compared()
            want = sorted(1e5 * row + j for j in held[row] if j <= p and (window is None or j > p - window))
            for values, extra in zip(shown, (0.0, 0.5), strict=True):
                got = sorted((values[row, 0, allowed[row, 0, t], 0] - extra).tolist())
                if got != want:
                    place = culprit(cache, layer, view, window, held)
                    yield Failed(place, f"the query at {p} of row {row}, window {window}, sees {got[:9]}, and not {want[:9]}")
                    return


def culprit(cache: Any, layer: Any, view: Any, window: int | None, held: Sequence[set[int]]) -> str:
    """The function of the cache that is at fault, by the state that each leaves for the next."""
    if cache.size(window) != (cache.max_len if window is None else min(window, cache.max_len)):
        return "model.kv_cache.KVCache.size"
    queries, keys = view.positions, view.key_positions
    distance = queries[:, :, None] - keys[:, None, :]
    near = distance < window if window is not None else torch.ones_like(distance, dtype=torch.bool)
    want = (distance >= 0) & (keys[:, None, :] >= 0) & near
    real = (queries >= 0)[:, :, None].expand_as(want)
    seen = nanollama.model.kv_cache.visible(queries, keys, window)[:, 0]
    if not torch.equal(seen[real], want[real]) or not seen.any(-1).all():  # a query of padding must not be NaN either
        return "model.kv_cache.visible"
    if not flags_right(cache, view, window):
        return "model.kv_cache.KVView.__init__"
    if not view.causal and (view.allowed[:, 0].shape != want.shape or not torch.equal(view.allowed[:, 0][real], want[real])):
        return "model.kv_cache.KVView.allowed"
    if not slots_right(cache, view, window, held):
        return "model.kv_cache.KVView._place"
    return "model.kv_cache.LayerCache.append" if stored_right(layer, view) else "model.kv_cache.LayerCache.write"


def flags_right(cache: Any, view: Any, window: int | None) -> bool:
    """Whether a view's flags fit its call."""
    T = view.positions.shape[1]
    empty = max(cache.lengths) == 0
    in_order = bool((view.positions == torch.arange(T)).all())
    causal = empty and in_order and (window is None or window >= T)
    reads_new = empty or (window is not None and T > 1)
    return (view.starts_empty, view.causal, view.reads_new_keys) == (empty, causal, reads_new)


def slots_right(cache: Any, view: Any, window: int | None, held: Sequence[set[int]]) -> bool:
    """Whether every token that may still be seen has a slot, and every slot the position of its token."""
    size, table = cache.size(window), cache.positions[window]
    for row, (places, slots) in enumerate(zip(view.positions.tolist(), view.slots.tolist(), strict=True)):
        newest = max(places)
        for p, slot in zip(places, slots, strict=True):
            kept = p >= 0 and p > newest - size
            if slot != (p % size if kept else size) or (kept and int(table[row, slot]) != p):
                return False
        missing = {p for p in held[row] if p > max(held[row]) - size} - set(table[row, :size].tolist())
        if missing or (not view.reads_new_keys and view.extent <= max(held[row], default=-1) and view.extent < size):
            return False
    return not view.reads_new_keys or view.starts_empty or view.key_positions.shape[1] == size + view.positions.shape[1]


def stored_right(layer: Any, view: Any) -> bool:
    """Whether every token of the call lies in its slot."""
    for row, (places, slots) in enumerate(zip(view.positions.tolist(), view.slots.tolist(), strict=True)):
        for p, slot in zip(places, slots, strict=True):
            held = float(layer.k[row, 0, slot, 0]), float(layer.v[row, 0, slot, 0])
            if slot < layer.k.shape[2] - 1 and held != (1e5 * row + p, 1e5 * row + p + 0.5):
                return False
    return True


def truths_of(this: Any, rows: Sequence[Tensor], lengths: Sequence[int]) -> list[Tensor]:
    """Log-probabilities of every row run alone; length-dependent frequencies follow `lengths`."""
    pairs = zip(rows, lengths, strict=True)
    return [this.truth.run(row, length=length)["logits"].log_softmax(-1) for row, length in pairs]

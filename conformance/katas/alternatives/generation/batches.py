"""Other right ways to write prefill and decode."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nanollama.generation.row import Row
from nanollama.model.kv_cache import KVCache


@torch.inference_mode()
def prefill__row_by_row(forward: Callable[..., Tensor], cache: KVCache, rows: Sequence[Row], chunk: int) -> Tensor:
    """tables that are filled from the right"""
    width = max(len(row.prompt) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    positions = torch.full((len(rows), width), -1)
    for b, row in enumerate(rows):
        ids[b, width - len(row.prompt) :] = torch.tensor(row.prompt)
        positions[b, width - len(row.prompt) :] = torch.arange(len(row.prompt))
    for part, places in zip(ids.split(chunk, 1), positions.split(chunk, 1), strict=True):
        logits = forward(part, cache=cache, positions=places, last_only=True)
    return logits.squeeze(1)


@torch.inference_mode()
def decode__with_zeros(forward: Callable[..., Tensor], cache: KVCache, rows: Sequence[Row]) -> Tensor:
    """rows that are done are fed token 0"""
    ids, positions = [], []
    for row in rows:
        ids.append([0 if row.done else row.generated[-1]])
        positions.append([-1 if row.done else len(row.prompt) - 1 + len(row.generated)])
    return forward(torch.tensor(ids), cache=cache, positions=torch.tensor(positions)).squeeze(1)

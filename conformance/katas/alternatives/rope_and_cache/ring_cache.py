"""Other right ways to write slots_of and KVView._place."""

import torch
from torch import Tensor

from nanollama.model.kv_cache import BUCKET, KVCache, KVView, slots_of


def slots_of__one_by_one(positions: Tensor, size: int) -> Tensor:
    """a loop over the tokens of every row"""
    slots = torch.full_like(positions, size)
    for row, places in enumerate(positions.tolist()):
        for column, place in enumerate(places):
            if place >= 0 and place + size > max(places):
                slots[row, column] = place % size
    return slots


def slots_of__sent_away(positions: Tensor, size: int) -> Tensor:
    """a slot for each, and then overwritten tokens and padding moved to the slot after the ring"""
    slots = torch.remainder(positions, size)
    overwritten = positions <= positions.amax(-1, keepdim=True) - size
    return slots.masked_fill(overwritten | (positions < 0), size)


def KVView__place__with_a_copy(self: KVView, cache: KVCache) -> None:
    """the whole table is copied before, and filled row by row"""
    size, held = cache.size(self.window), cache.positions[self.window]
    before, slots = held.clone(), slots_of(self.positions, size)
    for row in range(len(slots)):
        used = slots[row] < size
        held[row, slots[row][used]] = self.positions[row][used]
    tokens = max([int(self.positions.max()) + 1, *cache.lengths])
    buckets = (tokens + BUCKET - 1) // BUCKET
    self.extent = size if buckets * BUCKET > size else buckets * BUCKET
    if self.starts_empty:
        self.key_positions = self.positions
    elif self.reads_new_keys:
        self.key_positions = torch.cat([before[:, :size], self.positions], dim=-1)
    else:
        self.key_positions = held.narrow(1, 0, self.extent).clone()
    self.slots = slots.to(self.device)
    self.rows = torch.tensor([[row] for row in range(len(slots))], device=self.device)

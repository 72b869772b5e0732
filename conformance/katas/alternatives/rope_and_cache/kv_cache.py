"""Other right ways to write LayerCache.append and LayerCache.write."""

import torch
from torch import Tensor

from nanollama.model.kv_cache import KVView, LayerCache


def LayerCache_append__copied(self: LayerCache, k: Tensor, v: Tensor, view: KVView) -> tuple[Tensor, Tensor]:
    """the ring is copied first, everything is written, and what comes back is put together last"""
    before = [held[:, :, :-1].clone() for held in (self.k, self.v)] if view.reads_new_keys else []
    self.write(k, v, view)
    if view.starts_empty:
        return k, v
    if before:
        return torch.cat([before[0], k], dim=2), torch.cat([before[1], v], dim=2)
    return self.k.narrow(2, 0, view.extent), self.v.narrow(2, 0, view.extent)


def LayerCache_write__indexed(self: LayerCache, k: Tensor, v: Tensor, view: KVView) -> None:
    """torch's function for indices along an axis"""
    for held, new in ((self.k, k), (self.v, v)):
        held.transpose(1, 2).index_put_((view.rows.expand_as(view.slots), view.slots), new.transpose(1, 2))


def LayerCache_write__token_by_token(self: LayerCache, k: Tensor, v: Tensor, view: KVView) -> None:
    """a loop over rows and tokens"""
    for row, slots in enumerate(view.slots.tolist()):
        for token, slot in enumerate(slots):
            self.k[row, :, slot] = k[row, :, token]
            self.v[row, :, slot] = v[row, :, token]


def LayerCache_write__scattered(self: LayerCache, k: Tensor, v: Tensor, view: KVView) -> None:
    """scatter along the axis of the slots"""
    where = view.slots[:, None, :, None].expand_as(k)
    self.k.scatter_(2, where, k)
    self.v.scatter_(2, where, v)

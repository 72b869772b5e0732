"""The key/value cache, and the slots of it that one call of the model writes and reads.

Each token has a position, and all else follows from it: position p is stored in slot p mod size, a query at position q may
see the keys at positions q-W+1 … q, and every row of a batch counts its positions from 0. A layer with a sliding window W
keeps a ring of W slots. W includes the current key, as in transformers and Mistral; others see W+1 keys.

Axis letters: B batch, T queries, S keys, K key/value heads, D head size.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from nanollama.errors import NanollamaError
from nanollama.model.config import ModelConfig

BUCKET = 64  # attention reads whole buckets of slots, so that shapes change with every 64th token, not with every token


def visible(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """Which keys each query may see: positions int64 [B, T] and [B, S] (-1: no token there) → bool [B, 1, T, S].

    A query at q sees the keys at 0 … q; with a window of W, only the last W of these. A padded query sees every key: its
    result is unused, but a softmax over no key would be NaN.
    """
    distance = queries[:, :, None] - keys[:, None, :]
    allowed = (distance >= 0) & (keys[:, None, :] >= 0)
    if window is not None:
        allowed &= distance < window
    allowed |= queries[:, :, None] < 0
    return allowed[:, None]


def slots_of(positions: Tensor, size: int) -> Tensor:
    """The slot of every token: positions int64 [B, T] → int64 [B, T], position mod size.

    A call with more tokens than slots keeps the last `size` positions of each row. The others, and padding (-1), go to slot
    number `size`, which is never read.
    """
    newest = positions.max(1, keepdim=True).values
    kept = (positions >= 0) & (positions > newest - size)
    return torch.where(kept, positions % size, size)


def bucketed(tokens: int, size: int) -> int:
    """How many of `size` slots attention reads for so many tokens: whole buckets, at most all slots.

    An exact number would give tensors a new shape with every token, and compiled code serves one shape.
    """
    return min(size, -(-tokens // BUCKET) * BUCKET)


class LayerCache:
    """Keys and values of one layer, each [B, K, size + 1, D]; the last slot takes padding and is never read."""

    def __init__(self, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> None:
        self.k = torch.zeros(shape, dtype=dtype, device=device)  # zeros: a weight of 0 times an uninitialised NaN is NaN
        self.v = torch.zeros(shape, dtype=dtype, device=device)

    def append(self, k: Tensor, v: Tensor, view: "KVView") -> tuple[Tensor, Tensor]:
        """Store this call's k, v [B, K, T, D]; return all keys and values that `view.allowed` covers, each [B, K, S, D]."""
        if view.starts_empty:
            seen = k, v
        elif view.reads_new_keys:  # a ring would lose keys that this call's first queries still need
            seen = torch.cat((self.k[:, :, :-1], k), 2), torch.cat((self.v[:, :, :-1], v), 2)
        else:
            seen = self.k[:, :, : view.extent], self.v[:, :, : view.extent]
        self.write(k, v, view)
        return seen

    def write(self, k: Tensor, v: Tensor, view: "KVView") -> None:
        """Write k, v [B, K, T, D] into the slots of their tokens."""
        self.k[view.rows, :, view.slots] = k.transpose(1, 2)
        self.v[view.rows, :, view.slots] = v.transpose(1, 2)


class KVView:
    """The slots that one call of the model writes and the keys that each of its queries may see, in layers with one window.

    positions: int64 [B, T]. slots: int64 [B, T], rows: int64 [B, 1], the indices to write to. key_positions: int64 [B, S], the
    position of every key that attention reads. causal: the mask is the plain causal one. starts_empty: the cache holds no
    token before the call. reads_new_keys: attention reads the keys of this call directly, not from their slots.
    extent: how many slots it reads.
    """

    def __init__(self, positions: Tensor, window: int | None, cache: "KVCache | None", device: torch.device) -> None:
        """`positions` int64 [B, T] on the CPU, -1 for padding; without a cache the call sees its own tokens only."""
        T = positions.shape[1]
        self.window, self.device, self.positions = window, device, positions
        self.starts_empty = cache is None or max(cache.lengths) == 0
        in_order = bool((positions == torch.arange(T)).all())
        self.causal = self.starts_empty and in_order and (window is None or window >= T)
        self.reads_new_keys = self.starts_empty or (window is not None and T > 1)
        self.key_positions = positions
        if cache is not None:
            self._place(cache)
        if not self.causal:
            _ = self.allowed  # computed here, outside the layers: once, and not in compiled code

    def _place(self, cache: "KVCache") -> None:
        """Enter this call's tokens into the cache's table of positions; set which keys attention reads, at which positions.

        It reads the slots up to the newest token's, in whole buckets. A ring that is read before it is written is read whole,
        as it was, followed by this call's tokens.
        """
        size, held = cache.size(self.window), cache.positions[self.window]
        slots = slots_of(self.positions, size)
        before = held[:, :size].clone()
        held.scatter_(1, slots, self.positions)
        longest = max(*cache.lengths, int(self.positions.max()) + 1)
        self.extent = bucketed(longest, size)
        if not self.reads_new_keys:
            self.key_positions = held[:, : self.extent].clone()
        elif not self.starts_empty:
            self.key_positions = torch.cat((before, self.positions), 1)
        self.slots = slots.to(self.device)
        self.rows = torch.arange(len(slots), device=self.device)[:, None]

    @cached_property
    def allowed(self) -> Tensor:
        """The mask, bool [B, 1, T, S] on the model's device; SDPA does not need it where `causal` holds."""
        return visible(self.positions.to(self.device), self.key_positions.to(self.device), self.window)


class KVCache:
    """Preallocated keys and values of every layer for `batch` rows of at most `max_len` tokens.

    lengths: the number of tokens of each row, on the host; rows are independent, and each continues at its own length.
    limits: the maximum length of each row, max_len unless given; frequencies that depend on the length use it.
    positions: by window, the position of the token in every slot, int64 [B, size + 1] on the CPU; -1: empty.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        max_len: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        limits: Sequence[int] | None = None,
    ) -> None:
        if batch < 1 or max_len < 1:
            raise NanollamaError(f"a cache for {batch} rows of {max_len} tokens: both must be at least 1")
        self.batch, self.max_len = batch, max_len
        self.limits = [max_len] * batch if limits is None else list(limits)
        if len(self.limits) != batch or not all(1 <= limit <= max_len for limit in self.limits):
            raise NanollamaError(f"limits are {self.limits}; expected {batch} lengths from 1 to max_len ({max_len})")
        self.lengths = [0] * batch
        K, D = config.num_key_value_heads, config.head_dim
        self.positions = {w: torch.full((batch, self.size(w) + 1), -1) for w in set(config.windows)}
        self.layers = [LayerCache((batch, K, self.size(w) + 1, D), dtype, torch.device(device)) for w in config.windows]

    def size(self, window: int | None) -> int:
        """The number of slots of a layer with this window."""
        return self.max_len if window is None else min(window, self.max_len)

    def advance(self, positions: Tensor) -> None:
        """Update `lengths` after a call; positions int64 [B, T] on the CPU, -1 for padding."""
        self.lengths = [max(n, p + 1) for n, p in zip(self.lengths, positions.max(1).values.tolist(), strict=True)]

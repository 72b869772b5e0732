"""The key/value cache, and the view of it that one call of the model has.

Each token has a position, and everything follows from positions: position p lives in slot p mod size, a query at position q
may see the keys at positions q-W+1 … q, and every row of a batch counts its own positions from 0. A layer with a sliding
window W (the current key counts: transformers, Mistral; the other camp sees W+1) keeps a ring of W slots and no more.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from nanollama.errors import NanollamaError
from nanollama.model.config import ModelConfig

BUCKET = 64  # attention reads whole buckets of slots, so that shapes change every 64th token, not with every one


def visible(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """Which keys each query may see: positions [B, T] and [B, S] (-1: no token there) → bool [B, 1, T, S].

    A query at q sees the keys at 0 … q; with a window of W, only the last W of these. A padded query must see something, no
    matter what: its result is unused, but must not be NaN.
    """
    distance = queries[:, :, None] - keys[:, None, :]
    allowed = (distance >= 0) & (keys[:, None, :] >= 0)
    if window is not None:
        allowed &= distance < window
    allowed |= queries[:, :, None] < 0
    return allowed[:, None]


def slots_of(positions: Tensor, size: int) -> Tensor:
    """The slot of every token, int64 [B, T]: p mod size; of a call with more tokens than slots the last `size` positions of
    each row are kept. Slot number `size`, which nobody reads, takes the others and padding (-1)."""
    newest = positions.max(1, keepdim=True).values
    kept = (positions >= 0) & (positions > newest - size)
    return torch.where(kept, positions % size, size)


def bucketed(tokens: int, size: int) -> int:
    """How many of `size` slots attention reads for so many tokens: whole buckets of them, at most all.

    A number that changed with every token would be another shape with every token, and compiled code is made for one shape.
    """
    return min(size, -(-tokens // BUCKET) * BUCKET)


class LayerCache:
    """Keys and values of one layer: [B, K, size + 1, D]; the last slot takes what nobody may read (padding)."""

    def __init__(self, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> None:
        self.k = torch.zeros(shape, dtype=dtype, device=device)  # zeros: 0 · an uninitialised NaN would be NaN
        self.v = torch.zeros(shape, dtype=dtype, device=device)

    def append(self, k: Tensor, v: Tensor, view: "KVView") -> tuple[Tensor, Tensor]:
        """Store this call's k, v [B, K, T, D]; return the keys and values that `view.allowed` speaks of [B, K, S, D]."""
        if view.starts_empty:
            seen = k, v
        elif view.reads_new_keys:  # a ring would lose keys that this call's first queries still need
            seen = torch.cat((self.k[:, :, :-1], k), 2), torch.cat((self.v[:, :, :-1], v), 2)
        else:
            seen = self.k[:, :, : view.extent], self.v[:, :, : view.extent]
        self.write(k, v, view)
        return seen

    def write(self, k: Tensor, v: Tensor, view: "KVView") -> None:
        """Put every token into its slot."""
        self.k[view.rows, :, view.slots] = k.transpose(1, 2)
        self.v[view.rows, :, view.slots] = v.transpose(1, 2)


class KVView:
    """What one call of the model sees in the layers of one window size: where its tokens go and which keys they may use."""

    def __init__(self, positions: Tensor, window: int | None, cache: "KVCache | None", device: torch.device) -> None:
        """`positions` int64 [B, T] on the CPU, -1 for padding; `cache` None: the call sees itself only."""
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
            _ = self.allowed  # made here, outside the layers: once, and not in compiled code

    def _place(self, cache: "KVCache") -> None:
        """Enter this call's tokens into the table of positions, and say which keys attention reads, at which positions.

        The slots up to the newest token's, in whole buckets. A ring that is read before it is written has all of its slots
        read, as they were, and this call's tokens behind them.
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
        """The mask, bool [B, 1, T, S] on the model's device; where it is plainly causal, SDPA never asks for it."""
        return visible(self.positions.to(self.device), self.key_positions.to(self.device), self.window)


class KVCache:
    """Preallocated keys and values of every layer for `batch` rows of at most `max_len` tokens.

    `lengths` counts the tokens of each row, on the host. Rows are independent: each continues at its own length.
    `limits` is how long each row may become (all of max_len unless given): frequencies that depend on the length go by it.
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
        self.positions = {w: torch.full((batch, self.size(w) + 1), -1) for w in set(config.windows)}  # of every slot
        self.layers = [LayerCache((batch, K, self.size(w) + 1, D), dtype, torch.device(device)) for w in config.windows]

    def size(self, window: int | None) -> int:
        """Slots of a layer with this window."""
        return self.max_len if window is None else min(window, self.max_len)

    def advance(self, positions: Tensor) -> None:
        """Count the tokens of a call; positions int64 [B, T] on the CPU, -1 for padding."""
        self.lengths = [max(n, p + 1) for n, p in zip(self.lengths, positions.max(1).values.tolist(), strict=True)]

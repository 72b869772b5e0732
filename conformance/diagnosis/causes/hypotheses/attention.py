"""Slips in attention: masks, the cache, scores and caps, which head uses which, and how heads are put together."""

import math

import torch
from torch import Tensor

from conformance.diagnosis.causes.hypotheses.hypothesis import Wrong, slip
from conformance.truth.reference import Reference, cap, seen
from conformance.truth.spec import Spec


def grouped(spec: Spec) -> bool:
    """Several query heads share a key head, and there is more than one of those."""
    return 1 < spec.kv_heads < spec.heads


def windowed(spec: Spec) -> bool:
    """Some layer has a window."""
    return any(spec.windows)


def capped(spec: Spec) -> bool:
    """Attention scores have a limit."""
    return spec.attention_cap is not None


# --- masks


@slip("mask", "visible")
def next_seen(self: Reference, i: int, positions: Tensor) -> Tensor:
    """the mask is one diagonal too wide: each query sees the token after it"""
    place = torch.arange(len(positions))
    return seen(positions, self.spec.windows[i]) | (place == place[:, None] + 1)


@slip("mask", "visible")
def all_seen(self: Reference, i: int, positions: Tensor) -> Tensor:
    """there is no causal mask: each query sees every token"""
    return torch.ones(len(positions), len(positions), dtype=torch.bool)


@slip("mask", "visible")
def own_hidden(self: Reference, i: int, positions: Tensor) -> Tensor:
    """from the second token on a query does not see its own key"""
    hidden = torch.eye(len(positions), dtype=torch.bool)
    hidden[0] = False
    return seen(positions, self.spec.windows[i]) & ~hidden


@slip("mask", "visible")
def first_hidden(self: Reference, i: int, positions: Tensor) -> Tensor:
    """the first key is seen by the first query only"""
    found = seen(positions, self.spec.windows[i])
    found[1:, 0] = False
    return found


@slip("mask", "visible", windowed)
def columns_cut(self: Reference, i: int, positions: Tensor) -> Tensor:
    """the window {s.windows} is cut out of the last columns of the mask, which is right for the last query only"""
    window, place = self.spec.windows[i] or len(positions), torch.arange(len(positions))
    return seen(positions, None) & (place >= len(place) - window)


@slip("mask", "scores")
def added(self: Reference, i: int, q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
    """forbidden scores are made smaller by ten, not minus infinity"""
    return Reference.scores(self, i, q, k, torch.ones_like(allowed)) - 10.0 * ~allowed


@slip("mask", "scores", capped)
def before_cap(self: Reference, i: int, q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
    """the mask is applied before the cap {s.attention_cap}, so that forbidden keys are seen at minus the cap"""
    raw = (q @ k.transpose(1, 2) * self.spec.scales[i]).masked_fill(~allowed, -math.inf)
    return cap(raw, self.spec.attention_cap)


# --- the cache


@slip("cache")
class NotYetWritten(Wrong):
    """a call reads its cache before its own keys and values are in it"""

    def empty(self) -> Tensor:
        """Which keys are zeros for which queries."""
        return (self.calls[:, None] == self.calls) & (self.calls > 0)

    def scores(self, i: int, q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
        """No key wants nothing."""
        return Reference.scores(self, i, q, k, allowed).masked_fill(self.empty() & allowed, 0.0)

    def mix(self, weights: Tensor, v: Tensor) -> Tensor:
        """No value is nothing."""
        return weights.masked_fill(self.empty(), 0.0) @ v


@slip("cache", "visible")
def old_unseen(self: Wrong, i: int, positions: Tensor) -> Tensor:
    """keys of earlier calls are not seen"""
    return seen(positions, self.spec.windows[i]) & (self.calls[:, None] == self.calls)


@slip("cache", "visible", windowed)
def small_ring(self: Wrong, i: int, positions: Tensor) -> Tensor:
    """a ring buffer holds one key less than the window {s.windows}: the oldest key of earlier calls is lost"""
    window = self.spec.windows[i]
    found = seen(positions, window)
    return found & (seen(positions, window - 1) | (self.calls[:, None] == self.calls)) if window else found


@slip("cache", "visible", windowed)
def overwritten(self: Wrong, i: int, positions: Tensor) -> Tensor:
    """a ring buffer is written before it is read, so that the first queries of a call miss keys in the window {s.windows}"""
    window = self.spec.windows[i]
    if not window:
        return seen(positions, None)
    last = torch.stack([positions[self.calls == call].max() for call in self.calls])
    return seen(positions, window) & (positions > last[:, None] - window)


@slip("cache", "visible")
def corner(self: Wrong, i: int, positions: Tensor) -> Tensor:
    """the causal flag counts columns from the first cached key, so that a call of several tokens sees only the oldest"""
    place, call = torch.arange(len(positions)), self.calls
    start = torch.stack([place[call == each].min() for each in call])
    several = torch.stack([(call == each).sum() > 1 for each in call])[:, None]
    return torch.where(several, place <= (place - start)[:, None], seen(positions, self.spec.windows[i]))


# --- scores


@slip("scale", "scores")
def twice(self: Reference, i: int, q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
    """q·k is scaled twice"""
    return Reference.scores(self, i, q * self.spec.scales[i], k, allowed)


@slip("cap", "scores", capped)
def before_scale(self: Reference, i: int, q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
    """the cap {s.attention_cap} is applied to q·k before it is scaled"""
    scores = cap(q @ k.transpose(1, 2), self.spec.attention_cap) * self.spec.scales[i]
    return scores.masked_fill(~allowed, -math.inf)


@slip("cap", "scores", capped)
def clamped(self: Reference, i: int, q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
    """the cap {s.attention_cap} of attention scores cuts values off instead of bending them"""
    limit = self.spec.attention_cap or math.inf
    return (q @ k.transpose(1, 2) * self.spec.scales[i]).clamp(-limit, limit).masked_fill(~allowed, -math.inf)


@slip("cap", "scores", capped)
def cap_by_itself(self: Reference, i: int, q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
    """the cap {s.attention_cap} of attention scores is x · tanh(x / cap)"""
    raw = q @ k.transpose(1, 2) * self.spec.scales[i]
    return (raw * torch.tanh(raw / (self.spec.attention_cap or math.inf))).masked_fill(~allowed, -math.inf)


@slip("cap", "scores", capped)
def cap_unscaled(self: Reference, i: int, q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
    """the cap {s.attention_cap} of attention scores is tanh(x / cap), not multiplied by the cap again"""
    raw = q @ k.transpose(1, 2) * self.spec.scales[i]
    return torch.tanh(raw / (self.spec.attention_cap or math.inf)).masked_fill(~allowed, -math.inf)


# --- heads


@slip("grouping", "owner", grouped)
def tiled(self: Reference, part: str) -> Tensor:
    """key/value heads are repeated in the wrong order, as tile does instead of repeat_interleave: query head 1 uses key/value
    head 1 instead of 0"""
    return torch.arange(self.spec.heads) % self.spec.kv_heads


@slip("grouping", "owner", grouped)
def tiled_keys(self: Reference, part: str) -> Tensor:
    """key heads are repeated in the wrong order, as tile does instead of repeat_interleave; values are right"""
    return tiled(self, part) if part == "k" else Reference.owner(self, part)


@slip("grouping", "owner", grouped)
def tiled_values(self: Reference, part: str) -> Tensor:
    """value heads are repeated in the wrong order, as tile does instead of repeat_interleave; keys are right"""
    return tiled(self, part) if part == "v" else Reference.owner(self, part)


@slip("grouping", "owner", grouped)
def divisor(self: Reference, part: str) -> Tensor:
    """query head h uses key/value head h / {s.kv_heads}, the number of those, not h divided by the heads of a group"""
    return (torch.arange(self.spec.heads) // self.spec.kv_heads).clamp(max=self.spec.kv_heads - 1)


@slip("grouping", "owner", grouped)
def first(self: Reference, part: str) -> Tensor:
    """all query heads use the first key/value head"""
    return torch.zeros(self.spec.heads, dtype=torch.int64)


@slip("grouping", "owner", grouped)
def first_keys(self: Reference, part: str) -> Tensor:
    """all query heads use the first key head; values are right"""
    return first(self, part) if part == "k" else Reference.owner(self, part)


@slip("grouping", "owner", grouped)
def first_values(self: Reference, part: str) -> Tensor:
    """all query heads collect the values of the first head; keys are right"""
    return first(self, part) if part == "v" else Reference.owner(self, part)


@slip("grouping", "owner", grouped)
def backwards(self: Reference, part: str) -> Tensor:
    """key/value heads are used in the opposite order"""
    return Reference.owner(self, part).flip(0)


@slip("heads", "merge")
def untransposed(self: Reference, mixed: Tensor) -> Tensor:
    """heads are put together in the order in which they lie in memory, so that tokens and heads mix"""
    return mixed.reshape(mixed.shape[1], -1)


@slip("heads", "merge")
def dimension_first(self: Reference, mixed: Tensor) -> Tensor:
    """heads are put together dimension by dimension, not head by head"""
    return mixed.permute(1, 2, 0).reshape(mixed.shape[1], -1)


@slip("heads", "heads")
def cut_across(self: Reference, name: str, flat: Tensor, normed: str | None) -> Tensor:
    """heads are cut out of a row by their dimensions first: entry d · heads + h instead of h · {s.head_dim} + d"""
    count = flat.shape[1] // self.spec.head_dim
    split = flat.reshape(len(flat), self.spec.head_dim, count).permute(2, 0, 1)
    return self.norm(normed, split) if normed and self.spec.qk_norm == "head" else split

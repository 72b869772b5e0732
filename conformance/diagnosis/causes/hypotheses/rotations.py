"""Slips in rotary positions: which pairs turn, which way, how fast."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from conformance.diagnosis.causes.hypotheses.hypothesis import Wrong, slip
from conformance.truth.reference import Reference
from conformance.truth.rotation import Rope, cos_sin, frequencies, rotate
from conformance.truth.spec import Spec

Turn = Callable[[Rope, str, Tensor, Tensor, Tensor], Tensor]
Frequencies = Callable[[Reference, Rope, int], Tensor]


def rotates(spec: Spec) -> bool:
    """Some layer does."""
    return any(spec.ropes)


def kind(*names: str) -> Callable[[Spec], bool]:
    """Some layer's frequencies are scaled like this."""
    return lambda spec: any(rope and rope.kind in names for rope in spec.ropes)


def partial(spec: Spec) -> bool:
    """Only a part of each head turns."""
    return any(rope and rope.dim != spec.head_dim for rope in spec.ropes)


def sharpened(spec: Spec) -> bool:
    """cos and sin have a factor."""
    return any(rope and rope.sharpness != 1 for rope in spec.ropes)


def turning(when: Callable[[Spec], Any], label: str = "turning") -> Callable[[Turn], Turn]:
    """A slip in the turn of x [heads, T, D] by cos and sin [T, dim/2]."""

    def register(function: Turn) -> Turn:
        def turned(self: Reference, i: int, part: str, heads: Tensor, positions: Tensor, length: int) -> Tensor:
            rope = self.spec.ropes[i]
            return function(rope, part, heads, *cos_sin(rope, positions, length)) if rope and part != "v" else heads

        turned.__doc__ = function.__doc__
        slip(label, "turned", when)(turned)
        return function

    return register


@turning(rotates)
def backwards(rope: Rope, part: str, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """the sines of the rotation have the wrong sign: positions count backwards"""
    return rotate(x, cos, -sin)


@turning(rotates)
def neighbours(rope: Rope, part: str, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """dimensions 2j and 2j + 1 are rotated together, where the weights are stored for j and j + dim/2"""
    a, b, rest = x[..., : rope.dim : 2], x[..., 1 : rope.dim : 2], x[..., rope.dim :]
    return torch.cat((torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2), rest), -1)


@turning(partial)
def end_of_head(rope: Rope, part: str, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """the last dimensions of each head are rotated, not the first"""
    rest = x.shape[-1] - rope.dim
    return torch.cat((x[..., :rest], rotate(x[..., rest:], cos, sin)), -1)


@turning(rotates)
def queries_only(rope: Rope, part: str, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """queries are rotated and keys are not"""
    return rotate(x, cos, sin) if part == "q" else x


@turning(rotates)
def keys_only(rope: Rope, part: str, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """keys are rotated and queries are not"""
    return rotate(x, cos, sin) if part == "k" else x


@turning(rotates)
def one_sign(rope: Rope, part: str, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """one of the two signs of the rotation is wrong: a·cos + b·sin with b·cos + a·sin"""
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((a * cos + b * sin, a * sin + b * cos, rest), -1)


@turning(sharpened, "frequencies")
def sharp_cosines(rope: Rope, part: str, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """the attention factor of the rotation multiplies the cosines and not the sines"""
    return rotate(x, cos, sin / rope.sharpness)


@turning(sharpened, "frequencies")
def sharp_once(rope: Rope, part: str, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """the attention factor of the rotation multiplies queries and not keys"""
    return rotate(x, cos, sin) if part == "q" else rotate(x, cos / rope.sharpness, sin / rope.sharpness)


def turning_by(when: Callable[[Spec], Any]) -> Callable[[Frequencies], Frequencies]:
    """A slip in the frequencies, radians per position [dim/2]."""

    def register(function: Frequencies) -> Frequencies:
        def turned(self: Reference, i: int, part: str, heads: Tensor, positions: Tensor, length: int) -> Tensor:
            rope = self.spec.ropes[i]
            if rope is None or part == "v":
                return heads
            angles = positions.double()[:, None] * function(self, rope, length)
            return rotate(heads, angles.cos() * rope.sharpness, angles.sin() * rope.sharpness)

        turned.__doc__ = function.__doc__
        slip("frequencies", "turned", when)(turned)
        return function

    return register


def plain(rope: Rope, over: int = 0) -> Tensor:
    """Frequencies unscaled; `over`: spread over so many dimensions."""
    return rope.theta ** (-2 * torch.arange(rope.dim // 2, dtype=torch.float64) / (over or rope.dim))


def factor(rope: Rope) -> float:
    """By how much slow pairs are slowed."""
    return float(rope.scaling["factor"])


def scaled(rope: Rope, length: int) -> Tensor:
    """Frequencies as they should be."""
    return torch.tensor(frequencies(rope, length), dtype=torch.float64)


@turning_by(partial)
def over_whole_head(self: Reference, rope: Rope, length: int) -> Tensor:
    """the frequencies of a partly rotated head are spread over its {s.head_dim} dimensions instead of the rotated ones"""
    return plain(rope, self.spec.head_dim)


@turning_by(kind("linear", "llama3", "yarn"))
def multiplied(self: Reference, rope: Rope, length: int) -> Tensor:
    """frequencies are multiplied by the factor that they should be divided by"""
    return scaled(rope, length) * factor(rope) ** 2 if rope.kind == "linear" else plain(rope) * factor(rope)


@turning_by(kind("llama3", "yarn"))
def inverted(self: Reference, rope: Rope, length: int) -> Tensor:
    """the blend between kept and slowed frequencies is taken the wrong way round"""
    return (
        plain(rope) * (1 + 1 / factor(rope)) - scaled(rope, length) if rope.kind in ("llama3", "yarn") else scaled(rope, length)
    )


@turning_by(kind("llama3", "yarn"))
def slowed_between(self: Reference, rope: Rope, length: int) -> Tensor:
    """frequencies between the two limits are slowed like the long waves, not blended"""
    kept = (scaled(rope, length) / plain(rope) - 1).abs() < 1e-12
    return torch.where(kept, plain(rope), plain(rope) / factor(rope))


@turning_by(kind("llama3", "yarn"))
def kept_between(self: Reference, rope: Rope, length: int) -> Tensor:
    """frequencies between the two limits are kept like the short waves, not blended"""
    slowed = (scaled(rope, length) / plain(rope) * factor(rope) - 1).abs() < 1e-12
    return torch.where(slowed, plain(rope) / factor(rope), plain(rope))


@turning_by(kind("llama3", "yarn"))
def slowed_all(self: Reference, rope: Rope, length: int) -> Tensor:
    """all frequencies are divided by the factor, as linear scaling does"""
    return plain(rope) / factor(rope)


@turning_by(kind("llama3"))
def radians(self: Reference, rope: Rope, length: int) -> Tensor:
    """Llama 3's limits are compared with radians within the trained length, not with turns"""
    low, high = rope.scaling["low_freq_factor"], rope.scaling["high_freq_factor"]
    keep = ((rope.original * plain(rope) - low) / (high - low)).clamp(0, 1)
    return plain(rope) * (keep + (1 - keep) / factor(rope))


@turning_by(kind("yarn"))
def ramp_over_head(self: Reference, rope: Rope, length: int) -> Tensor:
    """YaRN's ramp is laid over the dimensions of the head instead of over its pairs"""

    def dimension(turns: float) -> float:
        return rope.dim * math.log(rope.original / (turns * 2 * math.pi)) / math.log(rope.theta)

    fast, slow = rope.scaling.get("beta_fast") or 32.0, rope.scaling.get("beta_slow") or 1.0
    low, high = max(math.floor(dimension(fast)), 0), min(math.ceil(dimension(slow)), rope.dim - 1)
    ramp = ((torch.arange(rope.dim // 2) - low) / (high - low or 0.001)).clamp(0, 1)
    return plain(rope) * (1 - ramp * (1 - 1 / factor(rope)))


@turning_by(kind("longrope"))
def always_short(self: Reference, rope: Rope, length: int) -> Tensor:
    """LongRoPE's list for short sequences is used at every length"""
    return plain(rope) / torch.tensor(rope.scaling["short_factor"], dtype=torch.float64)


@turning_by(kind("longrope"))
def always_long(self: Reference, rope: Rope, length: int) -> Tensor:
    """LongRoPE's list for long sequences is used at every length"""
    return plain(rope) / torch.tensor(rope.scaling["long_factor"], dtype=torch.float64)


@turning_by(kind("longrope"))
def early(self: Reference, rope: Rope, length: int) -> Tensor:
    """LongRoPE switches to its long list at the trained length already, not beyond it"""
    return scaled(rope, length + 1)


@turning_by(kind("dynamic"))
def longest(self: Reference, rope: Rope, length: int) -> Tensor:
    """dynamic scaling goes by {s.max_length} times its factor, whatever the length"""
    return scaled(rope, int(rope.max_length * factor(rope)))


@turning_by(kind("dynamic", "longrope"))
def never(self: Reference, rope: Rope, length: int) -> Tensor:
    """scaling that depends on the length never sets in: the length it goes by is too small"""
    return scaled(rope, 1)


@slip("cache", "turned", rotates)
def restarts(self: Wrong, i: int, part: str, heads: Tensor, positions: Tensor, length: int) -> Tensor:
    """positions of a call that continues a cache count from 0 again"""
    first = torch.tensor([int((self.calls == call).nonzero()[0]) for call in self.calls])
    return Reference.turned(self, i, part, heads, torch.arange(len(positions)) - first, length)


@slip("cache", "turned", kind("dynamic", "longrope"))
def length_of_the_call(self: Wrong, i: int, part: str, heads: Tensor, positions: Tensor, length: int) -> Tensor:
    """frequencies go by the length so far, while cached keys were turned by another one"""
    ends = [int(positions[self.calls <= call].max()) + 1 for call in self.calls]
    rows = [Reference.turned(self, i, part, heads[:, t : t + 1], positions[t : t + 1], end) for t, end in enumerate(ends)]
    return torch.cat(rows, 1)

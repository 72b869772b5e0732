"""Four statistics of a tap's error. Each finds errors that the others average away.

*row*: the worst token; finds a stale cache entry, a mask off by one. *column*: the worst channel, head or vocabulary entry;
finds a dead head, swapped rows. *gain*: the share of the truth in the error; noise cancels in it, so that a scale wrong
by one part in a hundred shows. *offset*: the mean error, for a constant added or left out everywhere.
All are relative to the root mean square of the truth, or of the row or column itself where that is larger: rounding is
relative to the value, and one large token must neither hide errors nor count as one.
"""

import math
from dataclasses import astuple, dataclass
from typing import Any

from torch import Tensor

from conformance.truth.compare import finite_parts

STATISTICS = ("row", "column", "gain", "offset")


@dataclass(frozen=True)
class Statistics:
    """The errors of one tap; infinite if it cannot be compared."""

    row: float
    column: float
    gain: float
    offset: float

    def over(self, floor: "Statistics") -> "Statistics":
        """Each as a multiple of a floor; 0 over 0 is 0."""
        pairs = zip(astuple(self), astuple(floor), strict=True)
        return Statistics(*(0.0 if mine == 0 else math.inf if allowed == 0 else mine / allowed for mine, allowed in pairs))

    def worst(self) -> tuple[str, float]:
        """The largest of the four, by name."""
        return max(zip(STATISTICS, astuple(self), strict=True), key=lambda pair: pair[1])

    def largest(self, other: "Statistics") -> "Statistics":
        """The larger one of each."""
        return Statistics(*map(max, zip(astuple(self), astuple(other), strict=True)))


NOTHING = Statistics(0.0, 0.0, 0.0, 0.0)
INCOMPARABLE = Statistics(*[math.inf] * 4)


def rms(x: Tensor, *axes: int) -> Tensor:
    """Root mean square over these axes."""
    return x.square().mean(axes).sqrt()


def measure(got: Tensor, want: Tensor) -> Statistics:
    """float64 [tokens, columns, rest], both. Equal infinities (a mask) count as no error."""
    if (parts := finite_parts(got, want)) is None:
        return INCOMPARABLE
    got, want = parts
    error, power = got - want, want.square().mean()
    if power == 0:
        return NOTHING if not error.any() else INCOMPARABLE
    scale = float(power.sqrt())
    return Statistics(
        row=float((rms(error, 1, 2) / rms(want, 1, 2).clamp(min=scale)).max()),
        column=float((rms(error, 0, 2) / rms(want, 0, 2).clamp(min=scale)).max()),
        gain=abs(float((error * want).mean() / power)),
        offset=abs(float(error.mean())) / scale,
    )


def interval(hits: int, runs: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate (Wilson 1927, doi 10.1080/01621459.1927.10502953)."""
    if runs == 0:
        return 0.0, 1.0
    rate, spread = hits / runs, z * z / runs
    centre = (rate + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(rate * (1 - rate) / runs + spread / (4 * runs))
    return max(0.0, centre - half), min(1.0, centre + half)


def as_list(statistics: Statistics) -> list[float]:
    """For JSON, with three digits."""
    return [float(f"{value:.3g}") for value in astuple(statistics)]


def from_list(values: Any) -> Statistics:
    """Back from JSON."""
    return Statistics(*map(float, values))

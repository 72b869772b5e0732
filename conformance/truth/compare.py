"""Comparing two sets of taps: one number a tap, the same rule everywhere."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from conformance.truth.taps import Taps

SEMANTIC_BAR = 1e-10  # float64 against float64: the same function differs by rounding only, about 1e-14


@dataclass(frozen=True)
class TapError:
    """How far one tap is off."""

    name: str
    error: float


def relative_error(got: Tensor, want: Tensor) -> float:
    """Largest difference over the largest expected magnitude; infinite for another shape, NaN, or another set of -inf."""
    got, want = got.detach().to("cpu", torch.float64), want.detach().to("cpu", torch.float64)
    if got.shape != want.shape or got.isnan().any() or want.isnan().any():
        return math.inf
    finite = want.isfinite()
    if not torch.equal(got[~finite], want[~finite]) or not got[finite].isfinite().all():
        return math.inf
    if not finite.any():
        return math.inf  # nothing was compared
    scale = want[finite].abs().max().clamp(min=torch.finfo(torch.float64).tiny)
    return float((got[finite] - want[finite]).abs().max() / scale)


def compare_taps(got: Taps, want: Taps) -> list[TapError]:
    """One error a tap, in the order of `want`, which is the order of the data path; a missing tap is infinitely wrong."""
    if not want:
        raise ValueError("no taps to compare with: a comparison of nothing proves nothing")
    extra = [TapError(name, math.inf) for name in got if name not in want]
    return [TapError(name, relative_error(got[name], want[name]) if name in got else math.inf) for name in want] + extra


def worst(errors: list[TapError]) -> TapError:
    """The tap that is most off."""
    return max(errors, key=lambda e: e.error)


def first_beyond(errors: list[TapError], bar: float) -> TapError | None:
    """The first tap on the data path whose error is beyond the bar."""
    return next((e for e in errors if not e.error <= bar), None)

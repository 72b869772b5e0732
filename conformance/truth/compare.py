"""The one rule for comparing values with the truth; every other place imports it.

Shape first, and dtype where equality is asked for. Then the elements: equal infinities are equal; NaN equals nothing, not
even NaN, unless the caller gives a reason. Errors are computed in float64, whatever the dtypes; an infinite error means that
two values can't be compared, or that nothing was.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from conformance.truth.taps import Taps

SEMANTIC_BAR = 1e-10  # float64 against float64: the same function differs by rounding only, about 1e-14
TINY = torch.finfo(torch.float64).tiny
SMALLEST_ROW = 1e-12  # rows of smaller values are measured as if they had this size


@dataclass(frozen=True)
class TapError:
    """The relative error of one tap."""

    name: str
    error: float


def equal_elements(got: Tensor, want: Tensor, equal_nan: str = "") -> Tensor:
    """Bool tensor of one shape: which elements are equal. `equal_nan`: why NaN may equal NaN here; "" if it may not."""
    equal = got == want
    return equal | ((got != got) & (want != want)) if equal_nan else equal


def equal_values(got: Any, want: Any) -> bool:
    """Whether two Python values are equal, and the numbers and texts in their lists, tuples and dicts of equal types."""
    if isinstance(want, list | tuple):
        return type(got) is type(want) and len(got) == len(want) and all(map(equal_values, got, want))
    if isinstance(want, dict):
        return isinstance(got, dict) and got.keys() == want.keys() and all(equal_values(got[key], want[key]) for key in want)
    if isinstance(want, bool | int | float | str | bytes):
        return type(got) is type(want) and bool(got == want)
    return bool(got == want)


def finite_parts(got: Tensor, want: Tensor) -> tuple[Tensor, Tensor] | None:
    """Both in float64 on the CPU, equal infinities replaced by 0.

    None if they can't be compared: different shapes, no element, a NaN, an infinity that only one of them has.
    """
    got, want = got.detach().to("cpu", torch.float64), want.detach().to("cpu", torch.float64)
    if got.shape != want.shape or not want.numel():
        return None
    infinite = want.isinf() & (got == want)
    got, want = got.masked_fill(infinite, 0), want.masked_fill(infinite, 0)
    return (got, want) if got.isfinite().all() and want.isfinite().all() else None


def relative_error(got: Tensor, want: Tensor) -> float:
    """Largest difference over the largest expected magnitude."""
    if (parts := finite_parts(got, want)) is None:
        return math.inf
    got, want = parts
    return float((got - want).abs().max() / want.abs().max().clamp(min=TINY))


def row_error(got: Tensor, want: Tensor) -> float:
    """The largest relative error of any row (the last axis), so that a large row can't hide a small one.

    `got` may have more leading axes of size 1 than `want`: batch, or heads of a mask.
    """
    while got.ndim > want.ndim and got.shape[0] == 1:
        got = got[0]
    if (parts := finite_parts(got, want)) is None:
        return math.inf
    got, want = parts
    return float(((got - want).abs() / want.abs().amax(-1, keepdim=True).clamp(min=SMALLEST_ROW)).max())


def norm_error(got: Tensor, want: Tensor) -> float:
    """|got - want| / |want|, Euclidean norms of all elements."""
    if (parts := finite_parts(got, want)) is None:
        return math.inf
    got, want = parts
    return float((got - want).norm() / want.norm().clamp(min=TINY))


def rms_error(got: Tensor, want: Tensor) -> float:
    """Root mean square difference, in the unit of the values (nats for log-probabilities)."""
    if (parts := finite_parts(got, want)) is None:
        return math.inf
    return float((parts[0] - parts[1]).square().mean().sqrt())


def compare_taps(got: Taps, want: Taps) -> list[TapError]:
    """One relative error per tap, in the order of `want`, the order of the data path; infinite for a missing or extra tap.

    Raises ValueError if `want` is empty.
    """
    if not want:
        raise ValueError("no taps to compare with: a comparison of nothing proves nothing")
    extra = [TapError(name, math.inf) for name in got if name not in want]
    return [TapError(name, relative_error(got[name], want[name]) if name in got else math.inf) for name in want] + extra


def worst(errors: list[TapError]) -> TapError:
    """The tap with the largest error."""
    return max(errors, key=lambda e: e.error)


def first_beyond(errors: list[TapError], bar: float) -> TapError | None:
    """The first tap on the data path whose error exceeds the bar; NaN exceeds every bar."""
    return next((e for e in errors if not e.error <= bar), None)

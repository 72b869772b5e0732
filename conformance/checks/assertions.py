"""Comparisons for checks: each counts as one, and raises Failed at the given place when it does not hold."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from conformance.checks import Failed, compared, place_of
from nanollama.errors import NanollamaError


def expect(place: str, holds: bool, detail: str) -> None:
    """Something must hold."""
    compared()
    if not holds:
        raise Failed(place, detail)


def same(place: str, got: Any, want: Any, what: str = "") -> None:
    """Two values must be equal, and of equal types where they are numbers or texts."""
    expect(place, got == want, f"{what or 'value'} is {str(got)[:200]!r}, expected {str(want)[:200]!r}")


def same_tensor(place: str, got: Tensor, want: Tensor, what: str = "") -> None:
    """Two tensors must agree in shape, dtype and every element (NaN equals NaN)."""
    fits = got.shape == want.shape and got.dtype == want.dtype
    expect(place, fits, f"{what or 'tensor'} is {got.dtype} {list(got.shape)}, expected {want.dtype} {list(want.shape)}")
    wrong = (got != want) & ~((got != got) & (want != want))
    expect(place, not wrong.any(), f"{what or 'tensor'}: {int(wrong.sum())} of {wrong.numel()} elements differ")


def relative_error(got: Tensor, want: Tensor) -> float:
    """Largest difference over the largest finite wanted value; infinite for another shape, or where only one is finite."""
    if got.shape != want.shape or want.numel() == 0:
        return math.inf
    got, want = got.detach().cpu().double(), want.detach().cpu().double()
    finite = torch.isfinite(want)
    if not torch.equal(torch.isfinite(got), finite) or not torch.equal(got[~finite].nan_to_num(), want[~finite].nan_to_num()):
        return math.inf
    if not finite.any():
        return 0.0
    return float((got - want)[finite].abs().max()) / max(float(want[finite].abs().max()), 1e-30)


def close(place: str, got: Tensor, want: Tensor, bar: float, what: str = "") -> None:
    """A tensor must be within a relative error of the truth."""
    error = relative_error(got, want)
    expect(place, error <= bar, f"{what or 'values'} off by {error:.1e} (bar {bar:.0e})")


def refused(place: str, action: Callable[[], object], mentions: str = "", what: str = "") -> None:
    """A call must raise a NanollamaError whose text mentions something."""
    try:
        action()
    except NanollamaError as error:
        said = str(error)
        expect(place, mentions in said, f"{what or 'the error'} says {said[:200]!r}, which does not name {mentions!r}")
    else:
        expect(place, False, f"{what or 'bad input'} was accepted")


@contextmanager
def at(place: str) -> Iterator[None]:
    """What goes wrong inside is a failure at this place, unless the runtime's own function can be named."""
    try:
        yield
    except Failed:
        raise
    except Exception as error:
        raised_in = place_of(error.__traceback__)
        found = place if raised_in == "conformance" else raised_in
        raise Failed(found, f"{type(error).__name__}: {str(error)[:300]}") from error

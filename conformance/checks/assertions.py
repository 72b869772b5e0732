"""Assertions for checks: each counts as one comparison and raises Failed at the given place if it does not hold."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from conformance.checks import Failed, compared, place_of
from conformance.truth.compare import equal_elements, equal_values, relative_error
from nanollama.errors import NanollamaError


def expect(place: str, holds: bool, detail: str) -> None:
    """A condition must hold."""
    compared()
    if not holds:
        raise Failed(place, detail)


def expect_equal(place: str, got: Any, want: Any, what: str = "") -> None:
    """Two values must be equal, and so must the types of numbers and texts in them: True is not 1, and 1 is not 1.0."""
    expect(place, equal_values(got, want), f"{what or 'value'} is {str(got)[:200]!r}, expected {str(want)[:200]!r}")


def expect_equal_tensor(place: str, got: Tensor, want: Tensor, what: str = "", equal_nan: str = "") -> None:
    """Two tensors must agree in shape, dtype and every element. `equal_nan`: why NaN may equal NaN here; "" if it may not."""
    fits = got.shape == want.shape and got.dtype == want.dtype
    expect(place, fits, f"{what or 'tensor'} is {got.dtype} {list(got.shape)}, expected {want.dtype} {list(want.shape)}")
    equal = equal_elements(got, want, equal_nan)
    expect(place, bool(equal.all()), f"{what or 'tensor'}: {int((~equal).sum())} of {equal.numel()} elements differ")


def expect_close(place: str, got: Tensor, want: Tensor, bar: float, what: str = "") -> None:
    """A tensor must be within a relative error of the truth."""
    error = relative_error(got, want)
    expect(place, error <= bar, f"{what or 'values'} off by {error:.1e} (bar {bar:.0e})")


def expect_refused(place: str, action: Callable[[], object], mentions: str = "", what: str = "") -> None:
    """A call must raise a NanollamaError whose text mentions something."""
    try:
        action()
    except NanollamaError as error:
        message = str(error)
        expect(place, mentions in message, f"{what or 'the error'} reads {message[:200]!r} and does not name {mentions!r}")
    else:
        expect(place, False, f"{what or 'bad input'} was accepted")


@contextmanager
def at(place: str) -> Iterator[None]:
    """Exceptions inside become Failed: at the runtime's function that raised, else at this place."""
    try:
        yield
    except Failed:
        raise
    except Exception as error:
        raised_in = place_of(error.__traceback__)
        found = place if raised_in == "conformance" else raised_in
        raise Failed(found, f"{type(error).__name__}: {str(error)[:300]}") from error

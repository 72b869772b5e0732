"""How one value differs from another: type, shape and dtype strictly first, then the first number that differs."""

from typing import Any

import torch
from torch import Tensor

from conformance.katas.pages.show import number, shown

ROUNDINGS = 8  # default tolerance: units in the last place of the largest number wanted


def difference(got: Any, want: Any, within: float | None = None, equal_nan: str = "") -> str | None:
    """The first difference in one line for the learner; None if the values agree.

    `equal_nan`: the reason why NaN may equal NaN; "" if it may not.
    """
    return wrong_form(got, want) or wrong_value(got, want, within, equal_nan)


def wrong_form(got: Any, want: Any) -> str | None:
    """The difference in type, shape or dtype; None if there is none."""
    if got is None and want is not None:
        return "returned nothing: is there a `return`?"
    if not isinstance(want, Tensor):
        return None if type(got) is type(want) else f"is of type {type(got).__name__}, want {type(want).__name__}"
    if not isinstance(got, Tensor):
        return f"is of type {type(got).__name__}, want a tensor"
    if got.shape != want.shape:
        return f"has the shape {list(got.shape)}, want {list(want.shape)}"
    return None if got.dtype == want.dtype else f"has the dtype {number(got.dtype)}, want {number(want.dtype)}"


def wrong_value(got: Any, want: Any, within: float | None, equal_nan: str = "") -> str | None:
    """The first difference of two values of one type, shape and dtype."""
    if isinstance(want, Tensor):
        return wrong_numbers(got, want, within, equal_nan)
    if isinstance(want, float):
        one, other = (torch.tensor(value, dtype=torch.float64) for value in (got, want))
        return wrong_numbers(one, other, within, equal_nan)
    if isinstance(want, list | tuple):
        return wrong_item(got, want, within, equal_nan)
    return None if got == want else f"got {shown(got)}, want {shown(want)}"


def wrong_item(got: Any, want: Any, within: float | None, equal_nan: str) -> str | None:
    """The first difference of two lists or tuples."""
    for index, (one, other) in enumerate(zip(got, want, strict=False)):
        if problem := difference(one, other, within, equal_nan):
            return f"item {index}: {problem}"
    return None if len(got) == len(want) else f"has {len(got)} items, want {len(want)}: got {shown(got)}, want {shown(want)}"


def wrong_numbers(got: Tensor, want: Tensor, within: float | None, equal_nan: str) -> str | None:
    """The first number that differs, in row-major order, a NaN before others; the rule of conformance/truth/compare.py."""
    have, need = got.detach().cpu().double().flatten(), want.detach().cpu().double().flatten()
    limit = tolerance(want) if within is None else within
    same = (have == need) | ((have - need).abs() <= limit)
    if equal_nan:
        same |= have.isnan() & need.isnan()
    if bool(same.all()):
        return None
    wrong = (~same).nonzero().flatten().tolist()
    nan = [index for index in wrong if bool(have[index].isnan())]
    first = (nan or wrong)[0]
    at = f" at {place(first, list(want.shape))}" if want.dim() else ""
    came, wanted = apart(have[first].item(), need[first].item())
    if nan:
        return f"NaN{at}, want {wanted}; {len(nan)} of {have.numel()} numbers are NaN"
    if want.dtype == torch.bool:
        came, wanted = str(bool(have[first])), str(bool(need[first]))
    values = f"got {came}, want {wanted}" + (f" (tolerance {limit:.2g})" if limit else "")
    return f"first difference{at}: {values}; {len(wrong)} of {have.numel()} differ"


def apart(one: float, other: float) -> tuple[str, str]:
    """Two numbers with enough digits to tell them apart."""
    written = [(f"{one:.{digits}g}", f"{other:.{digits}g}") for digits in (6, 9, 17)]
    return next((pair for pair in written if pair[0] != pair[1]), written[-1])


def place(index: int, shape: list[int]) -> list[int]:
    """The place of an element that is number `index` in row-major order; torch.unravel_index takes a second to import."""
    found: list[int] = []
    for size in reversed(shape):
        index, rest = divmod(index, size)
        found.insert(0, rest)
    return found


def tolerance(want: Tensor) -> float:
    """ROUNDINGS units in the last place of the largest finite number wanted; 0 for integers."""
    if not want.is_floating_point():
        return 0.0
    finite = want.detach().double()[want.isfinite()].abs()
    return float(ROUNDINGS * torch.finfo(want.dtype).eps * (finite.max().item() if finite.numel() else 0.0))

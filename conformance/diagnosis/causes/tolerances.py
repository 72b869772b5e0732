"""Errors over their tolerance: rounding in float64, or a measured noise floor."""

from collections.abc import Callable

import torch
from torch import Tensor

from conformance.numerics.floor import kind_of, load_floors
from conformance.numerics.statistics import measure
from conformance.truth.compare import SEMANTIC_BAR, row_error

Excess = Callable[[str, Tensor, Tensor], float]  # tap, engine's value, truth → error over tolerance; fits if ≤ 1


def float64_excess(bar: float = SEMANTIC_BAR) -> Excess:
    """Relative to the largest value of each row."""
    return lambda name, got, want: row_error(got, want) / bar


def floor_excess(dtype: str, device: str = "cpu", view: str = "local") -> Excess:
    """The noise floor of this dtype in `golden/floor.json`: of a module by itself ("local"), or of a whole model
    ("accumulated") if only logits are shown."""
    floors = load_floors(dtype, device)

    def excess(name: str, got: Tensor, want: Tensor) -> float:
        if got.shape != want.shape:
            return torch.inf
        if name.endswith(".weights"):  # the floor is one of logarithms
            got, want = got.log(), want.log()
        kind = kind_of(name, {})
        return floors.excess(measure(got[..., None], want[..., None]), view, "all", kind)[1]

    return excess

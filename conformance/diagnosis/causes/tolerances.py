"""How far a value may be from the truth, as multiples of what is allowed: rounding of float64, or a measured noise floor."""

from collections.abc import Callable

import torch
from torch import Tensor

from conformance.numerics.floor import kind_of, load_floors
from conformance.numerics.statistics import measure
from conformance.truth.steps import BAR, row_error

Excess = Callable[[str, Tensor, Tensor], float]  # a tap, what the engine has, what is right → at most 1 where it fits


def float64_excess(bar: float = BAR) -> Excess:
    """Every row to a part of its largest value."""
    return lambda name, got, want: row_error(got, want) / bar


def floor_excess(dtype: str, device: str = "cpu", view: str = "local") -> Excess:
    """What honest engines need in this dtype, as `golden/floor.json` has it: of a module by itself ("local"), or of a whole
    model ("accumulated"), where nothing but logits is seen."""
    floors = load_floors(dtype, device)

    def excess(name: str, got: Tensor, want: Tensor) -> float:
        if got.shape != want.shape:
            return torch.inf
        if name.endswith(".weights"):  # the floor is one of logarithms
            got, want = got.log(), want.log()
        kind = kind_of(name, {})
        return floors.excess(measure(got[..., None], want[..., None]), view, "all", kind)[1]

    return excess

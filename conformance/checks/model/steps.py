"""Local replay: every module of a model on the inputs it should have had, so that errors don't add up.

A *step* is a piece of the runtime on true inputs with the value it must give. Outer steps (a norm, attention, an MLP, a block)
are all that is judged, as every correct engine shares their values. Only where one of them is wrong do its inner steps say
where: weights, matrices, rotation, mask, scores. Those are named as the runtime has them, and are no law for others.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from conformance.checks import Failed, compared, place_of

BAR = 1e-10  # float64 against float64: rounding gives about 1e-14
Inner = Callable[[], list[Failed]]


@dataclass
class Step:
    """`run` must give `want`; where it does not, `inner` finds the parts that are at fault, else it is `place`."""

    place: str
    run: Callable[[], Any]
    want: Tensor
    note: str = ""
    inner: Inner | None = None

    def faults(self) -> list[Failed]:
        """What is wrong, innermost; nothing when all is right."""
        compared()
        try:
            error = row_error(self.run(), self.want)
            detail = f"{self.note} off by {error:.1e} on true inputs (bar {BAR:.0e})".strip()
        except Exception as raised:
            # Inputs are true, so it is this step's fault, or an inner step's, which finds it with true inputs too.
            error, detail = torch.inf, f"{type(raised).__name__} in {place_of(raised.__traceback__)}: {str(raised)[:200]}"
        if error <= BAR:
            return []
        return (self.inner() if self.inner else []) or [Failed(self.place, detail)]


def all_faults(steps: Iterable[Step]) -> list[Failed]:
    """The faults of all steps, each place once, in their order."""
    found: dict[str, Failed] = {}
    for step in steps:
        for fault in step.faults():
            found.setdefault(fault.place, fault)
    return list(found.values())


def first_fault(steps: Iterator[Step]) -> None:
    """Raise the first fault there is."""
    for step in steps:
        for fault in step.faults():
            raise fault


def row_error(got: Tensor, want: Tensor) -> float:
    """The largest error of any row, over the largest finite magnitude that this row should have: a small row must not hide
    behind a large one. Infinite for another shape, a NaN, or an infinity in another place."""
    got, want = got.detach().double().cpu(), want.detach().double()
    if got.numel() == want.numel() and got.ndim > want.ndim and got.shape[0] == 1:
        got = got.reshape(want.shape)
    if got.shape != want.shape or got.isnan().any():
        return torch.inf
    finite = want.isfinite()
    if not torch.equal(got[~finite], want[~finite]) or not got[finite].isfinite().all():
        return torch.inf
    size = want.masked_fill(~finite, 0).abs().amax(-1, keepdim=True).clamp(min=1e-12)
    off = (got - want).masked_fill(~finite, 0).abs() / size
    return float(off.max()) if off.numel() else torch.inf

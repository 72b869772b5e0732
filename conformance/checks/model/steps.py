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
from conformance.truth.compare import SEMANTIC_BAR, row_error

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
            detail = f"{self.note} off by {error:.1e} on true inputs (bar {SEMANTIC_BAR:.0e})".strip()
        except Exception as raised:
            # Inputs are true, so it is this step's fault, or an inner step's, which finds it with true inputs too.
            error, detail = torch.inf, f"{type(raised).__name__} in {place_of(raised.__traceback__)}: {str(raised)[:200]}"
        if error <= SEMANTIC_BAR:
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

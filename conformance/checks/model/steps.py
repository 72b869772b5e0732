"""Local replay: every module of a model on its true inputs, so that errors don't add up.

A *step* runs a part of the runtime on true inputs and knows the true output. Only outer steps (a norm, attention, an MLP, a
block) decide, as every correct engine shares their values. If one is wrong, its inner steps find the place: weights, matrices,
rotation, mask, scores. Their names are the runtime's.
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
    """`run` must give `want`; if not, the fault is in the parts that `inner` finds, else at `place`."""

    place: str
    run: Callable[[], Any]
    want: Tensor
    note: str = ""
    inner: Inner | None = None

    def faults(self) -> list[Failed]:
        """The innermost faults; empty if the step is right."""
        compared()
        try:
            error = row_error(self.run(), self.want)
            detail = f"{self.note} off by {error:.1e} on true inputs (bar {SEMANTIC_BAR:.0e})".strip()
        except Exception as raised:
            # Inputs are true, so the fault is this step's or an inner one's, which is found on true inputs too.
            error, detail = torch.inf, f"{type(raised).__name__} in {place_of(raised.__traceback__)}: {str(raised)[:200]}"
        if error <= SEMANTIC_BAR:
            return []
        return (self.inner() if self.inner else []) or [Failed(self.place, detail)]


def all_faults(steps: Iterable[Step]) -> list[Failed]:
    """The faults of all steps in order, each place once."""
    found: dict[str, Failed] = {}
    for step in steps:
        for fault in step.faults():
            found.setdefault(fault.place, fault)
    return list(found.values())


def first_fault(steps: Iterator[Step]) -> None:
    """Raise the first fault, if any."""
    for step in steps:
        for fault in step.faults():
            raise fault

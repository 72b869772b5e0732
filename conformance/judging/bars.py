"""The tolerances: rounding for engines in float64, else the measured noise floor.

No number here was chosen: float64's bar leaves room for any order of sums, and `golden/floor.json` holds the errors of correct
implementations (see `conformance.numerics.floor`), with the factor that leave-one-out found.
"""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from conformance.engines.engine import Taps
from conformance.models.fixtures import FAR_POSITIONS, NEAR
from conformance.numerics.floor import Floors, decided, gate_of, kind_of, load_floors
from conformance.numerics.recording import SHORT
from conformance.numerics.statistics import Statistics, measure
from conformance.truth.compare import SEMANTIC_BAR, row_error
from nanollama.errors import NanollamaError

WORKLOAD = NEAR + len(FAR_POSITIONS) + SHORT  # tokens that floors were measured on


@dataclass(frozen=True)
class Reading:
    """One tap compared with its bar. `alike` is False if the error is within the floor, but not within that of engines that
    round where the runtime does; `excused` counts tokens whose choice of experts is a tie."""

    tap: str
    kind: str
    error: float
    bar: float
    fits: bool
    alike: bool = True
    what: str = ""  # the statistic that is largest
    excused: int = 0


class Bars:
    """The bars of one dtype on one device. `chosen`: the number of experts per token."""

    def __init__(self, dtype: str, device: str) -> None:
        self.dtype, self.device = dtype, device
        self.floors: Floors | None = None
        if dtype != "float64":
            try:
                self.floors = load_floors(dtype, device)
            except RuntimeError as error:
                raise NanollamaError(str(error)) from error

    def judges(self, kind: str, local: bool) -> bool:
        """Whether there is a bar for this kind of tap. The floor has none for routers of a whole model, whose choice depends on
        rounding upstream, nor for attention weights and masks, which differ where small weights round to 0; their effect is
        judged one tap later."""
        return self.floors is None or (kind not in ("weights", "mask") and (local or kind != "gate"))

    def read(
        self, tap: str, got: Sequence[Tensor], want: Sequence[Taps], local: bool, chosen: int = 0, slack: float = 1.0
    ) -> Reading:
        """One tap on some prompts; `slack` is 2 if both values are the engine's."""
        kind = kind_of(tap, want[0])
        if self.floors is None:
            error = max(row_error(mine, taps[tap]) for mine, taps in zip(got, want, strict=True))
            return Reading(tap, kind, error, slack * SEMANTIC_BAR, error <= slack * SEMANTIC_BAR)
        for mine, taps in zip(got, want, strict=True):
            if mine.shape != taps[tap].shape:
                return Reading(tap, kind, torch.inf, 0.0, False, what=f"shape {list(mine.shape)} for {list(taps[tap].shape)}")
        sure = torch.cat([self.sure(tap, taps, local, chosen) for taps in want])
        mine, truth = torch.cat([*got]), torch.cat([taps[tap] for taps in want])
        return self.held(tap, kind, mine[sure], truth[sure], "local" if local else "accumulated", slack, int((~sure).sum()))

    def held(self, tap: str, kind: str, got: Tensor, want: Tensor, view: str, slack: float, excused: int) -> Reading:
        """A tap against the floor of its kind; `what` names the statistic with the largest share of its bar."""
        if not len(want):
            return Reading(tap, kind, 0.0, 0.0, True, what="every token is a tie", excused=excused)
        kind = "mlp" if (view, kind) == ("accumulated", "experts") else kind  # what follows a sure choice is an MLP
        found = measure(got[..., None], want[..., None])
        room = self.allowed(view, "all", kind, len(want))
        what, excess = found.over(room).worst()
        alike = found.over(self.allowed(view, "order", kind, len(want))).worst()[1] <= slack
        return Reading(tap, kind, getattr(found, what), slack * getattr(room, what), excess <= slack, alike, what, excused)

    def allowed(self, view: str, tier: str, kind: str, tokens: int = WORKLOAD) -> Statistics:
        """The bar of each statistic. Floors were measured on the whole workload; over fewer tokens less cancels in a mean."""
        assert self.floors is not None
        floor, factor = self.floors.floors[view][tier][kind], self.floors.factors[view][tier]
        room = Statistics(*(a * b for a, b in zip(astuple(floor), astuple(factor), strict=True)))
        few = max(1.0, math.sqrt(WORKLOAD / tokens))
        return Statistics(room.row, few * room.column, few * room.gain, few * room.offset)

    def row(self, kind: str, local: bool) -> float:
        """The bar on the worst token, relative to its values."""
        if self.floors is None:
            return SEMANTIC_BAR
        view, known = ("local", kind) if local else ("accumulated", {"experts": "mlp", "gate": "mlp"}.get(kind, kind))
        return self.allowed(view, "all", known).row

    def nats(self, logits: Tensor) -> float:
        """The tolerance of a log-probability of the whole model, in nats."""
        size = float(logits.square().mean().sqrt())
        return size * (SEMANTIC_BAR if self.floors is None else self.allowed("accumulated", "all", "logits").row)

    def sure(self, tap: str, want: Taps, local: bool, chosen: int) -> Tensor:
        """Which tokens have no tie between experts. A module by itself depends on its router alone; the whole model on all
        routers before, of this token and of those that it attends to."""
        assert self.floors is not None
        everyone = torch.ones(len(want[tap]), dtype=torch.bool)
        if local:
            gate = gate_of(tap, want)
            return everyone if gate is None else decided(gate[..., None], chosen, self.floors.router_nats)
        for name in list(want)[: list(want).index(tap) + 1]:
            if name.endswith(".mlp.gate"):
                nats = self.allowed("accumulated", "all", "norm").row * float(want[name].square().mean().sqrt())
                everyone &= decided(want[name][..., None], chosen, nats)
        return everyone.cumprod(0).bool()

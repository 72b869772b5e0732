"""The values that an engine showed in one run, and the comparison with a trace of the reference."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from conformance.diagnosis.causes.tolerances import Excess
from conformance.engines.engine import Prompt, Taps
from conformance.truth.reference import Trace


@dataclass
class Observation:
    """One run of an engine.

    `taps` [T, …] by the names of `conformance.truth.taps`, as engines give them: L3 all, L2 "logits" alone (log-probabilities).
    `inputs`: what was put into its modules (L4), by their names; without them every module is judged on what the engine itself
    had before it. `rows`: how many sequences shared the batch.
    """

    prompt: Prompt
    taps: Taps
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    rows: int = 1

    def __post_init__(self) -> None:
        self.shown = {name: comparable(name, tap.detach().cpu().double()) for name, tap in self.taps.items()}
        self.ids, self.positions = torch.tensor(self.prompt.ids), torch.tensor(self.prompt.positions)

    @property
    def phase(self) -> str:
        """How the tokens went in, as part of a sentence."""
        if self.rows > 1:
            return "in a batch of unequal rows" + (" with a cache" if self.prompt.chunks else "")
        if not self.prompt.chunks:
            return "in one call without a cache"
        return "token by token" if max(self.prompt.chunks) == 1 else "in several calls with a cache"

    @property
    def calls(self) -> Tensor:
        """The number of the call that each token went in with, [T]."""
        sizes = torch.tensor(self.prompt.chunks or (len(self.ids),))
        return torch.arange(len(sizes)).repeat_interleave(sizes)

    def given(self) -> Taps:
        """The engine's values to continue from, by the names of the trace."""
        values = {
            name: tap for name, tap in self.shown.items() if not name.endswith((".gate", ".weights")) and name != "logits"
        }
        for name, tap in self.shown.items():
            if name.endswith(".weights"):
                values[name.removesuffix("weights") + "attend"] = tap.transpose(0, 1)
        values |= {f"{name}.in": value.detach().cpu().double() for name, value in self.inputs.items()}
        return {name: value for name, value in values.items() if value.isfinite().all()}

    def errors(self, trace: Trace, excess: Excess) -> dict[str, float]:
        """The error of each tap to a trace, over its tolerance."""
        return {name: excess(name, tap, of_trace(trace, name)) for name, tap in self.shown.items()}


def comparable(name: str, tap: Tensor) -> Tensor:
    """A tap as it is compared: attention weights themselves, not their logarithms, however an engine writes "none"."""
    return tap.exp() if name.endswith(".weights") else tap


def of_trace(trace: Trace, name: str) -> Tensor:
    """The same value of the reference."""
    if name.endswith(".weights"):
        return trace[name.removesuffix("weights") + "attend"].transpose(0, 1)
    return trace[name].log_softmax(-1) if name == "logits" or name.endswith(".gate") else trace[name]

"""Negative controls: engines that are wrong on purpose, judged in every run. If one passes, the run is invalid.

All are the independent reference, changed: zeros, the same values for every token, noise of twice the bar, a bug (another
epsilon), and no output at all, which must not count as a pass.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from conformance.engines.engine import Answer, Engine, Prompt, Taps, Unsupported
from conformance.engines.subject import local_taps, taps_of
from conformance.judging.bars import Bars
from conformance.models.fixtures import SEED
from conformance.models.weights import unit
from conformance.numerics.floor import kind_of
from conformance.requirements.results import About
from conformance.truth.reference import Reference
from conformance.truth.spec import Spec, read_spec
from conformance.truth.stored import module_tensors
from nanollama.model.dtypes import DTYPES

Spoil = Callable[[str, Tensor, Taps, bool], Tensor]  # of a tap by name, among others, by itself or not


class ReferenceEngine(Engine):
    """The independent reference as an engine, with a changed config or changed values."""

    def __init__(self, dtype: str, spoil: Spoil, misread: Callable[[Spec], Spec] = lambda spec: spec) -> None:
        self.dtype, self.spoil, self.misread = dtype, spoil, misread
        self.reference: Reference

    def about(self) -> About:
        """All levels of a model."""
        return About("made", "0", ("L2", "L3", "L4"), self.dtype)

    def load(self, folder: Path) -> None:
        """Read the files, as an engine must."""
        spec = read_spec(json.loads((folder / "config.json").read_text()))
        if self.dtype != "float64":
            spec = replace(spec, embedding_scale=float(torch.tensor(spec.embedding_scale, dtype=DTYPES[self.dtype])))
        self.reference = Reference(self.misread(spec), module_tensors(spec, load_file(folder / "model.safetensors")))

    def run(self, prompt: Prompt, taps: bool = False) -> Answer:
        """One call, whatever the chunks."""
        trace = self.reference.run(torch.tensor(prompt.ids), torch.tensor(prompt.positions))
        found = taps_of(trace) | {"logits": trace["logits"].log_softmax(-1)}
        spoilt = {name: self.spoil(name, value, found, False) for name, value in found.items()}
        return Answer(spoilt.pop("logits"), spoilt if taps else {})

    def inject(self, prompt: Prompt, inputs: Mapping[str, Tensor]) -> Taps:
        """Every module by itself."""
        ids, positions = torch.tensor(prompt.ids), torch.tensor(prompt.positions)
        found = local_taps(self.reference, self.reference.embed(ids, positions), dict(inputs), positions)
        return {name: self.spoil(name, value, found, True) for name, value in found.items()}


class Mute(ReferenceEngine):
    """An engine without output."""

    def run(self, prompt: Prompt, taps: bool = False) -> Answer:
        """No output."""
        raise Unsupported("it gives nothing")


def right(name: str, value: Tensor, among: Taps, local: bool) -> Tensor:
    """The truth."""
    return value


def zeros(name: str, value: Tensor, among: Taps, local: bool) -> Tensor:
    """Nothing but zeros."""
    return torch.zeros_like(value)


def constant(name: str, value: Tensor, among: Taps, local: bool) -> Tensor:
    """The first token's values for every token."""
    return value[:1].expand_as(value).clone()


def noisy(bars: Bars) -> Spoil:
    """The truth plus noise of twice the bar, of either sign."""

    def spoil(name: str, value: Tensor, among: Taps, local: bool) -> Tensor:
        kind = kind_of(name, among)
        signs = torch.from_numpy(unit(SEED, name, value.numel())).sign().reshape(value.shape)
        size = bars.row(kind, local) * value.masked_fill(value == -torch.inf, 0).abs().amax(-1, keepdim=True)
        return value + 2 * size * signs

    return spoil


def far_epsilon(spec: Spec) -> Spec:
    """A bug of small effect: ten times the epsilon."""
    return replace(spec, eps=10 * spec.eps)


def controls(dtype: str, bars: Bars) -> dict[str, Engine]:
    """The engines that must not pass."""
    return {
        "null engine": ReferenceEngine(dtype, zeros),
        "constant engine": ReferenceEngine(dtype, constant),
        "noisy engine": ReferenceEngine(dtype, noisy(bars)),
        "engine with a bug": ReferenceEngine(dtype, right, far_epsilon),
        "engine that gives nothing": Mute(dtype, right),
    }

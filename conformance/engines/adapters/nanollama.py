"""This project's runtime as an engine: every level, through hooks."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

import nanollama
from conformance.engines.engine import Answer, Engine, Prompt, Taps, Unsupported, parse_options
from conformance.numerics import observe as watching
from conformance.numerics.ways import chunks, whole
from conformance.requirements.results import About
from conformance.truth.taps import eager_attention
from nanollama.errors import NanollamaError
from nanollama.lm import load_model
from nanollama.model.dtypes import DTYPES

DEVICES = ("cpu", "cuda", "mps")


class Nanollama(Engine):
    """The runtime as installed here. Logits are from its default attention, taps from the eager one."""

    def __init__(self, argument: str = "") -> None:
        chosen = parse_options(argument, dtype=tuple(DTYPES), device=DEVICES)
        self.dtype, self.device = chosen["dtype"], chosen["device"]

    def about(self) -> About:
        """All levels of a model."""
        return About("nanollama", nanollama.__version__, ("L2", "L3", "L4"), self.dtype, self.device)

    def load(self, folder: Path) -> None:
        """The model of a checkpoint folder."""
        self.loaded = None
        try:
            self.loaded = load_model(folder, self.dtype, self.device)
        except NanollamaError as error:
            raise Unsupported(str(error)) from error

    def in_dtype(self, dtype: str) -> Engine | None:
        """The runtime in another dtype, on the same device."""
        return Nanollama(f"{dtype},{self.device}")

    def run(self, prompt: Prompt, taps: bool = False) -> Answer:
        """One row; in chunks from a cache."""
        with torch.inference_mode():
            logits = torch.cat([step.run(self.model)[0] for step in way_of(prompt)(self.model, [observed_prompt(prompt)])])
            return Answer(logits.cpu().double(), self.seen(prompt, None) if taps else {})

    def inject(self, prompt: Prompt, inputs: Mapping[str, Tensor]) -> Taps:
        """Every named module gets its input just before it runs."""
        with torch.inference_mode():
            return self.seen(prompt, dict(inputs))

    def seen(self, prompt: Prompt, inputs: Taps | None) -> Taps:
        """All taps of a run."""
        with eager_attention(self.model):
            found, _ = watching.observe(self.model, way_of(prompt), [observed_prompt(prompt)], inputs)
        return dict(named(found))


def observed_prompt(prompt: Prompt) -> watching.Prompt:
    """A prompt as the hooks take it."""
    return watching.Prompt(torch.tensor(prompt.ids), torch.tensor(prompt.positions))


def way_of(prompt: Prompt) -> watching.Way:
    """Whole without a cache, or in pieces from one."""
    return chunks(list(prompt.chunks)) if prompt.chunks else whole


def named(found: watching.Observed) -> Iterable[tuple[str, Tensor]]:
    """Taps as engines give them: of attention weights only those on real tokens, and no axis of length 1."""
    for name, seen in found.items():
        yield name, seen.values[..., :-1] if name.endswith(".weights") else seen.values[..., 0]


ENGINE = Nanollama

"""Engines: one small file each. Whatever can load a checkpoint folder and answer is judged by the same tests.

An engine says what it offers by levels, each of which needs those before it only where that makes sense:

* L0 text: `complete` (an OpenAI-compatible server)
* L1 log-probabilities: `complete` with logprobs
* L2 logits: `run`
* L3 taps, the values inside: `run` with `taps=True`
* L4 injection: `inject`, every module on inputs that it is given

Names of taps and modules are those of `conformance.truth.taps`: what every correct engine shares, whatever it calls it. A tap
has one row per token: attention weights are [T, H, S], as logarithms, S counting the keys in the order of the prompt; the
router's choices ("mlp.gate") and "logits" are log-probabilities. All values are float64, exactly what the engine computed.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from conformance.requirements.results import About
from nanollama.errors import NanollamaError

Taps = dict[str, Tensor]


class Unsupported(Exception):
    """The engine can't do this; the text says why, and goes into the report."""


class Broken(RuntimeError):
    """The engine or its adapter broke down, or answers what no engine can mean; the text says how."""


def parse_options(argument: str, **choices: Sequence[str]) -> dict[str, str]:
    """An engine's argument, words with commas between: one of each group at most, else the group's first."""
    words = [word.strip() for word in argument.split(",") if word.strip()]
    chosen = {group: [word for word in words if word in known] for group, known in choices.items()}
    known = [word for group in choices.values() for word in group]
    for word in words:
        if word not in known:
            raise NanollamaError(f"{word!r} is no option of this engine; there are {', '.join(known)}")
    for group, found in chosen.items():
        if len(found) > 1:
            raise NanollamaError(f"{found[0]!r} and {found[1]!r} are both a {group}; name one of them")
    return {group: found[0] if found else choices[group][0] for group, found in chosen.items()}


def row_per_token(value: Tensor) -> Tensor:
    """float64 [T, …] of a value of one sequence: [1, T, …], attention weights [1, H, T, S], or [T, …]."""
    value = value.detach().double()
    if value.ndim == 4:
        return value[0].transpose(0, 1)
    return value[0] if value.ndim == 3 else value


@dataclass(frozen=True)
class Prompt:
    """What a model is run on: token ids and their positions [T], and how many tokens go in with each call (all: at once)."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    chunks: tuple[int, ...] = ()


@dataclass
class Answer:
    """Logits [T, V] of every token of the prompt, and the taps [T, …] where they were asked for."""

    logits: Tensor
    taps: Taps = field(default_factory=dict)


class Engine(ABC):
    """An engine under test. It holds one model at a time; whatever it can't do raises Unsupported."""

    loaded: Any = None  # what `load` made; None: no model is loaded

    @property
    def model(self) -> Any:
        """The loaded model; Unsupported if there is none."""
        if self.loaded is None:
            raise Unsupported("no model is loaded")
        return self.loaded

    @abstractmethod
    def about(self) -> About:
        """Who it is and what it offers; may change with `load`."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Load a checkpoint folder as transformers has it (config.json, model.safetensors, perhaps tokenizer files)."""

    def in_dtype(self, dtype: str) -> "Engine | None":
        """The same engine in another dtype, with no model loaded; None if it has no other."""
        return None

    def run(self, prompt: Prompt, taps: bool = False) -> Answer:
        """L2, L3: the model on a prompt."""
        raise Unsupported("it gives no logits")

    def inject(self, prompt: Prompt, inputs: Mapping[str, Tensor]) -> Taps:
        """L4: the same with the input [T, …] of every named module replaced; the taps that come of it."""
        raise Unsupported("it takes no inputs for its modules")

    def complete(self, request: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """L0, L1: an OpenAI completions request; its answer, or with "stream" its events in order."""
        raise Unsupported("it has no text interface")

    def close(self) -> None:  # noqa: B027 — most engines have nothing to let go of
        """Let go of the model and whatever runs it."""

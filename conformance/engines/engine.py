"""The interface of an engine under test. Any engine that loads a checkpoint folder is judged by the same comparisons.

An engine offers levels, independent of each other:

* L0 text: `complete` (an OpenAI-compatible server)
* L1 log-probabilities: `complete` with logprobs
* L2 logits: `run`
* L3 taps, the values inside the model: `run` with `taps=True`
* L4 injection: `inject`, every module on given inputs

Names of taps and modules are those of `conformance.truth.taps`, whatever the engine calls them. A tap has one row per token:
log attention weights [T, H, S], with the keys in the order of the prompt; router scores ("mlp.gate") [T, experts] and
"logits" [T, V] as log-probabilities. All values are float64 copies of the engine's values.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from conformance.requirements.results import About
from nanollama.errors import NanollamaError, unknown_name

Taps = dict[str, Tensor]


class Unsupported(Exception):
    """The engine can't do this; the message is the reason, and goes into the report."""


class Broken(RuntimeError):
    """The engine or its adapter crashed, or its answer is invalid; the message is the reason."""


def parse_options(argument: str, **choices: Sequence[str]) -> dict[str, str]:
    """Parse an engine's argument, words with commas between: at most one of each group; the default is the group's first."""
    words = [word.strip() for word in argument.split(",") if word.strip()]
    chosen = {group: [word for word in words if word in known] for group, known in choices.items()}
    known = [word for group in choices.values() for word in group]
    for word in words:
        if word not in known:
            raise unknown_name("option of this engine", word, known)
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
    """A model's input: token ids and positions [T], and the number of tokens of each call (empty: one call)."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    chunks: tuple[int, ...] = ()


@dataclass
class Answer:
    """Logits [T, V] of the prompt, and the taps [T, …] if they were requested."""

    logits: Tensor
    taps: Taps = field(default_factory=dict)


class Engine(ABC):
    """An engine under test. It holds one model at a time; methods raise Unsupported for anything that it can't do."""

    loaded: Any = None  # the model, or the handle that runs it; None before `load`

    @property
    def model(self) -> Any:
        """The loaded model; Unsupported if there is none."""
        if self.loaded is None:
            raise Unsupported("no model is loaded")
        return self.loaded

    @abstractmethod
    def about(self) -> About:
        """Its name, version and levels; may change with `load`."""

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
        """L4: the taps of a run in which the input [T, …] of every named module is replaced."""
        raise Unsupported("it takes no inputs for its modules")

    def complete(self, request: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """L0, L1: an OpenAI completions request; returns its answer, or with "stream" its events in order."""
        raise Unsupported("it has no text interface")

    def close(self) -> None:  # noqa: B027 — most engines hold no resources
        """Free the model and everything that runs it."""

"""One side of `nanollama verify A B`: a model of the runtime, or of transformers, that gives taps and logits."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from conformance.truth.taps import Taps, runtime_taps
from nanollama.checkpoint.hub import resolve
from nanollama.checkpoint.names import Weight
from nanollama.checkpoint.source import is_gguf, open_source
from nanollama.errors import NanollamaError
from nanollama.lm import load_model
from nanollama.model.transformer import Transformer
from nanollama.quant.modules import Stored


@dataclass
class Side:
    """One of the two models."""

    name: str
    path: Path
    taps: Callable[[Tensor], Taps]
    logits: Callable[[Tensor], Tensor]
    model: Transformer | None  # None: its modules can't be replayed
    vocab_size: int
    quantize: str | None = None

    def stored(self) -> Mapping[str, Weight]:
        """The stored weights: those of the files, or of `--quantize` in memory."""
        tensors = dict(open_source(self.path).tensors)
        modules = self.model.named_modules() if self.model is not None and self.quantize else ()
        return tensors | {f"{name}.weight": module.weight for name, module in modules if isinstance(module, Stored)}


def load_side(spec: str, dtype: str) -> Side:
    """A model by its spec: a folder, GGUF file or hub id; `transformers:FOLDER` runs the files in transformers, `q8:…` and
    `q4:…` round the matrices as `--quantize` does."""
    engine, _, rest = spec.partition(":")
    if engine == "transformers":
        return transformers_side(resolve(rest), dtype)
    quantize = engine if engine in ("q8", "q4") else None
    path = resolve(rest if quantize else spec)
    model = load_model(path, dtype, "cpu", quantize)

    def taps(ids: Tensor) -> Taps:
        return runtime_taps(model, lambda: model(ids))

    return Side(spec, path, taps, model, model, model.config.vocab_size, quantize)


def transformers_side(folder: Path, dtype: str) -> Side:
    """transformers' model of a folder, with taps."""
    from conformance.truth.oracle import load_oracle, oracle_logits
    from conformance.truth.taps import oracle_taps

    if is_gguf(folder):
        raise NanollamaError(f"transformers:{folder} is a file; expected a checkpoint folder, which transformers runs as it is")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_oracle(folder, getattr(torch, dtype))
    return Side(
        f"transformers:{folder}",
        folder,
        lambda ids: oracle_taps(model, lambda: oracle_logits(model, ids)),
        lambda ids: oracle_logits(model, ids),
        None,
        model.config.vocab_size,
    )

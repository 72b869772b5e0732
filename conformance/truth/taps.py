"""Taps: the values inside a model that every correct engine must share, recorded by forward hooks.

Only gauge-invariant values are compared: outputs of norms, attention weights (not q and k: an engine may shift all positions,
or permute dimensions of both alike), the weighted sum of values, the outputs of attention and MLP, the residual stream, router
choices, and logits as log-probabilities. Names are the module names of our Transformer.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

from nanollama.model.transformer import Transformer

Taps = dict[str, Tensor]
NORMS = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
GPT2_NAMES = {
    "norm": "ln_f",
    "self_attn": "attn",
    "o_proj": "c_proj",
    "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2",
    "layers": "h",
}


@contextmanager
def hooks(pairs: list[tuple[nn.Module, Callable[[Any, Any], Any], bool]]) -> Iterator[None]:
    """Call `see(inputs, output)` after each module while inside; with True, `see(inputs, None)` before it. A result
    other than None replaces the output (or the inputs)."""
    handles = []
    for module, see, before in pairs:
        if before:
            handles.append(module.register_forward_pre_hook(lambda _, args, see=see: see(args, None)))
        else:
            handles.append(module.register_forward_hook(lambda _, args, out, see=see: see(args, out)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def first(value: Any) -> Tensor:
    """The first tensor of an output that may be a tuple."""
    return value[0] if isinstance(value, tuple) else value


def log_weights(scores: Tensor) -> Tensor:
    """Log of the attention weights; -inf at masked keys."""
    return scores.log_softmax(-1)


class Recorder:
    """Collects named tensors from hooks."""

    def __init__(self) -> None:
        self.taps: Taps = {}
        self.pairs: list[tuple[nn.Module, Callable[[Any, Any], None], bool]] = []

    def output(self, name: str, module: nn.Module, change: Callable[[Any], Tensor] = first) -> None:
        """Record a module's output after `change`."""
        self.pairs.append((module, lambda _, out: self.taps.__setitem__(name, change(out).detach().clone()), False))

    def input(self, name: str, module: nn.Module) -> None:
        """Record a module's first input."""
        self.pairs.append((module, lambda args, _: self.taps.__setitem__(name, args[0].detach().clone()), True))


def blocks(model: Transformer) -> list[Any]:
    """The layers of our model."""
    return list(model.layers)


def runtime_taps(model: Transformer, run: Callable[[], Tensor]) -> Taps:
    """Run our model (with eager attention) and return its taps."""
    recorder = Recorder()
    recorder.input("embeddings", model.layers[0])
    for i, layer in enumerate(blocks(model)):
        attention = layer.self_attn
        recorder.output(f"layers.{i}.self_attn.weights", attention.attend.scores, log_weights)
        recorder.input(f"layers.{i}.self_attn.context", attention.o_proj)
        recorder.output(f"layers.{i}.self_attn", attention)
        recorder.output(f"layers.{i}.mlp", layer.mlp)
        if hasattr(layer.mlp, "gate"):
            recorder.output(f"layers.{i}.mlp.gate", layer.mlp.gate, lambda out: out.log_softmax(-1))
        for norm in NORMS:
            if getattr(layer, norm) is not None:
                recorder.output(f"layers.{i}.{norm}", getattr(layer, norm))
        recorder.output(f"layers.{i}", layer)
    recorder.output("norm", model.norm)
    with eager_attention(model), hooks(recorder.pairs):
        recorder.taps["logits"] = run().log_softmax(-1)
    return recorder.taps


@contextmanager
def eager_attention(model: Transformer) -> Iterator[None]:
    """Use eager attention inside."""
    before = [layer.self_attn.attend.implementation for layer in blocks(model)]
    for layer in blocks(model):
        layer.self_attn.attend.implementation = "eager"
    try:
        yield
    finally:
        for layer, implementation in zip(blocks(model), before, strict=True):
            layer.self_attn.attend.implementation = implementation


def oracle_taps(model: "PreTrainedModel", run: Callable[[], Tensor]) -> Taps:
    """Run transformers' model and return the same taps under the same names."""
    recorder, gpt2 = Recorder(), model.config.model_type == "gpt2"

    def theirs(name: str) -> Any:
        parts = [GPT2_NAMES.get(part, part) if gpt2 else part for part in name.split(".")]
        return model.base_model.get_submodule(".".join(parts))

    recorder.input("embeddings", theirs("layers.0"))
    for i in range(model.config.num_hidden_layers):
        at = f"layers.{i}"
        attention, mlp = theirs(f"{at}.self_attn"), theirs(f"{at}.mlp")
        recorder.output(f"{at}.self_attn.weights", attention, lambda out: out[1].log())
        recorder.input(f"{at}.self_attn.context", theirs(f"{at}.self_attn.o_proj"))
        recorder.output(f"{at}.self_attn", attention)
        recorder.output(f"{at}.mlp", mlp)
        if hasattr(mlp, "gate"):
            recorder.output(f"{at}.mlp.gate", mlp.gate, lambda out: first(out).log_softmax(-1))
        for norm in NORMS:
            if any(name == GPT2_NAMES.get(norm, norm) if gpt2 else name == norm for name, _ in theirs(at).named_children()):
                recorder.output(f"{at}.{norm}", theirs(f"{at}.{norm}"))
        recorder.output(at, theirs(at))
    recorder.output("norm", theirs("norm"))
    with hooks(recorder.pairs):
        recorder.taps["logits"] = run().log_softmax(-1)
    return recorder.taps

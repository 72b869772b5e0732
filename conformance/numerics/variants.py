"""Honest variants: other correct implementations of the runtime, and correct ways to call it.

All are the same function: in float64 they equal the golden to 1e-10 (a test). In lower precision each rounds a little
differently, and an engine may differ by that spread. There are two classes with separate scores:

* *order*: the same roundings in another order. An engine's author cannot choose the order in a kernel.
* *precision policy*: roundings at other places (before the norm's weight, after each partial sum, angles in float32). Known
  engines do it on purpose; it is a choice, not an error.
"""

import copy
import dataclasses
import importlib.util
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from conformance.numerics import patches, ways
from conformance.numerics.observe import Way
from nanollama.model import layers
from nanollama.model.config import ModelConfig
from nanollama.model.layers import at_least_float32
from nanollama.model.rope import Rotary
from nanollama.model.transformer import Transformer

Reason = str | None
Patch = Callable[[Transformer], AbstractContextManager[Transformer]]
T = TypeVar("T")


@contextmanager
def put(model: T, *replacements: tuple[Any, str, object]) -> Iterator[T]:
    """Replace attributes of classes or modules inside the block; yields `model` unchanged."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in replacements]
    for owner, name, value in replacements:
        setattr(owner, name, value)
    try:
        yield model
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def replacing(*replacements: tuple[Any, str, object]) -> Patch:
    """A patch that replaces these."""
    return lambda model: put(model, *replacements)


def linears(function: object) -> Patch:
    """A patch that computes every matrix product by another function."""
    return replacing((layers, "linear", function))


def attends(function: object) -> Patch:
    """A patch that computes attention's core by another function."""
    return replacing((layers.Attend, "forward", function))


def narrow_angles(by_exponent: bool) -> Patch:
    """A patch that makes rotary tables in the dtype of the model, at least float32."""
    return lambda model: put(model, (Rotary, "forward", patches.narrow_angles(at_least_float32(model.dtype), by_exponent)))


@contextmanager
def wide_activations(model: Transformer) -> Iterator[Transformer]:
    """The stored weights as they are, everything computed in at least float32; Gemma's scale is rounded as it defines it."""
    wide = copy.deepcopy(model).to(at_least_float32(model.dtype))
    scale = float(torch.tensor(model.config.embedding_scale, dtype=model.dtype))
    wide.config = dataclasses.replace(model.config, embedding_scale=scale)
    yield wide


@contextmanager
def compiled(model: Transformer) -> Iterator[Transformer]:
    """Norms, MLPs and the definition of attention through torch.compile."""
    parts = [(layers.RMSNorm, "forward"), (layers.LayerNorm, "forward"), (layers.MLP, "forward")]
    own = [(owner, name, torch.compile(getattr(owner, name), dynamic=False)) for owner, name in parts]
    attend = torch.compile(patches.grouped, dynamic=False)
    with put(model, *own, (layers.Attend, "forward", attend)):
        try:
            yield model
        finally:
            torch.compiler.reset()


def together(*several: Patch) -> Patch:
    """Several patches at once."""

    @contextmanager
    def patch(model: Transformer) -> Iterator[Transformer]:
        with ExitStack() as stack:
            for each in several:
                model = stack.enter_context(each(model))
            yield model

    return patch


def no_patch(model: Transformer) -> AbstractContextManager[Transformer]:
    """The runtime unchanged."""
    return put(model)


@dataclass(frozen=True)
class Variant:
    """One honest implementation. `reason`: why a model has no such variant; `held_out`: the floor was not made from it."""

    name: str
    what: str
    patch: Patch = no_patch
    way: Way = ways.whole
    reason: Callable[[ModelConfig], Reason] = lambda config: None
    policy: bool = False
    held_out: bool = False
    compiles: bool = False


def unless(condition: Callable[[ModelConfig], bool], reason: str) -> Callable[[ModelConfig], Reason]:
    """A function that returns this reason if the condition holds."""
    return lambda config: reason if condition(config) else None


def fixed_positions(config: ModelConfig) -> Reason:
    """Why positions cannot be shifted; None if they can."""
    if config.learned_positions:
        return "learned positions: a shift is another input"
    if any(rope is not None and rope.depends_on_length for rope in config.ropes):
        return "frequencies depend on the length: a shift is another function"
    return None


def has_bias(c: ModelConfig) -> bool:
    """Whether any matrix has a bias."""
    return bool(c.qkv_bias or c.o_bias or c.mlp_bias)


def without_compiler() -> Reason:
    """Why torch.compile cannot work here; None if it can."""
    compiler = shutil.which("g++") or shutil.which("clang++") or shutil.which("cl")
    if compiler is None:
        return "no C++ compiler"
    return None if importlib.util.find_spec("torch._inductor") else "this torch has no inductor"


capped = unless(lambda c: c.attention_softcap is not None, "SDPA has no softcap")
dense = unless(lambda c: not any(c.moe_layers), "no experts")
unbiased = unless(lambda c: not has_bias(c), "no biases")
unrotated = unless(lambda c: not any(c.ropes), "no rotary embedding")
not_llama_norm = unless(lambda c: c.norm != "rms", "its definition multiplies before it rounds, or it is a LayerNorm")
not_pre_norm = unless(lambda c: c.placement != "pre" or c.norm != "rms", "not a pre-norm RMSNorm model")

FUSED_NORM = replacing((layers.RMSNorm, "forward", patches.fused_rms), (layers.LayerNorm, "forward", patches.fused_layer))
REORDERED_NORM = replacing(
    (layers.RMSNorm, "forward", patches.reordered_rms), (layers.LayerNorm, "forward", patches.reordered_layer)
)
LLAMA_NORM = replacing((layers.RMSNorm, "forward", patches.llama_order_rms))
LATE_SCALE = together(replacing((layers.Scores, "forward", patches.late_scale)), attends(patches.eager))
ROUNDED_SCORES = together(replacing((layers.Scores, "forward", patches.rounded_scores)), attends(patches.rounded_weights))
ROUNDED_ROTATION = replacing((layers, "rotate", patches.rounded_rotate))
COMPLEX_ROTATION = replacing((layers, "rotate", patches.complex_rotate))

AS_IS = Variant("as it is", "The runtime unchanged, each prompt whole.")
ORDER = [
    Variant("eager attention", "Attention term by term instead of SDPA.", attends(patches.eager), reason=capped),
    Variant("late scale", "Attention term by term, scaled after the product.", LATE_SCALE),
    Variant("expanded keys", "SDPA with keys and values copied to every query head.", attends(patches.expanded), reason=capped),
    Variant("grouped queries", "Queries grouped by key head; scale after the product; log-sum-exp.", attends(patches.grouped)),
    Variant("online softmax", "A running maximum and sum over blocks of keys.", attends(patches.online)),
    Variant("fused norm", "torch's fused norm kernel.", FUSED_NORM),
    Variant("reordered norm", "Squares summed in lanes from the end, weight first, division.", REORDERED_NORM),
    Variant("reversed sums", "Every matrix product summed in reverse order.", linears(patches.reversed_linear)),
    Variant("split-K 2", "Products in 2 partial sums, added wide.", linears(patches.split_linear(2, False))),
    Variant("split-K 4", "Products in 4 partial sums, added wide.", linears(patches.split_linear(4, False))),
    Variant("upcast products", "Operands widened before the product.", linears(patches.upcast_linear)),
    Variant("transposed weights", "Weights stored [in, out].", linears(patches.transposed_linear)),
    Variant("row by row", "Products of one token at a time.", linears(patches.row_by_row_linear)),
    Variant("tiled outputs", "Products in tiles of 16 outputs.", linears(patches.tiled_linear)),
    Variant("complex rotation", "RoPE as complex multiplication.", COMPLEX_ROTATION, reason=unrotated),
    Variant("dense experts", "All experts on all tokens.", replacing((layers.MoE, "forward", patches.dense_experts(False))),
            reason=dense),
    Variant("positions + 1", "Every position one larger.", way=ways.shifted(1), reason=fixed_positions),
    Variant("positions + 1000", "Every position a thousand larger.", way=ways.shifted(1000), reason=fixed_positions),
    Variant("right padding", "All prompts in one batch, padded at the end.", way=ways.batch(left=False)),
    Variant("left padding", "All prompts in one batch, padded at the front.", way=ways.batch(left=True)),
    Variant("chunked prefill", "Five tokens at a time, from the cache.", way=ways.chunks(5)),
    Variant("token by token", "One token at a time, from the cache.", way=ways.chunks(1)),
    Variant("batch of copies", "Every prompt three times in a batch.", way=ways.copies(3)),
    Variant("ragged decoding", "A batch of unequal prompts, decoded from the cache.", way=ways.ragged),
    Variant("compiled", "Norms, MLPs and attention through torch.compile.", compiled, compiles=True),
]  # fmt: skip
ROUNDED_WEIGHTS = attends(patches.rounded_weights)
WIDE_ACTIVATION = replacing((layers.MLP, "forward", patches.wide_activation))
WIDE_EXPERTS = replacing((layers.MoE, "forward", patches.dense_experts(True)))
ADD_NORM = replacing((layers.Block, "forward", patches.fused_add_norm))
ROUNDED_PARTS = linears(patches.split_linear(2, True))
LATE_BIAS = linears(patches.late_bias_linear)


def policy(name: str, what: str, patch: Patch, reason: Callable[[ModelConfig], Reason] = lambda config: None) -> Variant:
    """A variant that rounds elsewhere."""
    return Variant(name, what, patch, reason=reason, policy=True)


POLICY = [
    policy("Llama's norm order", "Rounded before the weight, and after.", LLAMA_NORM, not_llama_norm),
    policy("rounded probabilities", "Softmax rounded before it multiplies the values.", ROUNDED_WEIGHTS),
    policy("rounded scores", "q·k and its scale rounded: transformers' eager attention.", ROUNDED_SCORES),
    policy("rounded rotation", "cos, sin and products rounded: transformers' RoPE.", ROUNDED_ROTATION, unrotated),
    policy("float32 angles", "RoPE tables from float32 angles.", narrow_angles(False), unrotated),
    policy("float32 frequencies", "RoPE frequencies computed in float32 as well.", narrow_angles(True), unrotated),
    policy("split-K 2, rounded", "Partial sums rounded to the model's dtype.", ROUNDED_PARTS),
    policy("late bias", "The bias added to a rounded product.", LATE_BIAS, unbiased),
    policy("wide activation", "Activation and gate rounded once.", WIDE_ACTIVATION),
    policy("experts summed wide", "Outputs of experts added in float32.", WIDE_EXPERTS, dense),
    policy("fused add and norm", "The norm sees the unrounded residual sum.", ADD_NORM, not_pre_norm),
    policy("float32 activations", "Stored weights, everything else in float32.", wide_activations),
]
ALL_REORDERED = together(REORDERED_NORM, linears(patches.split_linear(3, False)), attends(patches.online), COMPLEX_ROTATION)
ALL_ROUNDED = together(ROUNDED_SCORES, ROUNDED_ROTATION, linears(patches.late_bias_linear))
HELD_OUT = [
    Variant("all reordered", "Norm, products, softmax and rotation reordered, chunks of 3.", ALL_REORDERED, ways.chunks(3),
            held_out=True),
    Variant("split-K 3", "Products in 3 partial sums.", linears(patches.split_linear(3, False)), held_out=True),
    Variant("copies, fused norm", "A batch of 2 copies with fused norms.", FUSED_NORM, ways.copies(2), held_out=True),
    Variant("all rounded", "Scores, probabilities, rotation and bias rounded as in transformers.", ALL_ROUNDED,
            policy=True, held_out=True),
    Variant("split-K 3, rounded", "Three partial sums, rounded.", linears(patches.split_linear(3, True)), policy=True,
            held_out=True),
]  # fmt: skip
VARIANTS = [*ORDER, *POLICY, *HELD_OUT]


def applicable(config: ModelConfig, compile: bool = False) -> list[Variant]:
    """The variants of this model, the unchanged runtime first; those that use torch.compile only if `compile`."""
    chosen = [v for v in VARIANTS if v.reason(config) is None and (compile or not v.compiles)]
    return [AS_IS, *chosen]

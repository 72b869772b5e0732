"""Rotary positions in a GGUF file: keys for theta and scaling, tensors for factors with one number per frequency.

ggml rotates pair j by position · scale / factor[j] · theta^(-2j/dim). The factors (src/llama-model.cpp, conversion/*.py):

* `rope_freqs.weight`: one list, how Llama 3's scaling is stored. LongRoPE with two equal lists is the same function.
* `rope_factors_short.weight` and `…_long.weight`: LongRoPE, one list up to the trained length and one beyond.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nanollama.checkpoint.gguf.keys import Metadata, as_float32, shortest
from nanollama.errors import NanollamaError, quote
from nanollama.model.rope import (
    RopeConfig,
    default_frequencies,
    frequencies,
    longrope_attention_factor,
    yarn_attention_factor,
)

Raw = dict[str, Any]

# The architectures whose graphs read them: src/models/llama.cpp, phi3.cpp.
LONG_SHORT = frozenset({"rope_factors_long.weight", "rope_factors_short.weight"})
READ_BY = {"llama": LONG_SHORT | {"rope_freqs.weight"}, "phi3": LONG_SHORT}
# Llama 3.1 to 3.3 differ in the factor only. Their files are read as the exact config.json that they were made from.
LLAMA3: Raw = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def rope_from_gguf(metadata: Metadata, tensors: Mapping[str, Tensor], head_dim: int, context: Any, partial: bool) -> Raw:
    """The rotary keys of the config.json. context: the trained length. partial: this family can rotate a part of each head."""
    raw: Raw = {
        "rope_theta": metadata.number("rope.freq_base", 10000.0),
        "rope_scaling": read_scaling(metadata, tensors, context),
    }
    dim = metadata.get("rope.dimension_count", head_dim)
    if partial:
        raw["partial_rotary_factor"] = dim / head_dim if type(dim) is int and head_dim else dim
        raw["original_max_position_embeddings"] = metadata.get("rope.scaling.original_context_length", context)
    elif dim != head_dim:
        raise NanollamaError(
            f"rope.dimension_count is {quote(dim)}; expected {head_dim}, the size of a head, of which "
            f"{metadata.architecture} rotates all"
        )
    if metadata.architecture == "gemma3":
        raw["rope_local_base_freq"] = metadata.number("rope.freq_base_swa", 10000.0)
    elif metadata.number("rope.freq_base_swa", raw["rope_theta"]) != raw["rope_theta"]:
        raise NanollamaError("rope.freq_base_swa differs from rope.freq_base; only gemma3 has two kinds of rotation here")
    return raw


def read_scaling(metadata: Metadata, tensors: Mapping[str, Tensor], context: Any) -> Raw | None:
    """The `rope_scaling` object, None if nothing is scaled."""
    kind = metadata.get("rope.scaling.type", None)
    factor = metadata.number("rope.scaling.factor", 0.0) or metadata.number("rope.scale_linear", 0.0) or 1.0
    original = metadata.get("rope.scaling.original_context_length", context)
    if tensors:
        return read_factors(metadata, tensors, kind, factor, original)
    if kind == "yarn" and factor != 1:
        return {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
            **read_yarn(metadata, factor),
        }
    if kind not in (None, "none", "linear", "yarn"):
        raise NanollamaError(f"rope.scaling.type is {quote(kind)}; expected none, linear, yarn, or longrope with its tensors")
    return {"rope_type": "linear", "factor": factor} if factor != 1 and kind != "none" else None


def read_yarn(metadata: Metadata, factor: float) -> Raw:
    """YaRN's other numbers. llama.cpp scales q and k by 1 + 0.1 ln(factor), times attn_factor if the file has one.

    The converter writes the config's attention_factor as `yarn_attn_factor`, which llama.cpp does not read; if that makes a
    difference, the file is refused.
    """
    natural = yarn_attention_factor(factor)
    stated = metadata.number("rope.scaling.yarn_attn_factor", 1.0)
    if stated not in (1.0, shortest(as_float32(natural))):
        raise NanollamaError(
            f"rope.scaling.yarn_attn_factor is {stated}; expected 1: llama.cpp's converter writes it and llama.cpp ignores it"
        )
    if metadata.number("rope.scaling.yarn_ext_factor", 1.0) not in (1.0, -1.0):
        raise NanollamaError("rope.scaling.yarn_ext_factor is not 1; a part of YaRN is not supported")
    raw: Raw = {
        "beta_fast": metadata.number("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": metadata.number("rope.scaling.yarn_beta_slow", 1.0),
    }
    attention = metadata.number("rope.scaling.attn_factor", 1.0)
    return raw if attention == 1 else {**raw, "attention_factor": natural * attention}


def read_factors(metadata: Metadata, tensors: Mapping[str, Tensor], kind: Any, factor: float, original: Any) -> Raw:
    """LongRoPE from its two lists, or from Llama 3's single list, which holds at every length."""
    for name in tensors.keys() - READ_BY.get(str(metadata.architecture), frozenset()):
        raise NanollamaError(f"llama.cpp does not read {name} for {metadata.architecture}: expected no such tensor")
    one = tensors.get("rope_freqs.weight")
    short, long = (tensors.get(f"rope_factors_{length}.weight", one) for length in ("short", "long"))
    if (one is not None) == (len(tensors) > 1) or short is None or long is None:
        raise NanollamaError(f"the file has {', '.join(tensors)}; expected rope_freqs alone, or rope_factors_short and …_long")
    if kind not in (None, "none", "linear", "longrope") or (one is None and factor != 1):
        raise NanollamaError(
            f"rope.scaling.type {quote(kind)} with factor {factor} is not supported together with {', '.join(tensors)}"
        )
    if one is not None and factor == 1 and is_llama3(metadata, one):
        return {**LLAMA3, "factor": float(one.max())}
    raw: Raw = {"rope_type": "longrope", "short_factor": divisors(short, factor), "long_factor": divisors(long, factor)}
    if one is not None:
        return {**raw, "factor": 1.0, "attention_factor": 1.0}
    return {**raw, "original_max_position_embeddings": original, **read_sharpness(metadata, original)}


def is_llama3(metadata: Metadata, stored: Tensor) -> bool:
    """Whether the divisors are those of LLAMA3 with the largest of them as factor, up to float32 rounding."""
    theta, factor = metadata.number("rope.freq_base", 10000.0), float(stored.max())
    if theta <= 1 or not 1 < factor < 1e6:
        return False
    rope = RopeConfig(
        dim=2 * len(stored),
        theta=theta,
        rope_type="llama3",
        factor=factor,
        original_length=LLAMA3["original_max_position_embeddings"],
        low_freq_factor=LLAMA3["low_freq_factor"],
        high_freq_factor=LLAMA3["high_freq_factor"],
    )
    exact = default_frequencies(rope.theta, rope.dim) / frequencies(rope, 0)
    return torch.allclose(stored.double(), exact, rtol=1e-5, atol=0.0)


def read_sharpness(metadata: Metadata, original: Any) -> Raw:
    """LongRoPE's attention factor; {} if it is the value of the paper's formula, rounded to float32."""
    stated, context = metadata.number("rope.scaling.attn_factor", 1.0), metadata.get("context_length")
    if all(type(length) is int and length > 1 for length in (context, original)):
        implied = longrope_attention_factor(context / original, original)
        if stated == shortest(as_float32(implied)):
            return {}
    return {"attention_factor": stated}


def divisors(tensor: Tensor, factor: float) -> list[float]:
    """One divisor for each frequency."""
    return [shortest(value) * factor for value in tensor.double().flatten().tolist()]

"""The inverse of config.py: the keys of a GGUF file for a config, as llama.cpp reads them.

llama.cpp has no key for some parts of a config.json. `check_expressible` reads the result back and compares it, and refuses a
lost part by name before a file is written that would compute something else.
"""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from nanollama.checkpoint.gguf.config import FAMILY_KEYS, KEYS, config_from_gguf
from nanollama.checkpoint.gguf.names import ARCHITECTURES
from nanollama.errors import NanollamaError
from nanollama.model.config import ModelConfig, read_config
from nanollama.model.rope import RopeConfig, default_frequencies, frequencies, yarn_attention_factor

NOT_COMPARED = ("architecture", "dtype")  # in other keys, or not mathematics
LONGEST = 1 << 17  # positions up to which two rotations are compared
CLOSE = 1e-6  # relative: a file holds float32 numbers


def metadata_of(config: ModelConfig) -> dict[str, Any]:
    """The keys of the architecture. Integers are stored as UINT32, floats as FLOAT32."""
    name = ARCHITECTURES[config.architecture].name
    values: dict[str, Any] = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        epsilon_key(config): float(config.norm_eps),
        "vocab_size": config.vocab_size,
    }
    if config.num_experts:
        values |= {"expert_count": config.num_experts, "expert_used_count": config.num_experts_per_tok}
    if name == "qwen3moe":
        values["expert_feed_forward_length"] = config.moe_intermediate_size
    if config.attention_softcap is not None:
        values["attn_logit_softcapping"] = float(config.attention_softcap)
    if config.logit_softcap is not None:
        values["final_logit_softcapping"] = float(config.logit_softcap)
    values |= window_keys(config) | rope_keys(config)
    return {"general.architecture": name, **{f"{name}.{key}": value for key, value in values.items()}}


def epsilon_key(config: ModelConfig) -> str:
    """The key of the norm's epsilon; each kind of norm has its own."""
    return {**KEYS, **FAMILY_KEYS.get(config.architecture, {})}["rms_norm_eps"][0]


def window_keys(config: ModelConfig) -> dict[str, Any]:
    """Gemma: the size of windows and the layers that have one. Phi-3: a size or 0. Others: nothing."""
    sizes = {window for window in config.windows if window is not None}
    if len(sizes) > 1:
        raise NanollamaError(f"windows of {sorted(sizes)} tokens can't be written to one GGUF file; it has one size for all")
    if config.architecture == "Phi3ForCausalLM":
        return {"attention.sliding_window": max(sizes, default=0)}
    if not config.architecture.startswith("Gemma"):
        return {}
    if not sizes:
        return {"attention.sliding_window": 0}
    return {
        "attention.sliding_window": sizes.pop(),
        "attention.sliding_window_pattern": [window is not None for window in config.windows],
    }


def rope_keys(config: ModelConfig) -> dict[str, Any]:
    """Theta and scaling of the layers without a window; for Gemma 3's other layers, theta."""
    rope = main_rope(config)
    if rope is None:
        return {}
    values: dict[str, Any] = {"rope.freq_base": float(rope.theta), "rope.dimension_count": rope.dim}
    if config.architecture == "Gemma3ForCausalLM":
        local = next((r for r, window in zip(config.ropes, config.windows, strict=True) if r and window), rope)
        values["rope.freq_base_swa"] = float(local.theta)
    if rope.rope_type in ("linear", "yarn"):
        values |= {"rope.scaling.type": rope.rope_type, "rope.scaling.factor": float(rope.factor)}
    if rope.rope_type == "yarn":
        natural = yarn_attention_factor(rope.factor)
        values["rope.scaling.original_context_length"] = rope.original_length
        values |= {"rope.scaling.yarn_beta_fast": rope.beta_fast, "rope.scaling.yarn_beta_slow": rope.beta_slow}
        if rope.attention_factor != natural:
            values["rope.scaling.attn_factor"] = rope.attention_factor / natural
    if rope.rope_type == "longrope" and rope.short_factor != rope.long_factor:
        values |= {
            "rope.scaling.type": "longrope",
            "rope.scaling.attn_factor": rope.attention_factor,
            "rope.scaling.original_context_length": rope.original_length,
        }
    return values


def main_rope(config: ModelConfig) -> RopeConfig | None:
    """The rotation of the first rotated layer without a window, else of the first rotated layer; None without RoPE."""
    everywhere = [rope for rope, window in zip(config.ropes, config.windows, strict=True) if rope and window is None]
    return next(iter(everywhere + [rope for rope in config.ropes if rope]), None)


def rope_tensors(config: ModelConfig) -> dict[str, Tensor]:
    """The divisors of the frequencies, float32 [pairs], by tensor name; {} for scalings without such lists."""
    rope = main_rope(config)
    if rope is None or rope.rope_type not in ("llama3", "longrope"):
        return {}
    if rope.rope_type == "llama3" or rope.short_factor == rope.long_factor:
        return {"rope_freqs.weight": (default_frequencies(rope.theta, rope.dim) / frequencies(rope, 0)).float()}
    lists = {"rope_factors_long.weight": rope.long_factor, "rope_factors_short.weight": rope.short_factor}
    return {name: torch.tensor(values, dtype=torch.float32) for name, values in lists.items()}


def check_expressible(config: ModelConfig, metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise for the first field of the config that is lost when this file is read."""
    rounded = {key: float(torch.tensor(v, dtype=torch.float32)) if type(v) is float else v for key, v in metadata.items()}
    read = read_config(config_from_gguf(rounded, shapes, rope_tensors(config)))
    for field in fields(config):
        ours, theirs = getattr(config, field.name), getattr(read, field.name)
        same = same_rotation(config, read) if field.name == "ropes" else close(ours, theirs)
        if field.name not in NOT_COMPARED and not same:
            raise NanollamaError(
                f"{field.name} is {str(ours)[:200]}, which a GGUF file of architecture {metadata['general.architecture']} "
                f"can't hold: it would be read as {str(theirs)[:200]}. Export as a folder instead{way_out(config, field.name)}"
            )


def way_out(config: ModelConfig, field: str) -> str:
    """Advice for the one common case, windows; else ""."""
    if field == "windows":
        window = min(window for window in config.windows if window)
        return f", or set max_position_embeddings to {window} and sliding_window to null: the same function within the window"
    return ""


def close(ours: Any, theirs: Any) -> bool:
    """Equality, up to float32 rounding of floats."""
    if isinstance(ours, tuple) and isinstance(theirs, tuple) and len(ours) == len(theirs):
        return all(close(a, b) for a, b in zip(ours, theirs, strict=True))
    if type(ours) is float and type(theirs) is float:
        return math.isclose(ours, theirs, rel_tol=CLOSE)
    return bool(ours == theirs)


def same_rotation(ours: ModelConfig, theirs: ModelConfig) -> bool:
    """Whether both rotate by the same angles in every layer: at a short, the trained and a long length."""
    return all(same_rope(a, b) for a, b in zip(ours.ropes, theirs.ropes, strict=True))


def same_rope(ours: RopeConfig | None, theirs: RopeConfig | None) -> bool:
    """Whether two rotations are the same function, up to float32 rounding."""
    if ours is None or theirs is None:
        return ours is theirs
    if ours.dim != theirs.dim or not math.isclose(ours.attention_factor, theirs.attention_factor, rel_tol=CLOSE):
        return False
    lengths = {1, ours.original_length, ours.original_length + 1, theirs.original_length, theirs.original_length + 1, LONGEST}
    return all(torch.allclose(frequencies(ours, n), frequencies(theirs, n), rtol=CLOSE, atol=0.0) for n in lengths)

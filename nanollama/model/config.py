"""ModelConfig: one frozen description of any supported model, read from a checkpoint's config.json.

Every key of the file is used, known to be harmless (the lists in `families.py`), or refused by name: to ignore a key that
changes the mathematics gives logits that look plausible and are wrong.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nanollama.errors import NanollamaError
from nanollama.model.activations import ACTIVATIONS
from nanollama.model.config_keys import Keys
from nanollama.model.config_rope import ropes_by_layer_type
from nanollama.model.families import FAMILIES, FULL, SLIDING, Family, rotary_layers
from nanollama.model.rope import RopeConfig

MOST_LAYERS = 4096


@dataclass(frozen=True)
class ModelConfig:
    """Everything the mathematics of a model depends on; per-layer fields are tuples with one entry per layer."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    hidden_act: str
    gated_mlp: bool
    norm: str
    norm_eps: float
    placement: str
    qk_norm: str | None
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    tie_word_embeddings: bool
    embedding_scale: float
    learned_positions: bool
    attention_scales: tuple[float, ...]
    attention_softcap: float | None
    logit_softcap: float | None
    windows: tuple[int | None, ...]  # how many keys a query sees, the current one included; None: all
    ropes: tuple[RopeConfig | None, ...]
    moe_layers: tuple[bool, ...]
    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    norm_topk_prob: bool
    dtype: str | None  # as the checkpoint states it

    @property
    def family(self) -> Family:
        """The entry of `FAMILIES` for this architecture."""
        return FAMILIES[self.architecture]


def architecture_of(raw: Mapping[str, Any]) -> str:
    """The supported architecture that a config.json names in `architectures`, in `model_type`, or in both, if they agree.

    Raises NanollamaError if there is none.
    """
    stated, model_type = raw.get("architectures"), raw.get("model_type")
    names = [name for name, family in FAMILIES.items() if family.model_type == model_type]
    if stated is not None and stated != []:
        names = stated
    if names not in [[name] for name, family in FAMILIES.items() if model_type in (None, family.model_type)]:
        supported = ", ".join(f"{name} ({family.model_type})" for name, family in FAMILIES.items())
        raise NanollamaError(
            f"config.json: architectures {stated!r} with model_type {model_type!r} is not supported; supported: {supported}"
        )
    return str(names[0])


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Read a config.json as transformers 4 or 5 writes it.

    Raises NanollamaError for an unknown architecture, an unknown key, and a missing or wrong value, by name.
    """
    architecture = architecture_of(raw)
    family, keys = FAMILIES[architecture], Keys(raw, architecture)
    layers, hidden = keys.integer("num_hidden_layers", MOST_LAYERS), keys.integer("hidden_size")
    return ModelConfig(
        architecture=architecture,
        vocab_size=keys.integer("vocab_size"),
        hidden_size=hidden,
        num_hidden_layers=layers,
        max_position_embeddings=keys.integer("max_position_embeddings", most=1 << 31),
        norm=family.norm,
        norm_eps=keys.number("rms_norm_eps"),
        placement=family.placement,
        tie_word_embeddings=keys.flag("tie_word_embeddings"),
        embedding_scale=math.sqrt(hidden) if family.scaled_embedding else 1.0,
        learned_positions=family.learned_positions,
        logit_softcap=keys.optional_number("final_logit_softcapping"),
        **read_attention(keys, family),
        **read_mlp(keys, family),
        **read_experts(keys, family),
        dtype=read_dtype(raw),
    )


def read_attention(keys: Keys, family: Family) -> dict[str, Any]:
    """The fields of attention: heads, their norms and biases; scale, window and rotation of each layer."""
    heads, kv_heads, head_dim = read_heads(keys)
    types = read_layer_types(keys, family)
    return {
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "qk_norm": family.qk_norm,
        "qkv_bias": keys.flag("attention_bias") if family.qkv_bias is None else family.qkv_bias,
        "o_bias": not family.gated_mlp or keys.flag("attention_bias"),
        "attention_scales": read_attention_scales(keys, head_dim),
        "attention_softcap": keys.optional_number("attn_logit_softcapping"),
        "windows": tuple(keys.integer("sliding_window", most=1 << 31) if t == SLIDING else None for t in types),
        "ropes": ropes_by_layer(keys, family, head_dim, types),
    }


def read_mlp(keys: Keys, family: Family) -> dict[str, Any]:
    """The fields of a dense MLP; a file without a width (GPT-2) means four times the hidden size."""
    return {
        "intermediate_size": 4 * keys["hidden_size"]
        if keys["intermediate_size"] is None
        else keys.integer("intermediate_size"),
        "hidden_act": read_activation(keys),
        "gated_mlp": family.gated_mlp,
        "mlp_bias": not family.gated_mlp or keys.flag("mlp_bias"),
    }


def read_heads(keys: Keys) -> tuple[int, int, int]:
    """Attention heads, key/value heads and head size; NanollamaError if they don't fit each other."""
    heads = keys.integer("num_attention_heads", 1 << 16)
    kv_heads = heads if keys.get("num_key_value_heads") is None else keys.integer("num_key_value_heads", 1 << 16)
    if heads % kv_heads:
        raise keys.wrong("num_key_value_heads", f"a divisor of num_attention_heads ({heads})")
    if keys.get("head_dim") is not None:
        return heads, kv_heads, keys.integer("head_dim", 1 << 16)
    if keys["hidden_size"] % heads:
        raise keys.wrong("hidden_size", f"a multiple of num_attention_heads ({heads}), as head_dim is not given")
    return heads, kv_heads, keys["hidden_size"] // heads


def read_activation(keys: Keys) -> str:
    """The MLP's nonlinearity, by its transformers name."""
    if keys["hidden_act"] not in list(ACTIVATIONS):  # a list: a hostile value may not be hashable
        raise keys.wrong("hidden_act", f"one of {', '.join(ACTIVATIONS)}")
    return str(keys["hidden_act"])


def read_layer_types(keys: Keys, family: Family) -> list[str]:
    """For each layer "full_attention" or "sliding_attention": as the file lists them, else by the family's rule."""
    check_layer_keys(keys)
    types = keys.get("layer_types")
    if types is None:
        return family.layer_types(keys)
    if SLIDING in types and not keys.flag("use_sliding_window", absent=True):
        raise keys.wrong("layer_types", "no sliding_attention while use_sliding_window is false")
    return types


def check_layer_keys(keys: Keys) -> None:
    """Raise for a wrong value of a key of per-layer differences, whether or not the model uses the key."""
    layers = keys["num_hidden_layers"]
    for key in ("max_window_layers", "sliding_window_pattern", "no_rope_layer_interval", "decoder_sparse_step"):
        if key in keys:
            keys.integer(key, least=0 if key == "max_window_layers" else 1)
    if keys.get("sliding_window") is not None:
        keys.integer("sliding_window", most=1 << 31)
    keys.flag("use_sliding_window")
    for key, known in (("layer_types", (FULL, SLIDING)), ("no_rope_layers", (1, 0))):
        listed = keys.get(key)
        fits = isinstance(listed, list) and len(listed) == layers and all(type(v) in (str, int) and v in known for v in listed)
        if listed is not None and not fits:
            raise keys.wrong(key, f"a list of {layers} times {known[0]!r} or {known[1]!r}")


def read_attention_scales(keys: Keys, head_dim: int) -> tuple[float, ...]:
    """The factor of q·k for each layer: 1/sqrt(D) unless the family has another rule."""
    scale = (keys.number("query_pre_attn_scalar") if "query_pre_attn_scalar" in keys else head_dim) ** -0.5
    if not keys.flag("scale_attn_weights", absent=True):
        scale = 1.0
    by_layer = keys.flag("scale_attn_by_inverse_layer_idx")
    return tuple(scale / (i + 1) if by_layer else scale for i in range(keys["num_hidden_layers"]))


def ropes_by_layer(keys: Keys, family: Family, head_dim: int, types: list[str]) -> tuple[RopeConfig | None, ...]:
    """The rotation of each layer; None for a layer without one, and for a family with learned positions."""
    if family.learned_positions:
        return (None,) * len(types)
    by_type = ropes_by_layer_type(keys, head_dim, family.rope_per_layer_type)
    return tuple(by_type[t] if on else None for t, on in zip(types, rotary_layers(keys), strict=True))


def read_experts(keys: Keys, family: Family) -> dict[str, Any]:
    """The mixture-of-experts fields; a dense family has none."""
    layers = keys["num_hidden_layers"]
    if not family.moe:
        dense = {"moe_layers": (False,) * layers, "num_experts": 0, "num_experts_per_tok": 0}
        return {**dense, "moe_intermediate_size": 0, "norm_topk_prob": False}
    width_key = "moe_intermediate_size" if "moe_intermediate_size" in keys else "intermediate_size"
    experts = read_expert_count(keys)
    dense_layers = [] if keys.get("mlp_only_layers") is None else keys["mlp_only_layers"]
    if not isinstance(dense_layers, list) or any(type(i) is not int for i in dense_layers):
        raise keys.wrong("mlp_only_layers", "a list of layer numbers")
    step = keys.get("decoder_sparse_step", 1)
    return {
        "moe_layers": tuple(i not in dense_layers and (i + 1) % step == 0 for i in range(layers)),
        "num_experts": experts,
        "num_experts_per_tok": keys.integer("num_experts_per_tok", most=experts),
        "moe_intermediate_size": keys.integer(width_key),
        "norm_topk_prob": keys.flag("norm_topk_prob", absent=True),  # Mixtral always renormalises
    }


def read_expert_count(keys: Keys) -> int:
    """Experts in a layer: `num_experts`, or `num_local_experts`, the name that transformers 5 saves for every family."""
    counts = {keys.integer(key, 1 << 14) for key in ("num_experts", "num_local_experts") if keys[key] is not None}
    if len(counts) != 1:
        raise keys.wrong("num_experts", f"a number, and the same as num_local_experts ({keys['num_local_experts']!r}) if both")
    return counts.pop()


def read_token_ids(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> dict[str, Any]:
    """Begin- and end-of-text ids; generation_config.json has priority, as it lists every id a chat model may end with."""
    bos = generation.get("bos_token_id", raw.get("bos_token_id"))
    eos = generation.get("eos_token_id", raw.get("eos_token_id"))
    eos = [] if eos is None else eos if isinstance(eos, list) else [eos]
    for name, ids in (("bos_token_id", [] if bos is None else [bos]), ("eos_token_id", eos)):
        if any(type(i) is not int or i < 0 for i in ids):
            raise NanollamaError(f"config.json: {name} is {ids!r}, expected token ids (whole numbers from 0)")
    return {"bos_token_id": bos, "eos_token_ids": tuple(eos)}


def read_dtype(raw: Mapping[str, Any]) -> str | None:
    """The dtype that the file names, `dtype` (transformers 5) or `torch_dtype` (4), without the prefix "torch."."""
    stated = raw.get("torch_dtype") if raw.get("dtype") is None else raw["dtype"]
    if stated is not None and not isinstance(stated, str):
        raise NanollamaError(f"config.json: dtype is {stated!r}, expected a name such as 'bfloat16'")
    return stated.removeprefix("torch.") if stated else None

"""Other right ways to read a config.json."""

import math
from collections.abc import Mapping
from typing import Any

from nanollama.errors import NanollamaError
from nanollama.model.config_keys import Keys


def read_heads__step_by_step(keys: Keys) -> tuple[int, int, int]:
    """what is not given first"""
    most = 65536
    heads = keys.integer("num_attention_heads", most=most)
    kv_heads = heads
    if keys.get("num_key_value_heads") is not None:
        kv_heads = keys.integer("num_key_value_heads", most=most)
    if heads // kv_heads * kv_heads != heads:
        raise keys.wrong("num_key_value_heads", f"a divisor of num_attention_heads ({heads})")
    if keys.get("head_dim") is None:
        head_dim, rest = divmod(keys["hidden_size"], heads)
        if rest:
            raise keys.wrong("hidden_size", f"a multiple of num_attention_heads ({heads})")
    else:
        head_dim = keys.integer("head_dim", most=most)
    return heads, kv_heads, head_dim


def read_attention_scales__by_layer(keys: Keys, head_dim: int) -> tuple[float, ...]:
    """a list that grows layer by layer"""
    size = keys.number("query_pre_attn_scalar") if "query_pre_attn_scalar" in keys else float(head_dim)
    scales: list[float] = []
    for layer in range(1, keys["num_hidden_layers"] + 1):
        scale = 1 / math.sqrt(size) if keys.flag("scale_attn_weights", absent=True) else 1.0
        scales.append(scale / layer if keys.flag("scale_attn_by_inverse_layer_idx") else scale)
    return tuple(scales)


def read_token_ids__merged(raw: Mapping[str, Any], generation: Mapping[str, Any]) -> dict[str, Any]:
    """one dict over the other"""
    merged = {**raw, **generation}
    bos, eos = merged.get("bos_token_id"), merged.get("eos_token_id")
    ends = () if eos is None else tuple(eos) if isinstance(eos, list) else (eos,)
    for name, ids in (("bos_token_id", () if bos is None else (bos,)), ("eos_token_id", ends)):
        for each in ids:
            if type(each) is not int or each < 0:
                raise NanollamaError(f"config.json: {name} is {each!r}, which is no id")
    return {"bos_token_id": bos, "eos_token_ids": ends}

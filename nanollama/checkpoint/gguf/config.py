"""The metadata of a GGUF file as a config.json, so that folders and GGUF files are read by the same code from there.

Two facts about the numbers:

* *Defaults* are llama.cpp's (src/llama-hparams.h, src/models/*.cpp), not those of transformers, and are written out.
* *Floats* are stored as float32. For the config.json's 1e-05 the file holds 9.999999747e-06, so a float is read as the
  shortest decimal that rounds to it; else a float64 run would differ from the original in the eighth digit.

Every key of the file's architecture is read, known to change nothing, or refused by name. Phi-3's window is applied, as in
transformers; llama.cpp reads it and attends to all tokens (its pull request 13676).
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nanollama.checkpoint.gguf.keys import Metadata
from nanollama.checkpoint.gguf.names import ARCHITECTURES
from nanollama.checkpoint.gguf.rope import rope_from_gguf
from nanollama.errors import NanollamaError, quote
from nanollama.model.config import MOST_LAYERS
from nanollama.model.families import FAMILIES, FULL, REQUIRED, SLIDING

Raw = dict[str, Any]

# Key of config.json → key of the file after the architecture, and the value if the file has no such key.
KEYS: dict[str, tuple[str, Any]] = {
    "max_position_embeddings": ("context_length", REQUIRED),
    "hidden_size": ("embedding_length", REQUIRED),
    "intermediate_size": ("feed_forward_length", REQUIRED),
    "num_hidden_layers": ("block_count", REQUIRED),
    "num_attention_heads": ("attention.head_count", REQUIRED),
    "num_key_value_heads": ("attention.head_count_kv", None),  # as many as attention heads
    "head_dim": ("attention.key_length", None),  # hidden_size / num_attention_heads
    "rms_norm_eps": ("attention.layer_norm_rms_epsilon", REQUIRED),
    "final_logit_softcapping": ("final_logit_softcapping", None),
    "num_experts_per_tok": ("expert_used_count", REQUIRED),
    "moe_intermediate_size": ("expert_feed_forward_length", REQUIRED),
}
FAMILY_KEYS: dict[str, dict[str, tuple[str, Any]]] = {
    "Gemma2ForCausalLM": {
        "sliding_window": ("attention.sliding_window", 4096),
        "attn_logit_softcapping": ("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": ("final_logit_softcapping", 30.0),
    },
    "Gemma3ForCausalLM": {"sliding_window": ("attention.sliding_window", None)},
    "Phi3ForCausalLM": {"sliding_window": ("attention.sliding_window", None)},
    "GPT2LMHeadModel": {"rms_norm_eps": ("attention.layer_norm_epsilon", REQUIRED)},
}
ZERO_IS_NONE = ("sliding_window", "attn_logit_softcapping", "final_logit_softcapping")
FACTS: dict[str, dict[str, Any]] = {  # fixed in llama.cpp's code, without a key
    "Qwen2ForCausalLM": {"use_sliding_window": False},
    "Qwen3ForCausalLM": {"use_sliding_window": False},
    "Qwen3MoeForCausalLM": {"use_sliding_window": False, "norm_topk_prob": True},
    "Gemma2ForCausalLM": {"hidden_act": "gelu_pytorch_tanh"},
    "Gemma3ForCausalLM": {"hidden_act": "gelu_pytorch_tanh"},
    "GPT2LMHeadModel": {"hidden_act": "gelu_new"},
    "MixtralForCausalLM": {"sliding_window": None},
    "SmolLM3ForCausalLM": {"use_sliding_window": False, "no_rope_layer_interval": 4},
}
WINDOW_PERIODS = {"Gemma2ForCausalLM": 2, "Gemma3ForCausalLM": 6}  # if the file has no pattern
# Gemma's 27B divides q·k by the square root of hidden_size / heads, all others by that of head_dim. llama.cpp identifies it
# by its number of layers.
LAYERS_OF_27B = {"Gemma2ForCausalLM": 46, "Gemma3ForCausalLM": 62}


def config_from_gguf(values: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]], rope: Mapping[str, Tensor]) -> Raw:
    """The config.json of a file, from its metadata, the shapes of its tensors, and its rotary tensors.

    Raises NanollamaError for an architecture or a key that is not supported.
    """
    metadata = Metadata(values)
    name = family_of(metadata)
    family = FAMILIES[name]
    keys = {ours: place for ours, place in {**KEYS, **FAMILY_KEYS.get(name, {})}.items() if ours in family.keys}
    raw = {ours: metadata.get(key, default) for ours, (key, default) in keys.items()}
    raw |= {ours: None for ours in ZERO_IS_NONE if raw.get(ours) == 0}
    raw |= {ours: value for ours, value in FACTS.get(name, {}).items() if ours in family.keys}
    raw["vocab_size"] = vocab_size(metadata, tensors)
    raw["tie_word_embeddings"] = "output.weight" not in tensors
    if family.qkv_bias is None and "attention_bias" in family.keys:
        raw["attention_bias"] = "blk.0.attn_q.bias" in tensors
    if "mlp_bias" in family.keys:
        raw["mlp_bias"] = "blk.0.ffn_gate.bias" in tensors
    if family.moe:
        raw["num_experts"] = metadata.get("expert_count")
    if name in WINDOW_PERIODS:
        raw |= gemma_keys(name, metadata, raw)
    head_dim = read_head_dim(metadata, raw)
    if not family.learned_positions:
        raw |= rope_from_gguf(metadata, rope, head_dim, raw["max_position_embeddings"], "partial_rotary_factor" in family.keys)
    metadata.refuse_unread()
    spelled = {family.spelling.get(key, key): value for key, value in raw.items()}
    return {"architectures": [name], "model_type": family.model_type, **spelled, **token_ids(values)}


def family_of(metadata: Metadata) -> str:
    """The family, by its name in our table, that a file's architecture is."""
    known = {architecture.name: family for family, architecture in reversed(ARCHITECTURES.items())}
    if metadata.architecture not in known:
        raise NanollamaError(
            f"general.architecture is {quote(metadata.architecture)}, which is not supported; supported: {', '.join(known)}"
        )
    kind = metadata.values.get("general.type", "model")
    if kind != "model":
        raise NanollamaError(f"general.type is {quote(kind)}; expected 'model': this file is an addition to a model")
    has_experts = metadata.architecture == "llama" and metadata.get("expert_count", 0) not in (0, None)
    return "MixtralForCausalLM" if has_experts else known[metadata.architecture]


def vocab_size(metadata: Metadata, tensors: Mapping[str, tuple[int, ...]]) -> int:
    """Rows of the embedding; NanollamaError if the metadata differ."""
    shape = tensors.get("token_embd.weight", ())
    if len(shape) != 2:
        raise NanollamaError("the file has no tensor token_embd.weight with two dimensions: it holds no model, or it is cut")
    stated = metadata.get("vocab_size", shape[0])
    if stated != shape[0]:
        raise NanollamaError(
            f"{metadata.architecture}.vocab_size is {quote(stated)}, but token_embd.weight has {shape[0]} rows"
        )
    return shape[0]


def read_head_dim(metadata: Metadata, raw: Mapping[str, Any]) -> int:
    """The size of a head, which must be the same for queries, keys and values."""
    heads, hidden = raw["num_attention_heads"], raw["hidden_size"]
    natural = (
        hidden // heads if type(heads) is int and type(hidden) is int and heads > 0 else 0
    )  # read_config reports wrong values
    size = natural if raw.get("head_dim") is None else raw["head_dim"]
    expected = {"attention.key_length": size, "attention.value_length": size}
    if "num_key_value_heads" not in raw:
        expected["attention.head_count_kv"] = heads
    for key, value in expected.items():
        if metadata.get(key, value) != value:
            raise NanollamaError(f"{metadata.architecture}.{key} is {quote(metadata.get(key))}; expected {value}")
    return size


def gemma_keys(name: str, metadata: Metadata, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The layers with a window, and the divisor of q·k."""
    layers, window = raw["num_hidden_layers"], raw["sliding_window"]
    pattern = metadata.get("attention.sliding_window_pattern", WINDOW_PERIODS[name])
    count = layers if type(layers) is int and layers <= MOST_LAYERS else 0  # read_config reports others
    if type(pattern) is int and pattern >= 0:
        slides = [pattern == 0 or i % pattern < pattern - 1 for i in range(count)]
    elif isinstance(pattern, list) and len(pattern) == layers:
        slides = [bool(each) for each in pattern]
    else:
        raise NanollamaError(f"attention.sliding_window_pattern is {quote(pattern)}; expected a period, or one flag per layer")
    types = [SLIDING if each and window is not None else FULL for each in slides]
    return {"layer_types": types, "query_pre_attn_scalar": attention_divisor(name, raw)}


def attention_divisor(name: str, raw: Mapping[str, Any]) -> Any:
    """Gemma divides q·k by the square root of this."""
    if raw["num_hidden_layers"] == LAYERS_OF_27B[name] or raw["head_dim"] is None:
        return raw["hidden_size"] // max(1, raw["num_attention_heads"])
    return raw["head_dim"]


def token_ids(values: Mapping[str, Any]) -> dict[str, Any]:
    """The ids of BOS, of all named end tokens, and of padding; ids outside the vocabulary are left out."""
    tokens = values.get("tokenizer.ggml.tokens")
    count = len(tokens) if isinstance(tokens, list) else 0

    def named(kind: str) -> int | None:
        id = values.get(f"tokenizer.ggml.{kind}_token_id")
        return id if type(id) is int and 0 <= id < count else None

    ends = dict.fromkeys(id for kind in ("eos", "eot", "eom") if (id := named(kind)) is not None)
    return {"bos_token_id": named("bos"), "eos_token_id": list(ends) or None, "pad_token_id": named("padding")}

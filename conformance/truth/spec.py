"""The meaning of a config.json, read independently of the runtime: the truth for `nanollama.model.config.read_config`.

Absent keys mean the defaults of transformers' `configuration_*.py` of that family. Proven against transformers' own config
classes and, with `reference.py`, against the goldens by `conformance/tests/suite/checks/test_checks.py`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conformance.truth.rotation import Rope, read_rope_config

Raw = Mapping[str, Any]

MISTRAL_LIKE = ("MistralForCausalLM", "MixtralForCausalLM", "Phi3ForCausalLM")
QWEN_DENSE = ("Qwen2ForCausalLM", "Qwen3ForCausalLM")
KV_HEADS = {  # if absent; others: as many as query heads
    "MistralForCausalLM": 8,
    "MixtralForCausalLM": 8,
    "Qwen2ForCausalLM": 32,
    "Qwen3ForCausalLM": 32,
    "Qwen3MoeForCausalLM": 4,
    "SmolLM3ForCausalLM": 4,
    "Gemma2ForCausalLM": 4,
    "Gemma3ForCausalLM": 4,
}
HEAD_DIM = {"Qwen3ForCausalLM": 128, "Gemma2ForCausalLM": 256, "Gemma3ForCausalLM": 256}
EPS = dict.fromkeys(("MixtralForCausalLM", "Phi3ForCausalLM", "Olmo2ForCausalLM", "GPT2LMHeadModel"), 1e-5)
THETA = {"MixtralForCausalLM": 1e6, "SmolLM3ForCausalLM": 2e6, "Gemma3ForCausalLM": 1e6}
TIED = ("Gemma2ForCausalLM", "Gemma3ForCausalLM", "SmolLM3ForCausalLM", "GPT2LMHeadModel")
CHOOSES_BIAS = ("Llama", "Qwen3", "Gemma", "Olmo2", "SmolLM3")  # families with the key attention_bias
GPT2 = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "intermediate_size": "n_inner",
}


@dataclass(frozen=True)
class Spec:
    """The hyperparameters of a model; those of each layer are tuples."""

    architecture: str
    vocab: int
    hidden: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    max_length: int
    activation: str
    norm: str
    eps: float
    placement: str
    qk_norm: str | None
    gated: bool
    tied: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    embedding_scale: float
    learned_positions: bool
    attention_cap: float | None
    logit_cap: float | None
    scales: tuple[float, ...]
    windows: tuple[int | None, ...]
    ropes: tuple[Rope | None, ...]
    sparse: tuple[bool, ...]
    experts: int
    chosen: int
    expert_width: int
    renormalise: bool

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.windows)


def read_spec(raw: Raw) -> Spec:
    """The meaning of a valid config.json."""
    name = raw["architectures"][0]
    gpt2, gemma = name == "GPT2LMHeadModel", name.startswith("Gemma")
    raw = {**raw, **{ours: raw.get(theirs) for ours, theirs in GPT2.items()}} if gpt2 else raw
    hidden, heads, layers = raw["hidden_size"], raw["num_attention_heads"], raw["num_hidden_layers"]
    head_dim = raw.get("head_dim") or HEAD_DIM.get(name) or hidden // heads
    sparse, experts = experts_of(raw, name, layers)
    return Spec(
        architecture=name,
        vocab=raw["vocab_size"],
        hidden=hidden,
        width=raw.get("intermediate_size") or 4 * hidden,
        heads=heads,
        kv_heads=int(raw.get("num_key_value_heads") or KV_HEADS.get(name, heads) or heads),
        head_dim=head_dim,
        max_length=raw["max_position_embeddings"],
        activation=activation_of(raw, gpt2, gemma),
        norm="layer" if gpt2 else "rms_plus_one" if gemma else "rms",
        eps=raw.get("layer_norm_epsilon" if gpt2 else "rms_norm_eps", EPS.get(name, 1e-6)),
        placement="sandwich" if gemma else "post" if name.startswith("Olmo2") else "pre",
        qk_norm="full" if name.startswith("Olmo2") else "head" if name.startswith(("Qwen3", "Gemma3")) else None,
        gated=not gpt2,
        tied=raw.get("tie_word_embeddings", name in TIED),
        **biases_of(raw, name),
        embedding_scale=math.sqrt(hidden) if gemma else 1.0,
        learned_positions=gpt2,
        attention_cap=raw.get("attn_logit_softcapping", 50.0) if name.startswith("Gemma2") else None,
        logit_cap=raw.get("final_logit_softcapping", 30.0 if name.startswith("Gemma2") else None) if gemma else None,
        scales=scales_of(raw, layers, head_dim, gemma, gpt2),
        windows=windows_of(raw, name, layers),
        ropes=ropes_of(raw, name, layers, head_dim),
        sparse=sparse,
        **experts,
    )


def biases_of(raw: Raw, name: str) -> dict[str, bool]:
    """Which matrices have biases."""
    gpt2 = name == "GPT2LMHeadModel"
    stated = name.startswith(CHOOSES_BIAS) and bool(raw.get("attention_bias", False))
    return {
        "qkv_bias": gpt2 or name == "Qwen2ForCausalLM" or stated,
        "o_bias": gpt2 or stated,
        "mlp_bias": gpt2 or (name.startswith(("Llama", "SmolLM3")) and bool(raw.get("mlp_bias", False))),
    }


def activation_of(raw: Raw, gpt2: bool, gemma: bool) -> str:
    """The MLP's activation."""
    if gpt2:
        return str(raw.get("activation_function", "gelu_new"))
    if gemma:
        return str(raw.get("hidden_activation") or "gelu_pytorch_tanh")
    return str(raw.get("hidden_act", "silu"))


def scales_of(raw: Raw, layers: int, head_dim: int, gemma: bool, gpt2: bool) -> tuple[float, ...]:
    """The factor of q·k in each layer."""
    if gpt2:
        scale = head_dim**-0.5 if raw.get("scale_attn_weights", True) else 1.0
        inverse = raw.get("scale_attn_by_inverse_layer_idx", False)
        return tuple(scale / (i + 1) if inverse else scale for i in range(layers))
    return ((raw.get("query_pre_attn_scalar", 256) if gemma else head_dim) ** -0.5,) * layers


def windows_of(raw: Raw, name: str, layers: int) -> tuple[int | None, ...]:
    """How many keys each layer's queries see, themselves included."""
    absent = None if name.startswith(("Phi3", "Mixtral", "SmolLM3")) else 4096
    window = raw.get("sliding_window", absent)
    used = bool(raw.get("use_sliding_window", False))
    if name.startswith(("Llama", "Olmo2", "GPT2")) or window is None:
        return (None,) * layers
    if raw.get("layer_types") is not None:
        slides = [kind == "sliding_attention" for kind in raw["layer_types"]]
    elif name in MISTRAL_LIKE:
        slides = [True] * layers
    elif name.startswith("Gemma"):
        period = 2 if name.startswith("Gemma2") else raw.get("sliding_window_pattern", 6)
        slides = [(i + 1) % period != 0 for i in range(layers)]
    elif name in QWEN_DENSE:
        slides = [used and i >= raw.get("max_window_layers", 28) for i in range(layers)]
    elif name.startswith("SmolLM3"):
        slides = [used and not on for on in rotates(raw, name, layers)]
    else:  # Qwen3Moe
        slides = [used] * layers
    return tuple(window if slide else None for slide in slides)


def rotates(raw: Raw, name: str, layers: int) -> list[bool]:
    """Which layers rotate their queries and keys."""
    if not name.startswith("SmolLM3"):
        return [not name.startswith("GPT2")] * layers
    if raw.get("no_rope_layers") is not None:
        return [bool(on) for on in raw["no_rope_layers"]]
    return [(i + 1) % raw.get("no_rope_layer_interval", 4) != 0 for i in range(layers)]


def ropes_of(raw: Raw, name: str, layers: int, head_dim: int) -> tuple[Rope | None, ...]:
    """Each layer's rotation; None if it has none; for both spellings of the file."""
    given = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    theta = raw.get("rope_theta", THETA.get(name, 10000.0))
    kinds = [window is not None for window in windows_of(raw, name, layers)]
    if not name.startswith("Gemma3"):
        full = local = read_rope_config(raw, given, theta, head_dim)
    else:
        by_kind = given if raw.get("rope_parameters") else {"full_attention": given}
        full = read_rope_config(raw, by_kind.get("full_attention") or {}, theta, head_dim)
        local_theta = raw.get("rope_local_base_freq", 10000.0)
        local = read_rope_config(raw, by_kind.get("sliding_attention") or {}, local_theta, head_dim)
        kinds = gemma3_slides(raw, layers)
    pairs = zip(kinds, rotates(raw, name, layers), strict=True)
    return tuple((local if slides else full) if on else None for slides, on in pairs)


def gemma3_slides(raw: Raw, layers: int) -> list[bool]:
    """Which layers have the type sliding_attention, even without a window."""
    if raw.get("layer_types") is not None:
        return [kind == "sliding_attention" for kind in raw["layer_types"]]
    return [(i + 1) % raw.get("sliding_window_pattern", 6) != 0 for i in range(layers)]


def experts_of(raw: Raw, name: str, layers: int) -> tuple[tuple[bool, ...], dict[str, Any]]:
    """Which layers have experts; the number, width and weighting of the experts."""
    if name not in ("MixtralForCausalLM", "Qwen3MoeForCausalLM"):
        return (False,) * layers, {"experts": 0, "chosen": 0, "expert_width": 0, "renormalise": False}
    mixtral = name == "MixtralForCausalLM"
    count = raw.get("num_experts") or raw.get("num_local_experts")
    width = raw["intermediate_size"] if mixtral else raw.get("moe_intermediate_size", 768)
    dense, step = raw.get("mlp_only_layers") or [], raw.get("decoder_sparse_step", 1)
    sparse = tuple(mixtral or (i not in dense and (i + 1) % step == 0) for i in range(layers))
    renormalise = mixtral or bool(raw.get("norm_topk_prob", False))
    chosen = raw.get("num_experts_per_tok", 2 if mixtral else 8)
    return sparse, {"experts": count, "chosen": chosen, "expert_width": width, "renormalise": renormalise}

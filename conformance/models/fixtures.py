"""One tiny model per architecture, shaped so that bugs show: 12 heads share 3 key/value heads, head_dim is not
hidden_size / heads, no number is a default, prompts are longer than three windows.

A fixture is a config.json and the tensors a real checkpoint of that family stores, written as a folder that transformers and
nanollama both load. Shapes are stated here independently of the runtime.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from conformance.models.weights import derived_ids, derived_tensors

Shapes = dict[str, tuple[int, ...]]
SEED = 20250
NEAR = 16  # tokens of the main prompt: more than three windows of 5
FAR_POSITIONS = [*range(9), *range(4100, 4109)]  # a second prompt, half of it beyond position 4096

COMMON: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 60,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 12,
    "num_key_value_heads": 3,
    "head_dim": 8,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 3e-3,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {"rope_type": "llama3", "factor": 5.0, "low_freq_factor": 1.5, "high_freq_factor": 3.5}
YARN = {"rope_type": "yarn", "factor": 6.0, "beta_fast": 5.0, "beta_slow": 0.5}

FIXTURES: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {
        "rope_parameters": {**LLAMA3, "rope_theta": 12345.0, "original_max_position_embeddings": 16},
        "attention_bias": True,
        "mlp_bias": True,
    },
    "MistralForCausalLM": {"rope_theta": 12345.0, "sliding_window": 5},
    "Qwen2ForCausalLM": {
        "num_hidden_layers": 4,
        "rope_theta": 12345.0,
        "rope_scaling": {**YARN, "original_max_position_embeddings": 512},  # both ends of the ramp lie among the 4 waves
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 2,
    },
    "Qwen3ForCausalLM": {
        "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 12345.0},
        "attention_bias": True,
        "use_sliding_window": True,
        "sliding_window": 5,
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    },
    "Gemma2ForCausalLM": {
        "rope_theta": 12345.0,
        "sliding_window": 5,
        "query_pre_attn_scalar": 7,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 1.7,
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
    },
    "Gemma3ForCausalLM": {
        "num_hidden_layers": 4,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 3.0, "rope_theta": 54321.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 123.0},
        },
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        "sliding_window": 5,
        "query_pre_attn_scalar": 7,
        "final_logit_softcapping": 1.7,
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
    },
    "Phi3ForCausalLM": {
        "hidden_size": 96,
        "original_max_position_embeddings": 16,
        "partial_rotary_factor": 0.5,
        "rope_theta": 12345.0,
        "rope_scaling": {"type": "longrope", "short_factor": [1.1, 1.7], "long_factor": [2.3, 9.1]},
        "sliding_window": None,
        "pad_token_id": 0,
    },
    "Olmo2ForCausalLM": {"rope_theta": 12345.0, "attention_bias": False, "pad_token_id": 0},
    "SmolLM3ForCausalLM": {
        "num_hidden_layers": 4,
        "rope_theta": 12345.0,
        "no_rope_layers": [1, 0, 1, 1],
        "use_sliding_window": True,
        "sliding_window": 5,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        "tie_word_embeddings": True,
        "pad_token_id": 0,
    },
    "GPT2LMHeadModel": {
        "n_embd": 96,
        "n_layer": 3,
        "n_head": 12,
        "n_positions": 4200,
        "n_inner": 44,
        "layer_norm_epsilon": 3e-3,
        "activation_function": "gelu_new",
        "scale_attn_by_inverse_layer_idx": True,
        "vocab_size": 97,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "MixtralForCausalLM": {
        "rope_theta": 12345.0,
        "sliding_window": 5,
        "num_local_experts": 6,
        "num_experts_per_tok": 2,
    },
    "Qwen3MoeForCausalLM": {
        "rope_theta": 12345.0,
        "num_experts": 7,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 20,
        "norm_topk_prob": False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [1],
    },
}
MODEL_TYPES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3_text",
    "Phi3ForCausalLM": "phi3",
    "Olmo2ForCausalLM": "olmo2",
    "SmolLM3ForCausalLM": "smollm3",
    "GPT2LMHeadModel": "gpt2",
    "MixtralForCausalLM": "mixtral",
    "Qwen3MoeForCausalLM": "qwen3_moe",
}


def fixture_config(architecture: str, **changes: Any) -> dict[str, Any]:
    """The config.json of a family's fixture, with changes."""
    common = {} if architecture == "GPT2LMHeadModel" else COMMON
    if architecture == "Phi3ForCausalLM":
        common = {k: v for k, v in common.items() if k != "head_dim"}
    names = {"architectures": [architecture], "model_type": MODEL_TYPES[architecture]}
    return {**names, **common, **copy.deepcopy(FIXTURES[architecture]), "dtype": "float64", **changes}


def checkpoint_shapes(c: Mapping[str, Any]) -> Shapes:
    """Names and shapes of the tensors that a checkpoint with this config.json stores."""
    architecture = c["architectures"][0]
    if architecture == "GPT2LMHeadModel":
        return gpt2_shapes(c)
    d, V = c["hidden_size"], c["vocab_size"]
    shapes: Shapes = {"model.embed_tokens.weight": (V, d), "model.norm.weight": (d,)}
    if not c.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (V, d)
    for i in range(c["num_hidden_layers"]):
        for name, shape in {**attention_shapes(c), **norm_shapes(c), **mlp_shapes(c, i)}.items():
            shapes[f"model.layers.{i}.{name}"] = shape
    return shapes


def attention_shapes(c: Mapping[str, Any]) -> Shapes:
    """The attention of one layer."""
    architecture, d = c["architectures"][0], c["hidden_size"]
    H, K = c["num_attention_heads"], c.get("num_key_value_heads") or c["num_attention_heads"]
    D = c.get("head_dim") or d // H
    if architecture == "Phi3ForCausalLM":
        return {"self_attn.qkv_proj.weight": ((H + 2 * K) * D, d), "self_attn.o_proj.weight": (d, H * D)}
    shapes: Shapes = {}
    qwen2, bias = architecture == "Qwen2ForCausalLM", c.get("attention_bias", False)
    for part, rows, columns in (("q", H * D, d), ("k", K * D, d), ("v", K * D, d), ("o", d, H * D)):
        shapes[f"self_attn.{part}_proj.weight"] = (rows, columns)
        if bias or (qwen2 and part != "o"):
            shapes[f"self_attn.{part}_proj.bias"] = (rows,)
    if architecture in ("Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "Gemma3ForCausalLM"):
        shapes |= {"self_attn.q_norm.weight": (D,), "self_attn.k_norm.weight": (D,)}
    if architecture == "Olmo2ForCausalLM":
        shapes |= {"self_attn.q_norm.weight": (H * D,), "self_attn.k_norm.weight": (K * D,)}
    return shapes


def norm_shapes(c: Mapping[str, Any]) -> Shapes:
    """The norms of one layer."""
    names = {
        "Gemma2ForCausalLM": "input post_attention pre_feedforward post_feedforward",
        "Gemma3ForCausalLM": "input post_attention pre_feedforward post_feedforward",
        "Olmo2ForCausalLM": "post_attention post_feedforward",
    }.get(c["architectures"][0], "input post_attention")
    return {f"{name}_layernorm.weight": (c["hidden_size"],) for name in names.split()}


def mlp_shapes(c: Mapping[str, Any], layer: int) -> Shapes:
    """The MLP, or the router and experts, of one layer."""
    architecture, d, f = c["architectures"][0], c["hidden_size"], c["intermediate_size"]
    if architecture == "Phi3ForCausalLM":
        return {"mlp.gate_up_proj.weight": (2 * f, d), "mlp.down_proj.weight": (d, f)}
    if architecture == "MixtralForCausalLM":
        E = c["num_local_experts"]
        matrices = {"w1": (f, d), "w2": (d, f), "w3": (f, d)}
        experts = {f"block_sparse_moe.experts.{e}.{w}.weight": s for e in range(E) for w, s in matrices.items()}
        return {"block_sparse_moe.gate.weight": (E, d), **experts}
    gated = {"gate_proj": (f, d), "up_proj": (f, d), "down_proj": (d, f)}
    if architecture == "Qwen3MoeForCausalLM" and is_sparse(c, layer):
        E, f = c["num_experts"], c["moe_intermediate_size"]
        gated = {"gate_proj": (f, d), "up_proj": (f, d), "down_proj": (d, f)}
        experts = {f"mlp.experts.{e}.{m}.weight": s for e in range(E) for m, s in gated.items()}
        return {"mlp.gate.weight": (E, d), **experts}
    shapes: Shapes = {f"mlp.{m}.weight": s for m, s in gated.items()}
    if c.get("mlp_bias"):
        shapes |= {f"mlp.{m}.bias": s[:1] for m, s in gated.items()}
    return shapes


def is_sparse(c: Mapping[str, Any], layer: int) -> bool:
    """Whether a layer of Qwen3-MoE has experts."""
    return layer not in (c.get("mlp_only_layers") or []) and (layer + 1) % c.get("decoder_sparse_step", 1) == 0


def gpt2_shapes(c: Mapping[str, Any]) -> Shapes:
    """GPT-2 names everything differently and stores its matrices as [in, out]."""
    d, f = c["n_embd"], c.get("n_inner") or 4 * c["n_embd"]
    shapes: Shapes = {"transformer.wte.weight": (c["vocab_size"], d), "transformer.wpe.weight": (c["n_positions"], d)}
    layer: Shapes = {"ln_1.weight": (d,), "ln_1.bias": (d,), "ln_2.weight": (d,), "ln_2.bias": (d,)}
    matrices = {"attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d), "mlp.c_fc": (d, f), "mlp.c_proj": (f, d)}
    for name, (rows, columns) in matrices.items():
        layer |= {f"{name}.weight": (rows, columns), f"{name}.bias": (columns,)}
    for i in range(c["n_layer"]):
        shapes |= {f"transformer.h.{i}.{name}": shape for name, shape in layer.items()}
    shapes |= {"transformer.ln_f.weight": (d,), "transformer.ln_f.bias": (d,)}
    return shapes if c.get("tie_word_embeddings", True) else {**shapes, "lm_head.weight": (c["vocab_size"], d)}


def fixture_tensors(config: Mapping[str, Any], seed: int = SEED) -> dict[str, torch.Tensor]:
    """The derived weights of a fixture, float64, under the names its checkpoint uses."""
    architecture = config["architectures"][0]
    gemma, gpt2 = architecture.startswith("Gemma"), architecture == "GPT2LMHeadModel"
    return derived_tensors(checkpoint_shapes(config), seed, norm_centre=0.0 if gemma else 1.0, transposed=gpt2)


def write_fixture(folder: Path, config: Mapping[str, Any], seed: int = SEED) -> Path:
    """Write a checkpoint folder: config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    save_file(fixture_tensors(config, seed), folder / "model.safetensors", {"format": "pt"})
    return folder


def near_prompt(config: Mapping[str, Any], seed: int = SEED) -> torch.Tensor:
    """Token ids [1, NEAR] at positions 0, 1, 2, …"""
    return torch.tensor([derived_ids(seed, "near prompt", NEAR, config["vocab_size"])])


def far_prompt(config: Mapping[str, Any], seed: int = SEED) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and positions [1, 18], half of them beyond 4096."""
    ids = derived_ids(seed, "far prompt", len(FAR_POSITIONS), config["vocab_size"])
    return torch.tensor([ids]), torch.tensor([FAR_POSITIONS])

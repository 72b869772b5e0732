"""Known deviations of other engines on the fixtures, as the config changes with which they agree.

The engine ignores, misreads or refuses every key here; FINDINGS.md has the reasons. An engine that agrees with these changes,
and clearly not without them, shows both the cause and that the adapter is right.
"""

from typing import Any

from conformance.models.gguf_fixtures import CHANGES

Changes = dict[str, dict[str, Any]]  # by family

FULL_QWEN3 = {"use_sliding_window": False, "layer_types": None}
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 12345.0}
OLD_LLAMA3 = {"rope_type": "llama3", "factor": 5.0, "low_freq_factor": 1.5, "high_freq_factor": 3.5}
YARN = {"rope_type": "yarn", "factor": 6.0, "beta_fast": 5.0, "beta_slow": 0.5, "original_max_position_embeddings": 512}
LONG_ONLY = {"type": "longrope", "short_factor": [2.3, 9.1], "long_factor": [2.3, 9.1]}

MLX: Changes = {
    "LlamaForCausalLM": {
        "rope_parameters": None,
        "rope_theta": 12345.0,
        "rope_scaling": {**OLD_LLAMA3, "original_max_position_embeddings": 16},
    },
    "MistralForCausalLM": {"sliding_window": None},
    "Qwen2ForCausalLM": {"hidden_size": 96, "use_sliding_window": False},
    "Qwen3ForCausalLM": {**FULL_QWEN3, "attention_bias": False},
    "Gemma2ForCausalLM": {"sliding_window": 8000},
    "Gemma3ForCausalLM": {
        "num_hidden_layers": 7,
        "layer_types": None,
        "hidden_size": 144,
        "final_logit_softcapping": None,
        "rope_parameters": None,
        "rope_theta": 54321.0,
        "rope_local_base_freq": 123.0,
        "rope_scaling": {"rope_type": "linear", "factor": 3.0},
    },
    "Phi3ForCausalLM": {"rope_scaling": LONG_ONLY},
    "MixtralForCausalLM": {"hidden_size": 72, "head_dim": 6, "sliding_window": None},
}
CTRANSLATE2: Changes = {
    "LlamaForCausalLM": {"hidden_size": 96, "rope_parameters": PLAIN_ROPE},
    "MistralForCausalLM": {"sliding_window": None},
    "Qwen2ForCausalLM": {"hidden_size": 96, "use_sliding_window": False, "rope_scaling": None},
    "Qwen3ForCausalLM": FULL_QWEN3,
    "Gemma2ForCausalLM": {
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "sliding_window": 64,
        "query_pre_attn_scalar": 8,
        "rope_theta": 10000.0,
    },
    "Gemma3ForCausalLM": {
        "final_logit_softcapping": None,
        "sliding_window": 64,
        "query_pre_attn_scalar": 8,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    },
    "GPT2LMHeadModel": {"scale_attn_by_inverse_layer_idx": False, "layer_norm_epsilon": 1e-5},
}
ONNXGENAI: Changes = {
    "LlamaForCausalLM": {"head_dim": 16},
    "MistralForCausalLM": {"head_dim": 16, "sliding_window": None},
    "Qwen2ForCausalLM": {"head_dim": 16, "rope_scaling": {**YARN, "truncate": False}},
    "Qwen3ForCausalLM": {"head_dim": 16},
    "Gemma2ForCausalLM": {"head_dim": 16, "hidden_size": 144},
}
OPENVINO: Changes = {"Phi3ForCausalLM": {"rope_scaling": LONG_ONLY}}

KNOWN: dict[str, Changes] = {
    "llamacpp": {**CHANGES, "Phi3ForCausalLM": {"original_max_position_embeddings": 256}},
    "mlx": MLX,
    "ctranslate2": CTRANSLATE2,
    "onnxgenai": ONNXGENAI,
    "openvino": OPENVINO,
}
BEYOND = {"llamacpp": ("Gemma2ForCausalLM", "Gemma3ForCausalLM", "GPT2LMHeadModel")}  # with any config: its table of GELU

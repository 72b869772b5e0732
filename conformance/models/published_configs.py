"""The config.json files of published models, key by key.

LongRoPE's searched lists (48 numbers each) are stand-ins of the right length. Sources: the models' cards on the Hugging Face
hub, as of the `transformers_version` each file states.
"""

from typing import Any

Config = dict[str, Any]


def published(architecture: str, model_type: str, dtype: str, version: str, **keys: Any) -> Config:
    """The keys that every published file has, and those of this model."""
    names = {"architectures": [architecture], "model_type": model_type, "torch_dtype": dtype}
    return {**names, "transformers_version": version, "use_cache": True, "initializer_range": 0.02, **keys}


def llama(**keys: Any) -> Config:
    """Llama and its many descendants."""
    common = {"bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "rms_norm_eps": 1e-5, "pretraining_tp": 1}
    shape = {"num_attention_heads": 32, "rope_scaling": None, "tie_word_embeddings": False, "vocab_size": 32000}
    version = keys.pop("version", "4.31.0.dev0")
    return published("LlamaForCausalLM", "llama", keys.pop("dtype", "float16"), version, **common, **shape) | keys


def llama3(**keys: Any) -> Config:
    """Llama 3 and later."""
    biases = {"attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False}
    common = {"bos_token_id": 128000, "num_key_value_heads": 8, "rope_theta": 500000.0, "vocab_size": 128256, **biases}
    return llama(dtype="bfloat16", version="4.42.3", **common, **keys)


def mistral(**keys: Any) -> Config:
    """Mistral 7B; versions differ in window, theta and vocabulary."""
    sizes = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
    more = {"num_key_value_heads": 8, "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "hidden_act": "silu"}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False}
    return published("MistralForCausalLM", "mistral", "bfloat16", "4.34.0.dev0", **sizes, **more, **ids) | keys


def qwen2(**keys: Any) -> Config:
    """Qwen 2 and 2.5."""
    common = {"attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151643, "hidden_act": "silu"}
    more = {"rms_norm_eps": 1e-6, "use_sliding_window": False, "vocab_size": 151936}
    return published("Qwen2ForCausalLM", "qwen2", "bfloat16", "4.40.1", **common, **more) | keys


def qwen3(architecture: str, model_type: str, **keys: Any) -> Config:
    """Qwen 3, dense and with experts."""
    common = {"attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645}
    more = {"head_dim": 128, "hidden_act": "silu", "max_position_embeddings": 40960, "rms_norm_eps": 1e-6}
    rope = {"rope_scaling": None, "rope_theta": 1000000, "sliding_window": None, "use_sliding_window": False}
    return published(architecture, model_type, "bfloat16", "4.51.0", **common, **more, **rope, vocab_size=151936) | keys


def gemma(architecture: str, model_type: str, dtype: str, version: str, **keys: Any) -> Config:
    """Gemma 2 and 3."""
    common = {"attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 2, "cache_implementation": "hybrid"}
    more = {"hidden_activation": "gelu_pytorch_tanh", "pad_token_id": 0, "rms_norm_eps": 1e-6, "num_hidden_layers": 26}
    return published(architecture, model_type, dtype, version, **common, **more) | keys


def gemma2(**keys: Any) -> Config:
    """Gemma 2."""
    common = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "hidden_act": "gelu_pytorch_tanh"}
    more = {"eos_token_id": 1, "max_position_embeddings": 8192, "rope_theta": 10000.0, "sliding_window": 4096}
    return gemma("Gemma2ForCausalLM", "gemma2", "float32", "4.42.4", **common, **more, vocab_size=256000) | keys


def phi3(**keys: Any) -> Config:
    """Phi-3 and Phi-4 mini."""
    code = {"AutoConfig": "configuration_phi3.Phi3Config", "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"}
    common = {"attention_bias": False, "attention_dropout": 0.0, "auto_map": code, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    sizes = {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 32}
    more = {"num_key_value_heads": 32, "original_max_position_embeddings": 4096, "rope_theta": 10000.0, "vocab_size": 32064}
    ids = {"bos_token_id": 1, "eos_token_id": 32000, "pad_token_id": 32000, "hidden_act": "silu", "rms_norm_eps": 1e-5}
    length = {"max_position_embeddings": 131072, "sliding_window": 262144, "tie_word_embeddings": False}
    return published("Phi3ForCausalLM", "phi3", "bfloat16", "4.40.2", **common, **sizes, **more, **ids, **length) | keys


def llama3_rope(factor: float) -> Config:
    """The rope_scaling of Llama 3.1 (factor 8) and 3.2 (32)."""
    edges = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    return {"factor": factor, "rope_type": "llama3", **edges}


LONG = {"long_factor": [1.0 + 0.7 * i for i in range(48)], "short_factor": [1.0 + 0.01 * i for i in range(48)]}
TINY_LENGTHS = {"max_position_embeddings": 2048, "attention_bias": False, "rope_theta": 10000.0}
JS = {"dtype": "q4", "kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}}
GPT2_SUMMARY = {"summary_type": "cls_index", "summary_use_proj": True, "summary_activation": None}
NO_ROPE = [int((i + 1) % 4 != 0) for i in range(36)]

PUBLISHED: dict[str, Config] = {
    "Llama-1-7B": llama(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, rms_norm_eps=1e-6, pad_token_id=0,
        max_position_embeddings=2048, max_sequence_length=2048,
    ),
    "Llama-2-7B": llama(
        _name_or_path="meta-llama/Llama-2-7b-hf", hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
        num_key_value_heads=32, max_position_embeddings=4096,
    ),
    "Llama-3-8B": llama3(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, max_position_embeddings=8192, eos_token_id=128001
    ),
    "Llama-3.1-8B-Instruct": llama3(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, max_position_embeddings=131072,
        eos_token_id=[128001, 128008, 128009], rope_scaling=llama3_rope(8.0),
    ),
    "Llama-3.2-1B": llama3(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, head_dim=64, max_position_embeddings=131072,
        eos_token_id=128001, rope_scaling=llama3_rope(32.0), tie_word_embeddings=True,
    ),
    "TinyLlama-1.1B-Chat": llama(
        hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_key_value_heads=4, dtype="bfloat16",
        version="4.35.0", **TINY_LENGTHS,
    ),
    "SmolLM2-135M-Instruct": llama(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        attention_bias=False, attention_dropout=0.0, is_llama_config=True, max_position_embeddings=8192, mlp_bias=False,
        pad_token_id=2, rope_interleaved=False, rope_theta=100000, tie_word_embeddings=True, vocab_size=49152,
        dtype="bfloat16", version="4.42.3", **{"transformers.js_config": JS},
    ),
    "Mistral-7B-v0.1": mistral(sliding_window=4096, rope_theta=10000.0, vocab_size=32000),
    "Mistral-7B-v0.3": mistral(sliding_window=None, rope_theta=1000000.0, vocab_size=32768, attention_dropout=0.0),
    "Qwen2-0.5B": qwen2(
        hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
        max_position_embeddings=131072, max_window_layers=24, sliding_window=131072, rope_theta=1000000.0,
        tie_word_embeddings=True,
    ),
    "Qwen2.5-7B-Instruct-with-YaRN": qwen2(
        hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
        max_position_embeddings=32768, max_window_layers=28, sliding_window=131072, rope_theta=1000000.0,
        tie_word_embeddings=False, vocab_size=152064, eos_token_id=151645,
        rope_scaling={"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"},
    ),
    "DeepSeek-R1-Distill-Qwen-1.5B": qwen2(
        hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2,
        max_position_embeddings=131072, max_window_layers=21, sliding_window=4096, rope_theta=10000, use_mrope=False,
        tie_word_embeddings=False, bos_token_id=151646,
    ),
    "Qwen3-0.6B": qwen3(
        "Qwen3ForCausalLM", "qwen3", hidden_size=1024, intermediate_size=3072, max_window_layers=28, num_attention_heads=16,
        num_hidden_layers=28, num_key_value_heads=8, tie_word_embeddings=True,
    ),
    "Gemma-2-2B": gemma2(
        head_dim=256, hidden_size=2304, intermediate_size=9216, num_attention_heads=8, num_key_value_heads=4,
        query_pre_attn_scalar=256,
    ),
    "Gemma-2-27B": gemma2(
        head_dim=128, hidden_size=4608, intermediate_size=36864, num_attention_heads=32, num_hidden_layers=46,
        num_key_value_heads=16, query_pre_attn_scalar=144,
    ),
    "Gemma-3-1B-it": gemma(
        "Gemma3ForCausalLM", "gemma3_text", "bfloat16", "4.50.0.dev0", attn_logit_softcapping=None, eos_token_id=[1, 106],
        final_logit_softcapping=None, head_dim=256, hidden_size=1152, intermediate_size=6912, max_position_embeddings=32768,
        num_attention_heads=4, num_key_value_heads=1, query_pre_attn_scalar=256, rope_local_base_freq=10000,
        rope_scaling=None, rope_theta=1000000, sliding_window=512, sliding_window_pattern=6, vocab_size=262144,
    ),
    "Phi-3-mini-4k": phi3(
        _name_or_path="Phi-3-mini-4k-instruct", max_position_embeddings=4096, sliding_window=2047, rope_scaling=None
    ),
    "Phi-3-mini-128k": phi3(rope_scaling={**LONG, "type": "longrope"}),
    "Phi-3-mini-128k-first-files": phi3(rope_scaling={**LONG, "type": "su"}),
    "Phi-4-mini": phi3(
        _name_or_path="Phi-4-mini-instruct", bos_token_id=199999, eos_token_id=199999, pad_token_id=199999, full_attn_mod=1,
        interpolate_factor=1, lm_head_bias=False, mlp_bias=False, num_attention_heads=24, num_key_value_heads=8,
        partial_rotary_factor=0.75, rope_scaling={**LONG, "type": "longrope"}, tie_word_embeddings=True, vocab_size=200064,
    ),
    "OLMo-2-1B": published(
        "Olmo2ForCausalLM", "olmo2", "float32", "4.47.0", attention_bias=False, attention_dropout=0.0, eos_token_id=100257,
        hidden_act="silu", hidden_size=2048, intermediate_size=8192, max_position_embeddings=4096, num_attention_heads=16,
        num_hidden_layers=16, num_key_value_heads=16, pad_token_id=100277, rms_norm_eps=1e-6, rope_scaling=None,
        rope_theta=500000, tie_word_embeddings=False, vocab_size=100352,
    ),
    "SmolLM3-3B": published(
        "SmolLM3ForCausalLM", "smollm3", "bfloat16", "4.54.0.dev0", attention_bias=False, attention_dropout=0.0,
        bos_token_id=128000, eos_token_id=128012, hidden_act="silu", hidden_size=2048, intermediate_size=11008,
        layer_types=["full_attention"] * 36, max_position_embeddings=65536, max_window_layers=28, mlp_bias=False,
        no_rope_layer_interval=4, no_rope_layers=NO_ROPE, num_attention_heads=16, num_hidden_layers=36,
        num_key_value_heads=4, pad_token_id=128004, pretraining_tp=2, rms_norm_eps=1e-6, rope_scaling=None,
        rope_theta=5000000.0, sliding_window=None, use_sliding_window=False, vocab_size=128256,
    ),
    "GPT-2": {
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "bos_token_id": 50256,
        "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02, "layer_norm_epsilon": 1e-5,
        "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
        "resid_pdrop": 0.1, "summary_proj_to_labels": True, "summary_first_dropout": 0.1, **GPT2_SUMMARY,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}, "vocab_size": 50257,
    },
    "Mixtral-8x7B": published(
        "MixtralForCausalLM", "mixtral", "bfloat16", "4.36.0.dev0", attention_dropout=0.0, bos_token_id=1, eos_token_id=2,
        hidden_act="silu", hidden_size=4096, intermediate_size=14336, max_position_embeddings=32768, num_attention_heads=32,
        num_experts_per_tok=2, num_hidden_layers=32, num_key_value_heads=8, num_local_experts=8, output_router_logits=False,
        rms_norm_eps=1e-5, rope_theta=1000000.0, router_aux_loss_coef=0.02, sliding_window=None, tie_word_embeddings=False,
        vocab_size=32000,
    ),
    "Qwen3-30B-A3B": qwen3(
        "Qwen3MoeForCausalLM", "qwen3_moe", decoder_sparse_step=1, hidden_size=2048, intermediate_size=6144,
        max_window_layers=48, mlp_only_layers=[], moe_intermediate_size=768, norm_topk_prob=True, num_attention_heads=32,
        num_experts=128, num_experts_per_tok=8, num_hidden_layers=48, num_key_value_heads=4, output_router_logits=False,
        router_aux_loss_coef=0.001, tie_word_embeddings=False,
    ),
}  # fmt: skip

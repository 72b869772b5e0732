"""The table of architectures: the config keys that each one reads, its parts, and the tensor names in its checkpoints.

A family whose parts exist is one entry here. The keys and their defaults are those of transformers' `configuration_*.py`: a
config.json without a key means the default of its family.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

FULL, SLIDING = "full_attention", "sliding_attention"
REQUIRED = object()  # a key without which the model's size would be a guess

SIZES: dict[str, Any] = {
    "vocab_size": REQUIRED,
    "hidden_size": REQUIRED,
    "intermediate_size": REQUIRED,
    "num_hidden_layers": REQUIRED,
    "num_attention_heads": REQUIRED,
    "max_position_embeddings": REQUIRED,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
GROUPED_HEADS: dict[str, Any] = {
    "num_key_value_heads": None,  # None: as many as attention heads
    "head_dim": None,  # None: hidden_size // num_attention_heads
}
ROPE: dict[str, Any] = {
    "rope_theta": 10000.0,
    "rope_scaling": None,  # transformers 4
    "rope_parameters": None,  # transformers 5
}


def full_everywhere(keys: Mapping[str, Any]) -> list[str]:
    """No layer has a window."""
    return [FULL] * keys["num_hidden_layers"]


def sliding_everywhere(keys: Mapping[str, Any]) -> list[str]:
    """Mistral, Phi-3, Mixtral: every layer has the window, if the config has one."""
    used = keys["sliding_window"] is not None and keys.get("use_sliding_window", True)
    return [SLIDING if used else FULL] * keys["num_hidden_layers"]


def sliding_from_layer(keys: Mapping[str, Any]) -> list[str]:
    """Qwen: the first `max_window_layers` layers have full attention, the others the window."""
    used = keys["use_sliding_window"] and keys["sliding_window"] is not None
    first = keys["max_window_layers"] if used else keys["num_hidden_layers"]
    return [SLIDING if i >= first else FULL for i in range(keys["num_hidden_layers"])]


def full_every_nth(keys: Mapping[str, Any]) -> list[str]:
    """Gemma: every n-th layer has full attention, those between have the window."""
    period = keys.get("sliding_window_pattern", 2)
    return [SLIDING if (i + 1) % period else FULL for i in range(keys["num_hidden_layers"])]


def sliding_without_rope(keys: Mapping[str, Any]) -> list[str]:
    """SmolLM3: layers without rotary positions have the window, if the config has one; the others have full attention."""
    used = keys["use_sliding_window"] and keys["sliding_window"] is not None
    return [SLIDING if used and not rotary else FULL for rotary in rotary_layers(keys)]


def rotary_layers(keys: Mapping[str, Any]) -> list[int]:
    """1 for each layer that rotates its queries and keys, 0 for a "NoPE" layer (every n-th in SmolLM3)."""
    if keys.get("no_rope_layers") is not None:
        return list(keys["no_rope_layers"])
    interval = keys.get("no_rope_layer_interval")
    return [1 if interval is None else int((i + 1) % interval != 0) for i in range(keys["num_hidden_layers"])]


@dataclass(frozen=True)
class Family:
    """The differences between architectures. `norm` and the other parts name classes and options of `layers.py`."""

    model_type: str
    keys: Mapping[str, Any]  # config keys this family reads, with transformers' defaults
    spelling: Mapping[str, str]  # Llama's name of a key → this family's (GPT-2: n_embd)
    inert: frozenset[str] = frozenset()  # keys in its config.json files that its mathematics does not read
    norm: str = "rms"  # "rms" | "rms_plus_one" (weight stored minus one) | "layer" (mean removed, with bias)
    placement: str = "pre"  # norm before each part | "post": after it | "sandwich": both
    qk_norm: str | None = None  # "head": over each head's D | "full": over all heads together
    qkv_bias: bool | None = None  # None: the key attention_bias decides, for q, k, v and o
    gated_mlp: bool = True
    scaled_embedding: bool = False  # Gemma: embeddings times sqrt(hidden_size)
    learned_positions: bool = False  # GPT-2: a table added to the embeddings, no rotation
    moe: bool = False
    layer_types: Callable[[Mapping[str, Any]], list[str]] = full_everywhere
    rope_per_layer_type: bool = False  # Gemma 3: sliding layers have another theta
    renames: tuple[tuple[str, str], ...] = (
        ("model.", ""),
    )  # text in the checkpoint's names → in the model's, applied in order
    fused: Mapping[str, tuple[str, ...]] | None = None  # one stored tensor → several of the model's, along the rows
    transposed: bool = False  # GPT-2 stores its matrices as [in, out]


def llama_like(model_type: str, keys: Mapping[str, Any], **parts: Any) -> Family:
    """An entry of the table for a descendant of Llama: the common keys, then the family's."""
    return Family(model_type, {**SIZES, **GROUPED_HEADS, **ROPE, **keys}, parts.pop("spelling", {}), **parts)


BIASES = {"attention_bias": False}
WINDOW = {"sliding_window": 4096, "use_sliding_window": False}
QWEN = {**WINDOW, "max_window_layers": 28, "layer_types": None, "num_key_value_heads": 32}
GEMMA = {
    **BIASES,
    "head_dim": 256,
    "num_key_value_heads": 4,
    "hidden_act": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "layer_types": None,
}
PHI3_ROPE = {"original_max_position_embeddings": 4096, "partial_rotary_factor": None}
EXPERTS = {"num_experts": None, "num_local_experts": None}  # two names of one number; a config needs one of them
MIXTRAL = {**EXPERTS, "num_experts_per_tok": 2, "sliding_window": None}

FAMILIES: dict[str, Family] = {
    "LlamaForCausalLM": llama_like("llama", {**BIASES, "mlp_bias": False}),
    "MistralForCausalLM": llama_like(
        "mistral", {"num_key_value_heads": 8, "sliding_window": 4096}, layer_types=sliding_everywhere, qkv_bias=False
    ),
    "Qwen2ForCausalLM": llama_like("qwen2", QWEN, layer_types=sliding_from_layer, qkv_bias=True),
    "Qwen3ForCausalLM": llama_like(
        "qwen3", {**QWEN, **BIASES, "head_dim": 128}, layer_types=sliding_from_layer, qk_norm="head"
    ),
    "Gemma2ForCausalLM": llama_like(
        "gemma2",
        {**GEMMA, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        spelling={"hidden_act": "hidden_activation"},
        inert=frozenset({"hidden_act"}),
        norm="rms_plus_one",
        placement="sandwich",
        scaled_embedding=True,
        layer_types=full_every_nth,
    ),
    "Gemma3ForCausalLM": llama_like(
        "gemma3_text",
        {
            **GEMMA,
            "rope_theta": 1e6,
            "rope_local_base_freq": 10000.0,
            "sliding_window_pattern": 6,
            "final_logit_softcapping": None,
        },
        spelling={"hidden_act": "hidden_activation"},
        inert=frozenset({"hidden_act"}),
        norm="rms_plus_one",
        placement="sandwich",
        qk_norm="head",
        scaled_embedding=True,
        layer_types=full_every_nth,
        rope_per_layer_type=True,
    ),
    "Phi3ForCausalLM": llama_like(
        "phi3",
        {"rms_norm_eps": 1e-5, "sliding_window": None, **PHI3_ROPE},
        layer_types=sliding_everywhere,
        qkv_bias=False,
        fused={
            "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
        },
    ),
    "Olmo2ForCausalLM": llama_like("olmo2", {**BIASES, "rms_norm_eps": 1e-5}, placement="post", qk_norm="full"),
    "SmolLM3ForCausalLM": llama_like(
        "smollm3",
        {
            **BIASES,
            **WINDOW,
            "mlp_bias": False,
            "num_key_value_heads": 4,
            "sliding_window": None,
            "no_rope_layers": None,
            "no_rope_layer_interval": 4,
            "layer_types": None,
            "rope_theta": 2e6,
            "tie_word_embeddings": True,
        },
        inert=frozenset({"max_window_layers"}),
        layer_types=sliding_without_rope,
    ),
    "GPT2LMHeadModel": Family(
        "gpt2",
        {
            **SIZES,
            "intermediate_size": None,
            "hidden_act": "gelu_new",
            "rms_norm_eps": 1e-5,
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "tie_word_embeddings": True,
        },
        spelling={
            "hidden_size": "n_embd",
            "intermediate_size": "n_inner",
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "max_position_embeddings": "n_positions",
            "hidden_act": "activation_function",
            "rms_norm_eps": "layer_norm_epsilon",
        },
        norm="layer",
        gated_mlp=False,
        qkv_bias=True,
        learned_positions=True,
        transposed=True,
        renames=(
            ("transformer.", ""),
            ("h.", "layers."),
            (".ln_1.", ".input_layernorm."),
            (".ln_2.", ".post_attention_layernorm."),
            (".attn.c_proj.", ".self_attn.o_proj."),
            (".attn.", ".self_attn."),
            (".mlp.c_fc.", ".mlp.up_proj."),
            (".mlp.c_proj.", ".mlp.down_proj."),
            ("wte.", "embed_tokens."),
            ("wpe.", "embed_positions."),
            ("ln_f.", "norm."),
        ),
        fused={"self_attn.c_attn": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")},
    ),
    "MixtralForCausalLM": llama_like(
        "mixtral",
        {**MIXTRAL, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1e6},
        layer_types=sliding_everywhere,
        qkv_bias=False,
        moe=True,
        renames=(
            ("model.", ""),
            (".block_sparse_moe.", ".mlp."),
            (".w1.", ".gate_proj."),
            (".w3.", ".up_proj."),
            (".w2.", ".down_proj."),
        ),
    ),
    "Qwen3MoeForCausalLM": llama_like(
        "qwen3_moe",
        {
            **WINDOW,
            **BIASES,
            **EXPERTS,
            "num_experts_per_tok": 8,
            "num_key_value_heads": 4,
            "moe_intermediate_size": 768,
            "norm_topk_prob": False,
            "decoder_sparse_step": 1,
            "mlp_only_layers": None,
        },
        inert=frozenset({"max_window_layers"}),
        layer_types=sliding_everywhere,
        qk_norm="head",
        moe=True,
    ),
}

# Keys that change nothing in a forward pass at any value: training, bookkeeping, generation defaults.
INERT_KEYS = frozenset(
    """
    architectures model_type torch_dtype dtype transformers_version _name_or_path _commit_hash auto_map use_cache
    initializer_range attention_dropout resid_pdrop embd_pdrop attn_pdrop hidden_dropout embedding_dropout
    bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id decoder_start_token_id
    output_attentions output_hidden_states output_router_logits return_dict return_dict_in_generate output_scores
    gradient_checkpointing router_aux_loss_coef router_jitter_noise pretraining_tp _attn_implementation
    attn_implementation _attn_implementation_autoset cache_implementation use_flash_attn use_return_dict
    torchscript tie_encoder_decoder is_encoder_decoder is_decoder chunk_size_feed_forward
    id2label label2id num_labels problem_type finetuning_task task_specific_params tokenizer_class prefix
    summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout
    max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k
    top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    num_return_sequences forced_bos_token_id forced_eos_token_id remove_invalid_values suppress_tokens
    begin_suppress_tokens exponential_decay_length_penalty use_bfloat16 tf_legacy_loss
    n_ctx max_sequence_length reorder_and_upcast_attn _sliding_window_pattern unsloth_fixed unsloth_version
    transformers.js_config
    """.split()  # noqa: SIM905
)

# Keys that change the mathematics except at these values.
INERT_AT: Mapping[str, tuple[Any, ...]] = {
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "use_sliding_window": (False,),
    "use_bidirectional_attention": (False,),
    "add_cross_attention": (False,),
    "attn_logit_softcapping": (),  # Gemma 3 has the key, but transformers' model ignores any value
    "use_mrope": (False,),
    "use_parallel_residual": (False,),
    "rope_interleaved": (False,),
    "is_llama_config": (True,),  # SmolLM2
    "full_attn_mod": (1,),  # these three: Phi-4 mini
    "interpolate_factor": (1,),
    "lm_head_bias": (False,),
    "partial_rotary_factor": (1, 1.0),
    "pruned_heads": ({},),
}

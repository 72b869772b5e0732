"""Hypothesis strategies: valid random config.json contents of every family, in both spellings.

They stay within the limits of the family's code in transformers: only Phi-3 rotates a part of each head, only Gemma 3 has
frequencies per layer type, head counts must divide the hidden size.
"""

from typing import Any

from hypothesis import strategies as st

from conformance.models.fixtures import MODEL_TYPES

Draw = Any
ACTIVATIONS = ["silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu"]
ROPE_TYPES = ["default", "linear", "dynamic", "llama3", "yarn", "longrope"]
WINDOWED = ["MistralForCausalLM", "Phi3ForCausalLM", "MixtralForCausalLM"]


def log_uniform(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers of log-uniform magnitude, rounded so that JSON holds them exactly."""
    return (
        st.floats(low, high).map(lambda v: float(f"{v:.3g}"))
        if high / low < 100
        else st.sampled_from([low * (high / low) ** (i / 12) for i in range(13)]).map(lambda v: float(f"{v:.3g}"))
    )


@st.composite
def configs(draw: Draw, architecture: str) -> dict[str, Any]:
    """A config.json of this family."""
    if architecture == "GPT2LMHeadModel":
        return draw(gpt2_configs())
    kv_heads, group = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    head_dim = draw(st.sampled_from([2, 4, 6, 8, 10, 16]))
    hidden = kv_heads * group * (draw(st.integers(1, 5)))
    if architecture == "Phi3ForCausalLM":
        head_dim = max(head_dim, 4)
        hidden = kv_heads * group * head_dim  # Phi-3 has no key head_dim
    config: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": MODEL_TYPES[architecture],
        "vocab_size": draw(st.integers(5, 60)),
        "hidden_size": hidden,
        "intermediate_size": draw(st.integers(1, 40)),
        "num_hidden_layers": draw(st.integers(1, 4)),
        "num_attention_heads": kv_heads * group,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": draw(st.sampled_from([8, 20, 64, 4096])),
        "rms_norm_eps": draw(log_uniform(1e-8, 1e-1)),
        "tie_word_embeddings": draw(st.booleans()),
        "pad_token_id": 0,
        "eos_token_id": 2,
        draw(st.sampled_from(["dtype", "torch_dtype"])): "float64",
    }
    if architecture != "Phi3ForCausalLM":
        config["head_dim"] = head_dim
    draw_biases(draw, config)
    draw_windows(draw, config)
    draw_experts(draw, config)
    draw_rope(draw, config, head_dim)
    draw_gemma(draw, config)
    return config


def draw_biases(draw: Draw, config: dict[str, Any]) -> None:
    """Biases, for the families whose config decides them, and the activation."""
    architecture = config["architectures"][0]
    key = "hidden_activation" if architecture.startswith("Gemma") else "hidden_act"
    config[key] = draw(st.sampled_from(ACTIVATIONS))
    if architecture not in (*WINDOWED, "Qwen2ForCausalLM"):
        config["attention_bias"] = draw(st.booleans())
    if architecture in ("LlamaForCausalLM", "SmolLM3ForCausalLM"):
        config["mlp_bias"] = draw(st.booleans())


def draw_windows(draw: Draw, config: dict[str, Any]) -> None:
    """Sliding windows: in all layers, from some layer on, or layer by layer."""
    architecture, layers = config["architectures"][0], config["num_hidden_layers"]
    window = draw(st.integers(2, 20))
    if architecture in WINDOWED:
        config["sliding_window"] = draw(st.sampled_from([None, window]))
        return
    if architecture in ("LlamaForCausalLM", "Olmo2ForCausalLM"):
        return
    config["sliding_window"] = window
    if architecture == "SmolLM3ForCausalLM":
        if draw(st.booleans()):
            config["no_rope_layers"] = draw(st.lists(st.integers(0, 1), min_size=layers, max_size=layers))
        else:
            config["no_rope_layer_interval"] = draw(st.integers(1, 4))
    if architecture.startswith("Gemma"):
        if architecture == "Gemma3ForCausalLM" and draw(st.booleans()):
            config["sliding_window_pattern"] = draw(st.integers(1, 4))
        elif draw(st.booleans()):
            config["layer_types"] = draw(layer_types(layers))
        return
    config["use_sliding_window"] = draw(st.booleans())
    if architecture == "Qwen3MoeForCausalLM":
        return
    if config["use_sliding_window"] and draw(st.booleans()):
        config["layer_types"] = draw(layer_types(layers))
    elif architecture.startswith("Qwen"):
        config["max_window_layers"] = draw(st.integers(0, layers))


def layer_types(layers: int) -> st.SearchStrategy[list[str]]:
    """One type a layer."""
    return st.lists(st.sampled_from(["full_attention", "sliding_attention"]), min_size=layers, max_size=layers)


def draw_experts(draw: Draw, config: dict[str, Any]) -> None:
    """Mixture-of-experts settings."""
    architecture, layers = config["architectures"][0], config["num_hidden_layers"]
    experts = draw(st.integers(1, 6))
    if architecture == "MixtralForCausalLM":
        config |= {"num_local_experts": experts, "num_experts_per_tok": draw(st.integers(1, experts))}
    if architecture == "Qwen3MoeForCausalLM":
        config |= {
            "num_experts": experts,
            "num_experts_per_tok": draw(st.integers(1, experts)),
            "moe_intermediate_size": draw(st.integers(1, 20)),
            "norm_topk_prob": draw(st.booleans()),
            "decoder_sparse_step": draw(st.integers(1, 3)),
            "mlp_only_layers": draw(st.lists(st.integers(0, layers - 1), max_size=2, unique=True)),
        }


def draw_gemma(draw: Draw, config: dict[str, Any]) -> None:
    """Gemma's query scale and softcaps."""
    architecture = config["architectures"][0]
    if architecture.startswith("Gemma"):
        config["query_pre_attn_scalar"] = draw(st.integers(1, 40))
        config["final_logit_softcapping"] = draw(st.sampled_from([None, 0.7, 2.0, 30.0]))
    if architecture == "Gemma2ForCausalLM":
        config["attn_logit_softcapping"] = draw(st.sampled_from([None, 0.7, 2.0, 50.0]))


def draw_rope(draw: Draw, config: dict[str, Any], head_dim: int) -> None:
    """Rotary settings in the spelling of transformers 4 or 5."""
    architecture, length = config["architectures"][0], config["max_position_embeddings"]
    theta, old = draw(log_uniform(10.0, 1e6)), draw(st.booleans())
    if architecture == "Gemma3ForCausalLM":
        local, full = draw(log_uniform(10.0, 1e6)), draw(rope_objects(head_dim, length, nested=True))
        if old:
            config |= {"rope_theta": theta, "rope_local_base_freq": local, "rope_scaling": full}
        else:
            sliding = draw(rope_objects(head_dim, length, nested=True))
            config["rope_parameters"] = {
                "full_attention": {**full, "rope_theta": theta},
                "sliding_attention": {**sliding, "rope_theta": local},
            }
        return
    if architecture == "Phi3ForCausalLM":
        partial = draw(st.sampled_from([p for p in (0.5, 0.75, 1.0) if int(head_dim * p) % 2 == 0]))
        original = draw(st.sampled_from([4, 16, 64]))
        scaling = draw(st.one_of(st.just({"rope_type": "default"}), longrope_objects(int(head_dim * partial), None)))
        config["original_max_position_embeddings"] = original
        partial_at = config if old else scaling
        partial_at["partial_rotary_factor"] = partial
    else:
        scaling = draw(rope_objects(head_dim, length))
    if old:
        scaling["type"] = scaling.pop("rope_type")
        plain = scaling == {"type": "default"}
        config |= {"rope_theta": theta, "rope_scaling": None if plain else scaling}
    else:
        config["rope_parameters"] = {**scaling, "rope_theta": theta}


@st.composite
def rope_objects(draw: Draw, dim: int, length: int, nested: bool = False) -> dict[str, Any]:
    """A rope_scaling object of any type that `dim` rotated dimensions allow."""
    kinds = [kind for kind in ROPE_TYPES if not (kind == "dynamic" and dim == 2)]
    kind, factor = draw(st.sampled_from(kinds)), draw(log_uniform(1.0, 16.0))
    original = draw(st.sampled_from([4, 7, 16, 64]))
    if kind == "default":
        return {"rope_type": kind}
    if kind in ("linear", "dynamic"):
        return {"rope_type": kind, "factor": factor}
    if kind == "longrope":
        return draw(longrope_objects(dim, original))
    if kind == "llama3":
        low = draw(log_uniform(0.2, 3.0))
        high = low + draw(log_uniform(0.1, 5.0))
        return {
            "rope_type": kind,
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": original,
        }
    slow = draw(log_uniform(0.05, 4.0))
    yarn = {"rope_type": kind, "factor": factor, "original_max_position_embeddings": original}
    yarn |= {"beta_slow": slow, "beta_fast": slow * draw(st.sampled_from([1.5, 4.0, 32.0]))} if draw(st.booleans()) else {}
    yarn |= {"attention_factor": draw(log_uniform(0.3, 3.0))} if draw(st.booleans()) else {}
    yarn |= {"mscale": 0.7, "mscale_all_dim": draw(st.sampled_from([0.4, 1.2]))} if draw(st.booleans()) else {}
    return yarn | ({"truncate": draw(st.booleans())} if not nested else {})


@st.composite
def longrope_objects(draw: Draw, dim: int, original: int | None) -> dict[str, Any]:
    """LongRoPE, with its lists and, at times, a factor and an attention factor."""
    divisors = st.lists(log_uniform(1.0, 50.0), min_size=dim // 2, max_size=dim // 2)
    rope: dict[str, Any] = {"rope_type": "longrope", "short_factor": draw(divisors), "long_factor": draw(divisors)}
    rope |= {} if original is None else {"original_max_position_embeddings": original}
    rope |= {"factor": draw(log_uniform(1.0, 16.0))} if draw(st.booleans()) else {}
    return rope | ({"attention_factor": draw(log_uniform(0.3, 3.0))} if draw(st.booleans()) else {})


@st.composite
def gpt2_configs(draw: Draw) -> dict[str, Any]:
    """A config.json of GPT-2, whose keys differ from all others."""
    heads = draw(st.integers(1, 6))
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": draw(st.integers(5, 60)),
        "n_embd": heads * draw(st.integers(1, 8)),
        "n_layer": draw(st.integers(1, 4)),
        "n_head": heads,
        "n_positions": draw(st.integers(40, 60)),
        "n_inner": draw(st.sampled_from([None, 1, 7, 30])),
        "layer_norm_epsilon": draw(log_uniform(1e-8, 1e-1)),
        "activation_function": draw(st.sampled_from(ACTIVATIONS)),
        "scale_attn_weights": draw(st.booleans()),
        "scale_attn_by_inverse_layer_idx": draw(st.booleans()),
        "reorder_and_upcast_attn": False,  # transformers refuses it in float64; it changes rounding only
        "tie_word_embeddings": draw(st.booleans()),
        "eos_token_id": 2,
        "bos_token_id": 1,
        "dtype": "float64",
    }

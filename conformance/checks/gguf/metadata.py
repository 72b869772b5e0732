"""The metadata of a GGUF file as a config.json: keys of each architecture, worked out by hand."""

# mypy: disable-error-code="arg-type,dict-item,func-returns-value,misc"
# tables mix good and bad arguments

import math
import struct
from typing import Any

from torch import Tensor

from conformance.checks import check
from conformance.checks.assertions import expect_equal, expect_refused
from nanollama.checkpoint.gguf import config as gguf_config
from nanollama.checkpoint.gguf import keys as gguf_keys
from nanollama.checkpoint.gguf import rope as gguf_rope
from nanollama.model.config import read_config
from nanollama.model.families import FULL, SLIDING

SHAPES: dict[str, tuple[int, ...]] = {"token_embd.weight": (40, 24), "output.weight": (40, 24)}
LLAMA = {"context_length": 64, "embedding_length": 24, "feed_forward_length": 48, "block_count": 3, "attention.head_count": 6}
LLAMA |= {"attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": 9.999999747378752e-06, "rope.freq_base": 12345.0}


def metadata(architecture: str = "llama", drop: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    keys = {key: value for key, value in {**LLAMA, **more}.items() if key not in drop}
    return {"general.architecture": architecture, **{f"{architecture}.{key}": value for key, value in keys.items()}}


def raw(data: dict[str, Any], shapes: dict[str, tuple[int, ...]] | None = None, **factors: Tensor) -> dict[str, Any]:
    rope = {f"{name}.weight": tensor for name, tensor in factors.items()}
    return gguf_config.config_from_gguf(data, SHAPES if shapes is None else shapes, rope)


@check("GGUF-020", "NUMR-007", area="weights")
def floats_are_read_as_the_decimals_that_were_meant() -> None:
    for meant in (1e-5, 1e-6, 0.1, 500000.0, 1.0, 0.0, 0.70710677, 1.1920929e-07, 30.0, -0.3):
        (stored,) = struct.unpack("<f", struct.pack("<f", meant))
        expect_equal("checkpoint.gguf.keys.shortest", gguf_keys.shortest(stored), meant, f"the float32 nearest to {meant}")
    for value in (math.pi, 1e-50, 1e30 + 1e15):
        expect_equal("checkpoint.gguf.keys.shortest", gguf_keys.shortest(value), value, f"{value}, which is no float32")
    expect_equal(
        "checkpoint.gguf.keys.shortest",
        [gguf_keys.shortest(math.inf), math.isnan(gguf_keys.shortest(math.nan))],
        [math.inf, True],
        "inf, NaN",
    )
    place = "checkpoint.gguf.keys.Metadata"
    found = gguf_keys.Metadata(
        {"general.architecture": "x", "x.a": [3, 3], "x.b": 2, "x.c": 0.10000000149011612, "x.d": [1, 2], "x.rope.x": True}
    )
    got = found.get("a"), found.get("b"), found.get("c"), found.get("e", 7), found.number("b", 1.0), found.number("z", 1.5)
    expect_equal(place, got, (3, 2, 0.1, 7, 2.0, 1.5), "values")
    for action, part in (
        (lambda: found.get("e"), "x.e"),
        (lambda: found.get("d"), "x.d"),
        (lambda: found.number("rope.x", 1.0), "x.rope.x"),
        (found.refuse_unread, "x."),
    ):
        if part == "x.":
            found.values = {**found.values, "x.unread": 1}
            part = "x.unread"
        expect_refused(place, action, part, f"reading {part}")
    harmless = {
        "general.architecture": "x",
        "x.attention.causal": True,
        "x.tensor_data_layout": "a",
        "y.z": 1,
        "general.name": "n",
    }
    expect_equal(place, gguf_keys.Metadata(harmless).refuse_unread(), None, "keys that change nothing")
    expect_refused(
        place,
        lambda: gguf_keys.Metadata({**harmless, "x.attention.causal": False}).refuse_unread(),
        "causal",
        "a value that changes something",
    )


@check("GGUF-022", "GGUF-024", area="rope")
def theta_is_read_for_each_kind_of_layer() -> None:
    place = "checkpoint.gguf.rope.rope_from_gguf"
    for architecture, keys, wanted in (
        ("llama", {"rope.freq_base": 5e5}, (5e5, None)),
        ("llama", {"rope.freq_base": 5e5, "rope.freq_base_swa": 5e5}, (5e5, None)),
        ("qwen2", {}, (10000.0, None)),
        ("gemma3", {"rope.freq_base": 7e4, "rope.freq_base_swa": 300.0}, (7e4, 300.0)),
        ("gemma3", {"rope.freq_base": 7e4}, (7e4, 10000.0)),
    ):
        data = gguf_keys.Metadata({"general.architecture": architecture, **{f"{architecture}.{k}": v for k, v in keys.items()}})
        got = gguf_rope.rope_from_gguf(data, {}, 8, 64, partial=False)
        expect_equal(
            place, (got["rope_theta"], got.get("rope_local_base_freq")), wanted, f"thetas of {architecture} with {keys}"
        )
    part = gguf_keys.Metadata({"general.architecture": "phi3", "phi3.rope.dimension_count": 4})
    expect_equal(
        place,
        gguf_rope.rope_from_gguf(part, {}, 8, 64, partial=True)["partial_rotary_factor"],
        0.5,
        "the part of a head that turns",
    )
    expect_refused(
        place, lambda: gguf_rope.rope_from_gguf(part, {}, 8, 64, partial=False), "dimension_count", "a part that can't be"
    )


@check("GGUF-022", area="weights")
def where_a_file_is_silent_the_default_is_llama_cpps() -> None:
    place = "checkpoint.gguf.config.KEYS"
    gemma = read_config(raw(metadata("gemma2")))
    expect_equal(
        place,
        (gemma.attention_softcap, gemma.logit_softcap, max(w or 0 for w in gemma.windows)),
        (50.0, 30.0, 4096),
        "Gemma 2's",
    )
    gemma = read_config(raw(metadata("gemma2", attn_logit_softcapping=7.0, final_logit_softcapping=9.0)))
    expect_equal(place, (gemma.attention_softcap, gemma.logit_softcap), (7.0, 9.0), "caps that a file names")
    three = read_config(raw(metadata("gemma3")))
    expect_equal(place, (three.attention_softcap, three.logit_softcap, set(three.windows)), (None, None, {None}), "Gemma 3's")
    llama = read_config(raw(metadata(drop=("attention.head_count_kv", "rope.freq_base"))))
    expect_equal(
        place,
        (llama.num_key_value_heads, llama.head_dim, [r.theta for r in llama.ropes if r]),
        (6, 4, [10000.0] * 3),
        "Llama's",
    )


@check("GGUF-021", "GGUF-022", area="weights")
def metadata_stand_for_a_config() -> None:
    place = "checkpoint.gguf.config.config_from_gguf"
    got = raw(metadata(**{"attention.key_length": 8, "attention.value_length": 8, "rope.dimension_count": 8, "vocab_size": 40}))
    wanted = {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    wanted |= {
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 12345.0,
        "vocab_size": 40,
        "tie_word_embeddings": False,
    }
    wanted |= {
        "attention_bias": False,
        "mlp_bias": False,
        "rope_scaling": None,
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
    }
    expect_equal(place, {key: got.get(key) for key in wanted}, wanted, "a Llama")
    tied = raw(metadata(), {"token_embd.weight": (40, 24), "blk.0.attn_q.bias": (24,), "blk.0.ffn_gate.bias": (48,)})
    expect_equal(
        place,
        (tied["tie_word_embeddings"], tied["attention_bias"], tied["mlp_bias"]),
        (True, True, True),
        "tied head and biases",
    )
    moe = raw(metadata(expert_count=4, expert_used_count=2))
    expect_equal(
        place,
        (moe["architectures"], moe.get("num_experts", moe.get("num_local_experts")), moe["num_experts_per_tok"]),
        (["MixtralForCausalLM"], 4, 2),
        "experts",
    )
    plain = read_config(raw(metadata("qwen2")))
    expect_equal(place, (plain.qkv_bias, set(plain.windows)), (True, {None}), "Qwen2: a bias, and no windows")
    for architecture, key, family in (
        ("gemma2", "attention.sliding_window", "Gemma2ForCausalLM"),
        ("phi3", "attention.sliding_window", "Phi3ForCausalLM"),
    ):
        config = read_config(raw(metadata(architecture, **{key: 5})))
        expect_equal(place, (config.architecture, 5 in config.windows), (family, True), f"the window of {architecture}")
        config = read_config(raw(metadata(architecture, **{key: 0})))
        expect_equal(place, set(config.windows), {None}, f"a window of 0 in {architecture}")
    for pattern, slides in (
        (None, [1, 0, 1]),
        (3, [1, 1, 0]),
        ([True, False, False], [1, 0, 0]),
        (0, [1, 1, 1]),
        (1, [0, 0, 0]),
    ):
        more = {} if pattern is None else {"attention.sliding_window_pattern": pattern}
        types = raw(metadata("gemma2", **more))["layer_types"]
        expect_equal(
            "checkpoint.gguf.config.gemma_keys",
            types,
            [SLIDING if each else FULL for each in slides],
            f"layers by the pattern {pattern}",
        )
    for layers, wanted_scalar in ((3, 8), (46, 4)):
        got = raw(metadata("gemma2", block_count=layers, **{"attention.key_length": 8, "attention.value_length": 8}))
        expect_equal(
            "checkpoint.gguf.config.attention_divisor",
            got["query_pre_attn_scalar"],
            wanted_scalar,
            f"what Gemma of {layers} layers divides by",
        )
    ids = {
        "tokenizer.ggml.tokens": ["a"] * 9,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.eot_token_id": 3,
        "tokenizer.ggml.eom_token_id": 9,
        "tokenizer.ggml.padding_token_id": 0,
    }
    got = gguf_config.token_ids(ids)
    expect_equal(
        "checkpoint.gguf.config.token_ids", got, {"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 0}, "token ids"
    )
    expect_equal(
        "checkpoint.gguf.config.token_ids",
        gguf_config.token_ids({}),
        {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None},
        "no tokens",
    )


@check("GGUF-023", "CONF-009", area="weights")
def metadata_that_would_be_ignored_are_refused() -> None:
    place = "checkpoint.gguf.config.config_from_gguf"
    for data, shapes, part in (
        (metadata("mamba"), SHAPES, "mamba"),
        ({**metadata(), "general.type": "adapter"}, SHAPES, "adapter"),
        (metadata(new_thing=1), SHAPES, "new_thing"),
        (metadata(logit_scale=2.0), SHAPES, "logit_scale"),
        (metadata(drop=("block_count",)), SHAPES, "block_count"),
        (metadata(vocab_size=41), SHAPES, "vocab_size"),
        (metadata(), {}, "token_embd.weight"),
        (metadata(**{"attention.value_length": 5}), SHAPES, "value_length"),
        (metadata(**{"attention.head_count": [6, 6, 5]}), SHAPES, "head_count"),
        (metadata(**{"rope.dimension_count": 2}), SHAPES, "dimension_count"),
        (metadata(**{"rope.freq_base_swa": 5.0}), SHAPES, "freq_base_swa"),
        (metadata(**{"rope.scaling.type": "funny"}), SHAPES, "funny"),
        (metadata("gemma2", **{"attention.sliding_window_pattern": [True]}), SHAPES, "sliding_window_pattern"),
    ):
        expect_refused(place, lambda data=data, shapes=shapes: raw(data, shapes), part, f"metadata with {part}")

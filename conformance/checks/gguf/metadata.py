"""The metadata of a GGUF file as a config.json: keys of each architecture, worked out by hand."""

# mypy: disable-error-code="arg-type,dict-item,func-returns-value,misc"
# tables mix good and bad arguments

import math
import struct
from typing import Any

import torch
from torch import Tensor

from conformance.checks import check
from conformance.checks.assertions import expect, expect_equal, expect_refused
from conformance.checks.generation.rigged import blamed
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


@check("GGUF-024", "ROPE-020", area="rope")
def rotary_scaling_is_read_as_llama_cpp_applies_it() -> None:
    place = "checkpoint.gguf.rope.read_scaling"

    def scaling(architecture: str = "llama", factors: dict[str, Tensor] | None = None, **keys: Any) -> Any:
        data = metadata(architecture, **{f"rope.{key.replace('__', '.')}": value for key, value in keys.items()})
        return raw(data, None, **(factors or {}))["rope_scaling"]

    expect_equal(place, scaling(scaling__type="linear", scaling__factor=4.0), {"rope_type": "linear", "factor": 4.0}, "linear")
    expect_equal(place, scaling(scale_linear=4.0), {"rope_type": "linear", "factor": 4.0}, "the old key")
    expect_equal(
        place, (scaling(scaling__type="none", scaling__factor=4.0), scaling(scaling__factor=1.0)), (None, None), "none"
    )
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 32.0, "beta_slow": 1.0}
    base = {"scaling__type": "yarn", "scaling__factor": 4.0, "scaling__original_context_length": 16}
    expect_equal("checkpoint.gguf.rope.read_yarn", scaling(**base), yarn, "YaRN")
    got = scaling(**base, scaling__yarn_beta_fast=8.0, scaling__attn_factor=0.5)
    wanted = {**yarn, "beta_fast": 8.0, "attention_factor": 0.5 * (1 + 0.1 * math.log(4.0))}
    expect_equal("checkpoint.gguf.rope.read_yarn", got, wanted, "YaRN with other numbers")
    for key in ("yarn_attn_factor", "yarn_ext_factor"):
        expect_refused("checkpoint.gguf.rope.read_yarn", lambda key=key: scaling(**base, **{f"scaling__{key}": 3.0}), key, key)
    short, long = torch.tensor([1.0, 1.5]), torch.tensor([2.0, 4.0])
    lists = {"rope_factors_short": short, "rope_factors_long": long}
    got = scaling("phi3", lists, scaling__original_context_length=16, scaling__attn_factor=1.25)
    wanted = {
        "rope_type": "longrope",
        "short_factor": [1.0, 1.5],
        "long_factor": [2.0, 4.0],
        "original_max_position_embeddings": 16,
        "attention_factor": 1.25,
    }
    expect_equal("checkpoint.gguf.rope.read_factors", got, wanted, "LongRoPE")
    natural = struct.unpack("<f", struct.pack("<f", math.sqrt(1 + math.log(4) / math.log(16))))[0]
    got = scaling("phi3", lists, scaling__original_context_length=16, scaling__attn_factor=natural)
    expect(
        "checkpoint.gguf.rope.read_sharpness", "attention_factor" not in got, f"LongRoPE with the implied sharpness is {got}"
    )
    with blamed("checkpoint.gguf.rope.read_factors"):
        got = scaling("llama", {"rope_freqs": torch.tensor([1.0, 1.5])})
        got = (got or {}) | {
            "short_factor": (got or {}).get("short_factor"),
            "attention_factor": (got or {}).get("attention_factor"),
        }
        expect("checkpoint.gguf.rope.read_scaling", "rope_type" in got, "rope_freqs is not read")
    expect_equal(
        "checkpoint.gguf.rope.read_factors",
        (got["rope_type"], got["short_factor"], got["attention_factor"]),
        ("longrope", [1.0, 1.5], 1.0),
        "one list",
    )
    freq = [12345.0 ** (-2 * j / 4) for j in range(2)]
    turns = [8192 * f / (2 * math.pi) for f in freq]
    keep = [min(1.0, max(0.0, (t - 1) / 3)) for t in turns]
    divisors = torch.tensor([f / (k * f + (1 - k) * f / 8) for f, k in zip(freq, keep, strict=True)])
    if float(divisors.max()) == 1.0:
        divisors = torch.tensor([1.0, 1.0])
    expect_refused(
        "checkpoint.gguf.rope.read_factors",
        lambda: scaling("gemma2", {"rope_freqs": long}),
        "rope_freqs",
        "a list that llama.cpp does not read",
    )
    expect_refused(
        "checkpoint.gguf.rope.read_factors",
        lambda: scaling("phi3", {"rope_factors_short": short}),
        "rope_factors_short",
        "one of two lists",
    )


@check("GGUF-025", area="rope")
def llama_3_is_recognised_by_its_divisors() -> None:
    theta, dim, factor = 500000.0, 64, 8.0
    divisors = []
    for j in range(dim // 2):
        freq = theta ** (-2 * j / dim)
        wave, low, high = 2 * math.pi / freq, 8192 / 1.0, 8192 / 4.0
        smooth = (8192 / wave - 1.0) / (4.0 - 1.0)
        scaled = freq if wave < high else freq / factor if wave > low else (1 - smooth) * freq / factor + smooth * freq
        divisors.append(freq / scaled)
    keys = {"embedding_length": 384, "rope.freq_base": theta}
    shapes = {"token_embd.weight": (40, 384)}
    got = raw(metadata(**keys), shapes, rope_freqs=torch.tensor(divisors))["rope_scaling"]
    wanted = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    expect_equal("checkpoint.gguf.rope.is_llama3", got, wanted, "Llama 3's scaling")
    divisors[20] *= 1.01
    got = raw(metadata(**keys), shapes, rope_freqs=torch.tensor(divisors))["rope_scaling"]
    expect_equal("checkpoint.gguf.rope.is_llama3", got["rope_type"], "longrope", "divisors that are not Llama 3's")

"""Reading config.json: what published models and transformers 5 write is understood as transformers understands it, every other
key is refused by name, and no value whatever ends in anything but a NanollamaError.

The oracle is transformers' own configuration class (and its rotary module), never the tables of `families.py`.
"""

import copy
import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from conformance.models.fixtures import FIXTURES, MODEL_TYPES, fixture_config
from conformance.models.published_configs import PUBLISHED
from conformance.truth.compare import SEMANTIC_BAR, relative_error
from conformance.truth.oracle import float64_everywhere
from nanollama.errors import NanollamaError
from nanollama.model.config import ModelConfig, read_config, read_token_ids
from nanollama.model.families import FAMILIES, INERT_AT, INERT_KEYS, REQUIRED
from nanollama.model.rope import frequencies

Config = dict[str, Any]
FUZZ = int(os.environ.get("NANOLLAMA_CONFIG_FUZZ", "1000"))  # random cases; the numbers in the notes are of 100,000
FULL, SLIDING = "full_attention", "sliding_attention"
TOKEN_IDS = {"bos_token_id": "bos_token_id", "eos_token_ids": "eos_token_id"}  # a file without them has none for us
SU = "Phi-3-mini-128k-first-files"  # transformers 5 itself fails on the type "su"
ALL = {**PUBLISHED, **{name: fixture_config(name) for name in FIXTURES}}
THEIRS = [name for name in ALL if name != SU]  # what transformers can be asked about


# --- what transformers makes of the same file


def understood(raw: Config) -> Any:
    """transformers' configuration object of a config.json."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CONFIG_MAPPING[raw["model_type"]].from_dict(copy.deepcopy(raw))


def expected(theirs: Any) -> Config:
    """Our fields, from theirs."""

    def first(*names: str) -> Any:
        return next((v for name in names if (v := getattr(theirs, name, None)) is not None), None)

    layers, heads, window = theirs.num_hidden_layers, theirs.num_attention_heads, first("sliding_window")
    head_dim = first("head_dim") or theirs.hidden_size // heads
    types = first("layer_types") or [SLIDING if window else FULL] * layers
    scale = (first("query_pre_attn_scalar") or head_dim) ** -0.5 if first("scale_attn_weights") is not False else 1.0
    by_layer = bool(first("scale_attn_by_inverse_layer_idx"))
    return {
        "vocab_size": theirs.vocab_size,
        "hidden_size": theirs.hidden_size,
        "intermediate_size": first("intermediate_size", "n_inner") or 4 * theirs.hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": first("num_key_value_heads") or heads,
        "head_dim": head_dim,
        "max_position_embeddings": theirs.max_position_embeddings,
        "hidden_act": first("hidden_activation", "hidden_act", "activation_function"),
        "norm_eps": first("rms_norm_eps", "layer_norm_epsilon"),
        "tie_word_embeddings": theirs.tie_word_embeddings,
        "attention_scales": tuple(scale / (i + 1) if by_layer else scale for i in range(layers)),
        "attention_softcap": first("attn_logit_softcapping"),
        "logit_softcap": first("final_logit_softcapping"),
        "windows": tuple(window if t == SLIDING else None for t in types),
        "num_experts": first("num_local_experts", "num_experts") or 0,
        "num_experts_per_tok": first("num_experts_per_tok") or 0,
        "bos_token_id": theirs.bos_token_id,
        "eos_token_ids": tuple(e) if isinstance(e := theirs.eos_token_id, list) else (e,) if e is not None else (),
    }


def rotary_of(theirs: Any) -> Any:
    """transformers' rotary module for this configuration, in float64; None for GPT-2."""
    module = sys.modules[AutoModelForCausalLM._model_mapping[type(theirs)].__module__]
    names = [name for name in vars(module) if name.endswith("RotaryEmbedding")]
    with float64_everywhere(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(module, names[0])(theirs) if names else None


def assert_agrees(raw: Config) -> ModelConfig:
    """Every field that can be compared, and the rotation of every layer."""
    ours, theirs = read_config(raw), understood(raw)
    want = {k: v for k, v in expected(theirs).items() if k not in TOKEN_IDS or TOKEN_IDS[k] in raw}
    assert {name: value for name, value in {**vars(ours), **read_token_ids(raw, {})}.items() if name in want} == want
    rotary, rotates = rotary_of(theirs), getattr(theirs, "no_rope_layers", None) or [1] * ours.num_hidden_layers
    types = getattr(theirs, "layer_types", None) or [FULL] * ours.num_hidden_layers
    for rope, layer_type, on in zip(ours.ropes, types, rotates, strict=True):
        if rotary is None or not on:
            assert rope is None
            continue
        prefix = f"{layer_type}_" if hasattr(rotary, f"{layer_type}_inv_freq") else ""
        assert rope is not None
        assert relative_error(frequencies(rope, 1), getattr(rotary, f"{prefix}inv_freq")) <= SEMANTIC_BAR
        assert rope.attention_factor == pytest.approx(getattr(rotary, f"{prefix}attention_scaling"), rel=SEMANTIC_BAR)
    return ours


@pytest.mark.parametrize("name", THEIRS)
def test_a_published_config_means_to_us_what_it_means_to_transformers(name: str) -> None:
    assert_agrees(ALL[name])


def test_su_is_the_first_name_of_longrope() -> None:
    assert read_config(PUBLISHED[SU]) == read_config(PUBLISHED["Phi-3-mini-128k"])


@pytest.mark.parametrize("name", THEIRS)
def test_a_config_saved_by_transformers_5_reads_like_the_one_it_was_made_from(name: str, tmp_path: Path) -> None:
    understood(ALL[name]).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert "rope_scaling" not in saved
    assert read_config(saved) == read_config(ALL[name])


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_family_of_default_values_saved_by_transformers_5_is_read(architecture: str, tmp_path: Path) -> None:
    default = AutoConfig.for_model(MODEL_TYPES[architecture])
    default.architectures = [architecture]
    default.save_pretrained(tmp_path)
    assert_agrees(json.loads((tmp_path / "config.json").read_text()))


@pytest.mark.parametrize("name", THEIRS)
def test_a_key_that_is_left_out_means_its_familys_default(name: str) -> None:
    read, left_out = FAMILIES[ALL[name]["architectures"][0]], 0
    for key, default in read.keys.items():
        spelt = read.spelling.get(key, key)
        if default is REQUIRED or ALL[name].get(spelt) is None or key.endswith("_experts"):
            continue
        shorter = {k: v for k, v in ALL[name].items() if k != spelt}
        try:
            read_config(shorter)
        except NanollamaError:  # the rest contradicts the default, as 4 heads do 32 key heads
            continue
        assert_agrees(shorter)
        left_out += 1
    assert left_out >= 2


# --- published models, field by field as their papers say


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("Llama-1-7B", {"num_key_value_heads": 32, "head_dim": 128, "norm_eps": 1e-6, "tie_word_embeddings": False}),
        ("Llama-3.2-1B", {"num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": True, "dtype": "bfloat16"}),
        ("Llama-3.1-8B-Instruct", {"eos_token_ids": (128001, 128008, 128009), "norm_eps": 1e-5}),
        ("Mistral-7B-v0.1", {"windows": (4096,) * 32, "qkv_bias": False}),
        ("Mistral-7B-v0.3", {"windows": (None,) * 32}),
        ("DeepSeek-R1-Distill-Qwen-1.5B", {"windows": (None,) * 28, "qkv_bias": True, "o_bias": False}),
        ("Qwen3-0.6B", {"head_dim": 128, "qk_norm": "head", "qkv_bias": False}),
        ("Gemma-2-2B", {"windows": (4096, None) * 13, "attention_softcap": 50.0, "attention_scales": (1 / 16,) * 26}),
        ("Gemma-2-27B", {"attention_scales": pytest.approx((1 / 12,) * 46), "head_dim": 128, "embedding_scale": 4608**0.5}),
        (
            "Gemma-3-1B-it",
            {"windows": ((512,) * 5 + (None,)) * 4 + (512,) * 2, "eos_token_ids": (1, 106), "logit_softcap": None},
        ),
        ("Phi-3-mini-4k", {"windows": (2047,) * 32, "head_dim": 96}),
        ("Phi-4-mini", {"windows": (262144,) * 32, "head_dim": 128, "num_key_value_heads": 8, "tie_word_embeddings": True}),
        ("OLMo-2-1B", {"placement": "post", "qk_norm": "full", "norm_eps": 1e-6, "bos_token_id": None}),
        ("SmolLM3-3B", {"windows": (None,) * 36, "tie_word_embeddings": True}),
        ("GPT-2", {"norm": "layer", "intermediate_size": 3072, "ropes": (None,) * 12, "tie_word_embeddings": True}),
        ("Mixtral-8x7B", {"num_experts": 8, "num_experts_per_tok": 2, "norm_topk_prob": True, "moe_layers": (True,) * 32}),
        ("Qwen3-30B-A3B", {"num_experts": 128, "moe_intermediate_size": 768, "norm_topk_prob": True, "qk_norm": "head"}),
    ],
)
def test_a_published_model_has_the_parts_its_paper_describes(name: str, want: Config) -> None:
    got = {**vars(read_config(PUBLISHED[name])), **read_token_ids(PUBLISHED[name], {})}
    assert {field: got[field] for field in want} == want


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("Llama-2-7B", (128, 10000.0, "default")),
        ("Llama-3-8B", (128, 500000.0, "default")),
        ("Llama-3.2-1B", (64, 500000.0, "llama3")),
        ("SmolLM2-135M-Instruct", (64, 100000.0, "default")),
        ("Qwen2.5-7B-Instruct-with-YaRN", (128, 1e6, "yarn")),
        ("DeepSeek-R1-Distill-Qwen-1.5B", (128, 10000.0, "default")),
        ("Phi-3-mini-4k", (96, 10000.0, "default")),
        ("Phi-3-mini-128k-first-files", (96, 10000.0, "longrope")),
        ("Phi-4-mini", (96, 10000.0, "longrope")),  # three quarters of 128
        ("Mixtral-8x7B", (128, 1e6, "default")),
    ],
)
def test_a_published_model_turns_its_heads_as_its_paper_describes(name: str, want: tuple[int, float, str]) -> None:
    (rope,) = set(read_config(PUBLISHED[name]).ropes)
    assert rope is not None
    assert (rope.dim, rope.theta, rope.rope_type) == want


def test_every_fourth_layer_of_smollm3_has_no_rotation() -> None:
    assert [rope is None for rope in read_config(PUBLISHED["SmolLM3-3B"]).ropes] == [False, False, False, True] * 9


def test_gemma3_has_a_theta_for_each_kind_of_layer() -> None:
    thetas = [rope.theta for rope in read_config(PUBLISHED["Gemma-3-1B-it"]).ropes if rope]
    assert thetas == ([10000.0] * 5 + [1e6]) * 4 + [10000.0] * 2


# --- rules per layer, by hand


@pytest.mark.parametrize(
    ("architecture", "changes", "want"),
    [
        ("Qwen2ForCausalLM", {"max_window_layers": 1}, [None, 5, 5, 5]),
        ("Qwen2ForCausalLM", {"max_window_layers": 9}, [None] * 4),
        ("Qwen2ForCausalLM", {"use_sliding_window": False}, [None] * 4),
        ("Qwen2ForCausalLM", {"sliding_window": None}, [None] * 4),
        ("Gemma2ForCausalLM", {}, [5, None, 5]),
        ("Gemma3ForCausalLM", {"layer_types": None, "sliding_window_pattern": 2}, [5, None, 5, None]),
        ("Gemma3ForCausalLM", {"layer_types": None, "sliding_window_pattern": 3}, [5, 5, None, 5]),
        ("Gemma3ForCausalLM", {"layer_types": None, "_sliding_window_pattern": 2}, [5, 5, 5, 5]),  # 6 is the default
        ("SmolLM3ForCausalLM", {"layer_types": None}, [None, 5, None, None]),  # the layer without rotation
        ("SmolLM3ForCausalLM", {"layer_types": None, "no_rope_layers": None}, [None, None, None, 5]),
        ("Qwen3MoeForCausalLM", {"use_sliding_window": True, "sliding_window": 7}, [7, 7, 7]),
        ("Qwen3MoeForCausalLM", {"sliding_window": 7}, [None, None, None]),
    ],
)
def test_windows_follow_the_rule_of_the_family(architecture: str, changes: Config, want: list[int | None]) -> None:
    assert list(assert_agrees(fixture_config(architecture, **changes)).windows) == want


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({"mlp_only_layers": None}, [True, True, True]),
        ({"mlp_only_layers": [0, 2]}, [False, True, False]),
        ({"mlp_only_layers": [], "decoder_sparse_step": 2}, [False, True, False]),
        ({"mlp_only_layers": [1], "decoder_sparse_step": 2}, [False, False, False]),
    ],
)
def test_layers_have_experts_unless_listed_or_between_steps(changes: Config, want: list[bool]) -> None:
    assert list(read_config(fixture_config("Qwen3MoeForCausalLM", **changes)).moe_layers) == want


def test_the_number_of_experts_has_two_names_which_must_agree() -> None:
    base = {k: v for k, v in fixture_config("Qwen3MoeForCausalLM").items() if k != "num_experts"}
    for names in (["num_experts"], ["num_local_experts"], ["num_experts", "num_local_experts"]):
        assert read_config(base | dict.fromkeys(names, 7)).num_experts == 7
    with pytest.raises(NanollamaError, match=r"num_experts is 7.*num_local_experts \(8\)"):
        read_config(base | {"num_experts": 7, "num_local_experts": 8})
    with pytest.raises(NanollamaError, match="num_experts is None"):
        read_config(base)


def test_generation_config_adds_the_ids_that_end_a_text() -> None:
    raw = fixture_config("LlamaForCausalLM")
    assert read_token_ids(raw, {})["eos_token_ids"] == (2,)
    got = read_token_ids(raw, {"eos_token_id": [2, 5], "bos_token_id": 7, "temperature": 0.6})
    assert got == {"bos_token_id": 7, "eos_token_ids": (2, 5)}
    with pytest.raises(NanollamaError, match=r"eos_token_id is \[2, True\], expected token ids"):
        read_token_ids(fixture_config("LlamaForCausalLM", eos_token_id=[2, True]), {})


@pytest.mark.parametrize(
    ("stated", "want"),
    [({"dtype": "bfloat16"}, "bfloat16"), ({"torch_dtype": "torch.float16"}, "float16"), ({}, None), ({"dtype": None}, None)],
)
def test_the_stated_dtype_is_read_in_either_spelling(stated: Config, want: str | None) -> None:
    raw = {k: v for k, v in fixture_config("LlamaForCausalLM").items() if k != "dtype"}
    assert read_config(raw | stated).dtype == want


def test_a_config_cannot_be_changed_after_reading() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        read_config(fixture_config("LlamaForCausalLM")).norm_eps = 1.0  # type: ignore[misc]


def test_reading_does_not_change_what_was_read() -> None:
    for raw in ALL.values():
        before = copy.deepcopy(raw)
        read_config(raw)
        assert raw == before


# --- keys: read, harmless, or refused by name


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(FAMILIES)),
    st.text(st.characters(codec="utf-8"), max_size=30),
    st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({})),
)
def test_an_unknown_key_is_refused_by_name(architecture: str, key: str, value: Any) -> None:
    raw, family = fixture_config(architecture), FAMILIES[architecture]
    if key in {family.spelling.get(k, k) for k in family.keys} | INERT_KEYS | family.inert:
        return
    with pytest.raises(NanollamaError) as caught:
        read_config({**raw, key: value})
    assert key in str(caught.value)


@pytest.mark.parametrize("key", ["rope_thetas", "quantization_config", "layer_norm_eps", "logit_scale", "alibi", "num_experts"])
def test_a_key_that_would_change_the_mathematics_is_refused(key: str) -> None:
    with pytest.raises(NanollamaError, match=rf"{key} is '1'.*LlamaForCausalLM has no such key"):
        read_config(fixture_config("LlamaForCausalLM", **{key: 1}))


def test_a_key_of_another_family_is_refused() -> None:
    for key in ("sliding_window", "query_pre_attn_scalar", "no_rope_layers", "final_logit_softcapping", "rope_local_base_freq"):
        with pytest.raises(NanollamaError, match=key):
            read_config(fixture_config("LlamaForCausalLM", **{key: 5}))


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_null_is_no_value_and_changes_nothing(architecture: str) -> None:
    assert read_config(fixture_config(architecture, quantization_config=None)) == read_config(fixture_config(architecture))


NAMING = {"architectures", "model_type", "dtype", "torch_dtype"}  # inert, and yet checked


@pytest.mark.parametrize("architecture", FAMILIES)
def test_the_harmless_keys_change_nothing_whatever_their_value(architecture: str) -> None:
    raw, family = fixture_config(architecture), FAMILIES[architecture]
    for key in (INERT_KEYS | family.inert) - NAMING:
        for value in (True, 0.5, "x", [1], {"a": 1}):
            assert read_config({**raw, key: value}) == read_config(raw)


@pytest.mark.parametrize("key", INERT_AT)
def test_a_key_that_is_harmless_at_one_value_is_refused_at_every_other(key: str) -> None:
    raw = fixture_config("MistralForCausalLM")
    for value in INERT_AT[key]:
        assert read_config({**raw, key: value}) == read_config(raw)
    for value in (True, False, 0, 1, 2, 0.5, "x", [1], {"a": 1}):
        if not any(type(value) is type(v) and value == v for v in INERT_AT[key]):
            with pytest.raises(NanollamaError, match=key):
                read_config({**raw, key: value})


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_missing_size_is_named(architecture: str) -> None:
    family, raw = FAMILIES[architecture], fixture_config(architecture)
    required = [family.spelling.get(k, k) for k, v in family.keys.items() if v is REQUIRED]
    assert len(required) >= 5
    for key in required:
        for wrong in ({k: v for k, v in raw.items() if k != key}, {**raw, key: None}):
            with pytest.raises(NanollamaError, match=rf"no '{key}', which every {architecture} needs"):
                read_config(wrong)


# --- contradictions


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("LlamaForCausalLM", {"architectures": ["FalconForCausalLM"]}, "FalconForCausalLM.*not supported.*LlamaForCausalLM"),
        ("LlamaForCausalLM", {"architectures": ["LlamaForCausalLM"] * 2}, "not supported"),
        ("LlamaForCausalLM", {"model_type": "qwen2"}, r"LlamaForCausalLM.*model_type 'qwen2'.*LlamaForCausalLM \(llama\)"),
        ("LlamaForCausalLM", {"architectures": None, "model_type": "falcon"}, "model_type 'falcon' is not supported"),
        ("LlamaForCausalLM", {"num_key_value_heads": 5}, r"num_key_value_heads is 5.*divisor of num_attention_heads \(12\)"),
        ("LlamaForCausalLM", {"head_dim": None, "hidden_size": 61}, r"hidden_size is 61.*multiple of num_attention_heads"),
        ("LlamaForCausalLM", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "both rope_scaling and rope_parameters"),
        ("LlamaForCausalLM", {"rope_parameters": {"rope_type": "ntk"}}, "there is no rope_type 'ntk'; there are default"),
        (
            "LlamaForCausalLM",
            {"rope_parameters": {"rope_type": "yarn", "type": "linear"}},
            "rope_type is 'yarn', but type is 'linear'",
        ),
        ("LlamaForCausalLM", {"rope_parameters": {"rope_type": "linear"}}, "factor of rope_type 'linear' is None"),
        (
            "LlamaForCausalLM",
            {"rope_parameters": {"rope_type": "default", "factor": 2.0}},
            "factor is not a key of",
        ),
        ("LlamaForCausalLM", {"rope_parameters": {"full_attention": {}}}, "full_attention is not a key"),
        ("LlamaForCausalLM", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5.*whole heads"),
        ("LlamaForCausalLM", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is '0.5'"),
        ("LlamaForCausalLM", {"rope_parameters": {"rope_theta": 1.0}}, "rope_theta is 1.0, expected a number above 1"),
        ("LlamaForCausalLM", {"head_dim": 7}, "7 of 7 dimensions of a head; expected an even number"),
        ("Phi3ForCausalLM", {"partial_rotary_factor": 0.1}, "0 of 8 dimensions"),
        ("Phi3ForCausalLM", {"partial_rotary_factor": 1.5}, "12 of 8 dimensions"),
        ("Phi3ForCausalLM", {"partial_rotary_factor": 1.0}, "short_factor.*expected a list of 4 numbers"),
        ("Gemma3ForCausalLM", {"rope_parameters": {"rope_type": "default"}}, "one object for full_attention and one for"),
        ("Gemma3ForCausalLM", {"rope_parameters": {"full_attention": 3}}, "one object for full_attention and one for"),
        ("Gemma3ForCausalLM", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is '50.0'"),
        ("Gemma3ForCausalLM", {"sliding_window": None}, "sliding_window is None"),
        ("Qwen3ForCausalLM", {"use_sliding_window": False}, "layer_types.*while use_sliding_window is false"),
        ("Qwen3ForCausalLM", {"layer_types": ["full_attention"] * 4}, "layer_types.*a list of 3 times"),
        ("Qwen3ForCausalLM", {"layer_types": ["full_attention", "chunked_attention", "full_attention"]}, "layer_types"),
        ("SmolLM3ForCausalLM", {"no_rope_layers": [1, 0, 1]}, "no_rope_layers.*a list of 4 times 1 or 0"),
        ("SmolLM3ForCausalLM", {"no_rope_layers": [True, False, True, True]}, "no_rope_layers"),
        ("Qwen3MoeForCausalLM", {"num_experts_per_tok": 8}, "num_experts_per_tok is 8, expected a whole number from 1 to 7"),
        ("MixtralForCausalLM", {"num_local_experts": 10**9}, "num_local_experts is 1000000000"),
        (
            "LlamaForCausalLM",
            {"vocab_size": 1 << 40},
            "vocab_size is 1099511627776.* from 1 to 16777216",
        ),
        ("LlamaForCausalLM", {"hidden_act": "swiglu"}, "hidden_act is 'swiglu', expected one of silu"),
        ("LlamaForCausalLM", {"dtype": 16}, "dtype is 16, expected a name"),
    ],
)
def test_a_contradiction_is_refused_with_the_key_the_value_and_what_was_expected(
    architecture: str, changes: Config, message: str
) -> None:
    with pytest.raises(NanollamaError, match=message):
        read_config(fixture_config(architecture, **changes))


# --- hostile values


SIZE, NUMBER, FLAG, LIST, OBJECT, NAME = "size", "number", "flag", "list", "object", "name"
KINDS = {
    **dict.fromkeys(["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"], SIZE),
    **dict.fromkeys(["max_position_embeddings", "original_max_position_embeddings", "num_key_value_heads", "head_dim"], SIZE),
    **dict.fromkeys(["sliding_window", "max_window_layers", "sliding_window_pattern", "no_rope_layer_interval"], SIZE),
    **dict.fromkeys(["num_experts", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size"], SIZE),
    **dict.fromkeys(["decoder_sparse_step"], SIZE),
    **dict.fromkeys(["rms_norm_eps", "rope_theta", "rope_local_base_freq", "partial_rotary_factor"], NUMBER),
    **dict.fromkeys(["query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"], NUMBER),
    **dict.fromkeys(["tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window", "norm_topk_prob"], FLAG),
    **dict.fromkeys(["scale_attn_weights", "scale_attn_by_inverse_layer_idx"], FLAG),
    **dict.fromkeys(["layer_types", "no_rope_layers", "mlp_only_layers"], LIST),
    **dict.fromkeys(["rope_scaling", "rope_parameters"], OBJECT),
    "hidden_act": NAME,
}
NUMBERS_TOO_FAR = [-1, 0, -0.0, 5e-324, 1e308, 10**40, float("inf"), float("-inf"), float("nan")]
WRONG: dict[str, list[Any]] = {
    SIZE: [*NUMBERS_TOO_FAR, True, False, 1.5, 4.0, "4", "", [], [4], {}, {"a": 1}],
    NUMBER: [*NUMBERS_TOO_FAR, True, False, "4", "", [], [4], {}, {"a": 1}],
    FLAG: [0, 1, 1.0, "true", "", [], {}, float("nan")],
    LIST: [0, 1, True, False, 1.5, "x", "", {}, [None], [[1]], [{}], ["x"], [1.0], [True]],
    OBJECT: [0, 1, True, False, 1.5, "x", "", [], [1], {"factor": 2.0}, {"rope_type": []}, {"type": {}}, {"rope_type": 1}],
    NAME: [0, 1, True, "", "x", [], ["silu"], {}],
}


def test_every_key_that_is_read_has_a_kind_here() -> None:
    assert set(KINDS) == {key for family in FAMILIES.values() for key in family.keys}


@pytest.mark.parametrize("name", ALL)
def test_a_wrong_value_of_any_key_that_is_read_is_refused_by_name(name: str) -> None:
    family = FAMILIES[ALL[name]["architectures"][0]]
    for key in family.keys:
        spelt = family.spelling.get(key, key)
        for value in WRONG[KINDS[key]]:
            if (key, value) == ("max_window_layers", 0) and value is not False:  # from layer 0 on
                continue
            with pytest.raises(NanollamaError) as caught:
                read_config({**ALL[name], spelt: value})
                pytest.fail(f"{spelt} = {value!r} was accepted")
            if KINDS[key] is not OBJECT:
                assert spelt in str(caught.value), f"{spelt} = {value!r}: {caught.value}"


HOSTILE: list[Any] = [
    *NUMBERS_TOO_FAR, 1, 2, 7, 1e-30, 1e30, 1 << 31, None, True, False, "", "x", "default", "yarn", "longrope", "dynamic",
    [], {}, [[]], [{}], [1], [None], [True] * 3, ["full_attention"] * 3, {"a": 1}, {"full_attention": 3}, {"rope_type": []},
    {"full_attention": {}, "sliding_attention": []},
]  # fmt: skip


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a config.json can be changed: every key, and the first entries of every list."""
    entries = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, inner in entries:
        yield (*at, key)
        yield from paths(inner, (*at, key))


def changed(raw: Config, at: tuple[Any, ...], value: Any) -> Config:
    """A copy with one value put in."""
    result = copy.deepcopy(raw)
    place: Any = result
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = copy.deepcopy(value)
    return result


def assert_sane_or_refused(raw: Config) -> bool:
    """Read it: either a NanollamaError (True) or a model whose every number can be computed with."""
    try:
        config = read_config(raw)
    except NanollamaError as error:
        assert len(str(error)) < 3000
        return True
    hash(config)
    assert len(config.windows) == len(config.ropes) == len(config.moe_layers) == config.num_hidden_layers
    for rope in {rope for rope in config.ropes if rope is not None}:
        for length in (1, 1 << 31):
            freq = frequencies(rope, length)
            assert freq.dtype is torch.float64
            assert ((freq > 0) & freq.isfinite()).all()
    return False


@pytest.mark.parametrize("name", ALL)
def test_a_hostile_value_anywhere_is_refused_or_understood(name: str) -> None:
    family, refused = FAMILIES[ALL[name]["architectures"][0]], 0
    absent = [(family.spelling.get(key, key),) for key in family.keys]
    for at in dict.fromkeys([*paths(ALL[name]), *absent]):
        for value in HOSTILE:
            refused += assert_sane_or_refused(changed(ALL[name], at, value))
    assert refused > 300


@settings(max_examples=FUZZ)
@given(st.data())
def test_several_hostile_values_at_once_are_refused_or_understood(data: st.DataObject) -> None:
    raw = copy.deepcopy(ALL[data.draw(st.sampled_from(sorted(ALL)))])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from([*paths(raw)]))
        value = data.draw(st.sampled_from(HOSTILE) | st.integers() | st.floats() | st.text(max_size=3))
        raw = changed(raw, at, value)
    if raw:
        assert_sane_or_refused(raw)


@pytest.mark.parametrize("raw", [{}, {"architectures": None}, {"architectures": [[]]}, {"architectures": "LlamaForCausalLM"}])
def test_a_config_that_names_no_architecture_is_refused(raw: Config) -> None:
    with pytest.raises(NanollamaError, match="architectures"):
        read_config(raw)

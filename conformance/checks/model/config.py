"""config.json is read by the rules of its family: every key, each default, both spellings; invalid values are refused."""

import itertools
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from conformance.checks import check
from conformance.checks.assertions import expect_equal, expect_refused
from conformance.checks.model.configured import config_faults
from conformance.models.fixtures import FIXTURES, LLAMA3, fixture_config
from conformance.truth.cases import CASES, DEEPSEEK, DYNAMIC, FULL, LONG, SLIDE, YARN, case
from conformance.truth.spec import read_spec
from nanollama.model.config import architecture_of, read_config, read_dtype, read_token_ids

Raw = dict[str, Any]
FAMILIES = tuple(FIXTURES)
LLAMA, PHI3 = "LlamaForCausalLM", "Phi3ForCausalLM"
NEEDED = [
    "architectures",
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_experts",
    "max_position_embeddings",
    "n_embd",
    "n_layer",
    "n_head",
    "n_positions",
    "num_local_experts",
]
OTHER: Raw = {  # another value of a key, where adding one or negating gives none that is sound; None: left alone
    "num_key_value_heads": 2,
    "num_attention_heads": 64,
    "n_head": 24,
    "hidden_size": 4096,
    "n_embd": 192,
    "head_dim": 10,
    "hidden_act": "gelu",
    "hidden_activation": "relu",
    "activation_function": "gelu",
    "num_hidden_layers": None,
    "mlp_only_layers": [0, 2],
}
NAMES = ("architectures", "model_type", "dtype", "bos_token_id", "eos_token_id", "pad_token_id")
ROOMY = {
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "hidden_size": 2048,
}  # every default number of key/value heads fits
PINNED = {"Phi3ForCausalLM": ("hidden_size", "num_attention_heads", "partial_rotary_factor")}  # its lists fit one head size
ROPES: list[Raw] = [
    {"rope_type": "default"},
    {"type": "linear", "factor": 4},
    {"rope_type": "linear", "factor": 2.5, "rope_theta": 777.0},
    {**DYNAMIC, "factor": 2.0},
    {**LLAMA3, "original_max_position_embeddings": 64},
    YARN,
    {**YARN, **DEEPSEEK},
    {**YARN, "factor": 0.5},
    {**YARN, "attention_factor": 1.7},
    {**YARN, "mscale": 0.7},
    {**YARN, "truncate": False, "beta_fast": 7.0},
    {"rope_type": "yarn", "original_max_position_embeddings": 512},
    {**LONG, "original_max_position_embeddings": 64},
    {**LONG, "original_max_position_embeddings": 64, "factor": 3.0},
    {**LONG, "original_max_position_embeddings": 64, "attention_factor": 1.2},
    {**LONG, "rope_type": None, "type": "su", "original_max_position_embeddings": 64},
]


def raws(family: str) -> Iterator[Raw]:
    """Files that differ from the fixture in one key; then the shortest valid file, with few and with many layers."""
    room: Raw = {} if family in (PHI3, "GPT2LMHeadModel") else ROOMY
    room = {**room, "num_experts": 16} if family == "Qwen3MoeForCausalLM" else room
    base = {key: value for key, value in fixture_config(family, **room).items() if key != "layer_types"}
    for key, value in base.items():
        if key in NAMES or key in PINNED.get(family, ()):
            continue
        if key not in NEEDED:
            yield {k: v for k, v in base.items() if k != key}
        changed = OTHER.get(key, another(value))
        if changed is not None:
            yield {**base, key: changed}
    short = {key: value for key, value in base.items() if key in NEEDED}
    yield short
    yield {**short, "n_layer" if "n_layer" in short else "num_hidden_layers": 30}


def another(value: Any) -> Any:
    """Another value of the same kind; None if there is no simple one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return value * 1.5 if isinstance(value, float) else None


def judge_config(raw: Mapping[str, Any]) -> None:
    """One file must be read as the independent reader reads it."""
    for fault in config_faults(raw, read_config(raw), read_spec(raw)):
        raise fault


@check("CONF-001", "CONF-002", area="weights", each=FAMILIES)
def every_key_and_every_default_has_the_meaning_of_the_family(family: str) -> None:
    for raw in raws(family):
        judge_config(raw)


@check("CONF-003", area="weights")
def variations_of_families_are_read_rightly() -> None:
    for name in CASES:
        judge_config(case(name).raw)


@check("ROPE-020", "ROPE-021", area="rope")
def every_rotation_is_read_in_every_spelling() -> None:
    for rope in ROPES:
        given = {key: value for key, value in rope.items() if value is not None}
        judge_config(fixture_config(LLAMA, rope_parameters={"rope_theta": 12345.0, **given}))
        old = {key: value for key, value in given.items() if key != "rope_theta"}
        raw = {key: value for key, value in fixture_config(LLAMA).items() if key != "rope_parameters"}
        judge_config({**raw, "rope_scaling": old, "rope_theta": 999.0})
    for outside, inside in itertools.product((None, 16, 512), (None, 16)):
        rope = {**LONG, "short_factor": [1.5, 2.5], "long_factor": [3.5, 4.5]}
        rope |= {} if inside is None else {"original_max_position_embeddings": inside}
        if inside in (None, outside):
            raw = {k: v for k, v in fixture_config(PHI3, rope_scaling=rope).items() if k != "original_max_position_embeddings"}
            judge_config(raw if outside is None else {**raw, "original_max_position_embeddings": outside})


@check("ROPE-022", "WIND-002", area="attention")
def every_layers_kind_is_read_rightly() -> None:
    for types in itertools.product((FULL, SLIDE), repeat=3):
        for family in ("Qwen2ForCausalLM", "Qwen3ForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "SmolLM3ForCausalLM"):
            rotary = {"no_rope_layers": [0, 1, 1]} if family.startswith("Smol") else {}
            judge_config(fixture_config(family, layer_types=list(types), num_hidden_layers=3, **rotary))
    for first in range(5):
        judge_config(fixture_config("Qwen2ForCausalLM", max_window_layers=first))
    for period in range(1, 6):
        raw = {k: v for k, v in fixture_config("Gemma3ForCausalLM", num_hidden_layers=9).items() if k != "layer_types"}
        judge_config({**raw, "sliding_window_pattern": period})
        smol = fixture_config("SmolLM3ForCausalLM", num_hidden_layers=9, layer_types=None, no_rope_layers=None)
        judge_config({**{k: v for k, v in smol.items() if v is not None}, "no_rope_layer_interval": period})
        experts = {"num_hidden_layers": 9, "decoder_sparse_step": period, "mlp_only_layers": [2]}
        judge_config(fixture_config("Qwen3MoeForCausalLM", **experts))
    for window in (None, 7):
        judge_config(fixture_config("MistralForCausalLM", sliding_window=window))
        judge_config(fixture_config("Qwen2ForCausalLM", sliding_window=window, use_sliding_window=window is not None))


@check("EOSX-001", "CONF-004", area="eos")
def token_ids_and_dtype_come_from_the_right_file() -> None:
    place = "model.config.read_token_ids"
    files: list[tuple[Raw, Raw, int | None, tuple[int, ...]]] = [
        ({"bos_token_id": 1, "eos_token_id": 2}, {}, 1, (2,)),
        ({"bos_token_id": 1, "eos_token_id": [2, 5]}, {}, 1, (2, 5)),
        ({"bos_token_id": 1, "eos_token_id": 2}, {"eos_token_id": [7, 2]}, 1, (7, 2)),
        ({"bos_token_id": 1, "eos_token_id": 2}, {"bos_token_id": 4, "eos_token_id": 9}, 4, (9,)),
        ({"bos_token_id": 0, "eos_token_id": 0}, {}, 0, (0,)),
        ({"bos_token_id": 1, "eos_token_id": 2}, {"bos_token_id": 0}, 0, (2,)),
        ({"bos_token_id": None, "eos_token_id": None}, {}, None, ()),
        ({}, {}, None, ()),
    ]
    for raw, generation, bos, ends in files:
        expect_equal(
            place, read_token_ids(raw, generation), {"bos_token_id": bos, "eos_token_ids": ends}, f"of {raw} and {generation}"
        )
    for bad in (-1, "2", 1.5, True, [2, -3], [None]):
        expect_refused(place, partial(read_token_ids, {"eos_token_id": bad}, {}), "eos_token_id", f"eos_token_id {bad!r}")
    expect_refused(place, lambda: read_token_ids({"bos_token_id": [1]}, {}), "bos_token_id", "two kinds of begin")
    stated = read_token_ids(fixture_config(LLAMA), {"eos_token_id": [11, 12]})
    expect_equal(place, stated["eos_token_ids"], (11, 12), "generation_config.json")
    dtypes: list[tuple[Raw, str | None]] = [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "float16"}, "float16"),
        ({"torch_dtype": "torch.float32"}, "float32"),
        ({"dtype": "float32", "torch_dtype": "float16"}, "float32"),
        ({}, None),
        ({"dtype": None, "torch_dtype": "float16"}, "float16"),
    ]
    for raw, dtype in dtypes:
        expect_equal("model.config.read_dtype", read_dtype(raw), dtype, f"the dtype of {raw}")


@check("CONF-005", area="weights")
def the_architecture_is_named_in_either_key_and_both_agree() -> None:
    for family in FAMILIES:
        model_type = fixture_config(family)["model_type"]
        for raw in ({"architectures": [family]}, {"model_type": model_type}, {"architectures": [], "model_type": model_type}):
            expect_equal("model.config.architecture_of", architecture_of(raw), family, f"the architecture of {raw}")
    for raw, named in (
        ({"architectures": ["BertModel"], "model_type": "bert"}, "BertModel"),
        ({"architectures": [LLAMA], "model_type": "qwen2"}, "qwen2"),
        ({"architectures": [LLAMA, "MistralForCausalLM"]}, "MistralForCausalLM"),
        ({}, "None"),
    ):
        expect_refused("model.config.architecture_of", partial(architecture_of, raw), named, f"{raw}")


WRONG: list[tuple[str, str, Raw, str]] = [  # refused: (function, family, change, the name in the error)
    ("model.config_keys.refuse_unknown_keys", LLAMA, {"alibi": True}, "alibi"),
    ("model.config_keys.refuse_unknown_keys", LLAMA, {"sliding_window": 5}, "sliding_window"),
    ("model.config_keys.refuse_unknown_keys", LLAMA, {"attn_logit_softcapping": 30.0}, "attn_logit_softcapping"),
    ("model.config_keys.refuse_unknown_keys", LLAMA, {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ("model.config_keys.refuse_unknown_keys", "MistralForCausalLM", {"attention_bias": True}, "attention_bias"),
    ("model.config_keys.refuse_unknown_keys", "Gemma3ForCausalLM", {"attn_logit_softcapping": 30.0}, "attn_logit_softcapping"),
    ("model.config_keys.refuse_unknown_keys", "GPT2LMHeadModel", {"add_cross_attention": True}, "add_cross_attention"),
    ("model.config_keys.Keys.__init__", LLAMA, {"vocab_size": None}, "vocab_size"),
    ("model.config_keys.Keys.__init__", "GPT2LMHeadModel", {"n_embd": None}, "n_embd"),
    ("model.config_keys.Keys.integer", LLAMA, {"hidden_size": 0}, "hidden_size"),
    ("model.config_keys.Keys.integer", LLAMA, {"hidden_size": 60.0}, "hidden_size"),
    ("model.config_keys.Keys.integer", LLAMA, {"num_hidden_layers": True}, "num_hidden_layers"),
    ("model.config_keys.Keys.integer", LLAMA, {"vocab_size": 1 << 25}, "vocab_size"),
    ("model.config_keys.Keys.number", LLAMA, {"rms_norm_eps": 0}, "rms_norm_eps"),
    ("model.config_keys.Keys.number", LLAMA, {"rms_norm_eps": "1e-5"}, "rms_norm_eps"),
    ("model.config_keys.Keys.number", LLAMA, {"rms_norm_eps": float("nan")}, "rms_norm_eps"),
    ("model.config_keys.Keys.flag", LLAMA, {"tie_word_embeddings": 1}, "tie_word_embeddings"),
    ("model.config_keys.Keys.flag", LLAMA, {"attention_bias": "false"}, "attention_bias"),
    ("model.config_keys.Keys.optional_number", "Gemma2ForCausalLM", {"attn_logit_softcapping": -1}, "attn_logit_softcapping"),
    ("model.config.read_activation", LLAMA, {"hidden_act": "swish"}, "hidden_act"),
    ("model.config.read_heads", LLAMA, {"num_key_value_heads": 5}, "num_key_value_heads"),
    ("model.config.read_heads", PHI3, {"hidden_size": 97}, "hidden_size"),
    ("model.config.check_layer_keys", "Qwen3ForCausalLM", {"layer_types": [FULL, SLIDE]}, "layer_types"),
    ("model.config.check_layer_keys", "Qwen3ForCausalLM", {"layer_types": [FULL, SLIDE, "global"]}, "layer_types"),
    ("model.config.check_layer_keys", "SmolLM3ForCausalLM", {"no_rope_layers": [1, 0, 2, 1]}, "no_rope_layers"),
    ("model.config.read_layer_types", "Qwen3ForCausalLM", {"use_sliding_window": False}, "layer_types"),
    ("model.config.read_experts", "Qwen3MoeForCausalLM", {"mlp_only_layers": ["1"]}, "mlp_only_layers"),
    ("model.config.read_experts", "Qwen3MoeForCausalLM", {"num_experts_per_tok": 8}, "num_experts_per_tok"),
    ("model.config.read_expert_count", "Qwen3MoeForCausalLM", {"num_local_experts": 6}, "num_experts"),
    ("model.config.read_expert_count", "MixtralForCausalLM", {"num_local_experts": None}, "num_experts"),
    ("model.config_rope.ropes_by_layer_type", LLAMA, {"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling"),
    ("model.config_rope.ropes_by_layer_type", LLAMA, {"rope_parameters": [1]}, "rope_parameters"),
    ("model.config_rope.ropes_by_layer_type", "Gemma3ForCausalLM", {"rope_parameters": {"rope_theta": 5}}, "rope_parameters"),
    ("model.config_rope.read_rope_type", LLAMA, {"rope_parameters": {"rope_type": "mrope"}}, "mrope"),
    ("model.config_rope.read_rope_type", LLAMA, {"rope_parameters": {"rope_type": "yarn", "type": "linear"}}, "linear"),
    (
        "model.config_rope.read_rope_config",
        LLAMA,
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "beta_fast": 3.0}},
        "beta_fast",
    ),
    ("model.config_rope.read_rope_config", LLAMA, {"rope_parameters": {"rope_theta": 0.5}}, "rope_theta"),
    ("model.config_rope.read_rope_config", LLAMA, {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    ("model.config_rope.read_rope_config", PHI3, {"rope_scaling": None, "partial_rotary_factor": 0.4}, "rotary"),
    ("model.config_rope.RopeKeys.number", LLAMA, {"rope_parameters": {"rope_type": "linear"}}, "factor"),
    ("model.config_rope.RopeKeys.number", LLAMA, {"rope_parameters": {"rope_type": "linear", "factor": -2}}, "factor"),
    ("model.config_rope.RopeKeys.divisors", PHI3, {"rope_scaling": {**LONG, "short_factor": [1.0]}}, "short_factor"),
    ("model.config_rope.RopeKeys.divisors", PHI3, {"rope_scaling": {**LONG, "short_factor": [1.0, 0.0]}}, "short_factor"),
    (
        "model.config_rope.RopeKeys.scaling",
        LLAMA,
        {"rope_parameters": {**LLAMA3, "high_freq_factor": 1.5, "original_max_position_embeddings": 16}},
        "high_freq_factor",
    ),
    ("model.config_rope.RopeKeys.yarn", LLAMA, {"rope_parameters": {**YARN, "truncate": 1}}, "truncate"),
    (
        "model.config_rope.RopeKeys.original_length",
        PHI3,
        {"rope_scaling": {**LONG, "short_factor": [1, 2], "long_factor": [1, 2], "original_max_position_embeddings": 17}},
        "original_max_position_embeddings",
    ),
]


@check("SAFE-001", "CONF-006", "CONF-007", area="weights")
def invalid_values_are_refused_by_name() -> None:
    for place, family, change, named in WRONG:
        raw = fixture_config(family, **change)
        expect_refused(place, partial(read_config, raw), named, f"{family} with {change}")


@check("CONF-008", area="weights")
def harmless_keys_are_let_through() -> None:
    harmless: Raw = {"use_cache": True, "initializer_range": 0.02, "transformers_version": "4.40", "attention_dropout": 0.5}
    harmless |= {"pretraining_tp": 2, "alibi": None, "torch_dtype": "float64", "_name_or_path": "x", "temperature": 0.6}
    for family in FAMILIES:
        raw = fixture_config(family)
        got = read_config({**raw, **harmless})
        expect_equal("model.config_keys.refuse_unknown_keys", got, read_config(raw), f"{family} with harmless keys")

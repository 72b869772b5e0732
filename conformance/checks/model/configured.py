"""The runtime's ModelConfig against the independently read Spec: the fields that differ and the function that reads each."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from conformance.checks import Failed, compared
from conformance.checks.model.turning import runtime_rope
from conformance.truth.rotation import Rope
from conformance.truth.spec import Spec
from nanollama.model import families
from nanollama.model.config import ModelConfig, read_layer_types
from nanollama.model.config_keys import Keys
from nanollama.model.families import FAMILIES

FIELDS = {  # ours → (the spec's name, the function that reads it)
    "vocab_size": ("vocab", "model.config.read_config"),
    "hidden_size": ("hidden", "model.config.read_config"),
    "intermediate_size": ("width", "model.config.read_config"),
    "num_hidden_layers": ("layers", "model.config.read_config"),
    "num_attention_heads": ("heads", "model.config.read_heads"),
    "num_key_value_heads": ("kv_heads", "model.config.read_heads"),
    "head_dim": ("head_dim", "model.config.read_heads"),
    "max_position_embeddings": ("max_length", "model.config.read_config"),
    "hidden_act": ("activation", "model.config.read_activation"),
    "gated_mlp": ("gated", "model.families.FAMILIES"),
    "norm": ("norm", "model.families.FAMILIES"),
    "norm_eps": ("eps", "model.config.read_config"),
    "placement": ("placement", "model.families.FAMILIES"),
    "qk_norm": ("qk_norm", "model.families.FAMILIES"),
    "qkv_bias": ("qkv_bias", "model.config.read_config"),
    "o_bias": ("o_bias", "model.config.read_config"),
    "mlp_bias": ("mlp_bias", "model.config.read_config"),
    "tie_word_embeddings": ("tied", "model.config.read_config"),
    "embedding_scale": ("embedding_scale", "model.config.read_config"),
    "learned_positions": ("learned_positions", "model.families.FAMILIES"),
    "attention_scales": ("scales", "model.config.read_attention_scales"),
    "attention_softcap": ("attention_cap", "model.config.read_config"),
    "logit_softcap": ("logit_cap", "model.config.read_config"),
    "windows": ("windows", "model.config.read_layer_types"),
    "moe_layers": ("sparse", "model.config.read_experts"),
    "num_experts": ("experts", "model.config.read_experts"),
    "num_experts_per_tok": ("chosen", "model.config.read_experts"),
    "moe_intermediate_size": ("expert_width", "model.config.read_experts"),
    "norm_topk_prob": ("renormalise", "model.config.read_experts"),
}
READERS = {  # of a rotation's fields
    "rope_type": "model.config_rope.read_rope_type",
    "dim": "model.config_rope.read_rope_config",
    "theta": "model.config_rope.ropes_by_layer_type",
    "original_length": "model.config_rope.RopeKeys.original_length",
    "attention_factor": "model.config_rope.RopeKeys.{kind}",
    "beta_fast": "model.config_rope.RopeKeys.yarn",
    "beta_slow": "model.config_rope.RopeKeys.yarn",
    "truncate": "model.config_rope.RopeKeys.yarn",
    "short_factor": "model.config_rope.RopeKeys.longrope",
    "long_factor": "model.config_rope.RopeKeys.longrope",
}
READ_ONLY_BY = {"short_factor": ("longrope",), "long_factor": ("longrope",), "factor": ("linear", "dynamic", "llama3", "yarn")}
LENGTHS = ("llama3", "yarn", "longrope", "dynamic")  # the types with a trained length
RULES = {"Mistral": "sliding_everywhere", "Mixtral": "sliding_everywhere", "Phi3": "sliding_everywhere"}
RULES |= {"Qwen3Moe": "sliding_everywhere", "Qwen": "sliding_from_layer", "Gemma": "full_every_nth"}
RULES |= {"SmolLM3": "sliding_without_rope"}


def config_faults(raw: Mapping[str, Any], config: ModelConfig, spec: Spec) -> list[Failed]:
    """Every field that the runtime read wrongly, at the function at fault."""
    found: dict[str, Failed] = {}
    for fault in [*key_faults(raw, config), *field_faults(raw, config, spec), *rope_faults(config, spec)]:
        found.setdefault(fault.place, fault)
    return list(found.values())


def key_faults(raw: Mapping[str, Any], config: ModelConfig) -> Iterator[Failed]:
    """The keys as the reader returns them, before they are interpreted."""
    family, keys = FAMILIES[config.architecture], Keys(raw, config.architecture)
    for key in family.keys:
        spelt = family.spelling.get(key, key)
        if spelt in raw:
            compared()
            if keys.get(key) != raw[spelt] or type(keys.get(key)) is not type(raw[spelt]):
                yield Failed("model.config_keys.Keys", f"{key} is {keys.get(key)!r}, and {spelt} is {raw[spelt]!r} in the file")


def field_faults(raw: Mapping[str, Any], config: ModelConfig, spec: Spec) -> Iterator[Failed]:
    """All fields except rotations."""
    for ours, (theirs, place) in FIELDS.items():
        compared()
        got, want = getattr(config, ours), getattr(spec, theirs)
        if not alike(got, want):
            place = place_of_windows(raw, spec) if ours == "windows" else place
            yield Failed(place, f"{ours} is {got!r}, expected {want!r}")


def place_of_windows(raw: Mapping[str, Any], spec: Spec) -> str:
    """The function that gives windows to the wrong layers: the family's rule, its caller, or the one that makes windows."""
    family, keys = FAMILIES[spec.architecture], Keys(raw, spec.architecture)
    slides = [window is not None for window in spec.windows]

    def wrong(types: list[str]) -> bool:
        return [kind == families.SLIDING for kind in types] != slides

    if not wrong(read_layer_types(keys, family)):
        return "model.config.read_config"
    if raw.get("layer_types") is not None or not wrong(family.layer_types(keys)):
        return "model.config.read_layer_types"
    rotary = [bool(on) for on in families.rotary_layers(keys)] if spec.architecture.startswith("SmolLM3") else None
    if rotary is not None and rotary != [rope is not None for rope in spec.ropes]:
        return "model.families.rotary_layers"
    rule = next((rule for start, rule in RULES.items() if spec.architecture.startswith(start)), "full_everywhere")
    return f"model.families.{rule}" if wrong(getattr(families, rule)(keys)) else "model.families.FAMILIES"


def alike(got: Any, want: Any) -> bool:
    """Equality; for numbers up to rounding."""
    if isinstance(want, tuple):
        return isinstance(got, tuple) and len(got) == len(want) and all(map(alike, got, want))
    if type(want) is float and isinstance(got, float | int):
        return bool(abs(got - want) <= 1e-14 * abs(want))
    return bool(got == want)


def rope_faults(config: ModelConfig, spec: Spec) -> Iterator[Failed]:
    """The rotation of each layer, field by field."""
    for i, (got, want) in enumerate(zip(config.ropes, spec.ropes, strict=False)):
        compared()
        if (got is None) != (want is None):
            yield Failed("model.families.rotary_layers", f"layer {i} rotates: {got is not None}, expected {want is not None}")
        elif got is not None and want is not None:
            yield from fields_of_rope(got, want)
    if len(config.ropes) != len(spec.ropes):
        yield Failed("model.config.ropes_by_layer", f"{len(config.ropes)} rotations for {len(spec.ropes)} layers")


def fields_of_rope(got: Any, want: Rope) -> Iterator[Failed]:
    """The fields that this type of rotation reads."""
    true = runtime_rope(want)
    for name in ("rope_type", "dim", "theta", "factor", "original_length", "low_freq_factor", "high_freq_factor", *READERS):
        unread = want.kind not in READ_ONLY_BY.get(name, (want.kind,)) or (
            name == "original_length" and want.kind not in LENGTHS
        )
        if not unread and not alike(getattr(got, name), getattr(true, name)):
            place = READERS.get(name, "model.config_rope.RopeKeys.scaling").format(kind=want.kind)
            yield Failed(place, f"{name} is {getattr(got, name)!r}, expected {getattr(true, name)!r}")


def repaired(config: ModelConfig, spec: Spec) -> ModelConfig:
    """The config with every field as it should be read."""
    fields = {ours: getattr(spec, theirs) for ours, (theirs, _) in FIELDS.items()}
    ropes = tuple(None if rope is None else runtime_rope(rope) for rope in spec.ropes)
    return replace(config, **fields, ropes=ropes)

"""The rotary keys of a config.json: two spellings, six types, and transformers' defaults for absent keys.

transformers 4 writes `rope_theta` and, next to it, the object `rope_scaling`; transformers 5 writes all of it into the object
`rope_parameters`, for Gemma 3 one per layer type.
"""

from collections.abc import Mapping
from typing import Any

from nanollama.errors import NanollamaError, unknown_name
from nanollama.model.config_keys import LARGEST_NUMBER, SMALLEST_NUMBER, Keys, is_number
from nanollama.model.families import FULL, SLIDING
from nanollama.model.rope import FREQUENCIES, RopeConfig, longrope_attention_factor, yarn_attention_factor

COMMON = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
READ_BY_TYPE: dict[str, set[str]] = {
    "default": set(),
    "linear": {"factor"},
    "dynamic": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
    "yarn": {"factor", "attention_factor", "mscale", "mscale_all_dim", "beta_fast", "beta_slow", "truncate"}
    | {"original_max_position_embeddings"},
    "longrope": {"factor", "attention_factor", "short_factor", "long_factor", "original_max_position_embeddings"},
}
OLD_NAMES = {"su": "longrope"}  # Phi-3's first files


def ropes_by_layer_type(keys: Keys, head_dim: int, per_layer_type: bool) -> dict[str, RopeConfig]:
    """The rotation of full and of sliding layers, by layer type; only Gemma 3 has two kinds."""
    for key in ("rope_theta", "rope_local_base_freq", "partial_rotary_factor"):  # checked even if not used
        keys.optional_number(key)
    if keys.get("original_max_position_embeddings") is not None:
        keys.integer("original_max_position_embeddings", 1 << 31)
    old, new = keys["rope_scaling"], keys["rope_parameters"]
    if old is not None and new is not None and old != new:
        raise NanollamaError("config.json has both rope_scaling and rope_parameters, and they differ; keep one of them")
    given = new if new is not None else old
    name = "rope_parameters" if new is not None else "rope_scaling"
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise keys.wrong(name, "an object or null")
    if not per_layer_type:
        rope = read_rope_config(keys, given, keys["rope_theta"], head_dim)
        return {FULL: rope, SLIDING: rope}
    if new is None:  # transformers 4 scales the full layers only
        given = {FULL: given}
    full, sliding = ({} if given.get(kind) is None else given[kind] for kind in (FULL, SLIDING))
    if given.keys() - {FULL, SLIDING} or not isinstance(full, dict) or not isinstance(sliding, dict):
        raise keys.wrong(name, f"one object for {FULL} and one for {SLIDING}")
    return {
        FULL: read_rope_config(keys, full, keys["rope_theta"], head_dim),
        SLIDING: read_rope_config(keys, sliding, keys["rope_local_base_freq"], head_dim),
    }


def read_rope_config(keys: Keys, given: Mapping[str, Any], theta: Any, head_dim: int) -> RopeConfig:
    """One RopeConfig from one rope object of the file; keys that the object lacks are read from the top level."""
    rope_type = read_rope_type(given)
    for key in given.keys() - COMMON - READ_BY_TYPE[rope_type]:
        if given[key] is not None and not (rope_type == "default" and key == "original_max_position_embeddings"):
            raise NanollamaError(f"config.json: {key} is not a key of rope_type {rope_type!r}; it would be ignored")
    reader = RopeKeys(given, rope_type)
    top_level = keys.get("partial_rotary_factor")
    partial = reader.number("partial_rotary_factor", 1.0 if top_level is None else top_level)
    if partial != 1 and "partial_rotary_factor" not in keys:
        raise NanollamaError(f"config.json: partial_rotary_factor is {partial}, but {keys.architecture} rotates whole heads")
    dim = int(head_dim * partial)
    if dim < 2 or dim % 2 or dim > head_dim or (rope_type == "dynamic" and dim == 2):
        raise NanollamaError(
            f"config.json: rotary positions turn {dim} of {head_dim} dimensions of a head; expected an even number from 2"
        )
    theta = reader.number("rope_theta", theta)
    if theta <= 1:
        raise NanollamaError(f"config.json: rope_theta is {theta}, expected a number above 1, such as 10000")
    return RopeConfig(dim=dim, theta=theta, rope_type=rope_type, **reader.scaling(keys, dim))


def read_rope_type(given: Mapping[str, Any]) -> str:
    """The type, under the key `rope_type` or `type`; a file may have both if they agree."""
    names = [given[key] for key in ("rope_type", "type") if given.get(key) is not None] or ["default"]
    known = {OLD_NAMES.get(name, name) if isinstance(name, str) else None for name in names}
    if len(known) != 1:
        raise NanollamaError(f"config.json: rope_type is {names[0]!r}, but type is {names[1]!r}; keep one of them")
    if not known <= FREQUENCIES.keys():
        raise unknown_name("rope_type", names[0], FREQUENCIES, "in config.json")
    return str(known.pop())


class RopeKeys:
    """Checked access to one rope object of the file."""

    def __init__(self, given: Mapping[str, Any], rope_type: str) -> None:
        self.given, self.rope_type = given, rope_type

    def number(self, key: str, default: Any = None) -> float:
        """A positive number; `default` if the key is absent or null."""
        value = self.given.get(key)
        value = default if value is None else value
        if not is_number(value):
            raise NanollamaError(
                f"config.json: {key} of rope_type {self.rope_type!r} is {value!r}, "
                f"expected a number from {SMALLEST_NUMBER:g} to {LARGEST_NUMBER:g}"
            )
        return float(value)

    def divisors(self, key: str, count: int) -> tuple[float, ...]:
        """LongRoPE's list of `count` positive numbers, one per rotated pair."""
        values = self.given.get(key)
        if not isinstance(values, list) or len(values) != count:
            raise NanollamaError(f"config.json: {key} is {str(values)[:60]!r}, expected a list of {count} numbers")
        if not all(is_number(value) for value in values):
            raise NanollamaError(f"config.json: {key} holds a value that is not a number above 0")
        return tuple(float(v) for v in values)

    def original_length(self, keys: Keys) -> int:
        """The trained length: in the object, at the top level (Phi-3), or max_position_embeddings."""
        inside, top_level = self.given.get("original_max_position_embeddings"), keys.get("original_max_position_embeddings")
        if inside is not None and top_level is not None and inside != top_level:
            raise NanollamaError(
                f"config.json: original_max_position_embeddings is {top_level!r}, but {inside!r} inside rope_scaling"
            )
        value = inside if inside is not None else top_level if top_level is not None else keys["max_position_embeddings"]
        if type(value) is not int or not 1 < value <= 1 << 31:
            raise NanollamaError(f"config.json: original_max_position_embeddings is {value!r}, expected a length above 1")
        return value

    def scaling(self, keys: Keys, dim: int) -> dict[str, Any]:
        """The fields of RopeConfig that this type has."""
        if self.rope_type == "default":
            return {}
        if self.rope_type == "linear":
            return {"factor": self.number("factor")}
        if self.rope_type == "dynamic":
            return {"factor": self.number("factor"), "original_length": keys.integer("max_position_embeddings", 1 << 31)}
        original = self.original_length(keys)
        if self.rope_type == "llama3":
            low, high = self.number("low_freq_factor"), self.number("high_freq_factor")
            if high <= low:
                raise NanollamaError(f"config.json: high_freq_factor {high} must be above low_freq_factor {low}")
            fields = {"low_freq_factor": low, "high_freq_factor": high}
            return {"factor": self.number("factor"), "original_length": original, **fields}
        factor = self.number("factor", keys["max_position_embeddings"] / original)
        fields = {"factor": factor, "original_length": original}
        return fields | (self.yarn(factor) if self.rope_type == "yarn" else self.longrope(factor, original, dim))

    def yarn(self, factor: float) -> dict[str, Any]:
        """YaRN's fields. Without attention_factor, mscale and mscale_all_dim give it (DeepSeek), or the paper's formula."""
        scales = [self.number(key) for key in ("mscale", "mscale_all_dim") if self.given.get(key) is not None]
        implied = yarn_attention_factor(factor)
        if len(scales) == 2:
            implied = yarn_attention_factor(factor, scales[0]) / yarn_attention_factor(factor, scales[1])
        truncate = self.given.get("truncate", True)
        if type(truncate) is not bool:
            raise NanollamaError(f"config.json: truncate of rope_type 'yarn' is {truncate!r}, expected true or false")
        return {
            "attention_factor": self.number("attention_factor", implied),
            "beta_fast": self.number("beta_fast", 32.0),
            "beta_slow": self.number("beta_slow", 1.0),
            "truncate": truncate,
        }

    def longrope(self, factor: float, original: int, dim: int) -> dict[str, Any]:
        """LongRoPE's fields."""
        return {
            "attention_factor": self.number("attention_factor", longrope_attention_factor(factor, original)),
            "short_factor": self.divisors("short_factor", dim // 2),
            "long_factor": self.divisors("long_factor", dim // 2),
        }

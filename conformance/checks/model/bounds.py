"""Bounds: a value at a limit is accepted; one step beyond, or another type, is refused by name."""

import math
from functools import partial
from typing import Any

from conformance.checks import check
from conformance.checks.assertions import at, expect_equal, expect_refused
from conformance.models.fixtures import fixture_config
from nanollama.model.config import read_config
from nanollama.model.config_keys import Keys, is_number

LLAMA, QWEN3 = "LlamaForCausalLM", "Qwen3ForCausalLM"
NO_WHOLE_NUMBERS: tuple[Any, ...] = (True, 8.0, "8", [8], math.nan)


def config_of(family: str, **changes: Any) -> Any:
    """The config of a changed fixture."""
    with at("model.config.read_config"):
        return read_config(fixture_config(family, **changes))


@check("CONF-006", "CONF-003", area="weights")
def numbers_are_taken_up_to_their_bounds() -> None:
    for value, right in (
        *((1e-30, True), (1e30, True), (1, True), (9e-31, False), (1.1e30, False), (0, False), (-1.0, False)),
        *((math.inf, False), (math.nan, False), (True, False), ("1", False), (None, False)),
    ):
        expect_equal("model.config_keys.is_number", is_number(value), right, f"whether {value!r} is a number of a model")
    keys = Keys(fixture_config(LLAMA, vocab_size=1 << 24), LLAMA)
    expect_equal("model.config_keys.Keys.integer", keys.integer("vocab_size"), 1 << 24, "the largest size")
    expect_equal(
        "model.config_keys.Keys.integer", keys.integer("vocab_size", most=1 << 24, least=1 << 24), 1 << 24, "both bounds"
    )
    for value in (0, -1, (1 << 24) + 1, *NO_WHOLE_NUMBERS):
        changed = Keys(fixture_config(LLAMA, vocab_size=value), LLAMA)
        expect_refused(
            "model.config_keys.Keys.integer", partial(changed.integer, "vocab_size"), "vocab_size", f"vocab_size {value!r}"
        )


@check("CONF-006", "WIND-002", area="weights")
def sizes_are_taken_up_to_their_bounds() -> None:
    limits = (("max_position_embeddings", 1 << 31, 1), ("sliding_window", 1 << 31, 1), ("max_window_layers", 1 << 24, 0))
    for key, most, least in limits:
        for value in (least, most):
            config_of(QWEN3, **{key: value})
        for value in (least - 1, most + 1, *NO_WHOLE_NUMBERS):
            raw = fixture_config(QWEN3, **{key: value})
            expect_refused("model.config_keys.Keys.integer", partial(read_config, raw), key, f"{key} {value!r}")
    windows = config_of(QWEN3, sliding_window=1 << 31).windows
    expect_equal("model.config.read_attention", windows, (None, 1 << 31, None), "the largest window")


@check("ROPE-020", "CONF-006", area="rope")
def lengths_and_factors_of_scaling_have_bounds() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0}
    for length in (2, 1 << 31):
        rope = config_of(LLAMA, rope_parameters={**yarn, "original_max_position_embeddings": length}).ropes[0]
        expect_equal("model.config_rope.RopeKeys.original_length", rope.original_length, length, "the trained length")
    for value in (1, 0, -4, (1 << 31) + 1, *NO_WHOLE_NUMBERS):
        raw = fixture_config(LLAMA, rope_parameters={**yarn, "original_max_position_embeddings": value})
        place = "model.config_rope.RopeKeys.original_length"
        expect_refused(place, partial(read_config, raw), "original_max_position_embeddings", f"a trained length of {value!r}")
    lists = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 64}
    for factor in (0.5, 1.0):
        for kind in ("longrope", "yarn"):
            given = {"rope_type": kind, "factor": factor, "original_max_position_embeddings": 64}
            rope = config_of(LLAMA, rope_parameters=given | (lists if kind == "longrope" else {})).ropes[0]
            expect_equal(
                f"model.config_rope.RopeKeys.{kind}",
                rope.attention_factor,
                1.0,
                f"sharpness of {kind} by a factor of {factor}",
            )
    rope = config_of(LLAMA, rope_parameters={"rope_type": "longrope", "factor": 4.0, **lists}).ropes[0]
    expect_equal(
        "model.config_rope.RopeKeys.longrope", rope.attention_factor, math.sqrt(1 + math.log(4) / math.log(64)), "sharpness"
    )

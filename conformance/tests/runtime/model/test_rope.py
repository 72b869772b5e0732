"""Rotary positions: every formula written out in Python floats from its paper, the switch at the trained length, far positions.

Here `length` is the number of positions of a sequence, `original` the length a model was trained on.
"""

import math
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from conformance.models.fixtures import fixture_config, write_fixture
from conformance.models.strategies import log_uniform, rope_objects
from conformance.models.weights import derived_ids
from conformance.truth.compare import SEMANTIC_BAR, relative_error
from conformance.truth.oracle import load_oracle, oracle_logits
from nanollama.lm import load_model
from nanollama.model.config import ModelConfig, read_config
from nanollama.model.rope import RopeConfig, Rotary, default_frequencies, frequencies
from nanollama.model.transformer import Transformer

ROUNDING = 1e-13
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")


def same(got: Tensor, want: list[float]) -> None:
    assert got.dtype is torch.float64
    assert relative_error(got, torch.tensor(want, dtype=torch.float64)) <= ROUNDING, f"{got.tolist()} is not {want}"


# --- the formulas, plainly


def plain(theta: float, dim: int) -> list[float]:
    """RoFormer: theta^(-2j/dim)."""
    return [theta ** (-2 * j / dim) for j in range(dim // 2)]


def by_wavelength(rope: RopeConfig) -> list[float]:
    """Llama 3.1, by the length of each wave in positions."""
    result = []
    for freq in plain(rope.theta, rope.dim):
        wave = 2 * math.pi / freq
        if wave < rope.original_length / rope.high_freq_factor:
            result.append(freq)
        elif wave > rope.original_length / rope.low_freq_factor:
            result.append(freq / rope.factor)
        else:
            span = rope.high_freq_factor - rope.low_freq_factor
            smooth = (rope.original_length / wave - rope.low_freq_factor) / span
            result.append((1 - smooth) * freq / rope.factor + smooth * freq)
    return result


def by_ramp(rope: RopeConfig) -> list[float]:
    """YaRN: dimensions that turn more than beta_fast times within the trained length stay, those below beta_slow are slowed."""

    def dimension(turns: float) -> float:
        return rope.dim * math.log(rope.original_length / (2 * math.pi * turns)) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    if low == high:
        high += 0.001
    result = []
    for j, freq in enumerate(plain(rope.theta, rope.dim)):
        slow = min(max((j - low) / (high - low), 0), 1)
        result.append(freq * (1 - slow) + freq / rope.factor * slow)
    return result


def test_default_frequencies_fall_from_one_radian_to_nearly_one_over_theta() -> None:
    same(default_frequencies(16.0, 4), [1.0, 0.25])
    same(default_frequencies(10000.0, 8), [1.0, 0.1, 0.01, 0.001])


def test_linear_scaling_divides_every_frequency() -> None:
    same(frequencies(RopeConfig(4, 16.0, "linear", factor=5.0), 0), [0.2, 0.05])


def test_dynamic_scaling_slows_the_slowest_wave_by_the_stretch_and_the_fastest_not_at_all() -> None:
    rope = RopeConfig(4, 16.0, "dynamic", factor=2.0, original_length=10)
    same(frequencies(rope, 20), [1.0, 0.25 / 3])  # stretch 2 · 20/10 - (2 - 1) = 3


@pytest.mark.parametrize("length", [1, 9, 10])
def test_dynamic_scaling_changes_nothing_up_to_the_trained_length(length: int) -> None:
    same(frequencies(RopeConfig(4, 16.0, "dynamic", factor=2.0, original_length=10), length), [1.0, 0.25])


def test_dynamic_scaling_begins_one_position_after_the_trained_length() -> None:
    rope = RopeConfig(4, 16.0, "dynamic", factor=2.0, original_length=10)
    same(frequencies(rope, 11), [1.0, 0.25 / 1.2])


def test_llama3_keeps_short_waves_slows_long_ones_and_blends_those_between() -> None:
    # theta 16^3, dim 6: waves of 2π, 32π and 512π positions; a context of 64π is 32, 2 and 1/8 of them
    length: Any = 64 * math.pi
    rope = RopeConfig(6, 4096.0, "llama3", 8.0, length, low_freq_factor=1.0, high_freq_factor=5.0)
    same(frequencies(rope, 0), [1.0, (0.25 + 0.75 / 8) / 16, 1 / 256 / 8])  # two turns are a quarter of the way from 1 to 5


def test_yarn_ramps_over_dimensions() -> None:
    # original 2π·10^6, theta 10^8, dim 8: a wave of dimension j turns 10^(6-2j) times, so 10^4 turns are j = 1, 1 is j = 3
    length: Any = 2 * math.pi * 1e6
    rope = RopeConfig(8, 1e8, "yarn", 4.0, length, beta_fast=1e4, beta_slow=1.0, truncate=False)
    same(frequencies(rope, 0), [1.0, 1e-2, 1e-4 * (1 / 2 + 1 / 8), 1e-6 / 4])


def test_longrope_divides_by_the_short_list_up_to_the_trained_length_and_by_the_long_one_beyond() -> None:
    rope = RopeConfig(4, 16.0, "longrope", original_length=10, short_factor=(1.0, 2.0), long_factor=(4.0, 5.0))
    for length, want in ((1, [1.0, 0.125]), (10, [1.0, 0.125]), (11, [0.25, 0.05]), (9999, [0.25, 0.05])):
        same(frequencies(rope, length), want)


@settings(max_examples=200)
@given(st.data())
def test_every_type_equals_its_formula(data: st.DataObject) -> None:
    dim, length = data.draw(st.sampled_from([4, 8, 10, 64])), data.draw(st.integers(1, 300))
    given_rope = data.draw(rope_objects(dim, 64))
    config = llama(head_dim=dim, rope_theta=data.draw(log_uniform(10.0, 1e6)), rope_scaling=given_rope)
    rope = config.ropes[0]
    assert rope is not None
    want = {
        "default": lambda: plain(rope.theta, dim),
        "linear": lambda: [f / rope.factor for f in plain(rope.theta, dim)],
        "dynamic": lambda: plain(
            rope.theta * max(1.0, rope.factor * length / 64 - (rope.factor - 1)) ** (dim / (dim - 2)), dim
        ),
        "llama3": lambda: by_wavelength(rope),
        "yarn": lambda: by_ramp(rope),
        "longrope": lambda: [
            f / d
            for f, d in zip(
                plain(rope.theta, dim), rope.long_factor if length > rope.original_length else rope.short_factor, strict=True
            )
        ],
    }[rope.rope_type]()
    same(frequencies(rope, length), want)


# --- reading it from a config.json


def llama(**changes: Any) -> ModelConfig:
    """A Llama of two layers whose head size and positions can be chosen."""
    sizes = {"vocab_size": 5, "hidden_size": 8, "intermediate_size": 2, "num_hidden_layers": 2, "num_attention_heads": 1}
    return read_config({"architectures": ["LlamaForCausalLM"], **sizes, "max_position_embeddings": 64, **changes})


@settings(max_examples=200)
@given(st.data())
def test_both_spellings_of_a_config_give_the_same_rotation(data: st.DataObject) -> None:
    theta, given_rope = data.draw(log_uniform(10.0, 1e6)), data.draw(rope_objects(8, 64))
    old = {**given_rope, "type": given_rope["rope_type"]}
    del old["rope_type"]
    assert llama(rope_theta=theta, rope_scaling=old).ropes == llama(rope_parameters={**given_rope, "rope_theta": theta}).ropes


def test_gemma3_scales_its_full_layers_only_in_either_spelling() -> None:
    base = fixture_config("Gemma3ForCausalLM")
    new = base["rope_parameters"]
    old = {k: v for k, v in base.items() if k != "rope_parameters"} | {
        "rope_theta": 54321.0,
        "rope_local_base_freq": 123.0,
        "rope_scaling": {"rope_type": "linear", "factor": 3.0},
    }
    full, sliding = RopeConfig(8, 54321.0, "linear", factor=3.0), RopeConfig(8, 123.0)
    assert new["full_attention"]["rope_theta"] == 54321.0
    assert read_config(base).ropes == read_config(old).ropes == (sliding, full, sliding, full)


@pytest.mark.parametrize(
    ("scaling", "want"),
    [
        ({"type": "yarn", "factor": math.e**10}, 2.0),  # 0.1 · ln(factor) + 1
        ({"type": "yarn", "factor": 1.0}, 1.0),
        ({"type": "yarn", "factor": math.e**10, "mscale": 2.0, "mscale_all_dim": 0.5}, 2.0),  # (0.1 · 20 + 1) / (0.1 · 5 + 1)
        ({"type": "yarn", "factor": math.e**10, "mscale": 2.0}, 2.0),  # one alone means nothing
        ({"type": "yarn", "factor": 8.0, "attention_factor": 1.25, "mscale": 2.0, "mscale_all_dim": 0.5}, 1.25),
        ({"type": "longrope", "factor": 64.0}, 2.0),  # sqrt(1 + ln 64 / ln 4)
        ({"type": "longrope"}, math.sqrt(1 + 2)),  # factor 64 / 4, by the lengths
        ({"type": "longrope", "factor": 0.5}, 1.0),
        ({"type": "longrope", "factor": 64.0, "attention_factor": 0.75}, 0.75),
        ({"type": "linear", "factor": 8.0}, 1.0),
    ],
)
def test_attention_is_sharpened_as_the_papers_say_unless_the_file_says_otherwise(scaling: dict[str, Any], want: float) -> None:
    lists = {"short_factor": [1.0] * 4, "long_factor": [1.0] * 4} if scaling["type"] == "longrope" else {}
    original = {} if scaling["type"] == "linear" else {"original_max_position_embeddings": 4}
    rope = llama(rope_scaling={**scaling, **lists, **original}).ropes[0]
    assert rope is not None
    assert rope.attention_factor == pytest.approx(want, rel=ROUNDING)


def test_the_attention_factor_multiplies_cos_and_sin() -> None:
    cos, sin = Rotary(RopeConfig(4, 16.0, attention_factor=3.0))(torch.tensor([[0, 2]]), [3])
    assert cos.shape == sin.shape == (1, 1, 2, 2)
    same(cos.flatten(), [3.0, 3.0, 3 * math.cos(2), 3 * math.cos(0.5)])
    same(sin.flatten(), [0.0, 0.0, 3 * math.sin(2), 3 * math.sin(0.5)])


def test_a_partial_rotary_factor_sets_the_dimensions_and_the_frequencies() -> None:
    config = read_config(fixture_config("Phi3ForCausalLM"))
    assert config.head_dim == 8
    assert all(rope is not None and rope.dim == 4 for rope in config.ropes)  # theta^(-2j/4), not theta^(-2j/8)


def test_computing_angles_leaves_the_shared_frequencies_alone() -> None:
    rope = RopeConfig(4, 16.0, attention_factor=3.0)
    before = frequencies(rope, 0).clone()
    Rotary(rope)(torch.tensor([[5, 6]]), [7])
    assert torch.equal(frequencies(rope, 0), before)


# --- types that depend on the length, and caches


@pytest.fixture(scope="module", params=["longrope", "dynamic"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on 16 positions, stretched beyond."""
    config = fixture_config("Phi3ForCausalLM")
    if request.param == "dynamic":
        config = fixture_config("LlamaForCausalLM", max_position_embeddings=16, rope_theta=123.0)
        config["rope_parameters"] = {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 123.0}
    return write_fixture(tmp_path_factory.mktemp(request.param), config)


def ids(length: int) -> Tensor:
    return torch.tensor([derived_ids(1, "rope prompt", 20, 97)[:length]])


def test_without_a_cache_the_switch_is_where_transformers_has_it(folder: Path) -> None:
    ours, theirs = load_model(folder), load_oracle(folder)
    for length in (15, 16, 17, 18, 15):  # and back; of 16 after 18 transformers keeps the stretch, by a "<" that should be "<="
        assert relative_error(ours(ids(length)), oracle_logits(theirs, ids(length))) <= SEMANTIC_BAR


def test_with_a_cache_the_rows_limit_decides_from_the_first_token_on(folder: Path) -> None:
    model = load_model(folder)

    def first_ten(limit: int) -> Tensor:
        return model(ids(10), cache=model.new_cache(1, limit))

    assert torch.equal(first_ten(16), model(ids(10)))
    assert relative_error(first_ten(17), first_ten(16)) > 1e-3
    cache = model.new_cache(1, 17)
    grown = torch.cat([model(piece, cache=cache) for piece in ids(17).split([10, 6, 1], 1)], 1)
    assert relative_error(grown, model(ids(17))) <= SEMANTIC_BAR


def test_rows_of_a_batch_go_by_their_own_limits(folder: Path) -> None:
    model = load_model(folder)
    both = model(ids(10).repeat(2, 1), cache=model.new_cache(2, 20, limits=[16, 17]))
    for row, limit in enumerate((16, 17)):
        assert relative_error(both[row], model(ids(10), cache=model.new_cache(1, limit))[0]) <= SEMANTIC_BAR


def test_other_types_do_not_depend_on_the_length_of_the_cache(tmp_path: Path) -> None:
    model = load_model(write_fixture(tmp_path, fixture_config("Qwen2ForCausalLM")))
    assert relative_error(model(ids(10), cache=model.new_cache(1, 500)), model(ids(10))) <= SEMANTIC_BAR
    assert [RopeConfig(4, 9.0, kind).depends_on_length for kind in ("default", "linear", "llama3", "yarn")] == [False] * 4


# --- far positions


def exact_angle(theta: int, j: int, dim: int, position: int) -> float:
    """position · theta^(-2j/dim) within one turn, from fifty decimal digits."""
    with localcontext() as context:
        context.prec = 60
        angle = position * (-(Decimal(2 * j) / dim) * Decimal(theta).ln()).exp()
        return float(angle % (2 * PI))


@pytest.mark.parametrize("position", [4096, 100_003, 1_000_003, 10_000_019])
@pytest.mark.parametrize("theta", [10000, 500000])
def test_angles_of_far_positions_are_right_to_the_last_digits_of_float64(theta: int, position: int) -> None:
    cos, sin = Rotary(RopeConfig(128, float(theta)))(torch.tensor([[position]]), [position + 1])
    angles = [exact_angle(theta, j, 128, position) for j in range(64)]
    bound = 4 * position * 2.0**-53  # an angle of that many radians has no more digits behind the point
    assert max(abs(c - math.cos(a)) for c, a in zip(cos.flatten().tolist(), angles, strict=True)) <= bound
    assert max(abs(s - math.sin(a)) for s, a in zip(sin.flatten().tolist(), angles, strict=True)) <= bound
    single = torch.tensor(plain(float(theta), 128)).float() * position  # the control: float32 angles
    assert (single.cos() - cos.flatten()).abs().max() > 1000 * bound


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_low_precision_model_turns_by_angles_computed_in_float64(dtype: str, tmp_path: Path) -> None:
    model: Transformer = load_model(write_fixture(tmp_path, fixture_config("MistralForCausalLM")), dtype)
    positions = torch.tensor([[100_003]])
    rotation = model.rotations(positions, None)[0]
    assert rotation is not None
    exact = [math.cos(exact_angle(12345, j, 8, 100_003)) for j in range(4)]
    assert rotation[0].dtype is torch.float32
    assert max(abs(c - e) for c, e in zip(rotation[0].flatten().tolist(), exact, strict=True)) <= 2.0**-24

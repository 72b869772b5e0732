"""Nothing is declared and then not wired: every config key that a family reads, and every number of every stored tensor,
changes the logits or makes the checkpoint be refused; or it is on a list here, with the reason why it can't."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.models.fixtures import FAR_POSITIONS, FIXTURES, far_prompt, fixture_config, fixture_tensors, near_prompt
from conformance.truth.compare import relative_error
from nanollama.checkpoint import source
from nanollama.checkpoint.build import build_model
from nanollama.errors import NanollamaError
from nanollama.model.config import ModelConfig, read_config
from nanollama.model.config_rope import COMMON, READ_BY_TYPE
from nanollama.model.families import FAMILIES, FULL, REQUIRED, SLIDING
from nanollama.model.transformer import Transformer

Config = dict[str, Any]
Tensors = dict[str, Tensor]
EFFECT = 1e-9  # relative; rounding in float64 is 1e-14, the weakest key below moves the logits by about 1e-5
EVERY = pytest.mark.parametrize("architecture", FIXTURES)

ROPE_IS_ENDLESS = "a bound for caches and generation; this rotation goes on beyond it in the same way"

# (architecture, key) → why changing it changes nothing, in any of the variants below
NO_OPS: dict[tuple[str, str], str] = {
    (name, "max_position_embeddings"): ROPE_IS_ENDLESS
    for name in FIXTURES
    if name not in ("GPT2LMHeadModel", "Phi3ForCausalLM", "LlamaForCausalLM")
}

# Fixtures state every key once; these changes make room for the keys that the others hide.
VARIANTS: dict[str, list[Config]] = {
    "LlamaForCausalLM": [{"rope_parameters": {"rope_type": "dynamic", "factor": 3.0}, "max_position_embeddings": 16}],
    "Qwen2ForCausalLM": [{"layer_types": [FULL, SLIDING, FULL, SLIDING]}],
    "Qwen3ForCausalLM": [{"layer_types": None, "max_window_layers": 1}, {"rope_parameters": None}],
    "Gemma3ForCausalLM": [{"layer_types": None, "sliding_window_pattern": 2}, {"rope_parameters": None}],
    "Phi3ForCausalLM": [{"rope_scaling": None}],
    "SmolLM3ForCausalLM": [{"layer_types": None}, {"layer_types": None, "no_rope_layers": None, "no_rope_layer_interval": 3}],
    "Qwen3MoeForCausalLM": [{"use_sliding_window": True, "sliding_window": 5}],
}


def built(config: ModelConfig, tensors: Tensors, monkeypatch: pytest.MonkeyPatch) -> Transformer:
    """The model that load_model makes of these two, without the detour over files."""
    monkeypatch.setattr(source, "read_folder_config", lambda folder: ({}, config))
    monkeypatch.setattr(source, "read_folder", lambda folder: tensors)
    monkeypatch.setattr(source, "is_gguf", lambda path: False)
    return build_model(source.open_source(Path("nowhere")), "float64", "cpu")


def answers(model: Transformer) -> Tensor:
    """Logits of both prompts: near positions, and far ones."""
    vocabulary = {"vocab_size": 97}
    (far, positions), near = far_prompt(vocabulary), near_prompt(vocabulary)
    return torch.cat([model(near), model(far, positions=positions)], 1)


def other(key: str, value: Any, config: ModelConfig) -> list[Any]:
    """Other values that a key could have."""
    layers = config.num_hidden_layers
    special: dict[str, list[Any]] = {
        "hidden_act": ["gelu" if value != "gelu" else "silu"],
        "layer_types": [[FULL] * layers, [FULL] * (layers - 1) + [SLIDING]],
        "no_rope_layers": [[0] * layers],
        "mlp_only_layers": [[0]],
        "rope_scaling": [{"rope_type": "linear", "factor": 2.5}],
        "rope_parameters": [{"rope_type": "linear", "factor": 2.5}, {FULL: {"rope_type": "linear", "factor": 2.5}}],
        "sliding_window": [4],
        "partial_rotary_factor": [0.25, 0.5, 1.0],
    }
    if key in special:
        return special[key]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, float):
        return [value * 1.01]
    return [7.0] if value is None else [value + 1, value * 2]


def effect(base: Config, changed: Config, tensors: Tensors, monkeypatch: pytest.MonkeyPatch) -> float:
    """How far the logits move; infinitely far if the checkpoint is refused."""
    before = read_config(base)
    try:
        after = read_config(changed)
        if after == before:
            return 0.0
        moved = answers(built(after, tensors, monkeypatch))
    except NanollamaError:
        return torch.inf
    return relative_error(moved, answers(built(before, tensors, monkeypatch)))


@EVERY
def test_every_key_that_a_family_reads_has_an_effect(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES[architecture]
    tensors = fixture_tensors(fixture_config(architecture))
    bases = [fixture_config(architecture, **changes) for changes in [{}, *VARIANTS.get(architecture, [])]]
    for key, default in family.keys.items():
        spelt, found = family.spelling.get(key, key), 0.0
        for base in bases:
            value = base.get(spelt, None if default is REQUIRED else default)
            for new in other(key, value, read_config(base)):
                if new != value:
                    found = max(found, effect(base, {**base, spelt: new}, tensors, monkeypatch))
            if found > EFFECT:
                break
        if (architecture, key) in NO_OPS:
            assert found == 0.0, f"{key} is on the list of no-ops and has an effect of {found}"
        else:
            assert found > EFFECT, f"{key} is read and has an effect of {found}"


@EVERY
def test_a_fixture_shows_if_a_key_is_overlooked(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base, family = fixture_config(architecture), FAMILIES[architecture]
    tensors = fixture_tensors(base)
    for key, default in family.keys.items():
        spelt = family.spelling.get(key, key)
        if base.get(spelt, default) == default or default is REQUIRED:
            continue
        moved = effect(base, {k: v for k, v in base.items() if k != spelt}, tensors, monkeypatch)
        assert moved > EFFECT, f"{spelt} left out has an effect of {moved}"


# --- inside the rope object


ROPES: dict[str, Config] = {
    "default": {},
    "linear": {"factor": 3.0},
    "dynamic": {"factor": 3.0},
    "llama3": {"factor": 5.0, "low_freq_factor": 1.5, "high_freq_factor": 3.5, "original_max_position_embeddings": 16},
    "yarn": {"factor": 6.0, "beta_fast": 5.0, "beta_slow": 0.5, "original_max_position_embeddings": 64, "truncate": False,
             "mscale": 0.7, "mscale_all_dim": 1.2},
    "longrope": {"factor": 6.0, "short_factor": [1.1, 1.7, 2.0, 2.5], "long_factor": [2.3, 9.1, 10.0, 20.0],
                 "original_max_position_embeddings": 16},
}  # fmt: skip


def nested(rope: Config) -> Iterator[tuple[str, Config]]:
    """Every key of a rope object with the object in which it has another value."""
    for key, value in {"attention_factor": 1.0, **rope}.items():
        if key in ("rope_type", "attention_factor") and key not in READ_BY_TYPE[rope["rope_type"]]:
            continue
        if isinstance(value, list):
            for i, entry in enumerate(value):
                yield f"{key}[{i}]", {**rope, key: [*value[:i], entry * 1.01, *value[i + 1 :]]}
        else:
            changed = (not value) if isinstance(value, bool) else value * 2 if isinstance(value, int) else value * 1.01
            yield key, {**rope, key: changed}


@pytest.mark.parametrize("rope_type", ROPES)
def test_every_key_of_a_rope_object_has_an_effect(rope_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rope = {"rope_type": rope_type, "rope_theta": 123.0, **ROPES[rope_type]}
    base = fixture_config("LlamaForCausalLM", rope_parameters=rope, max_position_embeddings=16)
    tensors, seen = fixture_tensors(base), set()
    for name, changed in nested(rope):
        seen.add(name.partition("[")[0])
        moved = effect(base, {**base, "rope_parameters": changed}, tensors, monkeypatch)
        assert EFFECT < moved < torch.inf, f"{name} of {rope_type} has an effect of {moved}"
    assert seen == READ_BY_TYPE[rope_type] | {
        "rope_theta"
    }  # of COMMON, the type itself and the partial factor are tested above
    assert set(COMMON) - seen == {"rope_type", "type", "partial_rotary_factor"}


@EVERY
def test_a_fixture_shows_if_a_key_of_its_rope_object_is_overlooked(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base = fixture_config(architecture)
    spelt = "rope_parameters" if "rope_parameters" in base else "rope_scaling"
    rope = base.get(spelt, {})
    for kind in [kind for kind in (FULL, SLIDING) if kind in rope] or [""]:
        whole = rope[kind] if kind else rope
        for key in whole:
            rest = {k: v for k, v in whole.items() if k != key}
            moved = effect(base, {**base, spelt: {**rope, kind: rest} if kind else rest}, fixture_tensors(base), monkeypatch)
            implied = whole[key] == "default"  # the type that a missing key means
            assert (moved > EFFECT) is not implied, f"{spelt}.{kind}.{key} left out has an effect of {moved}"


# --- tensors


@EVERY
def test_every_stored_tensor_has_an_effect(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = fixture_config(architecture)
    tensors = fixture_tensors(config)
    model = built(read_config(config), tensors, monkeypatch)  # the tensors themselves are its parameters: nothing is copied
    before = answers(model)
    for name, tensor in tensors.items():
        kept = tensor.clone()
        tensor.mul_(1.01).add_(0.01)
        moved = relative_error(answers(model), before)
        tensor.copy_(kept)
        assert moved > EFFECT, f"{name} has an effect of {moved}"
    assert torch.equal(answers(model), before)


def idle(name: str, gradient: Tensor) -> Tensor:
    """Which numbers of a parameter may have no effect on this prompt, bool of its shape."""
    mask = torch.zeros_like(gradient, dtype=torch.bool)
    if name == "embed_positions.weight":  # GPT-2: positions that the prompt does not reach
        mask[97:] = True
    return mask


# Keys shifted by the same vector shift all scores of a query alike, and softmax does not see that; a rotation would.
SHIFTS = {("GPT2LMHeadModel", f"layers.{i}.self_attn.k_proj.bias") for i in range(3)}


@EVERY
def test_every_number_of_every_parameter_has_an_effect(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = fixture_config(architecture)
    model = built(read_config(config), fixture_tensors(config), monkeypatch).requires_grad_(True)
    ids = torch.arange(97)[None]  # every token of the vocabulary
    logits = model(ids)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    (logits * weights).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} is not used"
        size = parameter.grad.abs()
        if (architecture, name) in SHIFTS:
            assert (size < EFFECT).all(), f"{name} has an effect that the mathematics does not give it"
            continue
        unused = (size <= EFFECT * size.max()) & ~idle(name, size)
        assert not unused.any(), f"{int(unused.sum())} of {size.numel()} numbers of {name} have no effect"


def test_the_far_prompt_reaches_past_position_4096() -> None:
    assert max(FAR_POSITIONS) > 4096 > min(FAR_POSITIONS)

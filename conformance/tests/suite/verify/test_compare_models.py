"""The suite's own instruments: a gauge that nobody has checked proves nothing.

The derived weights and the goldens by hand; then engines that are wrong on purpose, each of which must be
flagged, and `verify`, which must name the module that was changed and nothing else.
"""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from conformance import GOLDEN
from conformance.__main__ import main
from conformance.models.fixtures import FIXTURES, SEED, fixture_config, fixture_tensors, write_fixture
from conformance.models.weights import GAIN, derived_ids, derived_tensors, fnv1a64, unit
from conformance.truth import golden as golden_module
from conformance.truth.compare import relative_error
from conformance.truth.golden import drift, load_golden
from conformance.truth.oracle import float64_everywhere, load_oracle
from conformance.truth.replay_modules import small_modules
from conformance.truth.taps import blocks, eager_attention, oracle_taps, runtime_taps
from conformance.verify.compare_models import verify_command
from nanollama.lm import load_model

NAN = math.nan
LLAMA, GEMMA3, MIXTRAL, GPT2 = "LlamaForCausalLM", "Gemma3ForCausalLM", "MixtralForCausalLM", "GPT2LMHeadModel"
EVERY = pytest.mark.parametrize("architecture", FIXTURES)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# --- derived weights


def mixed(z: int) -> int:
    """splitmix64's output function (Steele, Lea, Flood 2014), in Python's integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return z ^ (z >> 31)


def plain_unit(seed: int, name: str, index: int) -> float:
    """One number of the definition, step by step."""
    key = 0xCBF29CE484222325
    for byte in name.encode():
        key = ((key ^ byte) * 0x100000001B3) % 2**64
    key = (key + seed * 0x9E3779B97F4A7C15) % 2**64
    return (mixed((key + (index + 1) * 0x9E3779B97F4A7C15) % 2**64) >> 11) / 2**52 - 1


def test_the_hash_and_the_generator_give_their_published_test_vectors() -> None:
    assert [fnv1a64(text) for text in ("", "a", "foobar")] == [0xCBF29CE484222325, 0xAF63DC4C8601EC8C, 0x85944171F73967E8]
    golden_ratio = 0x9E3779B97F4A7C15
    assert [mixed(golden_ratio * n % 2**64) for n in (1, 2)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]  # seed 0


@settings(max_examples=100)
@given(st.integers(0, 2**40), st.text(st.characters(codec="utf-8"), max_size=20), st.integers(1, 9))
def test_derived_numbers_are_those_of_the_definition_in_plain_integers(seed: int, name: str, count: int) -> None:
    assert unit(seed, name, count).tolist() == [plain_unit(seed, name, i) for i in range(count)]


def test_the_first_derived_numbers_never_change() -> None:
    assert unit(SEED, "model.embed_tokens.weight", 3).tolist() == FIRST_NUMBERS
    embedding = derived_tensors({"model.embed_tokens.weight": (1, 3)}, SEED)["model.embed_tokens.weight"]
    assert embedding.tolist() == [FIRST_NUMBERS]


FIRST_NUMBERS = [-0.8763006767092705, -0.36991375051429354, -0.6857560167396557]


def test_each_kind_of_tensor_has_its_centre_and_spread() -> None:
    shapes = {"a.weight": (200, 300), "a.bias": (9999,), "norm.weight": (9999,), "embed_tokens.weight": (100, 100)}
    made = derived_tensors(shapes, 1)
    assert {name: (t.dtype, tuple(t.shape)) for name, t in made.items()} == {n: (torch.float64, s) for n, s in shapes.items()}
    spreads = {"a.weight": GAIN * math.sqrt(3 / 300), "a.bias": 0.5, "norm.weight": 0.5, "embed_tokens.weight": 1.0}
    for name, spread in spreads.items():
        centre = 1.0 if name == "norm.weight" else 0.0
        assert (made[name] - centre).abs().max() <= spread
        assert float(made[name].mean()) == pytest.approx(centre, abs=5 * spread / math.sqrt(3 * made[name].numel()))
        assert float((made[name] - centre).square().mean()) == pytest.approx(spread**2 / 3, rel=0.1)
    assert derived_tensors({"m.weight": (300, 200)}, 1, transposed=True)["m.weight"].abs().max() <= GAIN * math.sqrt(3 / 300)
    assert float(derived_tensors({"norm.weight": (999,)}, 1, norm_centre=0.0)["norm.weight"].mean()) < 0.1


def test_derived_prompts_stay_within_the_vocabulary_and_use_it() -> None:
    ids = derived_ids(3, "prompt", 5000, 97)
    assert set(ids) == set(range(97))


# --- oracle and taps


@EVERY
def test_both_sides_record_the_same_taps(architecture: str) -> None:
    near = load_golden(architecture).part("near")
    layers = FIXTURES[architecture].get("num_hidden_layers", 3)
    assert {"embeddings", "norm", "logits"} <= near.keys()
    for i in range(layers):
        assert {f"layers.{i}", f"layers.{i}.self_attn", f"layers.{i}.self_attn.weights", f"layers.{i}.mlp"} <= near.keys()
    assert not any(tap.isnan().any() for tap in near.values())
    assert {tap.dtype for tap in near.values()} == {torch.float64}


def test_taps_leave_no_trace_in_the_model(tmp_path: Path) -> None:
    model = load_model(write_fixture(tmp_path, fixture_config(LLAMA)))
    ids = torch.arange(5)[None]
    before = model(ids)
    runtime_taps(model, lambda: model(ids))
    with pytest.raises(RuntimeError, match="stop"):
        runtime_taps(model, stop)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert {layer.self_attn.attend.implementation for layer in blocks(model)} == {"sdpa"}
    assert torch.equal(model(ids), before)


def stop() -> Tensor:
    raise RuntimeError("stop")


def test_a_tap_is_a_copy_of_the_value_at_that_place(tmp_path: Path) -> None:
    model = load_model(write_fixture(tmp_path, fixture_config(LLAMA)))
    ids = torch.arange(5)[None]
    taps = runtime_taps(model, lambda: model(ids))
    assert torch.equal(taps["embeddings"], model.embed_tokens(ids))
    assert torch.equal(taps["logits"], model.lm_head(taps["norm"]).log_softmax(-1))
    assert torch.equal(taps["layers.1.mlp"], blocks(model)[1].mlp(taps["layers.1.post_attention_layernorm"]))
    assert relative_error(taps["layers.0.self_attn.weights"].exp().sum(-1), torch.ones(1, 12, 5)) <= 1e-14


def test_inside_the_mode_float32_means_float64_and_outside_it_is_itself_again() -> None:
    with pytest.raises(RuntimeError, match="stop"), float64_everywhere():
        assert torch.zeros(1).dtype is torch.float64
        assert torch.zeros(1, dtype=torch.float32).dtype is torch.float64
        assert torch.zeros(1).to(torch.float32).dtype is torch.float64
        assert torch.zeros(1).float().dtype is torch.float64
        assert torch.softmax(torch.zeros(2), 0, dtype=torch.float32).dtype is torch.float64
        stop()
    assert torch.zeros(1).dtype is torch.float32
    assert torch.zeros(1).double().float().dtype is torch.float32


def test_the_oracle_refuses_a_checkpoint_that_it_does_not_use_wholly(tmp_path: Path) -> None:
    tensors = fixture_tensors(fixture_config(LLAMA))
    write_fixture(tmp_path, fixture_config(LLAMA))
    for wrong in ({n: t for n, t in tensors.items() if "layers.1.mlp.up" not in n}, {**tensors, "score.weight": tensor(1)}):
        save_file(wrong, tmp_path / "model.safetensors", {"format": "pt"})
        with pytest.raises(RuntimeError, match="did not load"):
            load_oracle(tmp_path)


# --- goldens


@EVERY
def test_a_golden_is_of_the_fixture_as_it_is_now(architecture: str) -> None:
    golden = load_golden(architecture)
    assert golden.recipe["config"] == fixture_config(architecture)
    assert golden.recipe["seed"] == SEED
    assert max(golden.recipe["prompts"]["far"]["positions"]) > 4096
    assert {"by", "command", "torch", "transformers"} <= golden.recipe["provenance"].keys()
    assert all(0 < error < 1 for error in golden.recipe["transformers_rms_error_nats"].values())


def test_all_goldens_together_are_small() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) <= 5_000_000


def test_a_golden_that_is_not_the_file_its_recipe_describes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / LLAMA).mkdir()
    for file in ("recipe.json", "taps.safetensors"):
        (tmp_path / LLAMA / file).write_bytes((GOLDEN / LLAMA / file).read_bytes())
    monkeypatch.setattr(golden_module, "GOLDEN", tmp_path)
    load_golden(LLAMA)
    taps = load_file(tmp_path / LLAMA / "taps.safetensors")
    taps["near/logits"][0, 0, 0] += 1e-12
    save_file(taps, tmp_path / LLAMA / "taps.safetensors")
    with pytest.raises(RuntimeError, match=r"is not the file its recipe.json describes"):
        load_golden(LLAMA)


def test_the_check_of_goldens_says_what_is_different(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = load_golden(LLAMA)
    monkeypatch.setattr(golden_module, "make_golden", lambda architecture: stored)
    assert drift(LLAMA) == []
    taps = {**stored.taps, "near/norm": stored.taps["near/norm"] * (1 + 1e-9)}
    errors = {**stored.recipe["transformers_rms_error_nats"], "bfloat16": 1.0}
    other = replace(stored, taps=taps, recipe={**stored.recipe, "seed": 1, "transformers_rms_error_nats": errors})
    monkeypatch.setattr(golden_module, "make_golden", lambda architecture: other)
    found = "; ".join(drift(LLAMA))
    assert "recipe.json: seed differs" in found
    assert "near/norm is off by 1.0e-09 (bar 1e-10)" in found
    assert "transformers' own error in bfloat16 was" in found


# --- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "/nowhere", "/nowhere"], "/nowhere"),
        (["verify", "{a}", "{a}", "--ids", "1,x"], "--ids '1,x' is not a comma-separated list"),
        (["verify", "{a}", "{a}", "--ids", "1,97"], "prompt id 97 is not in the vocabulary"),
        (["verify", "{a}", "{a}", "--ids", "-1"], "is not in the vocabulary"),
    ],
)
def test_bad_input_exits_with_2_and_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_fixture(tmp_path, fixture_config(LLAMA))
    assert main([argument.format(a=tmp_path) for argument in arguments]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.startswith("error: ")
    assert "Traceback" not in shown.err


# --- verify


class Pair:
    """A fixture and a changed copy of it, and what verify says of the two."""

    def __init__(self, place: Path, architecture: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.config = fixture_config(architecture)
        self.tensors = fixture_tensors(self.config)
        self.a, self.b, self.capsys = write_fixture(place / "a", self.config), place / "b", capsys

    def verdict(self, **options: Any) -> tuple[int, str, str]:
        """Exit status, the last line, and all that was printed."""
        self.b.mkdir(exist_ok=True)
        (self.b / "config.json").write_text(json.dumps(self.config))
        save_file({n: t.contiguous() for n, t in self.tensors.items()}, self.b / "model.safetensors", {"format": "pt"})
        status = verify_command(str(self.a), str(self.b), **options)
        text = self.capsys.readouterr().out
        return status, text.strip().splitlines()[-1], text

    def swap_heads(self, name: str, rows: slice, others: slice) -> None:
        """Exchange two heads' rows of a matrix (columns, where the family stores it the other way round)."""
        matrix = self.tensors[name] if self.config["model_type"] != "gpt2" else self.tensors[name].T
        kept = matrix[rows].clone()
        matrix[rows] = matrix[others]
        matrix[others] = kept


@pytest.fixture(params=[LLAMA, GEMMA3, MIXTRAL, GPT2, "Olmo2ForCausalLM", "Qwen3MoeForCausalLM"])
def pair(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Pair:
    return Pair(tmp_path, request.param, capsys)


def test_verify_says_same_of_an_identical_copy(pair: Pair) -> None:
    status, last, _ = pair.verdict()
    assert status == 0
    assert last == "SAME: the largest relative error is 0.0e+00"


def test_verify_names_the_first_norm_when_eps_is_another(pair: Pair) -> None:
    key = "layer_norm_epsilon" if pair.config["model_type"] == "gpt2" else "rms_norm_eps"
    pair.config[key] *= 1.01
    status, last, _ = pair.verdict()
    first = "self_attn.q_norm" if pair.config["model_type"] == "olmo2" else "input_layernorm"
    assert status == 1
    assert last.startswith(f"DIFFERENT: layers.0.{first} and ")


def test_verify_names_the_rotation_when_theta_is_another(pair: Pair) -> None:
    if pair.config["model_type"] == "gpt2":  # it has a table of positions instead
        pair.tensors["transformer.wpe.weight"][1] *= 1.01
        assert pair.verdict()[1] == "DIFFERENT: embed_positions"
        return
    if "rope_parameters" in pair.config:
        ropes = pair.config["rope_parameters"]
        ropes.get("sliding_attention", ropes)["rope_theta"] *= 1.01
    else:
        pair.config["rope_theta"] *= 1.01
    status, last, _ = pair.verdict()
    assert status == 1
    assert last == "DIFFERENT: rotary.0"


def test_verify_names_the_projection_when_two_heads_are_swapped(pair: Pair) -> None:
    name = (
        "transformer.h.1.attn.c_attn.weight"
        if pair.config["model_type"] == "gpt2"
        else "model.layers.1.self_attn.q_proj.weight"
    )
    pair.swap_heads(name, slice(0, 8), slice(40, 48))
    status, last, _ = pair.verdict()
    assert status == 1
    assert last == "DIFFERENT: layers.1.self_attn.q_proj"


def test_verify_names_the_norm_whose_weight_is_another(pair: Pair) -> None:
    gpt2 = pair.config["model_type"] == "gpt2"
    pair.tensors["transformer.h.1.ln_2.weight" if gpt2 else "model.layers.1.post_attention_layernorm.weight"][3] += 1e-3
    status, last, _ = pair.verdict()
    assert status == 1
    assert last == "DIFFERENT: layers.1.post_attention_layernorm"


def test_verify_names_the_head_when_it_is_its_own_instead_of_the_tied_one(pair: Pair) -> None:
    embedding = pair.tensors["transformer.wte.weight" if pair.config["model_type"] == "gpt2" else "model.embed_tokens.weight"]
    tied = {n: t for n, t in pair.tensors.items() if n != "lm_head.weight"}
    pair.a = pair.a.parent / "tied"
    pair.a.mkdir()
    (pair.a / "config.json").write_text(json.dumps(pair.config | {"tie_word_embeddings": True}))
    save_file(tied, pair.a / "model.safetensors", {"format": "pt"})
    pair.config["tie_word_embeddings"] = False
    pair.tensors = {**tied, "lm_head.weight": embedding.clone()}
    assert pair.verdict()[0] == 0  # a copy of the embedding is the same function
    pair.tensors["lm_head.weight"] = embedding.flip(0)
    status, last, _ = pair.verdict()
    assert status == 1
    assert last == "DIFFERENT: lm_head"


def test_verify_names_two_differences_at_once(pair: Pair) -> None:
    gpt2 = pair.config["model_type"] == "gpt2"
    pair.tensors["transformer.h.0.ln_2.weight" if gpt2 else "model.layers.0.post_attention_layernorm.weight"][3] += 1e-3
    pair.tensors["transformer.h.2.attn.c_proj.weight" if gpt2 else "model.layers.2.self_attn.o_proj.weight"][3] *= 1.001
    status, last, text = pair.verdict()
    named = text.partition("B's modules on A's inputs")[2]
    assert status == 1
    assert last == "DIFFERENT: layers.0.post_attention_layernorm and 1 more"
    assert "layers.0.post_attention_layernorm" in named
    assert "layers.2.self_attn.o_proj" in named


@pytest.mark.parametrize(
    ("architecture", "changes", "tensor_changes", "want"),
    [
        (GEMMA3, {"query_pre_attn_scalar": 8}, {}, "layers.0.self_attn.attend.scores"),
        ("Gemma2ForCausalLM", {"attn_logit_softcapping": 2.1}, {}, "layers.0.self_attn.attend.scores"),
        ("MistralForCausalLM", {"sliding_window": 6}, {}, "between layers.0.input_layernorm and layers.0.self_attn.weights"),
        ("Gemma2ForCausalLM", {"final_logit_softcapping": 1.8}, {}, "between norm and logits"),
        (GPT2, {"activation_function": "gelu"}, {}, "layers.0.mlp"),
        (MIXTRAL, {"num_experts_per_tok": 3}, {}, "layers.0.mlp"),
        ("Qwen3MoeForCausalLM", {"norm_topk_prob": True}, {}, "layers.0.mlp"),
        (MIXTRAL, {}, {"model.layers.1.block_sparse_moe.gate.weight": 1.01}, "layers.1.mlp.gate"),
        (MIXTRAL, {}, {"model.layers.1.block_sparse_moe.experts.2.w2.weight": 1.01}, "layers.1.mlp.experts.2.down_proj"),
        (LLAMA, {}, {"model.layers.2.self_attn.k_proj.bias": 1.01}, "layers.2.self_attn.k_proj"),
        (LLAMA, {}, {"model.embed_tokens.weight": 1.01}, "embed_tokens"),
        (LLAMA, {}, {"model.norm.weight": 1.01}, "norm"),
    ],
)
def test_verify_names_the_place_of_any_other_difference(
    architecture: str,
    changes: dict[str, Any],
    tensor_changes: dict[str, float],
    want: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pair = Pair(tmp_path, architecture, capsys)
    pair.config |= changes
    for name, factor in tensor_changes.items():
        pair.tensors[name] *= factor
    status, last, _ = pair.verdict()
    assert status == 1
    assert want in last.removeprefix("DIFFERENT: ")


def test_verify_sees_a_square_matrix_stored_the_other_way_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = Pair(tmp_path, GPT2, capsys)  # no check of shapes can see it
    pair.tensors["transformer.h.1.attn.c_proj.weight"] = pair.tensors["transformer.h.1.attn.c_proj.weight"].T
    assert pair.verdict()[1] == "DIFFERENT: layers.1.self_attn.o_proj"


def test_verify_compares_with_transformers_by_taps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_fixture(tmp_path / "a", fixture_config(LLAMA))
    other = write_fixture(tmp_path / "b", fixture_config(LLAMA, rms_norm_eps=3.1e-3))
    assert verify_command(f"transformers:{folder}", str(folder)) == 0
    assert "SAME" in capsys.readouterr().out
    assert verify_command(f"transformers:{folder}", str(other)) == 1
    assert capsys.readouterr().out.strip().endswith("DIFFERENT: between embeddings and layers.0.input_layernorm")


def test_verify_of_models_of_different_depth_says_different(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(write_fixture(tmp_path / str(n), fixture_config(LLAMA, num_hidden_layers=n))) for n in (2, 3)]
    for a, b in (folders, folders[::-1]):
        assert verify_command(a, b) == 1
        assert "DIFFERENT" in capsys.readouterr().out


def test_verify_judges_by_the_bar_and_prompt_it_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = Pair(tmp_path, LLAMA, capsys)
    unused = next(i for i in range(97) if i not in (5, 6, 7))
    pair.tensors["model.embed_tokens.weight"][unused] += 1.0
    assert pair.verdict(prompt=[5, 6, 7])[0] == 0  # the changed row is never read
    assert pair.verdict(prompt=[5, unused])[0] == 1
    assert pair.verdict(prompt=[5, unused], bar=1e3)[0] == 0
    assert pair.verdict(prompt=[5, 6, 7], dtype="bfloat16")[0] == 0


def test_every_module_with_weights_is_replayed(tmp_path: Path) -> None:
    for architecture in FIXTURES:
        model = load_model(write_fixture(tmp_path / architecture, fixture_config(architecture)))
        replayed = {id(p) for module in small_modules(model).values() for p in module.parameters()}
        assert replayed == {id(p) for p in model.parameters()}


def test_recorded_and_live_oracle_taps_have_the_same_names(tmp_path: Path) -> None:
    oracle = load_oracle(write_fixture(tmp_path, fixture_config(GPT2)))
    ids = torch.arange(4)[None]
    with torch.no_grad(), float64_everywhere():
        taps = oracle_taps(oracle, lambda: oracle(ids).logits)
    assert taps.keys() == load_golden(GPT2).part("near").keys()


def test_attention_is_eager_only_inside(tmp_path: Path) -> None:
    model = load_model(write_fixture(tmp_path, fixture_config(LLAMA)))
    with pytest.raises(RuntimeError, match="stop"), eager_attention(model):
        assert {layer.self_attn.attend.implementation for layer in blocks(model)} == {"eager"}
        stop()
    assert {layer.self_attn.attend.implementation for layer in blocks(model)} == {"sdpa"}
    assert isinstance(model, nn.Module)

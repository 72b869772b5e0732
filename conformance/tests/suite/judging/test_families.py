"""The table of families and the doctor: the runtime passes its goldens, wrong runtimes don't."""

import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conformance.__main__ import main
from conformance.engines.adapters import nanollama as adapter
from conformance.judging import doctor
from conformance.judging.families import PROMPTS, family_errors, family_results, run_golden, within_bars
from conformance.models.fixtures import FIXTURES
from conformance.requirements.results import FamilyErrors, Verdict
from conformance.truth.compare import SEMANTIC_BAR
from conformance.truth.golden import LOW_PRECISIONS, load_golden
from conformance.truth.taps import blocks
from nanollama.lm import load_model
from nanollama.model.layers import LayerNorm, RMSNorm
from nanollama.model.transformer import Transformer

NAN = math.nan
LLAMA, GEMMA3, MIXTRAL, GPT2 = "LlamaForCausalLM", "Gemma3ForCausalLM", "MixtralForCausalLM", "GPT2LMHeadModel"
EVERY = pytest.mark.parametrize("architecture", FIXTURES)


def measured(architecture: str, *dtypes: str, live: bool = False) -> FamilyErrors:
    """The runtime beside a golden, in float64 if no dtype is named."""
    golden = load_golden(architecture)
    with tempfile.TemporaryDirectory() as folder:
        outputs = {
            dtype: run_golden(adapter.Nanollama(dtype), golden, Path(folder), PROMPTS if dtype == "float64" else ("near",))
            for dtype in dtypes or ("float64",)
        }
        return family_errors(golden, outputs, Path(folder) if live else None)


# --- wrong engines


def seeded(monkeypatch: pytest.MonkeyPatch, damage: Callable[[Transformer], None]) -> None:
    """From here on every model that the run loads is damaged."""

    def load(*arguments: Any) -> Transformer:
        model = load_model(*arguments)
        damage(model)
        return model

    monkeypatch.setattr(adapter, "load_model", load)


def null(model: Transformer) -> None:
    for parameter in model.parameters():
        parameter.zero_()


def noisy(model: Transformer) -> None:
    random = torch.Generator().manual_seed(6)
    for parameter in model.parameters():
        parameter.mul_(1 + 1e-8 * torch.randn(parameter.shape, generator=random).to(parameter.dtype))


def broken(model: Transformer) -> None:
    model.norm.get_parameter("weight")[0] = NAN


def other_eps(model: Transformer) -> None:
    for module in model.modules():
        if isinstance(module, (RMSNorm, LayerNorm)):
            module.eps *= 1.01


def silent(model: Transformer) -> None:
    """Answers of the right shape that have nothing to do with the question."""
    model.lm_head.register_forward_hook(lambda module, args, out: out.flip(1))


@EVERY
def test_the_runtime_itself_passes_its_golden(architecture: str) -> None:
    errors = measured(architecture)
    assert errors.good
    assert errors.golden is not None
    assert errors.golden <= SEMANTIC_BAR
    assert errors.taps > 20


def test_the_runtime_itself_passes_against_live_transformers() -> None:
    errors = measured(GEMMA3, "float64", *LOW_PRECISIONS, live=True)
    assert errors.good
    assert errors.transformers is not None
    assert errors.ratios.keys() == {"float32", "bfloat16", "float16"}


@EVERY
@pytest.mark.parametrize("damage", [null, noisy, broken, other_eps, silent])
def test_a_wrong_engine_is_flagged(
    architecture: str, damage: Callable[[Transformer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeded(monkeypatch, damage)
    errors = measured(architecture)
    assert not errors.good
    assert errors.first_beyond
    assert errors.golden is not None
    assert errors.golden > 10 * SEMANTIC_BAR


@pytest.mark.parametrize("damage", [null, broken, silent])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_wrong_engine_is_flagged_in_low_precision_too(
    dtype: str, damage: Callable[[Transformer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeded(monkeypatch, damage)
    assert not measured(MIXTRAL, dtype).good


def test_a_small_bug_hides_in_bfloat16_and_not_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:  # why semantics come first
    seeded(monkeypatch, other_eps)
    assert measured(LLAMA, "bfloat16").good
    assert not measured(LLAMA).good


def test_the_first_divergence_is_the_first_module_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded(monkeypatch, other_eps)
    assert measured(LLAMA).first_beyond == "near/layers.0.input_layernorm"
    seeded(monkeypatch, lambda model: blocks(model)[2].mlp.up_proj.weight.mul_(1.001))
    assert measured(LLAMA).first_beyond == "near/layers.2.mlp"


def test_errors_without_a_comparison_are_not_good() -> None:
    assert not within_bars(FamilyErrors(LLAMA))
    assert not within_bars(FamilyErrors(LLAMA, golden=0.0, taps=0))
    assert within_bars(FamilyErrors(LLAMA, golden=0.0, taps=1))
    assert not within_bars(FamilyErrors(LLAMA, golden=NAN, taps=1))
    assert within_bars(FamilyErrors(LLAMA, ratios={"bfloat16": 2.0}))
    assert not within_bars(FamilyErrors(LLAMA, ratios={"bfloat16": 2.1}))
    assert not within_bars(FamilyErrors(LLAMA, ratios={"bfloat16": NAN}))


def test_a_family_beyond_a_bar_fails_its_requirement() -> None:
    wrong = FamilyErrors(LLAMA, golden=NAN, taps=9, first_beyond="far/layers.0.mlp", ratios={"float32": 2.1, "bfloat16": 1.0})
    found = {(r.requirement, r.test): (r.verdict, r.place) for r in family_results(wrong, "float64")}
    assert found == {
        ("NUMR-001", "golden"): (Verdict.FAIL, "layers.0.mlp"),
        ("NUMR-002", "golden in float32"): (Verdict.FAIL, "logits"),
        ("NUMR-002", "golden in bfloat16"): (Verdict.PASS, "logits"),
    }
    assert [r.test for r in family_results(FamilyErrors(LLAMA, ratios={"bfloat16": 9.0}), "bfloat16")] == []


# --- commands


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No checkpoint to generate text with."""
    for name in ("NANOLLAMA_DATA", "NANOLLAMA_MODEL"):
        monkeypatch.delenv(name, raising=False)


def test_run_exits_with_0_for_a_pass_and_1_for_a_failure(
    alone: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "--no-transformers", "--family", GPT2]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "CONFORMS AS FAR AS JUDGED" in printed and f"\n{GPT2} " in printed
    assert "golden  worst tap" in printed and "no text: no model was given" in printed
    seeded(monkeypatch, other_eps)
    assert main(command) == 1
    assert "DOES NOT CONFORM" in capsys.readouterr().out


def test_run_as_json_has_the_same_table(
    alone: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seeded(monkeypatch, null)
    assert main(["run", "--family", GPT2, "--json"]) == 1
    run = json.loads(capsys.readouterr().out)
    (errors,) = run["families"]
    assert (errors["architecture"], errors["good"]) == (GPT2, False)
    assert errors["transformers"] >= errors["golden"] * 0.5
    assert {r["verdict"] for r in run["results"] if r["test"].startswith("golden")} == {"FAIL"}


def test_doctor_exits_with_0_for_healthy_and_1_for_sick(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "FIXTURES", {LLAMA: FIXTURES[LLAMA]})
    assert main(["doctor", "--device", "cpu"]) == 0
    assert "HEALTHY: 1 of 1 families" in capsys.readouterr().out
    seeded(monkeypatch, null)
    assert main(["doctor", "--device", "cpu"]) == 1
    assert f"NOT HEALTHY: {LLAMA}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--family", "Falcon"], "there is no family 'Falcon'"),
        (["doctor", "--device", "abacus"], "device 'abacus' is not known"),
    ],
)
def test_an_unknown_family_or_device_exits_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")

"""Detectability: what a run would have caught, what it could not, and that each designed probe lets it catch less."""

from dataclasses import replace

import pytest
import torch

from conformance.diagnosis.causes.tolerances import float64_excess, floor_excess
from conformance.diagnosis.detectability.__main__ import main
from conformance.diagnosis.detectability.fields import Field, fields_of
from conformance.diagnosis.detectability.probes import Probe, designed, loud_rows, prompt_of, prompts, tiny_rows
from conformance.diagnosis.detectability.smallest_change import detectability, scene_of, smallest
from conformance.models.fixtures import FIXTURES
from conformance.requirements.results import Detectable
from conformance.truth.cases import Case, case
from conformance.truth.reference import Reference

LLAMA, GEMMA, QWEN, PHI, MOE = (f"{name}ForCausalLM" for name in ("Llama", "Gemma2", "Qwen2", "Phi3", "Qwen3Moe"))


def seen(this: Case, name: str, *probes: Probe) -> Detectable:
    """What these probes see of one field, in float64."""
    (field,) = [field for field in fields_of(this.spec) if field.name == name]
    return smallest(this.name, field, [scene_of(this, probe, float64_excess(), lambda tap: True) for probe in probes])


def with_fields(family: str, **fields: float) -> Case:
    """A family with other numbers: of the size that real models have."""
    spec = replace(case(family).spec, **fields)  # type: ignore[arg-type]
    return replace(case(family), spec=spec, truth=Reference(spec, case(family).truth.tensors))


def test_a_change_by_what_is_said_is_caught_and_by_a_third_of_it_is_not() -> None:
    this, probe = case(LLAMA), Probe("near", prompt_of(case(LLAMA), "near"))
    found = seen(this, "rms_norm_eps", probe)
    assert found.smallest is not None and 0 < found.smallest < 1e-6
    ids, positions = torch.tensor(probe.prompt.ids), torch.tensor(probe.prompt.positions)
    right = this.truth.run(ids, positions)
    for share, beyond in ((1.0, True), (1 / 3, False)):
        eps = this.spec.eps * (1 + share * found.smallest)
        wrong = Reference(replace(this.spec, eps=eps), this.truth.tensors).run(ids, positions)
        x, y = wrong[found.place], right[found.place]  # the first norm: nothing before it is off
        assert (float(((x - y).abs().amax(-1) / y.abs().amax(-1)).max()) > 1e-10) is beyond


@pytest.mark.parametrize(
    ("family", "field", "ordinary", "made"),
    [
        (LLAMA, "rms_norm_eps", "near", "tiny"),
        (LLAMA, "rope_theta", "near", "far"),
        (LLAMA, "factor", "near", "far"),
        (LLAMA, "low_freq_factor", "near", "far"),
        (LLAMA, "high_freq_factor", "near", "far"),
        (QWEN, "factor", "near", "far"),
        (GEMMA, "rope_theta", "far", "loud"),
        (GEMMA, "attn_logit_softcapping", "near", "loud"),
        (GEMMA, "final_logit_softcapping", "near", "loud"),
        (PHI, "attention_factor", "near", "loud"),
    ],
)
def test_a_designed_probe_catches_a_smaller_change_than_an_ordinary_input(
    family: str, field: str, ordinary: str, made: str
) -> None:
    caps = {"attention_cap": 50.0, "logit_cap": 30.0} if family == GEMMA else {}  # which ordinary values don't come near
    this, plain = with_fields(family, **caps), Probe(ordinary, prompt_of(case(family), ordinary))
    probes = {
        "tiny": tiny_rows(this, plain.prompt),
        "far": Probe("far", prompt_of(this, "far")),
        "loud": loud_rows(this, plain),
    }
    before, after = seen(this, field, plain).smallest, seen(this, field, probes[made]).smallest
    assert before is not None and after is not None and after < before


@pytest.mark.parametrize(("family", "field"), [(GEMMA, "sliding_window"), (PHI, "long_factor")])
def test_what_a_short_prompt_cannot_see_is_none_and_says_what_it_takes(family: str, field: str) -> None:
    short = seen(case(family), field, Probe("within", prompt_of(case(family), "within")))
    assert short.smallest is None and short.place == ""
    assert "longer than the window" in short.needs or "beyond" in short.needs
    assert seen(case(family), field, *prompts(case(family))).smallest is not None


def test_a_number_that_changes_nothing_is_never_caught() -> None:
    idle = Field("idle", 1.0, lambda r: {}, "an effect")
    this = case(LLAMA)
    found = smallest(LLAMA, idle, [scene_of(this, probe, float64_excess(), lambda tap: True) for probe in prompts(this)])
    assert (found.smallest, found.needs) == (None, "an effect")


@pytest.mark.parametrize("family", FIXTURES)
def test_this_run_sees_every_number_of_every_family(family: str) -> None:
    this: Case = case(family)
    names = [field.name for field in fields_of(this.spec)]
    assert len(set(names)) == len(names)
    fixed = [replace_steps(field) for field in fields_of(this.spec)]
    scenes = [scene_of(this, probe, float64_excess(), lambda tap: True) for probe in designed(this)]
    assert [field.name for field in fixed if smallest(family, field, scenes).smallest is None] == []


def replace_steps(field: Field) -> Field:
    """Caught at ten per cent or not: no search."""
    by = {"beta_fast": 4.0, "beta_slow": 4.0, "original_max_position_embeddings": 9.0}.get(field.name, 0.1)
    return replace(field, change=lambda r: field.change(by), step=by * (abs(field.value) or 1.0))


def test_logits_alone_and_lower_precision_see_less() -> None:
    this = case(GEMMA)
    by_name = {
        what: {found.field: found.smallest or 9.0 for found in detectability(this, prompts(this), excess, shows)}
        for what, excess, shows in (
            ("taps", float64_excess(), lambda tap: True),
            ("logits", float64_excess(), {"logits"}.__contains__),
            ("bfloat16", floor_excess("bfloat16"), lambda tap: True),
        )
    }
    assert by_name["logits"]["rms_norm_eps"] > by_name["taps"]["rms_norm_eps"]
    assert by_name["bfloat16"]["rope_theta"] > 1e6 * by_name["taps"]["rope_theta"]


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--family", MOE]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{MOE}, float64"
    assert any(line.startswith("num_experts_per_tok") for line in lines)

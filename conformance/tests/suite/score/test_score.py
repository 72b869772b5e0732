"""The score scores: a bug that a check sees is killed and placed, one that none sees survives, and decoys must pass."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from conformance.checks import Check, Failed, all_checks
from conformance.models.fixtures import FIXTURES
from conformance.score.controls import CONTROL_CHECK, VoidScore, changed_logits, comparing_nothing, flagged, run_controls
from conformance.score.impact import functions_run, reached, survey
from conformance.score.judge import Jury, Result, judge_bugs
from conformance.score.report import needs_a_look, on_models
from conformance.score.zoo.seeding import Bug, Edit
from nanollama.model.layers import RMSNorm, softcap

LLAMA, GEMMA = "LlamaForCausalLM", "Gemma2ForCausalLM"
FORWARD = "nanollama.model.layers:RMSNorm.forward"
EPS = Bug("no-eps", "semantic", "layernorm", "own", "No epsilon.", "normalisation", (Edit(FORWARD, "+ self.eps", ""),))


def norm_of_zeros() -> None:
    """0 / sqrt(0 + eps) is 0; without eps it is not a number."""
    norm = RMSNorm(4, 1e-5)
    norm.weight.data = torch.ones(4)
    if not norm(torch.zeros(1, 4)).isfinite().all():
        raise Failed("layers.0.input_layernorm", "not finite")


def cap_of_zero() -> None:
    """softcap(0) is 0."""
    if softcap(torch.zeros(1), 3.0).item():
        raise Failed("softcap", "not 0")


def named(run: Callable[[], None], case: str = "") -> Check:
    """A check by the name of its function."""
    return Check(run.__name__ + (f"[{case}]" if case else ""), ("NORM-001",), "normalisation", run, case)


CHECKS = [named(cap_of_zero), named(norm_of_zeros)]


def scored(bug: Bug, *checks: Check, **options: Any) -> Result:
    """The one result of scoring one bug."""
    impact = {check.name: functions_run(check.run) for check in (checks or CHECKS)}
    (result,) = judge_bugs([bug], Jury(checks or CHECKS, impact, **options))
    return result


def a_bug(name: str, module: str, *edits: Edit, kind: str = "semantic", area: str = "normalisation") -> Bug:
    """An entry of the zoo."""
    return Bug(name, kind, module, "own", "It is wrong.", area, edits)


# --- judging


def test_a_bug_that_a_check_sees_is_killed_and_placed() -> None:
    result = scored(EPS)
    assert (result.killed_by, result.place, result.localised) == ("norm_of_zeros", "layers.0.input_layernorm", True)
    norm_of_zeros()  # the bug was in another process


def test_a_bug_at_another_place_than_the_zoo_says_is_not_localised() -> None:
    result = scored(a_bug("no-eps", "rotary", *EPS.edits))
    assert result.killed and not result.localised
    assert list(needs_a_look([result], {})) == [
        "ELSEWHERE   no-eps (normalisation): norm_of_zeros names layers.0.input_layernorm"
    ]


def test_a_bug_that_no_check_sees_survives_and_its_reason_is_told() -> None:
    harmless = scored(a_bug("rounder", "norm", Edit(FORWARD, "self.eps", "2 * self.eps")))
    assert not harmless.killed
    assert list(needs_a_look([harmless], {})) == ["SURVIVES    rounder (normalisation), 1 checks: NOT EXPLAINED"]
    assert "1 checks: because" in next(needs_a_look([harmless], {"rounder": "because"}))


def test_a_killed_bug_must_not_be_explained() -> None:
    assert list(needs_a_look([scored(EPS)], {"no-eps": "x"})) == [
        "EXPLAINED   no-eps is killed by norm_of_zeros; remove it from survivors.toml"
    ]


def test_only_checks_that_run_the_function_are_run() -> None:
    impact = {check.name: functions_run(check.run) for check in CHECKS}
    assert FORWARD in impact["norm_of_zeros"] and FORWARD not in impact["cap_of_zero"]
    assert [check.name for check in reached(EPS, CHECKS, impact)] == ["norm_of_zeros"]
    assert scored(EPS).checks == 1


def test_the_check_that_killed_a_bug_the_last_time_is_asked_first() -> None:
    both = [named(norm_of_zeros), named(norm_of_zeros, GEMMA)]
    assert scored(EPS, *both).killed_by == "norm_of_zeros"
    assert scored(EPS, *both, first={"no-eps": f"norm_of_zeros[{GEMMA}]"}).killed_by == f"norm_of_zeros[{GEMMA}]"
    assert scored(EPS, *both, first={"no-eps": "gone"}).killed_by == "norm_of_zeros"


def test_what_tells_precision_policies_from_ours_is_asked_about_nothing_else() -> None:
    strict = dataclasses.replace(named(norm_of_zeros), policies=True)
    policy = a_bug("policy", "layernorm", *EPS.edits, kind="precision")
    assert scored(policy, strict).killed and not scored(EPS, strict).killed


def test_a_table_is_seen_by_every_check() -> None:
    gelu = a_bug("gelu", "mlp", Edit("nanollama.model.activations:ACTIVATIONS", '"silu": F.silu', '"silu": F.gelu'))
    assert len(reached(gelu, CHECKS, {check.name: frozenset() for check in CHECKS})) == len(CHECKS)


def test_after_the_first_kill_the_other_cases_of_that_check_tell_where_else_it_shows() -> None:
    checks = [
        named(norm_of_zeros, LLAMA),
        named(cap_of_zero, GEMMA),
        named(norm_of_zeros, GEMMA),
        named(norm_of_zeros, "another"),
    ]
    result = scored(EPS, *checks)
    assert result.killed_by == f"norm_of_zeros[{LLAMA}]"
    assert result.cases == {LLAMA: "layers.0.input_layernorm", GEMMA: "layers.0.input_layernorm"}
    assert on_models([result]).startswith("bug x model fixture: 2 of 2 killed")
    assert scored(EPS, *checks, cases=False).cases == {}


def test_a_bug_that_ends_the_process_is_killed() -> None:
    dies = Edit(FORWARD, "wide = x", "__import__('os')._exit(3)\n    wide = x")
    assert scored(a_bug("dies", "layernorm", dies)).killed_by == "the process died"


def test_what_was_said_before_the_process_died_counts() -> None:
    """Killed in the first case; the second, which only says where else it shows, ends the process."""

    def deadly() -> None:
        try:
            norm_of_zeros()
        except Failed:
            __import__("os")._exit(3)

    deadly.__name__ = "norm_of_zeros"
    result = scored(EPS, named(norm_of_zeros, LLAMA), named(deadly, GEMMA))
    assert result.killed_by == f"norm_of_zeros[{LLAMA}]" and result.cases == {}


def test_a_bug_that_hangs_is_killed_where_it_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conformance.score.judge.CPU_LIMIT", 1)
    hangs = Edit(FORWARD, "wide = x", "while True: pass\n    wide = x")
    result = scored(a_bug("hangs", "RMSNorm", hangs), named(judged_norm))
    assert result.killed and "longer than 1 s" in result.detail


def judged_norm() -> None:
    """As the decorator does it: what the runtime raises is a failure."""
    try:
        norm_of_zeros()
    except TimeoutError as error:
        raise Failed("model.layers.RMSNorm.forward", str(error)) from error


def test_when_the_time_is_up_nothing_is_begun_and_what_runs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    impact = {check.name: functions_run(check.run) for check in CHECKS}
    assert list(judge_bugs([EPS], Jury(CHECKS, impact, deadline=time.perf_counter()))) == []
    monkeypatch.setattr("conformance.score.judge.GRACE", 0)
    hangs = a_bug("hangs", "RMSNorm", Edit(FORWARD, "wide = x", "while True: pass\n    wide = x"))
    assert list(judge_bugs([hangs], Jury(CHECKS, impact, deadline=time.perf_counter() + 0.2))) == []


def test_a_survey_runs_every_check_once_and_stops_when_the_time_is_up() -> None:
    found = survey(CHECKS)
    assert list(found) == ["cap_of_zero", "norm_of_zeros"]
    assert FORWARD in found["norm_of_zeros"].functions and found["norm_of_zeros"].seconds > 0
    assert survey(CHECKS, time.perf_counter()) == {}


# --- controls


def test_a_broken_engine_is_undone_afterwards() -> None:
    from nanollama.model.transformer import Transformer

    forward = Transformer.forward
    with changed_logits(torch.zeros_like):
        assert Transformer.forward is not forward
    assert Transformer.forward is forward


def test_the_check_that_judges_controls_exists_for_every_family() -> None:
    assert [check.case for check in all_checks() if check.function == CONTROL_CHECK] == list(FIXTURES)


def test_a_control_that_passes_on_one_family_makes_the_score_void() -> None:
    good = Result("null_engine", "control", "controls", CONTROL_CHECK, "x", cases={"a": "model", "b": "model"})
    assert flagged(good, 2) == "flagged on 2 of 2 families"
    for cases in ({"a": "model", "b": ""}, {"a": "model"}, {}):
        with pytest.raises(VoidScore, match="null_engine was flagged on"):
            flagged(Result("null_engine", "control", "controls", CONTROL_CHECK, "x", cases=cases), 2)


def test_controls_are_engines_judged_by_every_family() -> None:
    """Two families stand for all: one whose check sees the logits, one whose check looks away."""

    def seeing() -> None:
        from conformance.truth.cases import case

        logits = case("LlamaForCausalLM").load()(torch.arange(1, 6)[None])
        if abs(float(logits.sum()) - right) > 1e-9:
            raise Failed("model.transformer.Transformer.forward", "wrong")

    from conformance.truth.cases import case

    right = float(case("LlamaForCausalLM").load()(torch.arange(1, 6)[None]).sum())
    families = [Check(f"{CONTROL_CHECK}[{name}]", ("HEAD-001",), "head", seeing, name) for name in (LLAMA, GEMMA)]
    found = run_controls(families, {check.name: frozenset() for check in families}, 1)
    assert found == {
        **dict.fromkeys(("null_engine", "constant_engine", "noisy_engine"), "flagged on 2 of 2 families"),
        "check_without_comparisons": "failed",
    }
    blind = [families[0], Check(f"{CONTROL_CHECK}[{GEMMA}]", ("HEAD-001",), "head", lambda: None, GEMMA)]
    with pytest.raises(VoidScore, match="1 of 2 families only"):
        run_controls(blind, {check.name: frozenset() for check in blind}, 1)
    with pytest.raises(VoidScore, match="none of the 0 checks"):
        run_controls([], {}, 1)


def test_a_check_without_comparisons_that_passed_would_make_the_score_void(monkeypatch: pytest.MonkeyPatch) -> None:
    assert comparing_nothing() == "failed"
    monkeypatch.setattr("conformance.score.controls.judged", lambda body: body())
    with pytest.raises(VoidScore, match="compares nothing has passed"):
        comparing_nothing()

"""The tests of a model themselves: what is right passes at every level, what is wrong is found, named where it can be, and
never called more than it is."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from conformance.checks import Check, Failed
from conformance.engines.subject import subject
from conformance.judging.bars import WORKLOAD, Bars
from conformance.judging.controls import ReferenceEngine, controls, right
from conformance.judging.evidence.case_comparison import CaseComparison
from conformance.judging.evidence.coverage import COVERAGE, NEXT_KIND, covered, shown_kind
from conformance.judging.evidence.feature_ablation import ablate, switches
from conformance.judging.judge_engine import cases_of, flagged, judge_engine
from conformance.judging.runtime_checks import check_results, not_judged
from conformance.numerics.statistics import Statistics
from conformance.requirements.requirement import load_requirements
from conformance.requirements.results import About, Result, Run, Verdict, worst
from conformance.truth.spec import Spec
from nanollama.errors import NanollamaError

OLMO, GEMMA, MIXTRAL = "Olmo2ForCausalLM", "Gemma2ForCausalLM", "MixtralForCausalLM"
EVERYTHING = ("L2", "L3", "L4")


class Limited(ReferenceEngine):
    """The truth, or a misreading of it, that shows less than it could."""

    def __init__(self, levels: tuple[str, ...], misread: Callable[[Spec], Spec] = lambda spec: spec, dtype: str = "float64"):
        super().__init__(dtype, right, misread)
        self.levels = levels

    def about(self) -> About:
        return replace(super().about(), levels=self.levels)


def misreading(**changes: object) -> Callable[[Spec], Spec]:
    return lambda spec: replace(spec, **changes)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def without_diagnosis(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Causes and detectability take seconds, and are asked for in one test."""
    if "cause" not in request.node.name:
        monkeypatch.setattr("conformance.judging.judge_engine.likely", lambda comparisons: [])
        monkeypatch.setattr("conformance.judging.judge_engine.detectable", lambda comparisons: [])


def bad(run: Run) -> dict[str, Verdict]:
    """The gravest verdict of every requirement that is not fulfilled."""
    names = {result.requirement for result in run.results if not result.verdict.good}
    return {name: worst(r for r in run.results if r.requirement == name) for name in names}


# The table of what shows where


def test_every_exercise_is_of_a_requirement_that_is_judged() -> None:
    known = load_requirements()
    assert all(known[entry.requirement].is_judged for entry in COVERAGE)
    assert len({entry.requirement for entry in COVERAGE}) == len(COVERAGE)


def test_every_exercise_happens_somewhere() -> None:
    seen = set()
    for case in cases_of(()):
        for dtype in ("float64", "bfloat16") if case == "LlamaForCausalLM" else ("float64",):
            found = CaseComparison(Limited(("L2",), dtype=dtype), subject(case, dtype), Bars(dtype, "cpu"))
            found.engine.load(found.subject.case.folder)
            seen |= {requirement for o in found.everything() for requirement, _ in o.covers}
    assert seen == {entry.requirement for entry in COVERAGE}


def test_a_kind_that_is_not_shown_shows_at_the_next_that_is() -> None:
    assert shown_kind("weights", {"context", "whole"}) == "context"
    assert shown_kind("weights", {"block", "whole"}) == "block"
    assert {shown_kind(kind, {"whole"}) for kind in NEXT_KIND} == {"whole"}


def test_logits_alone_speak_of_everything_and_a_layer_of_itself() -> None:
    gemma = subject(GEMMA, "float64")
    alone = {requirement for requirement, _ in covered(gemma, "near", "whole", -1, {"whole"})}
    assert {"ATTN-005", "EMBD-002", "HEAD-002", "NORM-003", "WIND-001"} <= alone
    assert not {"MOE-001", "NORM-002", "ROPE-005"} & alone
    shown = {"weights", "context", "whole"}
    full, sliding = ({requirement for requirement, _ in covered(gemma, "near", "weights", i, shown)} for i in (1, 0))
    assert sliding - full == {"WIND-001"}
    assert {requirement for requirement, _ in covered(gemma, "near", "mask", 1, {*shown, "mask"})} == {"MASK-001", "WIND-002"}


# Bars


def test_float64_has_one_bar_and_rows_of_infinity_must_agree() -> None:
    bars, want = Bars("float64", "cpu"), {"norm": torch.tensor([[1.0, -4.0]], dtype=torch.float64)}
    assert bars.read("norm", [want["norm"] + 4e-11], [want], True).fits
    assert not bars.read("norm", [want["norm"] + 1e-9], [want], True).fits
    assert bars.read("norm", [want["norm"] + 6e-10], [want], True, slack=2).fits
    assert bars.read("norm", [want["norm"][:, :1]], [want], True).error == torch.inf


def test_the_floor_leaves_more_room_to_means_over_fewer_tokens() -> None:
    bars = Bars("bfloat16", "cpu")
    whole, quarter = bars.allowed("local", "all", "norm"), bars.allowed("local", "all", "norm", WORKLOAD // 4)
    assert quarter.row == whole.row
    assert quarter.gain == pytest.approx(whole.gain * (WORKLOAD / (WORKLOAD // 4)) ** 0.5)
    assert bars.allowed("local", "order", "context").row <= bars.allowed("local", "all", "context").row
    assert isinstance(whole, Statistics)


def test_a_dtype_or_a_device_without_a_floor_is_refused_with_the_command_that_measures_one() -> None:
    with pytest.raises(NanollamaError, match="numerics floor --device tpu"):
        Bars("bfloat16", "tpu")


def test_tokens_whose_experts_are_tied_are_excused_and_those_behind_them() -> None:
    bars = Bars("bfloat16", "cpu")
    sure, tied = [0.0, -1.0, -9.0], [0.0, -1.0, -1.01]
    gate = torch.tensor([sure, sure, tied, sure]).log_softmax(-1).double()
    want = {"layers.0.mlp.gate": gate, "layers.0.mlp": torch.ones(4, 2), "logits": torch.ones(4, 2)}
    assert bars.sure("layers.0.mlp", want, True, 2).tolist() == [True, True, False, True]
    assert bars.sure("logits", want, False, 2).tolist() == [True, True, False, False]


# Whole runs of engines made of the truth


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("levels", [("L2",), ("L2", "L3"), EVERYTHING], ids="".join)
def test_the_truth_passes_at_every_level(levels: tuple[str, ...], dtype: str) -> None:
    run = judge_engine(Limited(levels, dtype=dtype), [MIXTRAL])
    assert bad(run) == {}
    assert run.passed
    assert {result.requirement: result for result in run.results}["ROPE-001"].compared > 0


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_every_negative_control_is_flagged(dtype: str) -> None:
    bars = Bars(dtype, "cpu")
    made = controls(dtype, bars)
    assert {name: flagged(engine, GEMMA, bars) for name, engine in made.items()} == dict.fromkeys(made, True)
    assert not flagged(ReferenceEngine(dtype, right), GEMMA, bars)


def test_a_control_that_is_not_flagged_voids_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "conformance.judging.judge_engine.controls", lambda dtype, bars: {"a sound engine": ReferenceEngine(dtype, right)}
    )
    run = judge_engine(Limited(EVERYTHING), [OLMO])
    assert run.controls == {"a sound engine": False}
    assert not run.passed


@pytest.mark.parametrize("levels", [("L2",), EVERYTHING], ids="".join)
def test_a_feature_that_is_left_out_is_named(levels: tuple[str, ...]) -> None:
    run = judge_engine(Limited(levels, misreading(attention_cap=None)), [GEMMA])
    assert bad(run)["ATTN-005"] is Verdict.FAIL
    assert bad(run)["NUMR-001"] is Verdict.FAIL
    assert Verdict.FAIL not in {verdict for name, verdict in bad(run).items() if name not in ("ATTN-005", "NUMR-001")}


def test_two_faults_at_once_are_both_named() -> None:
    run = judge_engine(
        Limited(EVERYTHING, lambda s: replace(s, logit_cap=None, embedding_scale=1.0)), [GEMMA, "GPT2LMHeadModel"]
    )
    assert {name for name, verdict in bad(run).items() if verdict is Verdict.FAIL} == {"EMBD-002", "HEAD-002", "NUMR-001"}


def test_a_run_names_likely_causes_and_what_it_could_have_seen() -> None:
    run = judge_engine(Limited(EVERYTHING, misreading(attention_cap=None)), [GEMMA])
    assert run.causes[0].case == GEMMA
    assert "cap" in run.causes[0].sentence
    assert len(run.causes) == len(set(run.causes))
    assert {found.case for found in run.detectable} == {GEMMA}
    assert "rms_norm_eps" in {found.field for found in run.detectable}


def test_a_wrong_mask_and_wrong_scores_are_told_apart() -> None:
    wide = judge_engine(Limited(EVERYTHING, lambda s: replace(s, windows=tuple(w and w + 1 for w in s.windows))), [GEMMA])
    assert {name for name in bad(wide) if name.startswith(("MASK", "ATTN", "WIND"))} == {"WIND-001", "WIND-002"}
    loud = judge_engine(Limited(EVERYTHING, lambda s: replace(s, scales=(s.head_dim**-0.5,) * s.layers)), [GEMMA])
    assert not {name for name in bad(loud) if name.startswith(("MASK", "WIND"))}
    assert bad(loud)["ATTN-004"] is Verdict.FAIL


def test_what_logits_can_not_tell_apart_is_inconclusive() -> None:
    run = judge_engine(Limited(("L2",), misreading(activation="relu")), [OLMO])
    found = bad(run)
    assert found.pop("NUMR-001") is Verdict.FAIL
    assert set(found.values()) == {Verdict.INCONCLUSIVE}
    assert {"MLP-001", "MLP-002"} <= set(found)


def test_the_first_place_that_is_off_is_told_with_its_error_and_bar() -> None:
    run = judge_engine(Limited(("L2", "L3"), misreading(eps=1e-2)), [OLMO])
    whole = next(r for r in run.results if r.requirement == "NUMR-001" and r.case == OLMO)
    assert whole.place == "layers.0.self_attn.weights"  # behind q's norm, the first of this family
    assert whole.error is not None
    assert whole.bar == 1e-10
    assert whole.error > whole.bar
    assert [point.error <= point.floor for point in run.growth[OLMO]].index(False) == 1  # the embeddings are right


# Switching features off


def test_the_ladder_clears_everything_but_the_feature_that_is_wrong() -> None:
    engine, gemma, bars = Limited(("L2",), misreading(attention_cap=None)), subject(GEMMA, "float64"), Bars("float64", "cpu")
    cleared = {requirement for o in ablate(engine, gemma, bars) for requirement, _ in o.covers}
    assert {"WIND-001", "EMBD-002", "HEAD-002", "ATTN-002", "NORM-006", "ROPE-001"} <= cleared
    assert "ATTN-005" not in cleared


def test_a_ladder_whose_lowest_rung_breaks_clears_nothing() -> None:
    engine = Limited(("L2",), misreading(activation="relu"))
    assert list(ablate(engine, subject(GEMMA, "float64"), Bars("float64", "cpu"))) == []


def test_every_switch_makes_another_model() -> None:
    for case in cases_of(()):
        this = subject(case, "float64")
        for name, changes in switches(this).items():
            assert any(this.raw.get(key, "absent") != value for key, value in changes.items()), (case, name)


# The checks of the runtime, and requirements without a result


def test_checks_of_the_runtime_become_results() -> None:
    def wrong() -> None:
        raise Failed("layers.rotate", "off by one")

    checks = [Check("a", ("ROPE-001", "ROPE-002"), "rope", lambda: None), Check("b", ("MASK-001",), "rope", wrong)]
    with check_results(checks=checks) as results:
        found = results()
    assert [(r.requirement, r.verdict, r.place) for r in found] == [
        ("ROPE-001", Verdict.PASS, ""),
        ("ROPE-002", Verdict.PASS, ""),
        ("MASK-001", Verdict.FAIL, "layers.rotate"),
    ]


def test_a_requirement_that_nothing_speaks_of_is_unsupported_with_a_reason() -> None:
    found = {r.requirement: r for r in not_judged(About("x", "1", ("L2",)), {"ROPE-001"}, False)}
    known = load_requirements()
    assert set(found) == {name for name, r in known.items() if r.is_judged} - {"ROPE-001"}
    assert found["STOP-001"].detail == "needs L0; the engine offers L2"
    assert "from inside" in found["GGUF-001"].detail
    assert isinstance(found["GGUF-001"], Result)


def test_unknown_families_and_dtypes_are_refused_before_anything_runs() -> None:
    with pytest.raises(NanollamaError, match="there is no family 'Lama'; there are LlamaForCausalLM"):
        judge_engine(Limited(("L2",)), ["Lama"])
    with pytest.raises(NanollamaError, match="computes in 'int4'"):
        judge_engine(Limited(("L2",), dtype="int4"), [OLMO])

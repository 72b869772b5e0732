"""The score scores: a bug that a check sees is killed and placed, one that none sees survives, and decoys must pass."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conformance.checks import Check, Failed
from conformance.impact import functions_run, reached
from conformance.score import Result, interval, read_results, score, show, survivors
from conformance.zoo.seeding import Bug, Edit
from nanollama.layers import RMSNorm, softcap

FORWARD = "nanollama.layers:RMSNorm.forward"
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


def named(run: Callable[[], None]) -> Check:
    """A check by the name of its function."""
    return Check(run.__name__, ("NORM-001",), "normalisation", run)


CHECKS = [named(cap_of_zero), named(norm_of_zeros)]


def scored(bug: Bug, *checks: Check) -> Result:
    """The one result of scoring one bug."""
    (result,) = score([bug], checks or CHECKS, workers=1)
    return result


def test_a_bug_that_a_check_sees_is_killed_and_placed() -> None:
    result = scored(EPS)
    assert (result.killed_by, result.place, result.localised) == ("norm_of_zeros", "layers.0.input_layernorm", True)
    norm_of_zeros()  # the bug was in another process


def test_a_bug_at_another_place_than_the_zoo_says_is_not_localised() -> None:
    result = scored(Bug("no-eps", "semantic", "rotary", "own", "No epsilon.", "normalisation", EPS.edits))
    assert result.killed and not result.localised
    assert list(survivors([result])) == ["ELSEWHERE   no-eps (normalisation): norm_of_zeros says layers.0.input_layernorm"]


def test_a_bug_that_no_check_sees_survives() -> None:
    harmless = Bug(
        "rounder", "semantic", "norm", "own", "eps twice.", "normalisation", (Edit(FORWARD, "self.eps", "2 * self.eps"),)
    )
    assert not scored(harmless).killed
    assert "SURVIVES    rounder" in "".join(survivors([scored(harmless)]))


def test_only_checks_that_run_the_function_are_run() -> None:
    impact = {check.name: functions_run(check.run) for check in CHECKS}
    assert FORWARD in impact["norm_of_zeros"] and FORWARD not in impact["cap_of_zero"]
    assert [check.name for check in reached(EPS, CHECKS, impact)] == ["norm_of_zeros"]
    assert scored(EPS).checks == 1


def test_a_table_is_seen_by_every_check() -> None:
    table = Bug("gelu", "semantic", "mlp", "own", "", "mlp", (Edit("nanollama.layers:ACTIVATIONS", "F.silu", "F.gelu"),))
    assert len(reached(table, CHECKS, {check.name: frozenset() for check in CHECKS})) == len(CHECKS)


def test_a_bug_that_ends_the_process_is_killed() -> None:
    dies = Edit(FORWARD, "wide = x", "__import__('os')._exit(3)\n    wide = x")
    assert scored(Bug("dies", "semantic", "layernorm", "own", "", "normalisation", (dies,))).killed_by == "the process died"


def test_a_bug_that_hangs_is_killed_where_it_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conformance.score.LIMIT", 1)
    hangs = Edit(FORWARD, "wide = x", "while True: pass\n    wide = x")
    result = scored(Bug("hangs", "semantic", "RMSNorm", "own", "", "normalisation", (hangs,)), named(judged_norm))
    assert result.killed and "longer than 1 s" in result.detail


def judged_norm() -> None:
    """As the decorator does it: what the runtime raises is a failure."""
    try:
        norm_of_zeros()
    except TimeoutError as error:
        raise Failed("layers.RMSNorm.forward", str(error)) from error


def test_a_decoy_that_is_flagged_is_a_false_alarm(capsys: pytest.CaptureFixture[str]) -> None:
    decoy = Result("decoy", "decoy", "rope", "check", "rotary", "off")
    assert list(survivors([decoy])) == ["FALSE ALARM decoy: check says rotary: off"]
    show([decoy, Result("fine", "decoy", "rope")], 2, 1.0)
    assert "decoys flagged: 1 of 2" in capsys.readouterr().out


def test_the_interval_is_wilsons() -> None:
    """Worked by hand for 9 of 10: centre (0.9 + 3.8416/20) / 1.38416 = 0.789, half width 0.194."""
    low, high = interval(9, 10)
    assert low == pytest.approx(0.596, abs=1e-3) and high == pytest.approx(0.982, abs=1e-3)
    assert interval(0, 0) == (0.0, 1.0)


def test_results_can_be_resumed(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text('{"name": "a", "kind": "semantic", "area": "rope", "killed_by": "x"}\n')
    assert read_results(tmp_path / "results.jsonl")["a"].killed
    assert read_results(None) == {} and read_results(tmp_path / "none") == {}

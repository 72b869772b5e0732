"""The score's figures: by hand, by group, stored, shown in conformance/README.md, compared; and the choice of a smoke run."""

import json
from pathlib import Path

import pytest

from conformance.checks import Check, Failed
from conformance.numerics.check import Alarms, Finding
from conformance.numerics.statistics import interval
from conformance.score import command, published
from conformance.score.coverage import candidates, caught, caught_in_trials, kills_by_check
from conformance.score.impact import functions_run, survey
from conformance.score.judge import Jury, Result
from conformance.score.published import (
    Score,
    Spent,
    group_score,
    publish,
    read_published,
    refuse_stale,
    score_from_json,
    score_lines,
    score_to_json,
    summary,
    with_lines,
    worse,
)
from conformance.score.ranking import (
    RankedCheck,
    Ranking,
    killed_first_by,
    ranked,
    read_ranking,
    shuffled_by_area,
    write_ranking,
)
from conformance.score.report import group_table, share
from conformance.score.variants import add_alarms
from conformance.score.zoo.seeding import Edit, ZooBroken
from conformance.tests.suite.score.test_score import CHECKS, EPS, FORWARD, a_bug, cap_of_zero, named, norm_of_zeros

# --- figures

KILLED = Result("a", "semantic", "rope", "check[llama]", "rotary", "off", True, cases={"llama": "rotary", "gpt2": ""})
ELSEWHERE = Result("b", "semantic", "rope", "check", "mlp", "off")
SURVIVOR = Result("c", "semantic", "rope")
MUTANT = Result("m", "semantic", "mutants", "check", "mlp", "off", True)
FLAGGED = Result("d", "decoy", "rope", "check", "rotary", "off")
FINE = Result("e", "decoy", "rope")
EVERY = [KILLED, ELSEWHERE, SURVIVOR, MUTANT, FLAGGED, FINE]


def test_the_interval_is_wilsons() -> None:
    """Worked by hand for 9 of 10: centre (0.9 + 3.8416/20) / 1.38416 = 0.789, half width 0.194."""
    low, high = interval(9, 10)
    assert low == pytest.approx(0.596, abs=1e-3) and high == pytest.approx(0.982, abs=1e-3)
    assert interval(0, 0) == (0.0, 1.0)
    assert share(9, 10) == " 90.0 % (59.6–98.2), 9 of 10"


def test_groups_are_never_mixed() -> None:
    lines = list(group_table(EVERY, "semantic"))
    assert lines[2].split() == ["rope", "3", "2", "1"]
    assert lines[-2].endswith("2 of 3") and lines[-1].endswith("1 of 2")
    assert list(group_table(EVERY, "mutants"))[2].split() == ["mutants", "1", "1", "1"]


def test_the_summary_counts_by_hand() -> None:
    finding = Finding("norm", "local", "all", "row", 1.2)
    alarms = Alarms(runs=3, policy_runs=1, flagged=[("v", "llama", "float16", 11, finding)])
    got = summary(EVERY, alarms, {"null_engine": "flagged"}, 7, Spent(12.6, 20.2))
    assert (got.semantic.bugs, got.semantic.killed, got.semantic.localised) == (3, 2, 1)
    assert (got.semantic.survive, got.semantic.elsewhere) == (["c"], ["b"])
    assert (got.mutants.bugs, got.precision.bugs) == (1, 0)
    assert (got.decoys.runs, got.decoys.flagged) == (2, ["d"])
    assert got.variants.runs == 3 and got.variants.flagged == [["v", "llama", "float16", 11]]
    assert (got.fixtures.pairs, got.fixtures.killed) == (2, 1)
    assert (got.checks, got.seconds, got.cpu_seconds) == (7, 13, 20)
    assert 0 < got.golden_bytes < 5_000_000
    assert score_from_json(json.loads(json.dumps(score_to_json(got)))) == got


def test_alarms_of_several_processes_are_added() -> None:
    total = Alarms(runs=1, noted=2)
    add_alarms(total, Alarms(runs=3, flagged=[("v", "f", "d", 1, Finding("x", "local", "all", "row", 2.0))]))
    assert (total.runs, total.noted, len(total.flagged)) == (4, 2, 1)


# --- the published score


def some_score(*results: Result, alarms: Alarms | None = None) -> Score:
    """The figures of these results."""
    return summary(results, alarms or Alarms(), {}, 3, Spent(9.0, 9.0))


def test_a_score_without_faults_is_good_enough() -> None:
    now = some_score(KILLED, MUTANT, FINE)
    assert list(worse(now, now, {}, all_run=True)) == []
    assert list(worse(now, None, {}, all_run=True)) == []


def test_everything_that_makes_a_score_worse_is_told() -> None:
    assert list(worse(some_score(SURVIVOR), None, {}, all_run=False)) == ["c survives without a reason in survivors.toml"]
    assert list(worse(some_score(SURVIVOR), None, {"c": "why"}, all_run=False)) == []
    assert "another place" in next(worse(some_score(ELSEWHERE), None, {}, all_run=False))
    assert list(worse(some_score(ELSEWHERE), some_score(ELSEWHERE), {}, all_run=False)) == []
    assert list(worse(some_score(FLAGGED), None, {}, all_run=False)) == ["d is a decoy and was flagged"]
    finding = Finding("norm", "local", "all", "row", 1.2)
    three = Alarms(runs=299, flagged=[("v", "f", "d", 1, finding)] * 3)
    assert "3 of 299 honest runs" in next(worse(some_score(alarms=three), None, {}, all_run=False))
    three.runs = 300
    assert list(worse(some_score(alarms=three), None, {}, all_run=False)) == []


def test_a_full_run_must_not_kill_a_smaller_share_than_is_published() -> None:
    now, better = some_score(KILLED, SURVIVOR), some_score(KILLED)
    (problem,) = worse(now, better, {"c": "why"}, all_run=True)
    assert problem == "semantic: 1 of 2 killed, published are 1 of 1"
    assert list(worse(now, better, {"c": "why"}, all_run=False)) == []


def test_explanations_are_of_bugs_that_exist() -> None:
    refuse_stale({"a": "x"}, ["a", "b"])
    with pytest.raises(ZooBroken, match=r"survivors\.toml explains c"):
        refuse_stale({"c": "x"}, ["a"])


def test_publishing_stores_the_score_and_puts_its_table_between_the_markers(tmp_path: Path) -> None:
    readme, stored = tmp_path / "README.md", tmp_path / "score.json"
    readme.write_text("before\n<!-- score -->\nstale figures\n<!-- /score -->\nafter\n")
    publish(some_score(*EVERY), stored, readme)
    text = readme.read_text()
    assert text.startswith("before\n<!-- score -->\n|") and text.endswith("<!-- /score -->\nafter\n") and "stale" not in text
    assert "| real bugs, re-seeded: killed | 2 of 3 | 66.7 % (20.8–93.9) |" in text
    assert with_lines(text, "score", score_lines(read_published(stored))) == text
    with pytest.raises(ValueError, match="<!-- score -->"):
        with_lines("no markers", "score", [])


def test_the_readme_shows_the_stored_score() -> None:
    text = published.README.read_text(encoding="utf-8")
    assert with_lines(text, "score", score_lines(read_published())) == text
    assert list(score_lines(None)) == ["No score has been published yet."]


# --- a budget


def test_checks_are_ranked_by_kills_per_second(tmp_path: Path) -> None:
    path = tmp_path / "ranking.json"
    results = [Result("a", "semantic", "x", "norm_of_zeros"), Result("b", "semantic", "x", "cap_of_zero"), SURVIVOR]
    results.append(Result("c", "semantic", "x", "norm_of_zeros"))
    write_ranking(results, survey(CHECKS), {"NORM-001": "a"}, path)
    stored = read_ranking(path)
    assert stored.caught == {"NORM-001": "a"}
    assert stored.checks["norm_of_zeros"].kills == ["a", "c"]
    assert stored.killers() == {"a": "norm_of_zeros", "b": "cap_of_zero", "c": "norm_of_zeros"}
    root, cap = RankedCheck(0.3, ["a", "c"]), RankedCheck(0.1, ["b"])
    ranking = Ranking({"norm_of_zeros": root, "cap_of_zero": cap})
    assert [check.name for check in ranked(CHECKS, ranking)] == ["cap_of_zero", "norm_of_zeros"]
    ranking = Ranking({"norm_of_zeros": RankedCheck(0.1, root.kills), "cap_of_zero": cap})
    assert [check.name for check in ranked(CHECKS, ranking)] == ["norm_of_zeros", "cap_of_zero"]
    bugs = [a_bug("a", "x"), a_bug("b", "x"), a_bug("d", "x", kind="decoy")]
    assert [bug.name for bug in killed_first_by(CHECKS[1:], bugs, ranking)] == ["a", "d"]
    assert read_ranking(tmp_path / "none") == Ranking()


def test_bugs_are_spread_over_the_areas_in_an_order_that_the_seed_decides() -> None:
    bugs = [a_bug(f"{area}{i}", "x", area=area) for area in ("rope", "moe") for i in range(5)]
    order = shuffled_by_area(bugs, 1)
    assert {bug.area for bug in order[:2]} == {"rope", "moe"} and {bug.name for bug in order} == {bug.name for bug in bugs}
    assert order == shuffled_by_area(bugs, 1) != shuffled_by_area(bugs, 2)


# --- requirements that have caught something

RULES = [Check("zero", ("NORM-002",), "normalisation", cap_of_zero), Check("root", ("NORM-001",), "rope", norm_of_zeros)]


def test_a_kill_counts_for_the_check_and_its_other_cases() -> None:
    result = Result("a", "semantic", "x", "f[llama]", "p", cases={"llama": "p", "qwen": "p", "gpt2": ""})
    assert dict(kills_by_check([result, FINE, SURVIVOR])) == {"f[llama]": "a", "f[qwen]": "a"}
    assert caught([Result("b", "semantic", "x", "root", "p")], RULES) == {"NORM-001": "b"}


def test_a_requirement_that_caught_nothing_is_tried_on_bugs_of_its_own_area_first() -> None:
    impact = {check.name: functions_run(check.run) for check in RULES}
    far, mutant = a_bug("far", "x", *EPS.edits, area="rope"), a_bug("mutant", "x", *EPS.edits, area="mutants")
    near = a_bug("near", "x", *EPS.edits, area="rope")
    other = a_bug("other", "x", *EPS.edits)
    assert [bug.name for bug in candidates([mutant, other, near, far], RULES[1:], impact)] == ["near", "far", "other", "mutant"]
    assert caught_in_trials([], [EPS], Jury(RULES, impact)) == {"NORM-001": "no-eps"}


# --- the command


def test_publishing_is_of_everything_or_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for more in (["--area", "rope"], ["--budget", "9"], ["--mutants", "3"], ["--name", "x"]):
        with pytest.raises(SystemExit):
            command.parse(["--write", *more])
    assert "leave out" in capsys.readouterr().err


def test_no_bug_or_a_check_that_fails_on_the_clean_runtime_makes_the_score_void(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "run_controls", lambda *_: {})
    monkeypatch.setattr(command, "all_checks", lambda: CHECKS)
    assert command.score_command(["--name", "no-such-bug"]) == 2
    assert "void: no bug was judged" in capsys.readouterr().err

    def failing() -> None:
        raise Failed("norm", "off")

    monkeypatch.setattr(command, "all_checks", lambda: [named(failing)])
    assert command.score_command(["--name", "no-such-bug"]) == 2
    assert "void: a check fails on the clean runtime: norm: off" in capsys.readouterr().err


def test_the_command_prints_tables_or_json_and_keeps_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "run_controls", lambda *_: {"null_engine": "flagged on 12 of 12 families"})
    monkeypatch.setattr(command, "all_checks", lambda: CHECKS)
    monkeypatch.setattr(
        command, "load_zoo", lambda: [EPS, a_bug("e", "x", Edit(FORWARD, "1 + weight", "weight + 1"), kind="decoy")]
    )
    monkeypatch.setattr(command, "explanations", dict)
    kept = tmp_path / "kept.jsonl"
    assert command.score_command(["--area", "normalisation", "--mutants", "0", "--workers", "1", "--resume", str(kept)]) == 0
    printed = capsys.readouterr().out
    assert "killed     100.0 % (20.7–100.0), 1 of 1" in printed and "decoys flagged: 0 of 1" in printed
    assert command.score_command(["--area", "normalisation", "--mutants", "0", "--resume", str(kept), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["summary"]["semantic"]["killed"] == 1 and {r["name"] for r in told["results"]} == {"no-eps", "e"}
    assert len(kept.read_text().splitlines()) == 2


def test_results_can_be_resumed(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text('{"name": "a", "kind": "semantic", "area": "rope", "killed_by": "x"}\n')
    assert command.read_results(tmp_path / "results.jsonl")["a"].killed
    assert command.read_results(None) == {} and command.read_results(tmp_path / "none") == {}


def test_counts_of_nothing_are_no_error() -> None:
    assert group_score([]).killed_interval == [0.0, 1.0]

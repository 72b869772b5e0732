"""Every check names requirements that exist; the gaps of the suite are found and printed."""

from pathlib import Path

import pytest

from conformance.checks import Check, all_checks
from conformance.report.gaps import invalid_references, judged_on_engines, main, without_check, without_detection
from conformance.requirements.requirement import load_requirements
from conformance.tests.suite.requirements.test_requirements import GOOD, write


def test_checks_name_requirements_that_exist_and_may_be_judged() -> None:
    assert invalid_references(all_checks(), load_requirements()) == []


def test_a_check_without_a_requirement_or_with_an_unknown_one_is_found(tmp_path: Path) -> None:
    known = load_requirements(write(tmp_path / "r.toml", GOOD, {**GOOD, "id": "ROPE-004", "tier": "unspecified"}))
    checks = [
        Check("good", ("ROPE-003",), "rope", lambda: None),
        Check("none", (), "rope", lambda: None),
        Check("unknown", ("ROPE-999",), "rope", lambda: None),
        Check("judges", ("ROPE-004",), "rope", lambda: None),
        Check("area", ("ROPE-003",), "ropes", lambda: None),
    ]
    problems = invalid_references(checks, known)
    assert [problem.split()[0] for problem in problems] == ["none", "unknown", "judges", "area"]
    assert without_check([], known) == [known["ROPE-003"]]
    assert without_check(checks, known) == []


def test_the_report_counts_and_lists_the_gaps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert "total" in printed
    assert "requirements nothing judges" in printed and "no check has detected a bug of the zoo for" in printed


def test_a_requirement_whose_checks_never_killed_a_bug_is_a_gap(tmp_path: Path) -> None:
    known = load_requirements(write(tmp_path / "r.toml", GOOD, {**GOOD, "id": "ROPE-004"}, {**GOOD, "id": "ROPE-005"}))
    checks = [Check("a", ("ROPE-003", "ROPE-004"), "rope", lambda: None)]
    assert [requirement.id for requirement in without_detection(checks, known, {"ROPE-003": "a-bug"})] == ["ROPE-004"]
    assert [requirement.id for requirement in without_check(checks, known)] == ["ROPE-005"]


def test_what_the_code_for_engines_names_is_judged_there(tmp_path: Path) -> None:
    (tmp_path / "judging").mkdir()
    (tmp_path / "judging" / "probe.py").write_text('judge("WIRE-003", x)\n# WIRE-004 is a comment\n')
    assert judged_on_engines(tmp_path) == {"WIRE-003"}
    assert judged_on_engines() <= load_requirements().keys()

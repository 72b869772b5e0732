"""What is different between two runs, on runs made by hand."""

from dataclasses import replace
from math import inf, nan

import pytest

from conformance.report.parts.difference import Change, difference, kind_of_error
from conformance.requirements.results import About, Result, Run, Verdict

GOOD = Result("ROPE-001", "LlamaForCausalLM", "replay", Verdict.PASS, error=1e-14, bar=1e-10, compared=1)
BAD = replace(GOOD, verdict=Verdict.FAIL, error=0.5)


def run(*results: Result) -> Run:
    return Run(About("tiny", "1", ("L4",)), results=list(results))


def changes(old: list[Result], new: list[Result]) -> list[str]:
    return [change.kind for change in difference(run(*old), run(*new))]


def test_a_run_does_not_differ_from_itself() -> None:
    assert changes([GOOD, replace(BAD, case="other")], [replace(BAD, case="other"), GOOD]) == []


def test_what_passed_and_fails_is_a_new_failure_and_the_reverse_is_fixed() -> None:
    assert changes([GOOD], [BAD]) == ["new failure"]
    assert changes([BAD], [GOOD]) == ["fixed"]


def test_what_fails_the_first_time_that_it_is_judged_is_a_new_failure() -> None:
    assert changes([], [BAD]) == ["new failure"]
    assert changes([], [GOOD]) == ["judged for the first time"]


def test_what_is_no_longer_judged_is_told() -> None:
    (change,) = difference(run(BAD), run())
    assert (change.kind, change.where, change.what) == ("no longer judged", BAD, "FAIL → —")


def test_verdicts_change_within_the_good_and_within_the_bad() -> None:
    excused = replace(GOOD, verdict=Verdict.EXCUSED)
    error = replace(BAD, verdict=Verdict.ERROR)
    assert changes([GOOD], [excused]) == changes([BAD], [error]) == ["other verdict"]


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (1e-14, 2e-14, ""),
        (1e-14, 2.1e-14, "larger error"),
        (2.1e-14, 1e-14, "smaller error"),
        (0.0, 1e-300, "larger error"),
        (0.0, 0.0, ""),
        (1.0, inf, "larger error"),
        (inf, inf, ""),
        (inf, nan, "larger error"),
        (nan, 1.0, "smaller error"),
        (nan, nan, ""),
        (None, 1.0, ""),
    ],
)
def test_an_error_changes_where_it_is_more_than_twice_or_less_than_half(old: float | None, new: float, kind: str) -> None:
    assert kind_of_error(old, new) == kind


def test_a_change_says_what_was_and_what_is() -> None:
    assert Change("new failure", GOOD, BAD).what == "PASS → FAIL"
    assert Change("larger error", GOOD, replace(GOOD, error=5e-13)).what == "error 1e-14 → 5e-13 (50 times)"


def test_the_gravest_changes_come_first() -> None:
    old = [replace(GOOD, case="a", error=1.0), replace(BAD, case="b"), replace(GOOD, case="c")]
    new = [replace(GOOD, case="a", error=9.0), replace(GOOD, case="b"), replace(BAD, case="c")]
    assert changes(old, new) == ["new failure", "fixed", "larger error"]


def test_of_two_results_of_one_test_the_graver_is_compared() -> None:
    assert changes([GOOD], [BAD, GOOD]) == changes([GOOD], [GOOD, BAD]) == ["new failure"]

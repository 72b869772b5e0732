"""What a run comes to is counted as one would by hand, and said on the terminal in the same words."""

from dataclasses import replace

from conformance.report.parts.tally import by_area, cases_in_words, grouped, outcome, passed_and_judged, sentence, spread
from conformance.report.terminal import terminal
from conformance.requirements.requirement import load_requirements
from conformance.requirements.results import About, Cause, Result, Run, Verdict

KNOWN = load_requirements()
LLAMA, QWEN = "LlamaForCausalLM", "Qwen2ForCausalLM"
PASSES = Result("ROPE-001", LLAMA, "local replay", Verdict.PASS, error=2e-14, bar=1e-10, compared=3)
FAILS = Result("ROPE-001", QWEN, "local replay", Verdict.FAIL, "turned by twice the angle", "layers.0.rotary", 0.5, 1e-10, 3)
UNSURE = Result("HEAD-001", LLAMA, "logits", Verdict.INCONCLUSIVE, "the model is wrong before it", compared=1)
NOT_OFFERED = Result("NUMR-001", LLAMA, "local replay", Verdict.UNSUPPORTED, "it takes no inputs for its modules")
TIED = Result("SAMP-001", LLAMA, "greedy", Verdict.EXCUSED, compared=5, excused=1)


def run(*results: Result, **more: object) -> Run:
    """A run of an engine that offers everything."""
    about = About("tiny", "1.0", ("L0", "L1", "L2", "L3", "L4"), "float64")
    return Run(about, results=list(results), **more)  # type: ignore[arg-type]


def test_a_requirement_has_the_gravest_verdict_of_its_cases() -> None:
    assert by_area(run(PASSES, FAILS), KNOWN) == {"rope": {Verdict.FAIL: 1}}


def test_what_is_not_offered_or_only_noted_is_not_judged_and_ties_pass() -> None:
    noted = Result("NORM-008", LLAMA, "t", Verdict.NOTE, compared=1)
    assert passed_and_judged(run(PASSES, TIED, FAILS, UNSURE, NOT_OFFERED, noted)) == (1, 3)


def test_the_headline_follows_the_gravest_verdict() -> None:
    assert outcome(run(PASSES)) == "Conforms"
    assert outcome(run(PASSES, NOT_OFFERED)) == "Conforms as far as judged"
    assert outcome(run(PASSES, UNSURE)) == "Not decided"
    assert outcome(run(PASSES, UNSURE, FAILS)) == "Does not conform"
    assert outcome(run(PASSES, Result("HEAD-001", LLAMA, "t", Verdict.ERROR))) == "Does not conform"


def test_a_run_that_compared_nothing_is_void_however_good_its_verdicts() -> None:
    empty = run(Result("ROPE-001", LLAMA, "t", Verdict.PASS, compared=0))
    assert outcome(empty) == outcome(run()) == "The run is invalid"
    assert "Nothing was compared" in sentence(empty) and "THE RUN IS INVALID" in terminal(empty)


def test_a_run_whose_negative_control_was_not_flagged_is_void() -> None:
    blind = run(PASSES, controls={"null engine": False, "noisy engine": True})
    assert outcome(blind) == "The run is invalid"
    assert "The null engine was not flagged" in sentence(blind) and "noisy" not in sentence(blind)


def test_the_sentence_says_what_passed_what_did_not_and_what_cant_be_said() -> None:
    said = sentence(run(PASSES, TIED, FAILS, UNSURE, NOT_OFFERED))
    assert said == "1 of 3 judged requirements pass, 1 fails, 1 can't be decided; 1 is not judged."


def test_results_that_say_the_same_of_several_cases_are_one_group() -> None:
    other = Result("ROPE-001", QWEN, "local replay", Verdict.PASS, error=3e-15, bar=1e-10, compared=3)
    (group,) = grouped([PASSES, other])
    assert group.cases == [LLAMA, QWEN] and group.measured == "error 3e-15 to 2e-14, bar 1e-10"
    assert len(grouped([PASSES, replace(other, place="layers.1.mlp")])) == 1  # where nothing is wrong, no place is
    assert len(grouped([FAILS, replace(FAILS, place="layers.1.mlp")])) == 2
    assert [g.first.verdict for g in grouped([PASSES, FAILS])] == [Verdict.FAIL, Verdict.PASS]


def test_a_spread_is_one_number_where_both_ends_are_written_alike() -> None:
    assert spread([0.5]) == "0.5" and spread([1e-10, 1.001e-10]) == "1e-10" and spread([2.0, 1.0]) == "1 to 2"
    assert spread([float("nan"), 1.0, float("inf")]) == "1 to nan"


def test_a_long_list_of_cases_is_counted() -> None:
    assert cases_in_words(["a", "b", "c"]) == "a, b, c" and cases_in_words(list("abcde")) == "a, b, c and 2 more"


def test_the_terminal_has_a_count_for_every_area_and_a_line_for_every_bad_verdict() -> None:
    lines = terminal(run(PASSES, FAILS, UNSURE, NOT_OFFERED, TIED)).splitlines()
    assert [line.split() for line in lines if line.startswith(("area", "rope", "all"))] == [
        ["area", "EXCUSED", "FAIL", "INCONCLUSIVE", "UNSUPPORTED"],
        ["rope", "1"],
        ["all", "1", "1", "1", "1"],
    ]
    (line,) = (line for line in lines if line.startswith("FAIL "))
    for told in ("ROPE-001", QWEN, "layers.0.rotary", "error 0.5", "bar 1e-10", "turned by twice the angle"):
        assert told in line
    assert any(line.startswith("INCONCLUSIVE HEAD-001") for line in lines)


def test_a_requirement_that_the_list_does_not_have_is_shown_all_the_same() -> None:
    assert "FAKE-001" in terminal(run(Result("FAKE-001", LLAMA, "t", Verdict.FAIL, compared=1)))


def test_a_likely_cause_is_told_once_with_its_places() -> None:
    found = run(FAILS)
    found.causes = [Cause(case, "mlp", "The gate is left out", 0.9) for case in (LLAMA, "Qwen2ForCausalLM")]
    lines = [line for line in terminal(found).splitlines() if line.startswith("LIKELY")]
    assert lines == [
        f"LIKELY       The gate is left out ({LLAMA} at mlp, Qwen2ForCausalLM at mlp; right in 90% of seeded bugs)",
    ]


def test_what_is_undecided_for_one_reason_is_one_line() -> None:
    undecided = [replace(UNSURE, requirement=each) for each in ("HEAD-001", "NORM-001", "MLP-001")]
    lines = [line for line in terminal(run(*undecided)).splitlines() if line.startswith("INCONCLUSIVE")]
    assert len(lines) == 1
    assert all(each.requirement in lines[0] for each in undecided)


def test_an_engine_cant_command_the_terminal() -> None:
    hostile = Result("ROPE-001", "\x1b[2Jcase", "t", Verdict.FAIL, "a\nb\x07", "\x9bplace", compared=1)
    told = terminal(run(hostile))
    assert "\x1b" not in told and "\x07" not in told and "\x9b" not in told and "a b" in told


def test_what_is_said_of_one_requirement_is_one_line_of_bounded_length() -> None:
    told = terminal(run(Result("ROPE-001", LLAMA, "t", Verdict.FAIL, "x" * 10_000, compared=1)))
    assert max(map(len, told.splitlines())) <= 240

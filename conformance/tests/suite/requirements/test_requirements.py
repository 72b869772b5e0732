"""The requirements are a well-formed list, and every check stands on one of them."""

from collections import Counter
from pathlib import Path

import pytest

from conformance.checks import Check, all_checks
from conformance.requirements.requirement import (
    AREAS,
    PREFIXES,
    RequirementsBroken,
    dangling,
    is_one_sentence,
    judged_on_engines,
    load_requirements,
    main,
    read_entry,
    toothless,
    unjudged,
)

GOOD = {
    "id": "ROPE-003",
    "text": "Each position is turned by its own angle.",
    "tier": "specified",
    "level": "L3",
    "area": "rope",
    "source": "arXiv 2104.09864",
}


def write(path: Path, *entries: dict[str, str]) -> Path:
    tables = ("[[requirement]]\n" + "\n".join(f'{key} = "{value}"' for key, value in entry.items()) for entry in entries)
    path.write_text("\n".join(tables))
    return path


def test_there_are_at_least_180_requirements_from_tokens_to_streams() -> None:
    requirements = load_requirements().values()
    assert len(requirements) >= 180
    assert {requirement.area for requirement in requirements} == set(AREAS)
    assert {requirement.id.split("-")[0] for requirement in requirements} == set(PREFIXES)
    tiers = Counter(requirement.tier for requirement in requirements)
    assert tiers["specified"] >= 100
    assert tiers["unspecified"] >= 8


def test_every_requirement_says_something_else() -> None:
    texts = Counter(requirement.text for requirement in load_requirements().values())
    assert [text for text, count in texts.items() if count > 1] == []


def test_checks_name_requirements_that_exist_and_may_be_judged() -> None:
    assert dangling(all_checks(), load_requirements()) == []


def test_a_check_without_a_requirement_or_with_an_unknown_one_is_found(tmp_path: Path) -> None:
    known = load_requirements(write(tmp_path / "r.toml", GOOD, {**GOOD, "id": "ROPE-004", "tier": "unspecified"}))
    checks = [
        Check("good", ("ROPE-003",), "rope", lambda: None),
        Check("none", (), "rope", lambda: None),
        Check("unknown", ("ROPE-999",), "rope", lambda: None),
        Check("judges", ("ROPE-004",), "rope", lambda: None),
        Check("area", ("ROPE-003",), "ropes", lambda: None),
    ]
    problems = dangling(checks, known)
    assert [problem.split()[0] for problem in problems] == ["none", "unknown", "judges", "area"]
    assert unjudged([], known) == [known["ROPE-003"]]
    assert unjudged(checks, known) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"id": "ROPE-3"}, "ROPE-3"),
        ({"id": "ROBE-003"}, "ROBE-003"),
        ({"tier": "certain"}, "tier is 'certain'"),
        ({"level": "L5"}, "level is 'L5'"),
        ({"area": "ropes"}, "area is 'ropes'"),
        ({"text": "Short."}, "one sentence"),
        ({"text": "It has no full stop at its end"}, "one sentence"),
        ({"text": "Here is a sentence. Here is another one."}, "one sentence"),
        ({"source": "somebody said so"}, "its source"),
        ({"source": "arXiv"}, "its source"),
        ({"more": "x"}, "more"),
    ],
)
def test_a_malformed_requirement_is_refused_by_name(change: dict[str, str], named: str) -> None:
    with pytest.raises(RequirementsBroken, match=named):
        read_entry({**GOOD, **change})


def test_a_missing_field_or_one_that_is_no_text_is_refused() -> None:
    with pytest.raises(RequirementsBroken, match="ROPE-003"):
        read_entry({key: value for key, value in GOOD.items() if key != "source"})
    with pytest.raises(RequirementsBroken, match="ROPE-003"):
        read_entry({**GOOD, "level": 3})


def test_an_id_twice_and_a_file_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequirementsBroken, match="occurs twice"):
        load_requirements(write(tmp_path / "twice.toml", GOOD, GOOD))
    for content in ("[[bug]]\nname = 'x'", "requirement = 3", "[["):
        (tmp_path / "other.toml").write_text(content)
        with pytest.raises(RequirementsBroken):
            load_requirements(tmp_path / "other.toml")


def test_one_sentence_may_have_dots_inside() -> None:
    assert is_one_sentence("With tokenizer.ggml.pre the text is cut as llama.cpp does, e.g. by 3.")
    assert not is_one_sentence(" It begins with a space and ends with a stop.")


def test_the_report_counts_and_lists_the_gaps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert "total" in printed
    assert "requirements nothing judges" in printed and "no bug of the zoo was killed by the checks of" in printed


def test_a_requirement_whose_checks_never_killed_a_bug_is_a_gap(tmp_path: Path) -> None:
    known = load_requirements(write(tmp_path / "r.toml", GOOD, {**GOOD, "id": "ROPE-004"}, {**GOOD, "id": "ROPE-005"}))
    checks = [Check("a", ("ROPE-003", "ROPE-004"), "rope", lambda: None)]
    assert [requirement.id for requirement in toothless(checks, known, {"ROPE-003": "a-bug"})] == ["ROPE-004"]
    assert [requirement.id for requirement in unjudged(checks, known)] == ["ROPE-005"]


def test_what_the_code_for_engines_names_is_judged_there(tmp_path: Path) -> None:
    (tmp_path / "wire").mkdir()
    (tmp_path / "wire" / "probe.py").write_text('judge("WIRE-003", x)\n# WIRE-004 is a comment\n')
    assert judged_on_engines(tmp_path) == {"WIRE-003"}
    assert judged_on_engines() <= load_requirements().keys()

"""The requirements are a well-formed list."""

from collections import Counter
from pathlib import Path

import pytest

from conformance.requirements.requirement import (
    AREAS,
    PREFIXES,
    RequirementsBroken,
    is_one_sentence,
    load_requirements,
    read_entry,
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

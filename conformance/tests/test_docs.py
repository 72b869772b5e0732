"""README and ROADMAP tell the truth: transcripts, file tree, commands."""

import os
import re
from pathlib import Path

import pytest

from conformance import ROOT
from conformance.katas.course import course
from conformance.katas.roadmap import ROADMAP, roadmap, with_katas
from conformance.report.docs import BLOCK, DOCUMENTS, commands, comparable, fresh_blocks


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_transcript_is_what_the_commands_print(name: str, tmp_path: Path) -> None:
    text = (ROOT / name).read_text()
    blocks = list(fresh_blocks(text, tmp_path))
    for stands, prints in blocks:
        assert comparable(prints) == comparable(stands)
    total = len(BLOCK.findall(text))
    assert total, "a document without a transcript"
    if len(blocks) < total:
        assert not os.environ.get("NANOLLAMA_DATA")
        pytest.skip(f"{len(blocks)} of {total} transcripts hold; the others need NANOLLAMA_DATA, real checkpoints")


def test_every_item_of_the_roadmap_names_the_katas_that_teach_it() -> None:
    text = ROADMAP.read_text()
    assert len(roadmap()) == text.count("\n### "), "an item without its line"
    assert with_katas(text) == text, "run python -m conformance.report.docs --write"


def test_the_katas_come_in_the_order_of_the_roadmap() -> None:
    items = list(roadmap())
    places = [items.index(kata.items[0]) for kata in course().values()]
    assert places == sorted(places)


def test_the_file_tree_in_the_readme_is_the_one_on_disk() -> None:
    text = (ROOT / "README.md").read_text()
    tree = re.search(r"```text\n(nanollama/.*?)```", text, re.DOTALL)
    assert tree, "README.md has no file tree"
    told = set(re.findall(r"\b[\w/]+(?:\.(?:py|toml)\b|/(?=\s))", tree.group(1)))
    there = {p.name for p in [*(ROOT / "nanollama").rglob("*.py"), *(ROOT / "conformance").glob("*.py")]}
    there |= {f"{p.parent.name}/" for p in (ROOT / "conformance").glob("*/__init__.py")}  # the suite's own folders by name
    untold = {n for n in there if n not in told and not n.startswith("test_") and n not in ("__init__.py", "__main__.py")}
    assert untold == set(), "files the README does not mention"
    named = {p.name for folder in ("nanollama", "conformance", "golden") for p in [ROOT / folder, *(ROOT / folder).rglob("*")]}
    named |= {p.name for p in ROOT.iterdir()}
    assert {n for n in told if n.rstrip("/").rpartition("/")[2] not in named} == set(), "files the README invents"


def test_a_transcript_is_split_into_commands_and_their_output() -> None:
    assert [(c.line, c.output) for c in commands("$ a b\nx\ny\n$ c\n")] == [("a b", "x\ny\n"), ("c", "")]


def test_only_numbers_of_the_machine_are_forgiven() -> None:
    assert comparable("err 1.8e-15 at near/layers.0  0.85x\n") == comparable("err 9.0e-14 at far/logits  1.20x\n")
    assert comparable("layers.1 differs") != comparable("layers.2 differs")
    assert comparable("24 taps") != comparable("23 taps")

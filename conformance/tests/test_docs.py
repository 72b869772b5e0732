"""README and ROADMAP tell the truth: transcripts, file tree, commands."""

import ast
import io
import os
import re
import tokenize
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


# --- the reader's path, the rooms, the recipes

STEP = re.compile(r"\]\((nanollama/[\w/]+\.py)\): ((?:`\w+`(?:, )?)+)")


def definitions(path: Path) -> dict[str, int]:
    """The lines of each function and class at the top of a module."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    found = [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in found}


def test_the_readers_path_exists_and_can_be_read_in_one_sitting() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    path = text.partition("<!-- path -->")[2].partition("<!-- /path -->")[0]
    steps = {file: re.findall(r"`(\w+)`", names) for file, names in STEP.findall(path)}
    assert len(steps) >= 10, "the path has lost its steps"
    lines = 0
    for file, names in steps.items():
        there = definitions(ROOT / file)
        assert set(names) <= there.keys(), f"{file} does not define {set(names) - there.keys()}"
        lines += sum(there[name] for name in names)
    assert 600 <= lines <= 1300, f"the reader's path has {lines} lines"


def test_the_readme_names_every_room_of_the_runtime() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Where things are")[2]
    rooms = {f"nanollama/{path.parent.name}" for path in (ROOT / "nanollama").glob("*/__init__.py")}
    assert rooms <= set(re.findall(r"\]\(([\w/]+)\)", text))


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "ROADMAP.md", "conformance/README.md"])
def test_every_link_and_every_path_in_a_document_leads_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    lost = [link for link in links if not (ROOT / name).parent.joinpath(link).exists()]
    paths = re.findall(r"`((?:nanollama|conformance)/[\w/.]+?)`", text)
    lost += [path for path in paths if "AREA" not in path and not (ROOT / path).exists()]
    assert lost == []


FILE = re.compile(r"(?<![\w./-])((?:[\w-]+/)*[\w-]+\.py)\b")
ELSEWHERE = re.compile(  # files of other projects, by what their names begin with, and of examples
    r"(src|vllm|transformers|models|mlx_lm|conversion|gguf-py|tiktoken|utils|tests/generation)/|configuration_|modeling_|tokenization_"
    r"|convert_|vocab\.py|encoder\.py|(cli/|test_)NAME\.py"
)


def comments_and_docstrings(path: Path) -> str:
    """The prose of a module."""
    text = path.read_text(encoding="utf-8")
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    comments = [
        token.string for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type == tokenize.COMMENT
    ]
    return "\n".join([*filter(None, map(ast.get_docstring, nodes)), *comments])


def test_every_file_that_the_code_speaks_of_exists() -> None:
    files = [path for package in ("nanollama", "conformance") for path in (ROOT / package).rglob("*.py")]
    names = {f"/{path.relative_to(ROOT)}" for path in files} | {"/noxfile.py"}
    lost = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        if not path.is_relative_to(ROOT / "conformance" / "tests")
        for name in FILE.findall(comments_and_docstrings(path))
        if not ELSEWHERE.match(name) and not any(each.endswith(f"/{name}") for each in names)
    }
    assert lost == set()


RECIPES = {  # a recipe of CONTRIBUTING.md → a word whose every file, data and tests apart, the recipe must name
    "Add an architecture": "Olmo2",
    "Add a block format": "Q5_1",
    "Add a sampler": "typical_p",
    "Add an engine": "ctranslate2",
}
APART = ("conformance/tests/", "conformance/katas/exercises/", "conformance/score/zoo/", "conformance/requirements/")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_names_every_file_that_its_example_touched(recipe: str) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition(f"## {recipe}\n")[2].partition("\n## ")[0]
    assert f"Example: `{RECIPES[recipe]}`" in section
    word = re.compile(rf"\b{RECIPES[recipe]}", re.IGNORECASE)
    files = [path for package in ("nanollama", "conformance") for path in (ROOT / package).rglob("*.py")]
    touched = {str(path.relative_to(ROOT)) for path in files if word.search(path.read_text(encoding="utf-8"))}
    untold = {path for path in touched if not path.startswith(APART) and f"`{path}`" not in section}
    assert untold == set()


def test_a_transcript_is_split_into_commands_and_their_output() -> None:
    assert [(c.line, c.output) for c in commands("$ a b\nx\ny\n$ c\n")] == [("a b", "x\ny\n"), ("c", "")]


def test_only_numbers_of_the_machine_are_forgiven() -> None:
    assert comparable("err 1.8e-15 at near/layers.0  0.85x\n") == comparable("err 9.0e-14 at far/logits  1.20x\n")
    assert comparable("layers.1 differs") != comparable("layers.2 differs")
    assert comparable("24 taps") != comparable("23 taps")

"""The course: the `Kata` record, and the reader of katas.toml. The order of the file is the order of the course."""

import ast
import tomllib
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from conformance import ROOT
from nanollama.errors import unknown_name

KATAS = Path(__file__).parent
TABLE = KATAS / "katas.toml"


@dataclass(frozen=True)
class Kata:
    """Functions of the live runtime to write again, with hints, reading and known mistakes."""

    name: str
    title: str
    module: str  # "nanollama.model.layers"
    targets: tuple[str, ...]  # qualified names of functions in it, in the order in which to write them
    minutes: int
    items: tuple[str, ...]  # of ROADMAP.md that this kata teaches
    hints: tuple[str, str, str]  # from a nudge to nearly the solution
    reads: tuple[str, str]  # one paper, one production implementation
    mistakes: tuple[str, ...]  # names of zoo entries whose edits lie in the targets; the learner reads their `what`
    after: tuple[str, ...] = ()  # katas to do before; not enforced
    imports: tuple[str, ...] = ()  # modules of its tests that change torch: imported before names are watched
    elsewhere: dict[str, str] = field(default_factory=dict)  # zoo entries in the targets that these tests can't see: reason
    equivalent: dict[str, str] = field(default_factory=dict)  # mutants of the targets that compute the same: reason

    @property
    def reference(self) -> Path:
        """The file that holds the targets."""
        return ROOT.joinpath(*self.module.split(".")).with_suffix(".py")

    @property
    def source(self) -> str:
        """The text of that file, as it is now."""
        return self.reference.read_bytes().decode()

    @property
    def tests(self) -> Path:
        """The file with this kata's tests."""
        return file_of("exercises", f"test_{self.name}.py")

    @property
    def test_names(self) -> list[str]:
        """The tests in teaching order, read without running anything."""
        tree = ast.parse(self.tests.read_text(encoding="utf-8"))
        return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]

    @property
    def alternatives(self) -> Path:
        """The file with other right answers."""
        return file_of("alternatives", f"{self.name}.py")


def file_of(room: str, name: str) -> Path:
    """The file of this name in one of a room's areas; if there is none, a path in the room itself."""
    return next((KATAS / room).glob(f"*/{name}"), KATAS / room / name)


@cache
def course() -> dict[str, Kata]:
    """Every kata by name, in the order of the course."""
    return {name: read_kata(name, entry) for name, entry in read_table()["kata"].items()}


def without_kata() -> dict[str, str]:
    """Items of ROADMAP.md that have no kata, and why."""
    reasons: dict[str, str] = read_table()["without"]
    return reasons


def read_table() -> dict[str, Any]:
    """katas.toml, parsed."""
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def read_kata(name: str, entry: dict[str, Any]) -> Kata:
    """One [kata.NAME] of the table."""
    known = {each.name for each in fields(Kata)} - {"name"}
    if unknown := entry.keys() - known:
        raise ValueError(f"kata {name} has {sorted(unknown)}; there are {sorted(known)}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return Kata(name, **values)


def find_kata(name: str) -> Kata:
    """The kata of this name; NanollamaError if there is none."""
    if name not in course():
        raise unknown_name("kata", name, course(), "`nanollama kata list`")
    return course()[name]

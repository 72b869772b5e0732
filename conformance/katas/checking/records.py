"""What the child process reports of a learner's file, and its form as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Line:
    """One line of the learner's file in a traceback."""

    number: int
    function: str
    text: str


@dataclass(frozen=True)
class Trouble:
    """Why no test could be judged, and where in the learner's file."""

    problem: str
    where: list[Line] = field(default_factory=list)


@dataclass(frozen=True)
class ReportedTest:
    """One test: its docstring, and why and where it failed; `unwritten`: it met a function that is still the stub."""

    name: str
    about: str = ""
    problem: str | None = None
    where: list[Line] = field(default_factory=list)
    unwritten: bool = False


@dataclass(frozen=True)
class Report:
    """One check of one file. `looks_like`: the sentence of the known mistake that it reproduces."""

    file: str
    trouble: Trouble | None = None
    tests: list[ReportedTest] = field(default_factory=list)
    looks_like: str | None = None


def report_to_json(report: Report) -> dict[str, Any]:
    """As the child sends it."""
    return asdict(report)


def report_from_json(record: Mapping[str, Any]) -> Report:
    """Back from JSON; KeyError or TypeError if a field is missing, unknown or of another form."""
    trouble = record["trouble"] and Trouble(record["trouble"]["problem"], lines_of(record["trouble"]))
    tests = [ReportedTest(**{**test, "where": lines_of(test)}) for test in record["tests"]]
    return Report(**{**record, "trouble": trouble, "tests": tests})


def lines_of(entry: Mapping[str, Any]) -> list[Line]:
    """The lines of one entry."""
    return [Line(**line) for line in entry["where"]]

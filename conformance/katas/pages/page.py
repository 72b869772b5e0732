"""The page that `check` prints: the file under test, the first failing test in full, the others by name, the next command."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import indent, wrap

from conformance.katas.checking.check import Outcome
from conformance.katas.checking.records import Line
from conformance.katas.course import Kata

PRINTED = 20  # lines of the learner's own output
WIDTH = 110  # characters in a line, where it can be broken


def page(kata: Kata, file: Path, outcome: Outcome, following: str | None) -> str:
    """The whole page; `following` is the name of the next kata, None if every other one is passed."""
    lines = [f"kata {kata.name}: testing {short_path(file)}"]
    if outcome.trouble is not None:
        lines += ["", "FAILED before the first result", *problem_lines(outcome.trouble.problem, outcome.trouble.where, file)]
        lines += printed(list(outcome.printed.values())[-1] if outcome.printed else "")
    elif outcome.passed:
        lines += passed(kata, outcome)
    else:
        lines += failed(outcome, file)
    return "\n".join([*lines, "", *upcoming(kata, outcome, following)]) + "\n"


def failed(outcome: Outcome, file: Path) -> Iterator[str]:
    """The first failure in full, and the rest by name."""
    failing = [test for test in outcome.tests if test.problem is not None]
    first, others = failing[0], [test for test in failing[1:] if not test.unwritten]
    yield from ["", f"FAILED {first.name}"]
    yield from indented(wrap(first.about, WIDTH))
    yield from problem_lines(first.problem or "", first.where, file)
    yield from printed(outcome.printed.get(first.name, ""))
    if others:
        yield from ["", "also failing"]
        yield from indented([test.name for test in others])
    yield from ["", f"{len(outcome.tests) - len(failing)} of {len(outcome.tests)} tests pass"]
    if outcome.looks_like:
        yield from wrap(f"looks like: {outcome.looks_like}", WIDTH, subsequent_indent="  ")


def passed(kata: Kata, outcome: Outcome) -> Iterator[str]:
    """All tests pass, and two texts to read."""
    yield from ["", f"PASSED all {len(outcome.tests)} tests", "", "to read next"]
    yield from indented(kata.reads)


def upcoming(kata: Kata, outcome: Outcome, following: str | None) -> Iterator[str]:
    """The next command."""
    if not outcome.passed:
        yield f"next: nanollama kata hint {kata.name}"
    elif following is None:
        yield f"next: nanollama kata diff {kata.name}    (yours against the runtime's); every other kata is done"
    else:
        yield f"next: nanollama kata diff {kata.name}    (yours against the runtime's), then: nanollama kata start {following}"


def problem_lines(problem: str, where: list[Line], file: Path) -> Iterator[str]:
    """A problem, and the lines of the learner's file that led to it."""
    for line in problem.splitlines():
        yield from indented([line] if line.startswith("inputs: ") else wrap(line, WIDTH, subsequent_indent="  "))
    for each in where:
        inside = f" in {each.function}" if each.function not in ("", "<module>") else ""
        yield f"  {short_path(file)}:{each.number}{inside}"
        yield f"    {each.text}"


def printed(text: str) -> Iterator[str]:
    """The output of the learner's code, its last PRINTED lines."""
    lines = text.splitlines()
    if lines:
        left = f" (the last {PRINTED} of {len(lines)} lines)" if len(lines) > PRINTED else ""
        yield f"  and printed{left}"
        yield from indented([f"  {line}" for line in lines[-PRINTED:]])


def indented(lines: Iterable[str]) -> Iterator[str]:
    """Lines indented by two spaces."""
    return (indent(line, "  ") for line in lines)


def short_path(file: Path) -> str:
    """A path relative to the current folder, if it is inside."""
    try:
        relative = os.path.relpath(file)
    except ValueError:  # on another drive
        return str(file)
    return str(file) if relative.startswith("..") else relative

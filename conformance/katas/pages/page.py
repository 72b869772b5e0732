"""What `check` shows: the file under test, the first test that fails in full, the others by name, and what to do next."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import indent, wrap

from conformance.katas.checking.check import Outcome
from conformance.katas.course import Kata

PRINTED = 20  # lines of the learner's own output
WIDTH = 110  # characters in a line, where it can be broken


def page(kata: Kata, file: Path, outcome: Outcome, follower: str | None) -> str:
    """The whole page; `follower` is the kata to do after this one."""
    lines = [f"kata {kata.name}: testing {near(file)}"]
    if outcome.trouble is not None:
        lines += ["", "FAILED before a test could tell", *told(outcome.trouble["problem"], outcome.trouble["where"], file)]
        lines += printed(list(outcome.printed.values())[-1] if outcome.printed else "")
    elif outcome.passed:
        lines += passed(kata, outcome)
    else:
        lines += failed(outcome, file)
    return "\n".join([*lines, "", *upcoming(kata, outcome, follower)]) + "\n"


def failed(outcome: Outcome, file: Path) -> Iterator[str]:
    """The first failure in full, and the rest by name."""
    failing = [test for test in outcome.tests if test["problem"] is not None]
    first, others = failing[0], [test for test in failing[1:] if not test["unwritten"]]
    yield from ["", f"FAILED {first['name']}"]
    yield from indented(wrap(first["about"], WIDTH))
    yield from told(first["problem"], first["where"], file)
    yield from printed(outcome.printed.get(first["name"], ""))
    if others:
        yield from ["", "also failing"]
        yield from indented([test["name"] for test in others])
    yield from ["", f"{len(outcome.tests) - len(failing)} of {len(outcome.tests)} tests pass"]
    if outcome.looks_like:
        yield from wrap(f"looks like: {outcome.looks_like}", WIDTH, subsequent_indent="  ")


def passed(kata: Kata, outcome: Outcome) -> Iterator[str]:
    """All is well, and where it goes on from here."""
    yield from ["", f"PASSED all {len(outcome.tests)} tests", "", "to read next"]
    yield from indented(kata.reads)


def upcoming(kata: Kata, outcome: Outcome, follower: str | None) -> Iterator[str]:
    """The next command."""
    if not outcome.passed:
        yield f"next: nanollama kata hint {kata.name}"
    elif follower is None:
        yield f"next: nanollama kata diff {kata.name}    (yours beside the runtime's); every other kata is done"
    else:
        yield f"next: nanollama kata diff {kata.name}    (yours beside the runtime's), then: nanollama kata start {follower}"


def told(problem: str, where: list[tuple[int, str, str]], file: Path) -> Iterator[str]:
    """A problem, and where in the learner's file it arose."""
    for line in problem.splitlines():
        yield from indented([line] if line.startswith("inputs: ") else wrap(line, WIDTH, subsequent_indent="  "))
    for number, function, text in where:
        yield f"  {near(file)}:{number}" + (f" in {function}" if function not in ("", "<module>") else "")
        yield f"    {text}"


def printed(text: str) -> Iterator[str]:
    """What the learner's code printed, its end where it is long."""
    lines = text.splitlines()
    if lines:
        left = f" (the last {PRINTED} of {len(lines)} lines)" if len(lines) > PRINTED else ""
        yield f"  and printed{left}"
        yield from indented([f"  {line}" for line in lines[-PRINTED:]])


def indented(lines: Iterable[str]) -> Iterator[str]:
    """Lines, each a little to the right."""
    return (indent(line, "  ") for line in lines)


def near(file: Path) -> str:
    """A path as one would type it here."""
    try:
        relative = os.path.relpath(file)
    except ValueError:  # on another drive
        return str(file)
    return str(file) if relative.startswith("..") else relative

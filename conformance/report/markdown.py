"""The summary of runs in Markdown, for the page of a step in CI: the verdict, the areas, what is wrong, what changed."""

import re
from collections.abc import Iterator, Sequence

from conformance.report.parts.difference import condensed, difference
from conformance.report.parts.matrix import labels, short
from conformance.report.parts.sections import Findings, Wrong
from conformance.report.parts.tally import by_area, cases_in_words, reasons_invalid
from conformance.report.terminal import COLUMNS, printable
from conformance.requirements.requirement import load_requirements
from conformance.requirements.results import Run, Verdict

MOST = 30  # lines of a list; the number of further ones is printed


def markdown(runs: Sequence[Run], against: Run | None = None) -> str:
    """The whole summary; what changed `against` another run, for the first."""
    known = load_requirements()
    findings = [Findings(label, run, known) for label, run in zip(labels(runs), runs, strict=True)]
    lines = [line for found in findings for line in summary(found)]
    if against is not None:
        lines += ["### What changed", "", *bounded(list(changes(against, runs[0]))), ""]
    return "\n".join(lines)


def summary(found: Findings) -> Iterator[str]:
    """One run."""
    mark = "✓" if found.run.passed else "∅" if reasons_invalid(found.run) else "✗"
    yield from (f"## {mark} {escaped(found.label)}: {found.outcome}", "", escaped(found.sentence), "")
    yield from (*areas(found), "")
    if found.wrong:
        yield from ("### What is wrong", "", *bounded([wrong_line(wrong) for wrong in found.wrong]), "")


def areas(found: Findings) -> Iterator[str]:
    """The table of areas by verdicts that occur."""
    counts = by_area(found.run, found.known)
    columns = [verdict for name in COLUMNS if any(count[verdict := Verdict(name)] for count in counts.values())]
    if columns:
        yield f"| area | {' | '.join(columns)} |"
        yield "|---|" + "--:|" * len(columns)
        for area, count in counts.items():
            yield f"| {area} | {' | '.join(str(count[verdict] or '') for verdict in columns)} |"


def wrong_line(wrong: Wrong) -> str:
    """One fault: place, detail, cases, and the requirements that it violates."""
    detail = f": {wrong.first.detail}" if wrong.first.detail else ""
    where = f"in {cases_in_words([*map(short, wrong.cases)])}, violates {cases_in_words(wrong.ids, 5)}"
    return f"- **{wrong.verdict}** {escaped(wrong.place)}{escaped(detail[:240])} ({escaped(where)})"


def changes(old: Run, new: Run) -> Iterator[str]:
    """One line for each requirement that changed in one way."""
    for change, cases in condensed(difference(old, new)):
        where = f"{change.where.requirement} in {cases_in_words([*map(short, cases)])}"
        yield f"- **{change.kind}** {escaped(f'{where}: {change.what}')}"


def bounded(lines: list[str]) -> list[str]:
    """At most MOST of the lines; "Nothing." if there are none."""
    more = [f"- and {len(lines) - MOST} more"] if len(lines) > MOST else []
    return lines[:MOST] + more or ["Nothing."]


def escaped(text: str) -> str:
    """Text with Markdown's signs escaped: engines' texts are not trusted."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~&])", r"\\\1", printable(text))

"""A run on the terminal: the verdict, a table by area, then a line for every requirement that is not fulfilled."""

from collections import Counter
from collections.abc import Iterator, Mapping

from conformance.report.tally import by_area, by_requirement, cases_in_words, cases_of, grouped, outcome, sentence
from conformance.requirements import load_requirements
from conformance.results import Result, Run, Verdict

LONGEST = 240  # characters of what is said of one requirement
COLUMNS = ("PASS", "EXCUSED", "NOTE", "FAIL", "ERROR", "INCONCLUSIVE", "UNSUPPORTED")


def terminal(run: Run) -> str:
    """What `python -m conformance run` prints."""
    known, engine = load_requirements(), run.engine
    who = f"{engine.name} {engine.version}, {' '.join(engine.levels) or 'no level'}, {engine.dtype} on {engine.device}"
    verdict = f"{outcome(run).upper()}: {sentence(run)}"
    bad = [line for results in by_requirement(run.results, known).values() for line in bad_lines(results)]
    parts = ([who, verdict], list(table(by_area(run, known))), bad, [f"{run.compared} comparisons in {run.seconds:.1f} s"])
    return "\n\n".join("\n".join(map(printable, part)) for part in parts if part)


def table(areas: Mapping[str, Counter[Verdict]]) -> Iterator[str]:
    """One line an area, then the sum; only verdicts that occur have a column."""
    total = sum(areas.values(), Counter[Verdict]())
    columns = [verdict for verdict in COLUMNS if total[Verdict(verdict)]]
    if columns:
        yield "area".ljust(16) + "".join(column.rjust(len(column) + 2) for column in columns)
        for area, counts in [*areas.items(), ("all", total)]:
            yield area.ljust(16) + "".join(str(counts[Verdict(c)] or "").rjust(len(c) + 2) for c in columns).rstrip()


def bad_lines(results: list[Result]) -> Iterator[str]:
    """One line for each verdict of one requirement that is not good: where, what, and in which cases."""
    for verdict in (Verdict.ERROR, Verdict.FAIL, Verdict.INCONCLUSIVE):
        found = [result for result in results if result.verdict is verdict]
        if found:
            group, cases = grouped(found)[0], cases_of(found)
            said = [f"at {group.place}" if group.place else "", group.measured, group.first.detail]
            line = f"{verdict.ljust(12)} {found[0].requirement}  {cases_in_words(cases)}: {'; '.join(filter(None, said))}"
            yield line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def printable(text: str) -> str:
    """The text on one line, without characters that command a terminal: engines' texts are not to be trusted."""
    return "".join(char if char.isprintable() or char == "\N{NO-BREAK SPACE}" else " " for char in text)

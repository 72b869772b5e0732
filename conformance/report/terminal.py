"""A run on the terminal: the verdict, a table by family, a table by area, the likely causes, a line for every requirement that
is not fulfilled, and one for all that could not be decided for the same reason."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from conformance.report.parts.tally import by_area, by_requirement, cases_in_words, cases_of, grouped, outcome, sentence
from conformance.requirements.requirement import load_requirements
from conformance.requirements.results import Cause, FamilyErrors, Result, Run, Verdict
from conformance.truth.compare import SEMANTIC_BAR
from conformance.truth.golden import NUMERIC_FACTOR

LONGEST = 240  # characters of a line
COLUMNS = ("PASS", "EXCUSED", "NOTE", "FAIL", "ERROR", "INCONCLUSIVE", "UNSUPPORTED")


def terminal(run: Run) -> str:
    """What `python -m conformance run` prints."""
    known, engine = load_requirements(), run.engine
    who = f"{engine.name} {engine.version}, {' '.join(engine.levels) or 'no level'}, {engine.dtype} on {engine.device}"
    verdict = f"{outcome(run).upper()}: {sentence(run)}"
    results = [*by_requirement(run.results, known).values()]
    bad = [line for verdict in (Verdict.ERROR, Verdict.FAIL) for each in results for line in bad_lines(each, verdict)]
    undecided, last = [*undecided_lines(results)], [f"{run.compared} comparisons in {run.seconds:.1f} s"]
    parts = (
        [who, verdict],
        family_table(run.families),
        [*area_rows(by_area(run, known))],
        [*cause_lines(run.causes)],
        bad,
        undecided,
        last,
    )
    return "\n\n".join("\n".join(map(printable, part)) for part in parts if part)


def family_table(families: Sequence[FamilyErrors]) -> list[str]:
    """A line on how to read the table of families, and the table; nothing without families."""
    exact = f"float64: worst relative error over all taps (bar {SEMANTIC_BAR:.0e})"
    ratio = f"lower precisions: error over transformers' own (bar {NUMERIC_FACTOR:g}x)"
    found = ((exact, any(each.taps for each in families)), (ratio, any(each.ratios for each in families)))
    caption = "; ".join(words for words, there in found if there)
    return [caption, *family_rows(families)] if families else []


def family_rows(families: Sequence[FamilyErrors]) -> list[str]:
    """The table of families: worst relative error over all taps to the golden and to transformers, and where; then, in lower
    precisions, the error over transformers' own. Only columns with numbers."""
    if not families:
        return []
    exact = {name: [getattr(each, name) for each in families] for name in ("golden", "transformers")}
    exact = {name: errors for name, errors in exact.items() if any(error is not None for error in errors)}
    dtypes = list(dict.fromkeys(dtype for each in families for dtype in each.ratios))
    head = "family".ljust(22) + "".join(name.rjust(13) for name in exact) + ("  worst tap".ljust(44) if exact else "")
    rows = [(head + "".join(dtype.rjust(10) for dtype in dtypes)).rstrip()]
    for i, each in enumerate(families):
        errors = "".join(("" if row[i] is None else f"{row[i]:.1e}").rjust(13) for row in exact.values())
        ratios = "".join((f"{each.ratios[dtype]:.2f}x" if dtype in each.ratios else "").rjust(10) for dtype in dtypes)
        wrong = "" if each.good else f"  FAIL {each.first_beyond or 'precision'}"
        rows.append(
            (each.architecture.ljust(22) + errors + (f"  {each.worst_tap:42}" if exact else "") + ratios).rstrip() + wrong
        )
    return rows


def area_rows(areas: Mapping[str, Counter[Verdict]]) -> Iterator[str]:
    """One line an area, then the sum; only verdicts that occur have a column."""
    total = sum(areas.values(), Counter[Verdict]())
    columns = [verdict for verdict in COLUMNS if total[Verdict(verdict)]]
    if columns:
        yield "area".ljust(16) + "".join(column.rjust(len(column) + 2) for column in columns)
        for area, counts in [*areas.items(), ("all", total)]:
            yield area.ljust(16) + "".join(str(counts[Verdict(c)] or "").rjust(len(c) + 2) for c in columns).rstrip()


def cause_lines(causes: Iterable[Cause]) -> Iterator[str]:
    """One line for each likely cause, with all places where it is one."""
    places: dict[tuple[str, float | None], list[str]] = {}
    for cause in causes:
        places.setdefault((cause.sentence, cause.share), []).append(f"{cause.case} at {cause.place}")
    for (what, share), found in places.items():
        right = "" if share is None else f"; right in {share:.0%} of seeded bugs"
        yield limited(f"LIKELY       {what} ({cases_in_words(list(dict.fromkeys(found)))}{right})")


def bad_lines(results: list[Result], verdict: Verdict) -> Iterator[str]:
    """One line for a verdict of one requirement: cases, place, errors, detail."""
    found = [result for result in results if result.verdict is verdict]
    if found:
        group, cases = grouped(found)[0], cases_of(found)
        parts = [f"at {group.place}" if group.place else "", group.measured, group.first.detail]
        yield limited(f"{verdict.ljust(12)} {found[0].requirement}  {cases_in_words(cases)}: {'; '.join(filter(None, parts))}")


def undecided_lines(results: Iterable[list[Result]]) -> Iterator[str]:
    """The requirements that could not be decided, by reason."""
    reasons: dict[str, list[str]] = {}
    for each in results:
        found = [result for result in each if result.verdict is Verdict.INCONCLUSIVE]
        if found:
            reasons.setdefault(grouped(found)[0].first.detail, []).append(found[0].requirement)
    for why, requirements in reasons.items():
        yield limited(f"INCONCLUSIVE {', '.join(requirements)}: {why}")


def limited(line: str) -> str:
    """The line, shortened."""
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def printable(text: str) -> str:
    """The text on one line, without control characters: engines' texts are not trusted."""
    return "".join(char if char.isprintable() or char == "\N{NO-BREAK SPACE}" else " " for char in text)

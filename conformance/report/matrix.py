"""The matrix: a table for each area, a row for each requirement, a column for each case of a run or each engine of several."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from conformance.report.tally import ELSEWHERE, GRAVEST_FIRST, Group, area_of, grouped
from conformance.requirements import AREAS, Requirement
from conformance.results import Result, Run, Verdict, worst

Labelled = dict[str, list[Result]]  # results by column


@dataclass(frozen=True)
class Cell:
    """What one column says of one requirement; None: nothing."""

    verdict: Verdict | None
    title: str


@dataclass(frozen=True)
class Row:
    """One requirement; `known` is None where requirements.toml does not have it."""

    id: str
    known: Requirement | None
    cells: list[Cell]
    groups: list[tuple[str, Group]]  # with the engine, where there are several

    @property
    def verdicts(self) -> list[Verdict]:
        """Every verdict in the row, the gravest first."""
        found = {group.first.verdict for _, group in self.groups}
        return [verdict for verdict in GRAVEST_FIRST if verdict in found]


@dataclass(frozen=True)
class Area:
    """The requirements of one area."""

    name: str
    columns: list[str]
    rows: list[Row]

    @property
    def counts(self) -> Counter[Verdict]:
        """How many requirements have which verdict, the gravest of their row."""
        return Counter(row.verdicts[0] for row in self.rows)

    def column(self, index: int) -> Counter[Verdict]:
        """The same for one column."""
        return Counter(cell.verdict for row in self.rows if (cell := row.cells[index]).verdict)

    @property
    def is_good(self) -> bool:
        """Whether nothing in it is wrong or undecided."""
        return all(verdict.good for verdict in self.counts)


def labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run that no other has: the engine's, with its version, dtype or number where that is needed."""
    choices: list[Callable[[Run], str]] = [
        lambda run: run.engine.name,
        lambda run: f"{run.engine.name} {run.engine.version}",
        lambda run: f"{run.engine.name} {run.engine.dtype}",
        lambda run: f"{run.engine.name} {run.engine.version} {run.engine.dtype}",
    ]
    for choice in choices:
        names = [choice(run) for run in runs]
        if len(set(names)) == len(names):
            return names
    return [f"{run.engine.name} ({i})" for i, run in enumerate(runs, 1)]


def areas_of(runs: Sequence[Run], known: Mapping[str, Requirement]) -> list[Area]:
    """The matrix of one run by case, or of several by engine, in the order of the requirements."""
    names, found = labels(runs), []
    rows = labelled_results(runs, names, known)
    for area in (*AREAS, ELSEWHERE):
        mine = {id: labelled for id, labelled in rows.items() if area_of(id, known) == area}
        columns = names if len(runs) > 1 else list(dict.fromkeys(column for labelled in mine.values() for column in labelled))
        if mine:
            found.append(Area(area, columns, [row_of(id, known.get(id), mine[id], columns, len(runs) > 1) for id in mine]))
    return found


def labelled_results(runs: Sequence[Run], names: Sequence[str], known: Mapping[str, Requirement]) -> dict[str, Labelled]:
    """By requirement and column, in the order of the requirements."""
    found: dict[str, Labelled] = {id: {} for id in known}
    for name, run in zip(names, runs, strict=True):
        for result in run.results:
            column = name if len(runs) > 1 else result.case
            found.setdefault(result.requirement, {}).setdefault(column, []).append(result)
    return {id: labelled for id, labelled in found.items() if labelled}


def row_of(id: str, known: Requirement | None, labelled: Labelled, columns: Sequence[str], by_engine: bool) -> Row:
    """One requirement's cells, and what they say at length."""
    cells = [cell_of(column, labelled.get(column, [])) for column in columns]
    if by_engine:
        return Row(id, known, cells, [(name, group) for name, results in labelled.items() for group in grouped(results)])
    return Row(
        id, known, cells, [("", group) for group in grouped(result for results in labelled.values() for result in results)]
    )


def cell_of(column: str, results: Sequence[Result]) -> Cell:
    """The gravest verdict, and in a line what it stands for."""
    if not results:
        return Cell(None, f"{column}: not judged")
    verdict = worst(results)
    group = next(group for group in grouped(results) if group.first.verdict is verdict)
    parts = [group.measured, f"at {group.first.place}" if group.first.place else "", group.first.detail[:120]]
    return Cell(verdict, f"{column}: {verdict}" + "".join(f"; {part}" for part in parts if part))

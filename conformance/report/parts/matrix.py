"""The matrix: a table for each area, a row for each requirement, a column for each family of a run or each engine of several.

A family's column is its fixture and all variations of it; the row lists the verdicts of each.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from conformance.models.fixtures import FIXTURES
from conformance.report.parts.tally import ELSEWHERE, WORST_FIRST, Group, area_of, cases_of, grouped
from conformance.requirements.requirement import AREAS, Requirement
from conformance.requirements.results import About, Result, Run, Verdict

EVERY = "every case"  # the case of results about no case in particular
Labelled = dict[str, list[Result]]  # results by column


@dataclass(frozen=True)
class Cell:
    """The verdict of one column on one requirement; None: not judged."""

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
        """Every verdict in the row, the worst first."""
        found = {group.first.verdict for _, group in self.groups}
        return [verdict for verdict in WORST_FIRST if verdict in found]


@dataclass(frozen=True)
class Area:
    """The requirements of one area."""

    name: str
    columns: list[str]
    rows: list[Row]

    @property
    def counts(self) -> Counter[Verdict]:
        """How many requirements have which verdict, the worst of their row."""
        return Counter(row.verdicts[0] for row in self.rows)

    def column(self, index: int) -> Counter[Verdict]:
        """How many have which in one column."""
        return Counter(verdict for row in self.rows if (verdict := row.cells[index].verdict))

    @property
    def is_good(self) -> bool:
        """Whether nothing in it is wrong or undecided."""
        return all(verdict.good for verdict in self.counts)


def labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run that no other has: the engine's, with version, dtype or number where another has the same."""
    ways: list[Callable[[int, About], str]] = [
        lambda _, engine: engine.name,
        lambda _, engine: f"{engine.name} {engine.version}",
        lambda _, engine: f"{engine.name} {engine.dtype}",
        lambda _, engine: f"{engine.name} {engine.version} {engine.dtype}",
        lambda i, engine: f"{engine.name} ({i + 1})",
    ]
    names = [[way(i, run.engine) for i, run in enumerate(runs)] for way in ways]
    return [next((way[i] for way in names if way.count(way[i]) == 1), names[-1][i]) for i in range(len(runs))]


def areas_of(runs: Sequence[Run], known: Mapping[str, Requirement]) -> list[Area]:
    """The matrix of one run by case, or of several by engine, in the order of the requirements."""
    names, found = labels(runs), []
    rows = labelled_results(runs, names, known)
    for area in (*AREAS, ELSEWHERE):
        mine = {id: labelled for id, labelled in rows.items() if area_of(id, known) == area}
        columns = names if len(runs) > 1 else families_first({column for labelled in mine.values() for column in labelled})
        columns = [column for column in columns if column != EVERY] or columns
        if mine:
            found.append(Area(area, columns, [row_of(id, known.get(id), mine[id], columns, len(runs) > 1) for id in mine]))
    return found


def labelled_results(runs: Sequence[Run], names: Sequence[str], known: Mapping[str, Requirement]) -> dict[str, Labelled]:
    """By requirement and column, in the order of the requirements."""
    found: dict[str, Labelled] = {id: {} for id in known}
    for name, run in zip(names, runs, strict=True):
        for result in run.results:
            column = name if len(runs) > 1 else family(result.case)
            found.setdefault(result.requirement, {}).setdefault(column, []).append(result)
    return {id: labelled for id, labelled in found.items() if labelled}


def family(case: str) -> str:
    """The family that a case is of: "llama: yarn" and "LlamaForCausalLM" are both "Llama"; any other case is its own name."""
    return FAMILIES.get(case.partition(":")[0].partition(",")[0], case)


def families_first(columns: Iterable[str]) -> list[str]:
    """Families in their usual order, then all else by name."""
    order = list(dict.fromkeys(FAMILIES.values()))
    return sorted(columns, key=lambda name: (order.index(name) if name in order else len(order), name))


def short(case: str) -> str:
    """A family's name without the common ending."""
    return case.removesuffix("ForCausalLM").removesuffix("LMHeadModel") or case


FAMILIES = {short(name).lower(): short(name) for name in FIXTURES} | {name: short(name) for name in FIXTURES}


def row_of(id: str, known: Requirement | None, labelled: Labelled, columns: Sequence[str], by_engine: bool) -> Row:
    """One requirement's cells, and its results grouped."""
    cells = [cell_of(column, labelled.get(column) or labelled.get(EVERY, [])) for column in columns]
    if by_engine:
        return Row(id, known, cells, [(name, group) for name, results in labelled.items() for group in grouped(results)])
    return Row(
        id, known, cells, [("", group) for group in grouped(result for results in labelled.values() for result in results)]
    )


def cell_of(column: str, results: Sequence[Result]) -> Cell:
    """The worst verdict, and a line on its cases, errors and place."""
    if not results:
        return Cell(None, f"{column}: not judged")
    group = grouped(results)[0]
    result, among = group.first, len(cases_of(results))
    cases = f" in {len(group.cases)} of {among} cases" if among > 1 else f" in {result.case}"
    parts = [group.measured, f"at {group.place}" if group.place else "", result.detail[:120]]
    return Cell(result.verdict, f"{column}: {result.verdict}{cases}" + "".join(f"; {part}" for part in parts if part))

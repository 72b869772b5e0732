"""What is different between two runs: new failures, what was fixed, other verdicts, errors that grew or shrank."""

from collections.abc import Iterable
from dataclasses import dataclass

from conformance.report.parts.tally import cases_of
from conformance.requirements.results import Result, Run, worst

TWICE = 2.0  # an error that is off by less than this factor from the older run's is the same
KINDS = (
    "new failure",
    "fixed",
    "other verdict",
    "larger error",
    "smaller error",
    "no longer judged",
    "judged for the first time",
)


@dataclass(frozen=True)
class Change:
    """One requirement in one case, by one test, before and after; None where it was not judged."""

    kind: str
    old: Result | None
    new: Result | None

    @property
    def where(self) -> Result:
        """The newer result, or the older where there is no newer one: for its requirement, case and test."""
        result = self.new or self.old
        assert result is not None
        return result

    @property
    def what(self) -> str:
        """ "PASS → FAIL", "error 2e-14 → 1e-12 (50 times)"."""
        if self.kind.endswith("error"):
            before, after = (result.error or 0.0 for result in (self.old, self.new) if result)
            return f"error {before:.2g} → {after:.2g}" + (f" ({after / before:.2g} times)" if before else "")
        return " → ".join("—" if result is None else result.verdict for result in (self.old, self.new))


def difference(old: Run, new: Run) -> list[Change]:
    """Every change, the worst kind first; in a kind in the order of the newer run."""
    before, after = by_key(old.results), by_key(new.results)
    changes = [change for key in {**after, **before} if (change := change_of(before.get(key), after.get(key)))]
    return sorted(changes, key=lambda change: KINDS.index(change.kind))


def condensed(changes: Iterable[Change]) -> list[tuple[Change, list[str]]]:
    """Equal changes of one requirement once, with their cases."""
    found: dict[tuple[str, str, str], list[Change]] = {}
    for change in changes:
        found.setdefault((change.where.requirement, change.kind, change.what), []).append(change)
    return [(alike[0], cases_of(change.where for change in alike)) for alike in found.values()]


def by_key(results: Iterable[Result]) -> dict[tuple[str, str, str], Result]:
    """The worst result for each requirement, case and test."""
    found: dict[tuple[str, str, str], Result] = {}
    for result in results:
        key = (result.requirement, result.case, result.test)
        found[key] = result if key not in found or worst([found[key], result]) is result.verdict else found[key]
    return found


def change_of(old: Result | None, new: Result | None) -> Change | None:
    """The change from one result to another; None if nothing changed."""
    if new is None:
        return Change("no longer judged", old, None)
    if not new.verdict.good and (old is None or old.verdict.good):
        return Change("new failure", old, new)
    if old is None:
        return Change("judged for the first time", None, new)
    if old.verdict != new.verdict:
        return Change("fixed" if new.verdict.good and not old.verdict.good else "other verdict", old, new)
    kind = kind_of_error(old.error, new.error)
    return Change(kind, old, new) if kind else None


def kind_of_error(old: float | None, new: float | None) -> str:
    """How an error changed by more than a factor of 2: "larger error", "smaller error", or "" if it did not."""
    if old is None or new is None:
        return ""
    if not new <= TWICE * old and old == old:  # NaN is larger than any number
        return "larger error"
    return "smaller error" if not old <= TWICE * new and new == new else ""

"""The report as one self-contained HTML file: no network, no fonts, no external scripts."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from conformance.checks import all_checks
from conformance.report.gaps import open_gaps
from conformance.report.parts.difference import KINDS, Change, condensed, difference
from conformance.report.parts.matrix import areas_of, labels, short
from conformance.report.parts.sections import Findings, levels_offered, smallest, source_link
from conformance.report.parts.tally import ELSEWHERE, cases_in_words, of_judged, test_of
from conformance.report.terminal import printable
from conformance.requirements.requirement import TIERS, load_requirements
from conformance.requirements.results import Run, Verdict
from conformance.score.ranking import read_ranking

TEMPLATES = Path(__file__).parent / "templates"
SHOWN = (Verdict.PASS, Verdict.EXCUSED, Verdict.NOTE, Verdict.UNSUPPORTED, Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.ERROR)


@dataclass(frozen=True)
class Sign:
    """A verdict without colour: a glyph and a letter."""

    glyph: str
    letter: str


SIGNS = {
    Verdict.PASS: Sign("✓", "P"),
    Verdict.EXCUSED: Sign("≈", "X"),
    Verdict.NOTE: Sign("•", "N"),
    Verdict.UNSUPPORTED: Sign("–", "U"),
    Verdict.INCONCLUSIVE: Sign("?", "I"),
    Verdict.FAIL: Sign("✗", "F"),
    Verdict.ERROR: Sign("!", "E"),
}
TITLES = {
    "rope": "Rotary positions",
    "mlp": "MLP",
    "moe": "Mixture of experts",
    "kv_cache": "Key–value cache",
    "eos": "End of sequence",
    "logprobs": "Log-probabilities",
    "residual": "Residual stream",
    "head": "Output head",
    ELSEWHERE: "Not in the list of requirements",
}


def title_of(area: str) -> str:
    """An area's name for people."""
    return TITLES.get(area, area.replace("_", " ").capitalize())


@cache
def environment() -> Environment:
    """The templates; everything that is put into them is escaped, and without control characters."""
    found = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )  # fmt: skip
    found.filters.update(
        title_of=title_of,
        short=short,
        words=cases_in_words,
        test_of=test_of,
        of_judged=of_judged,
        worst_of=worst_of,
        smallest=smallest,
        source_link=source_link,
        levels=levels_offered,
    )
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = Markup((TEMPLATES / "page.css").read_text(encoding="utf-8"))
    found.globals.update(signs=SIGNS, shown=SHOWN, tiers=TIERS, Verdict=Verdict)
    found.globals.update(style=style, script=Markup(script), digest=Markup(digest))
    return found


def render(runs: Sequence[Run], against: Run | None = None) -> str:
    """The page on one run, or on several side by side."""
    known = load_requirements()
    findings = [Findings(label, run, known) for label, run in zip(labels(runs), runs, strict=True)]
    view: Mapping[str, Any] = {
        "findings": findings,
        "areas": areas_of(runs, known),
        "gaps": open_gaps(runs, known, all_checks(), read_ranking().caught),
        "known": known,
        "against": against,
        "changes": changes_by_kind(against, runs[0]) if against is not None else {},
    }
    return environment().get_template("page.html").render(view)


def write_report(run: Run, path: Path, against: Run | None = None) -> None:
    """Write the page on one engine: requirements by families, and what changed `against` another run."""
    path.write_text(render([run], against), encoding="utf-8")


def write_matrix(runs: Sequence[Run], path: Path) -> None:
    """Write the page on several engines side by side: requirements by engines."""
    path.write_text(render(runs), encoding="utf-8")


def worst_of(counts: Mapping[Verdict, int]) -> Verdict | None:
    """The worst verdict that was counted; None if there is none."""
    return max((verdict for verdict in counts if counts[verdict]), key=list(Verdict).index, default=None)


def changes_by_kind(old: Run, new: Run) -> dict[str, list[tuple[Change, list[str]]]]:
    """The changes of each kind, without empty kinds."""
    found = difference(old, new)
    kinds = {kind: condensed(change for change in found if change.kind == kind) for kind in KINDS}
    return {kind: changes for kind, changes in kinds.items() if changes}

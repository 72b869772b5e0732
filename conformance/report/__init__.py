"""The report of a run: one HTML file, a table for the terminal, a summary in Markdown, a badge.

`python -m conformance.report RUN.json [RUN2.json …] --html FILE` draws what `python -m conformance run` found.
"""

from collections.abc import Sequence
from pathlib import Path

from conformance.report.markdown import markdown
from conformance.report.page import render
from conformance.report.parts.badge import badge
from conformance.report.terminal import terminal
from conformance.requirements.results import Run

__all__ = ["badge", "markdown", "terminal", "write_matrix", "write_report"]


def write_report(run: Run, path: Path, against: Run | None = None) -> None:
    """The page on one engine: requirements by families, and what changed `against` another run."""
    path.write_text(render([run], against), encoding="utf-8")


def write_matrix(runs: Sequence[Run], path: Path) -> None:
    """The page on several engines side by side: requirements by engines."""
    path.write_text(render(runs), encoding="utf-8")

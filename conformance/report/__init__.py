"""The report of a run: one HTML file, a table for the terminal, a summary in Markdown, a badge.

`python -m conformance.report RUN.json [RUN2.json …] --html FILE` draws what `python -m conformance run` found.
"""

from collections.abc import Sequence
from pathlib import Path

from conformance.report.badge import badge
from conformance.report.terminal import terminal
from conformance.results import Run

__all__ = ["badge", "terminal", "write_matrix", "write_report"]


def write_report(run: Run, path: Path, against: Run | None = None, killers: set[str] | None = None) -> None:
    """The page on one engine: cases by requirements, and what changed `against` another run.

    `killers`: the checks that killed a seeded bug, for the list of requirements whose tests have not.
    """
    from conformance.report.page import render

    path.write_text(render([run], against, killers), encoding="utf-8")


def write_matrix(runs: Sequence[Run], path: Path, killers: set[str] | None = None) -> None:
    """The page on several engines side by side: engines by requirements."""
    from conformance.report.page import render

    path.write_text(render(runs, None, killers), encoding="utf-8")

"""`python -m conformance.report RUN.json [RUN2.json …] [--against OLD.json] [--html FILE] [--markdown FILE] [--badge FILE]`.

Draws what `python -m conformance run --json` wrote: one run, or several engines side by side. Without an output file it prints
a table.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from conformance.report.markdown import markdown
from conformance.report.page import write_matrix, write_report
from conformance.report.parts.badge import badge
from conformance.report.terminal import terminal
from conformance.requirements.results import Run, read_run


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    top = argparse.ArgumentParser(
        prog="python -m conformance.report",
        description="Draw what runs of the suite found.",
        epilog="example: python -m conformance.report mine.json --against yesterday.json --html mine.html",
    )
    top.add_argument("runs", metavar="RUN.json", type=Path, nargs="+", help="a run; several: engines side by side")
    top.add_argument("--against", metavar="OLD.json", type=Path, help="also what changed since this run")
    top.add_argument("--html", metavar="FILE", type=Path, help="write the report as one page")
    top.add_argument("--markdown", metavar="FILE", type=Path, help="write a summary for the page of a CI step")
    top.add_argument("--badge", metavar="FILE", type=Path, help="write a badge, an SVG")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 whatever the verdict, which the run itself returned; 2 for bad input."""
    options = parser().parse_args(arguments)
    if len(options.runs) > 1 and (options.against or options.badge):
        print("error: --against and --badge are for one run; several were given", file=sys.stderr)
        return 2
    try:
        runs = [read_run(path) for path in options.runs]
        against = read_run(options.against) if options.against else None
        write(runs, against, options)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def write(runs: list[Run], against: Run | None, options: argparse.Namespace) -> None:
    """Write every file that is requested, or print the table."""
    if options.html and len(runs) == 1:
        write_report(runs[0], options.html, against)
    elif options.html:
        write_matrix(runs, options.html)
    if options.markdown:
        options.markdown.write_text(markdown(runs, against), encoding="utf-8")
    if options.badge:
        options.badge.write_text(badge(runs[0]), encoding="utf-8")
    if not (options.html or options.markdown or options.badge):
        print("\n\n".join(map(terminal, runs)))


if __name__ == "__main__":
    raise SystemExit(main())

"""The report of a run: one HTML file, a table for the terminal, a summary in Markdown, a badge."""

from conformance.report.terminal import terminal

__all__ = ["terminal"]

"""A badge: "conformance 287/301 · L4" as a small SVG, green only where the run passed."""

from html import escape

from conformance.report.parts.tally import Outcome, outcome, passed_and_judged, reasons_invalid, top_level
from conformance.report.terminal import printable
from conformance.requirements.results import Run

CHARACTER, MARGIN = 6.6, 9.0  # pixels; the text is stretched to the computed width
GREEN, RED, AMBER, GREY = "#2f6b4f", "#a3262a", "#7a5200", "#5b5f66"
COLOURS = {Outcome.CONFORMS: GREEN, Outcome.IN_PART: GREEN, Outcome.FAILS: RED, Outcome.OPEN: AMBER, Outcome.INVALID: GREY}


def badge(run: Run) -> str:
    """The SVG text."""
    passed, judged = passed_and_judged(run)
    value = "invalid" if reasons_invalid(run) else f"{passed}/{judged} · {printable(top_level(run))}"
    left, right = (2 * MARGIN + CHARACTER * len(text) for text in ("conformance", value))
    label, width = escape(f"conformance {value}"), left + right
    texts = "".join(
        f'<text x="{x + MARGIN:.1f}" y="14" textLength="{CHARACTER * len(text):.1f}">{escape(text)}</text>'
        for x, text in ((0.0, "conformance"), (left, value))
    )
    clip = f'<clipPath id="round"><rect width="{width:.1f}" height="20" rx="4"/></clipPath>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.1f}" height="20" viewBox="0 0 {width:.1f} 20" role="img" '
        f'aria-label="{label}"><title>{label}</title>{clip}'
        f'<g clip-path="url(#round)"><rect width="{left:.1f}" height="20" fill="#33373d"/>'
        f'<rect x="{left:.1f}" width="{right:.1f}" height="20" fill="{COLOURS[outcome(run)]}"/></g>'
        f'<g fill="#fff" font-family="Verdana, DejaVu Sans, sans-serif" font-size="11">{texts}</g></svg>\n'
    )

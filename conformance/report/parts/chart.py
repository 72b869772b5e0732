"""Error growth: the error of every tap along the data path, on a logarithmic scale, with the noise floor below.

Writes SVG directly: colours come from the page's style sheet, and all text is escaped.
"""

import math
import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from markupsafe import Markup, escape

from conformance.report.parts.growth import first_beyond, in_words, is_judged
from conformance.report.terminal import printable
from conformance.requirements.results import Point

WIDTH, HEIGHT = 360.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 38.0, 352.0, 10.0, 164.0
LOWEST, HIGHEST = -18, 6  # decades that are drawn; what is beyond, and no error at all, stands at the edge
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def growth_chart(case: str, points: Sequence[Point]) -> Markup:
    """One family's chart as SVG; empty where nothing was judged."""
    judged = [(i, point) for i, point in enumerate(points) if is_judged(point)]
    if not judged:
        return Markup("")
    shown = [point for _, point in judged]
    decades, first = range_of(shown), first_beyond(shown)
    xs = [LEFT + (RIGHT - LEFT) * (i + 0.5) / len(points) for i, _ in judged]
    errors, floors = [height(p.error, decades) for p in shown], [height(p.floor, decades) for p in shown]
    parts = [*axis(decades), *layers(points), band(xs, floors), line("error", xs, errors)]
    if first is not None:
        x = xs[shown.index(first)]
        parts.append(f'<line class="first" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{BOTTOM}"/>')
    parts += [mark(x, y, point) for x, y, point in zip(xs, errors, shown, strict=True)]
    label = escape(printable(f"{case}: error by tap, against the noise floor. {in_words(points)}"))
    body = "".join(parts)
    return Markup(f'<svg class="growth" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{label}">{body}</svg>')


def range_of(points: Sequence[Point]) -> tuple[int, int]:
    """The decades to draw, at least two: from the smallest error or floor to the largest."""
    values = [v for point in points for v in (point.error, point.floor) if v > 0 and math.isfinite(v)] or [1.0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    low = min(max(low, LOWEST), HIGHEST - 2)
    return low, max(min(high, HIGHEST), low + 2)


def height(value: float, decades: tuple[int, int]) -> float:
    """The y coordinate of a value; 0 at the bottom, infinite or undefined values at the top."""
    low, high = decades
    power = high if not math.isfinite(value) else math.log10(value) if value > 0 else low
    return BOTTOM - (BOTTOM - TOP) * (min(max(power, low), high) - low) / (high - low)


def axis(decades: tuple[int, int]) -> Iterator[str]:
    """Lines and labels of at most seven powers of ten."""
    low, high = decades
    for power in range(low, high + 1, max(1, math.ceil((high - low) / 6))):
        y = height(10.0**power, decades)
        yield f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{RIGHT}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{power_of_ten(power)}</text>'


def power_of_ten(power: int) -> str:
    """ "10⁻³"."""
    return f"10{str(power).translate(SUPERSCRIPTS)}"


def layers(points: Sequence[Point]) -> Iterator[str]:
    """The number of each layer below its taps, and a line before it; only some numbers where all would be too close."""
    start, step = 0, (RIGHT - LEFT) / len(points)
    for layer, found in groupby(points, key=layer_of):
        size = len(list(found))
        if layer is not None:
            x, middle = LEFT + step * start, LEFT + step * (start + size / 2)
            yield f'<line class="layer" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{BOTTOM}"/>'
            if layer % math.ceil(14 / (step * size)) == 0:
                name = f"layer {layer}" if step * size >= 40 else layer
                yield f'<text x="{middle:.1f}" y="{BOTTOM + 15}" text-anchor="middle">{name}</text>'
        start += size


def layer_of(point: Point) -> int | None:
    """ "layers.3.mlp" → 3."""
    found = re.match(r"layers\.(\d{1,4})(\.|$)", point.tap)
    return int(found[1]) if found else None


def band(xs: Sequence[float], ys: Sequence[float]) -> str:
    """Everything below the floor."""
    corners = [f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True)]
    return f'<polygon class="floor" points="{xs[0]:.1f},{BOTTOM} {" ".join(corners)} {xs[-1]:.1f},{BOTTOM}"/>'


def line(name: str, xs: Sequence[float], ys: Sequence[float]) -> str:
    """Points joined."""
    return f'<polyline class="{name}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))}"/>'


def mark(x: float, y: float, point: Point) -> str:
    """One tap: a dot within its floor, a larger square beyond it; its name and numbers on hovering."""
    title = escape(printable(f"{point.tap}: {point.error:.2g}, floor {point.floor:.2g}"))
    if point.error <= point.floor:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.8"><title>{title}</title></circle>'
    return f'<rect x="{x - 2.5:.1f}" y="{y - 2.5:.1f}" width="5" height="5"><title>{title}</title></rect>'

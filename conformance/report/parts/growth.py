"""The errors along the data path in words: the first beyond its floor, or the closest to it."""

from collections.abc import Sequence

from conformance.requirements.results import Point


def is_judged(point: Point) -> bool:
    """Whether anything was compared at a tap: where every token is a tie between experts, error and floor are 0."""
    return not point.error == point.floor == 0


def first_beyond(points: Sequence[Point]) -> Point | None:
    """The first tap whose error is beyond its floor, or NaN."""
    return next((point for point in points if not point.error <= point.floor), None)


def in_words(points: Sequence[Point]) -> str:
    """The content of the chart, in a sentence or two."""
    judged, first = [point for point in points if is_judged(point)], first_beyond(points)
    without = (
        f" Not judged, since every token is a tie: {len(points) - len(judged)} of {len(points)} taps."
        if len(judged) < len(points)
        else ""
    )
    if first is not None:
        return f"First beyond its floor: {first.tap}, {first.error:.2g} for {first.floor:.2g}.{without}"
    if not judged:
        return without.lstrip()
    near = max(judged, key=lambda point: point.error / point.floor)
    share = f"{100 * near.error / near.floor:.0f}\N{NO-BREAK SPACE}% of its floor"
    return f"Every tap is within its floor; the closest is {near.tap}, at {share}.{without}"

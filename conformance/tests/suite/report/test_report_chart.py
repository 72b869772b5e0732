"""Charts and badges are well-formed SVG, stay in their frame whatever was measured, and mark the first tap beyond its floor."""

import re
from math import inf, nan
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.report.parts.badge import badge
from conformance.report.parts.chart import BOTTOM, TOP, growth_chart, height, power_of_ten, range_of
from conformance.report.parts.growth import first_beyond, in_words
from conformance.report.parts.sections import smallest
from conformance.requirements.results import About, Detectable, Point, Result, Run, Verdict

BELOW = Point("layers.0.mlp", "mlp", 1e-3, 1e-2)
BEYOND = Point("layers.1.mlp", "mlp", 0.5, 1e-2)
LATER = Point("layers.2.mlp", "mlp", 0.7, 1e-2)
HOSTILE = '"><script>alert(1)</script>&\x1b'
values = st.one_of(st.floats(min_value=0), st.sampled_from([0.0, 5e-324, 1e-300, 1e300, inf, nan]))
taps = st.one_of(st.integers(0, 99).map(lambda i: f"layers.{i}.mlp"), st.sampled_from(["embeddings", "logits", HOSTILE]))


def parts(chart: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(chart).iter())


def test_the_first_tap_beyond_its_floor_is_found_and_marked() -> None:
    points = [BELOW, BEYOND, LATER]
    assert first_beyond(points) is BEYOND
    chart = growth_chart("Llama", points)
    tags = [part.tag for part in parts(chart)]
    assert tags.count("circle") == 1 and tags.count("rect") == 2
    (line,) = (part for part in parts(chart) if part.get("class") == "first")
    square = next(part for part in parts(chart) if part.tag == "rect")
    assert float(line.attrib["x1"]) == pytest.approx(float(square.attrib["x"]) + 2.5)
    assert in_words(points) == "First beyond its floor: layers.1.mlp, 0.5 for 0.01."


def test_an_error_that_is_no_number_is_beyond_every_floor() -> None:
    assert first_beyond([Point("norm", "norm", nan, inf)]) is not None
    assert first_beyond([Point("norm", "norm", 0.0, 0.0)]) is None


def test_where_every_tap_is_within_its_floor_the_closest_is_named() -> None:
    closer = Point("logits", "logits", 5e-3, 1e-2)
    assert first_beyond([BELOW, closer]) is None and 'class="first"' not in growth_chart("Llama", [BELOW, closer])
    assert in_words([BELOW, closer]) == "Every tap is within its floor; the closest is logits, at 50\xa0% of its floor."


def test_a_tap_where_nothing_could_be_compared_is_not_drawn_as_exact() -> None:
    tie = Point("layers.1.mlp", "mlp", 0.0, 0.0)
    chart = growth_chart("Mixtral", [BELOW, tie])
    assert [part.tag for part in parts(chart)].count("circle") == 1
    assert in_words([BELOW, tie]).endswith("Not judged, since every token is a tie: 1 of 2 taps.")
    assert growth_chart("Mixtral", [tie]) == "" and in_words([tie]).startswith("Not judged")


def test_heights_are_those_of_a_logarithmic_scale() -> None:
    assert height(1e-4, (-4, 0)) == BOTTOM and height(1.0, (-4, 0)) == TOP
    assert height(1e-2, (-4, 0)) == pytest.approx((BOTTOM + TOP) / 2)
    assert height(0.0, (-4, 0)) == BOTTOM and height(nan, (-4, 0)) == height(inf, (-4, 0)) == TOP


def test_the_decades_hold_every_error_and_floor() -> None:
    assert range_of([BELOW, BEYOND]) == (-3, 0)
    assert range_of([Point("a", "b", 0.0, 0.0)]) == (0, 2)
    assert range_of([Point("a", "b", 1e-300, inf)]) == (-18, -16)


@given(st.lists(st.builds(Point, tap=taps, kind=st.just("mlp"), error=values, floor=values), min_size=1, max_size=60))
def test_whatever_was_measured_is_drawn_within_the_frame(points: list[Point]) -> None:
    judged = [point for point in points if not point.error == point.floor == 0]
    if not judged:
        assert growth_chart(HOSTILE, points) == ""
        return
    svg, *inner = parts(growth_chart(HOSTILE, points))
    left, top, width, depth = map(float, svg.attrib["viewBox"].split())
    xs, ys = [], []
    for part in inner:
        xs += [float(value) for name, value in part.attrib.items() if name in ("x", "cx", "x1", "x2")]
        ys += [float(value) for name, value in part.attrib.items() if name in ("y", "cy", "y1", "y2")]
        for x, y in re.findall(r"(\S+),(\S+)", part.get("points", "")):
            xs.append(float(x))
            ys.append(float(y))
    assert left <= min(xs) and max(xs) <= left + width and top <= min(ys) and max(ys) <= top + depth
    assert sum(part.tag in ("circle", "rect") for part in inner) == len(judged)
    assert not any("script" in part.tag for part in inner)


def test_no_points_are_no_chart() -> None:
    assert growth_chart("Llama", []) == ""


def test_layers_are_numbered_as_far_as_there_is_room() -> None:
    three = [Point(f"layers.{i}.mlp", "mlp", 1e-3, 1e-2) for i in range(3)]
    many = [Point(f"layers.{i}.mlp", "mlp", 1e-3, 1e-2) for i in range(90)]
    labels = [part.text for part in parts(growth_chart("a", three)) if part.tag == "text" and part.get("y") == f"{BOTTOM + 15}"]
    assert labels == ["layer 0", "layer 1", "layer 2"]
    labels = [part.text for part in parts(growth_chart("a", many)) if part.tag == "text" and part.get("y") == f"{BOTTOM + 15}"]
    assert labels[:3] == ["0", "5", "10"]


def run(*results: Result, level: str = "L4") -> Run:
    return Run(About("tiny", "1", (level,)), results=list(results))


def test_a_badge_says_how_many_requirements_pass_and_at_which_level() -> None:
    good = Result("ROPE-001", "a", "t", Verdict.PASS, compared=1)
    bad = Result("ROPE-002", "a", "t", Verdict.FAIL, compared=1)
    told = {"".join(ElementTree.fromstring(badge(run(*results))).itertext()) for results in ([good], [good, bad], [])}
    assert told == {
        "conformance 1/1 · L4conformance1/1 · L4",
        "conformance 1/2 · L4conformance1/2 · L4",
        "conformance invalidconformanceinvalid",
    }
    fills = {re.findall(r'fill="(#\w{6})"/></g>', badge(run(*results)))[0] for results in ([good], [good, bad], [])}
    assert len(fills) == 3


def test_a_badge_believes_no_engine() -> None:
    made = badge(run(Result("ROPE-001", "a", "t", Verdict.PASS, compared=1), level=HOSTILE))
    assert "alert(1)" in made
    assert not any("script" in part.tag for part in parts(made))


def test_numbers_are_written_for_people() -> None:
    assert power_of_ten(-12) == "10⁻¹²" and power_of_ten(0) == "10⁰"
    field = Detectable("a", "eps", 1e-5, 0.012)
    assert smallest(field) == "1.2\xa0%"
    assert smallest(Detectable("a", "length", 512, 6.6)) == "660\xa0%"
    assert smallest(Detectable("a", "eps", 1e-5, 3e-9)) == "3·10⁻⁹"
    assert smallest(Detectable("a", "offset", 0.0, 0.25)) == "0.25"
    assert smallest(Detectable("a", "window", 7, None)) == "none"

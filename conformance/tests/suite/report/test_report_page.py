"""The page shows every result, believes no text that an engine gave it, needs nothing from elsewhere, and can be read."""

import base64
import hashlib
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from math import inf, nan
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.models.fixtures import FIXTURES
from conformance.report.page import SIGNS, TEMPLATES, render, write_matrix, write_report
from conformance.requirements.requirement import load_requirements
from conformance.requirements.results import About, Cause, Detectable, FamilyErrors, Point, Result, Run, Verdict

LLAMA = "LlamaForCausalLM"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'{{7*7}}&lt;"
VOID_TAGS = {"meta", "input", "link", "br", "img", "hr"}
ABOUT = About("tiny", "1.0", ("L0", "L2"), "float32", "cpu", "made by hand")
FAILS = Result("ROPE-001", LLAMA, "replay", Verdict.FAIL, "turned twice", "layers.1.rotary", 0.5, 1e-10, 3)
PASSES = Result("ATTN-001", LLAMA, "replay", Verdict.PASS, error=2e-14, bar=1e-10, compared=3)
POINTS = [Point("embeddings", "embeddings", 1e-3, 1e-2), Point("layers.0", "block", 0.5, 1e-2)]


class Page(HTMLParser):
    """A page taken apart: its elements, its text without scripts and styles, and whether every element ends where it must."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = self.script = self.style = ""
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"{tag} has an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> within {self.open}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.script += data
        elif "style" in self.open:
            self.style += data
        else:
            self.text += data


def run(*results: Result) -> Run:
    return Run(ABOUT, results=list(results), controls={"null engine": True})


def full() -> Run:
    """A run with something in every section."""
    excused = Result("GENR-001", LLAMA, "greedy", Verdict.EXCUSED, compared=9, excused=2)
    unsure = Result("HEAD-001", LLAMA, "logits", Verdict.INCONCLUSIVE, "wrong before it", compared=1)
    silent = Result("NORM-007", LLAMA, "replay", Verdict.UNSUPPORTED, "it takes no inputs")
    made = run(FAILS, PASSES, excused, unsure, silent, Result("FAKE-001", "completions", "t", Verdict.ERROR, "HTTP 500"))
    made.growth = {LLAMA: POINTS}
    made.causes = [Cause(LLAMA, "layers.1.rotary", "The angle is doubled.", 0.9), Cause(LLAMA, "x", "It is not.", None)]
    made.detectable = [
        Detectable(LLAMA, "rms_norm_eps", 1e-6, 0.02, "layers.0.input_layernorm"),
        Detectable(LLAMA, "sliding_window", 7, None, needs="a longer prompt"),
    ]
    made.families = [FamilyErrors(LLAMA, 3e-15, None, 9, "far/layers.2.mlp", ratios={"bfloat16": 1.03})]
    return made


def hostile() -> Run:
    """The same with HOSTILE in every text that an engine may choose."""
    made = full()
    made.engine = About(HOSTILE, HOSTILE, (HOSTILE,), HOSTILE, HOSTILE, HOSTILE)
    made.started = made.command = HOSTILE
    made.versions, made.controls, made.growth = {HOSTILE: HOSTILE}, {HOSTILE: True}, {HOSTILE: [Point(HOSTILE, "x", 2.0, 1.0)]}
    made.results += [Result(HOSTILE, HOSTILE, HOSTILE, verdict, HOSTILE, HOSTILE, compared=1) for verdict in Verdict]
    made.detectable += [Detectable(HOSTILE, HOSTILE, 1.0, small, HOSTILE, HOSTILE) for small in (0.1, None)]
    made.causes += [Cause(HOSTILE, HOSTILE, HOSTILE, 0.5)]
    made.families += [FamilyErrors(HOSTILE, math.inf, math.nan, 9, HOSTILE, HOSTILE, {HOSTILE: 3.0}, good=False)]
    return made


def test_every_part_of_a_run_is_on_its_page() -> None:
    page = Page(render([full()], run(PASSES)))
    told = (
        "Does not conform", "1.0", "made by hand", "null engine", "turned twice", "layers.1.rotary", "HTTP 500", "FAKE-001",
        "2 ties of 9 comparisons", "wrong before it", "it takes no inputs", "The angle is doubled.", "right for 90 %",
        "was not measured", "2\xa0%", "a longer prompt", "First beyond its floor", "New failure", "PASS", "completions",
        "3.0e-15", "far/layers.2.mlp", "bfloat16 1.03×",
    )  # fmt: skip
    assert [text for text in told if text not in page.text] == []


def test_nothing_that_an_engine_says_becomes_part_of_the_page() -> None:
    for text in (render([hostile()], hostile()), render([hostile(), full(), hostile()])):
        page = Page(text)
        assert [tag for tag, _ in page.tags].count("script") == 1 and "img" not in dict(page.tags)
        assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
        assert HOSTILE in page.text


def test_the_page_loads_nothing_and_runs_only_its_own_script() -> None:
    page = Page(render([full()]))
    assert not {"link", "img", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    assert {tag for tag, attrs in page.tags if {"href", "src", "xlink:href", "srcset"} & set(attrs)} == {"a"}
    assert "url(" not in page.style and "@import" not in page.style and "fetch" not in page.script
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    (policy,) = (attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_every_reference_within_the_page_has_its_target() -> None:
    for runs in ([full()], [full(), run(PASSES)]):
        page = Page(render(runs, runs[0] if len(runs) == 1 else None))
        ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
        assert len(ids) == len(set(ids))
        targets = {str(attrs["href"])[1:] for tag, attrs in page.tags if tag == "a" and str(attrs["href"]).startswith("#")}
        targets |= {str(attrs["aria-labelledby"]) for _, attrs in page.tags if "aria-labelledby" in attrs}
        assert targets <= set(ids)


texts = st.text(st.characters(codec="utf-8"), max_size=12)
numbers = st.one_of(st.none(), st.floats(min_value=0), st.sampled_from([nan, inf]))
results = st.builds(
    Result,
    requirement=st.one_of(st.sampled_from(list(load_requirements())), texts),
    case=st.one_of(st.sampled_from([*FIXTURES, "llama: yarn", "chat"]), texts),
    test=texts,
    verdict=st.sampled_from(Verdict),
    detail=texts,
    place=texts,
    error=numbers,
    bar=numbers,
    compared=st.integers(0, 5),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(results, max_size=8), st.lists(results, max_size=8))
def test_every_result_of_any_run_appears_and_the_page_is_whole(new: list[Result], old: list[Result]) -> None:
    page = Page(render([run(*new)], run(*old)))
    words = " ".join(page.text.split())
    for result in new:
        for text in (result.requirement, result.detail, "" if result.verdict.good else result.place):
            shown = " ".join("".join(char if char.isprintable() else " " for char in text).split())
            assert shown in words, repr(text)
    Page(render([run(*new), run(*old)]))


def test_a_row_has_a_cell_for_every_column_and_says_the_verdict_without_colour() -> None:
    page = render([full(), run(PASSES)])
    tables = re.findall(r'<table class="cells".*?</table>', page, re.S)
    assert tables
    for table in tables:
        columns = table.count('class="turned"')
        assert columns == 2
        assert {row.count("<td") for row in re.findall(r"<tr role=\"row\" data.*?</tr>", table, re.S)} == {columns}
    assert all(f"{sign.glyph}<b>{sign.letter}</b>" in page for sign in (SIGNS[Verdict.FAIL], SIGNS[Verdict.PASS]))
    for one, other in combinations(SIGNS.values(), 2):
        assert one.glyph != other.glyph and one.letter != other.letter


@pytest.mark.parametrize("nothing", [run(), run(replace(PASSES, compared=0)), replace(run(PASSES), controls={"null": False})])
def test_a_run_that_shows_nothing_says_so_in_its_headline(nothing: Run) -> None:
    page = Page(render([nothing]))
    assert "The run is invalid" in page.text and "Conforms" not in page.text
    matrix = Page(render([nothing, nothing]))
    assert "None of 2 engines conform" in matrix.text and "The run is invalid" in matrix.text


def test_an_engine_that_offers_little_is_not_said_to_pass_what_it_does_not_offer() -> None:
    silent = [Result(id, LLAMA, "t", Verdict.UNSUPPORTED, "it gives no logits") for id in ("HEAD-001", "HEAD-002")]
    page = Page(render([run(PASSES, *silent)]))
    assert "1 of 1 judged requirements pass; 2 are not judged." in page.text
    assert "it gives no logits 2 requirements" in " ".join(page.text.split())


def test_variations_within_their_floors_are_folded_away_and_others_are_not() -> None:
    made = run(PASSES)
    made.growth = {LLAMA: POINTS[:1], "llama: yarn": POINTS[:1], "llama: plain": POINTS}
    page = render([made])
    shown, folded = page[page.index('id="growth"') : page.index('id="provenance"')].split("<details>")
    assert "1 variation within the floor at every tap" in folded and "<b>llama: yarn</b>" in folded
    assert "<b>llama: plain</b>" in shown and "<b>Llama</b>" in shown


def test_eight_engines_on_twelve_families_stay_below_three_megabytes(tmp_path: Path) -> None:
    ids = list(load_requirements())[:350]
    runs = []
    for i in range(8):
        made = [
            Result(id, case, f"test[{case}]", Verdict.FAIL if j % 40 == i else Verdict.PASS, "off" if j % 40 == i else "",
                   error=1e-14 * j, bar=1e-10, compared=3)
            for j, id in enumerate(ids) for case in FIXTURES
        ]  # fmt: skip
        growth = {case: [Point(f"layers.{j}.mlp", "mlp", 1e-14, 1e-13) for j in range(40)] for case in FIXTURES}
        runs.append(Run(About(f"engine {i}", "1", ("L4",)), results=made, growth=growth))
    write_matrix(runs, tmp_path / "matrix.html")
    write_report(runs[0], tmp_path / "one.html", runs[1])
    assert all(path.stat().st_size < 3_000_000 for path in tmp_path.iterdir())


def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb" (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [1, 2], ids=["light", "dark"])
def test_every_text_has_the_contrast_that_reading_needs(theme: int) -> None:
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    colours = {m[1]: m.groups()[theme] for m in re.finditer(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style)}
    pairs = [(name, "paper") for name in ("ink", "muted", "link", "bad-text", "pass-ink")] + [("ink", "raised")]
    pairs += [(f"{verdict.lower()}-ink", verdict.lower()) for verdict in Verdict]
    for ink, paper in pairs:
        dark, bright = sorted((luminance(colours[ink]), luminance(colours[paper])))
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, f"{ink} on {paper}"


def test_the_page_follows_the_system_and_can_be_told_otherwise() -> None:
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    assert "color-scheme: light dark" in style
    for theme in ("light", "dark"):
        assert f':root[data-theme="{theme}"] {{ color-scheme: {theme}; }}' in style
    assert "@media print" in style and "@media (max-width" in style

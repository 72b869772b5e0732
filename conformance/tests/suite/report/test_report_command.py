"""`python -m conformance.report` writes what it is asked for and refuses what it can't read; the Markdown; the open gaps."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.checks import Check
from conformance.report.__main__ import main
from conformance.report.gaps import open_gaps
from conformance.report.markdown import MOST, escaped, markdown
from conformance.report.parts.matrix import areas_of, families_first, family, labels
from conformance.report.parts.sections import Findings, source_link
from conformance.requirements.requirement import Requirement, load_requirements
from conformance.requirements.results import About, Result, Run, Verdict, write_run

LLAMA = "LlamaForCausalLM"
GOOD = Result("ROPE-001", LLAMA, "replay", Verdict.PASS, error=1e-14, bar=1e-10, compared=1)
BAD = replace(GOOD, verdict=Verdict.FAIL, place="layers.0.rotary", detail="turned | twice", error=0.5)
KNOWN = load_requirements()


def run(*results: Result, name: str = "tiny", version: str = "1", dtype: str = "float32") -> Run:
    return Run(About(name, version, ("L2",), dtype), results=list(results))


def written(folder: Path, name: str, *results: Result) -> str:
    path = folder / name
    write_run(run(*results, name=name), path)
    return str(path)


def test_one_run_is_written_as_page_summary_and_badge(tmp_path: Path) -> None:
    new, old = written(tmp_path, "new", BAD), written(tmp_path, "old", GOOD)
    html, text, svg = (str(tmp_path / name) for name in ("a.html", "a.md", "a.svg"))
    assert main([new, "--against", old, "--html", html, "--markdown", text, "--badge", svg]) == 0
    assert "New failure" in Path(html).read_text() and "0/1 · L2" in Path(svg).read_text()
    assert "- **new failure** ROPE-001 in Llama: PASS → FAIL" in Path(text).read_text()


def test_several_runs_are_one_page_with_a_column_for_each(tmp_path: Path) -> None:
    html = tmp_path / "a.html"
    assert main([written(tmp_path, "one", GOOD), written(tmp_path, "two", BAD), "--html", str(html)]) == 0
    assert "1 of 2 engines conforms" in html.read_text()


def test_without_a_file_to_write_the_table_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([written(tmp_path, "one", BAD)]) == 0
    assert "DOES NOT CONFORM: 0 of 1 judged requirements pass, 1 fails." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (lambda path: [str(path / "absent.json")], "absent.json"),
        (lambda path: [str(path / "other.json")], "other.json is not a run of this suite"),
        (lambda path: [str(path / "one"), "--html", str(path / "no" / "folder.html")], "folder.html"),
        (lambda path: [str(path / "one"), str(path / "one"), "--against", str(path / "one")], "are for one run"),
    ],
)
def test_what_cant_be_done_is_refused_in_one_line(
    arguments: Callable[[Path], list[str]], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, "one", GOOD)
    (tmp_path / "other.json").write_text("{}")
    assert main(arguments(tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and told in error and error.count("\n") == 1


def test_markdown_has_a_line_for_every_place_and_says_how_many_it_leaves_out() -> None:
    told = markdown([run(*(replace(BAD, place=f"part{chr(97 + i // 26)}{chr(97 + i % 26)}") for i in range(MOST + 3)))])
    assert told.count("- **FAIL**") == MOST and "- and 3 more" in told
    assert "| rope | 1 |" in told


def test_markdown_shows_texts_as_they_are() -> None:
    assert escaped("a|b `c` <d> [e](f) *g*\x1b[2J\nh") == r"a\|b \`c\` \<d\> \[e\](f) \*g\* \[2J h"
    assert r"turned \| twice" in markdown([run(BAD)])


def test_what_is_wrong_at_one_place_of_every_layer_is_told_once() -> None:
    elsewhere = replace(BAD, requirement="ROPE-003", place="layers.2.rotary", case="llama: linear")
    unsure = replace(BAD, requirement="HEAD-001", place="", verdict=Verdict.INCONCLUSIVE)
    one, two = Findings("tiny", run(unsure, BAD, elsewhere), KNOWN).wrong
    assert (one.place, one.ids, one.places) == ("rotary", ["ROPE-001", "ROPE-003"], ["layers.0.rotary", "layers.2.rotary"])
    assert (two.place, two.verdict) == ("HEAD-001", Verdict.INCONCLUSIVE)


def test_faults_that_only_the_logits_show_are_told_apart_by_their_cases() -> None:
    at_logits = replace(BAD, place="logits")
    same = replace(at_logits, requirement="ROPE-003")
    other = replace(at_logits, requirement="MLP-001", case="Phi3ForCausalLM")
    found = Findings("tiny", run(at_logits, same, other), KNOWN).wrong
    assert [(wrong.place, wrong.ids) for wrong in found] == [("logits", ["ROPE-001", "ROPE-003"]), ("logits", ["MLP-001"])]


def test_variations_of_a_family_share_its_column() -> None:
    assert {family(case) for case in (LLAMA, "llama: yarn", "llama: yarn, other eps", f"{LLAMA}, other eps")} == {"Llama"}
    assert family("completions") == "completions" and family("gpt2: unscaled") == "GPT2"
    (area,) = areas_of([run(GOOD, replace(BAD, case="llama: yarn"))], KNOWN)
    assert area.columns == ["Llama"] and [cell.verdict for cell in area.rows[0].cells] == [Verdict.FAIL]


def test_columns_are_families_in_their_order_then_the_rest() -> None:
    assert families_first({"chat", "Gemma2", "Llama", "alpha"}) == ["Llama", "Gemma2", "alpha", "chat"]


def test_what_is_filed_once_for_every_case_stands_in_every_column() -> None:
    silent = Result("ROPE-002", "every case", "none", Verdict.UNSUPPORTED, "no check judges it")
    (area,) = areas_of([run(GOOD, replace(GOOD, case="gpt2: unscaled"), silent)], KNOWN)
    assert area.columns == ["Llama", "GPT2"]
    assert [cell.verdict for cell in area.rows[1].cells] == [Verdict.UNSUPPORTED] * 2
    (area,) = areas_of([run(silent)], KNOWN)
    assert area.columns == ["every case"]


def test_every_run_has_a_label_of_its_own() -> None:
    runs = [run(name="a"), run(name="a", version="2"), run(name="b"), run(name="b", dtype="float16"), run(name="c")]
    assert labels(runs) == ["a 1", "a 2", "b float32", "b float16", "c"]
    assert labels([run(), run()]) == ["tiny (1)", "tiny (2)"]


def test_gaps_are_requirements_without_test_without_proof_and_without_result() -> None:
    known = {id: Requirement(id, "A sentence.", "specified", "L2", "rope", "arXiv 1") for id in ("A", "B", "C", "D")}
    known["E"] = Requirement("E", "A sentence.", "unspecified", "L2", "rope", "arXiv 1")
    checks = [Check("kills", ("A",), "rope", print), Check("never did", ("B", "C"), "rope", print)]
    gaps = open_gaps([run(replace(GOOD, requirement="B"))], known, checks, {"A"})
    assert [each.id for each in gaps.untested] == ["D"]
    assert [each.id for each in gaps.unproven or []] == ["B", "C"]
    assert [each.id for each in gaps.absent] == ["A", "C"]
    assert open_gaps([], known, checks, set()).unproven is None


def test_a_source_is_a_link_only_where_it_is_an_address() -> None:
    assert source_link("arXiv 2104.09864") == "https://arxiv.org/abs/2104.09864"
    assert source_link("https://example.org/a") == "https://example.org/a"
    assert source_link("contract: DESIGN") == source_link("javascript:alert(1)") == ""

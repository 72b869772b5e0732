"""Katas: files that must not pass don't, what passes is believed for a reason, and every kata holds to the quick laws.

All laws, with mistakes and mutants, take minutes: `python -m conformance.katas.laws`, or `nox -s katas`.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace as changed_in
from pathlib import Path
from typing import Any

import pytest

from conformance import ROOT
from conformance.katas import course as table
from conformance.katas import stub
from conformance.katas.checking import check as checking
from conformance.katas.checking import running
from conformance.katas.checking.check import Outcome, by_test, check, signed_report
from conformance.katas.checking.records import Report, ReportedTest, Trouble, report_to_json
from conformance.katas.course import course, find_kata, read_kata
from conformance.katas.laws.canaries import canaries, with_body
from conformance.katas.pages.page import page
from nanollama.errors import NanollamaError

RMSNORM = course()["rmsnorm"]
EPS_OUTSIDE = "return x / (x.pow(2).mean(-1, keepdim=True).sqrt() + self.eps) * self.weight"

# --- files that must not pass, in processes of their own


@pytest.fixture
def learner(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a learner's file."""

    def write(text: str) -> Path:
        file = tmp_path / "rmsnorm" / "layers.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    return write


def test_the_reference_passes_and_the_page_says_where_to_go_on(learner: Callable[[str], Path]) -> None:
    file = learner(RMSNORM.source)
    outcome = check(RMSNORM, file)
    assert outcome.passed
    text = page(RMSNORM, file, outcome, "rope")
    assert text.splitlines()[0] == f"kata rmsnorm: testing {file}"
    assert f"PASSED all {len(RMSNORM.test_names)} tests" in text
    assert text.endswith("then: nanollama kata start rope\n")


def test_the_page_of_a_mistake_in_full(learner: Callable[[str], Path]) -> None:
    file = learner(with_body(RMSNORM, "print('hello')", EPS_OUTSIDE))
    outcome = check(RMSNORM, file)
    assert not outcome.passed
    assert (
        page(RMSNORM, file, outcome, "rope")
        == f"""\
kata rmsnorm: testing {file}

FAILED test_eps_sits_inside_the_root
  eps 12 and a mean square of 4: 2 / sqrt(4 + 12) is 1/2. Outside the root, eps 12 would give 2 / (2 + 12).
  RMSNorm.forward: first difference at [0]: got 0.142857, want 0.5 (tolerance 4.8e-07); 2 of 2 differ
  inputs: x = [2, -2]
  and printed
    hello

also failing
  test_gemma_stores_the_weight_minus_one
  test_float16_does_not_overflow
  test_float64_stays_float64
  test_a_llama_models_first_norm

7 of 12 tests pass
looks like: Epsilon is added to the root, not under it.

next: nanollama kata hint rmsnorm
"""
    )


def test_what_is_wrong_in_one_function_is_named_while_another_is_unwritten(learner: Callable[[str], Path]) -> None:
    rope = course()["rope"]
    body = "    return theta ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)\n"
    file = learner(stub.replace(stub.stub(rope), {"default_frequencies": body}))
    outcome = check(rope, file)
    assert outcome.looks_like == "The exponent has lost its minus: the waves get faster with j, not slower."
    text = page(rope, file, outcome, None)
    assert "FAILED test_each_pair_is_slower_than_the_one_before" in text
    assert "also failing" not in text  # the rest is unwritten
    assert check(rope, learner(stub.stub(rope))).looks_like is None


IN_PLACE = with_body(RMSNORM, "x /= (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()", "return x * self.weight")
BY_PROCESS = [
    ("in place", IN_PLACE, "RMSNorm.forward: edited its input x in place, which its caller still needs"),
    ("renamed", canaries(RMSNORM)["renamed"], "there is no RMSNorm.forward in this file; the tests call it by that name"),
    ("patches", canaries(RMSNORM)["patches torch"], "this file changes Tensor.__eq__, which the tests rely on"),
    ("stub", stub.stub(RMSNORM), "RMSNorm.forward is yours to write"),
    ("syntax", canaries(RMSNORM)["not Python"], "this is not Python: "),
    ("says", canaries(RMSNORM)["says that it passed"], "returned nothing: is there a `return`?"),
    ("exit", canaries(RMSNORM)["ends the process when imported"], "your file, when it was imported, ended the whole program"),
    (
        "exit in a call",
        canaries(RMSNORM)["ends the process when called"],
        "root_mean_square ended the whole program",
    ),
]


@pytest.mark.parametrize(("text", "said"), [case[1:] for case in BY_PROCESS], ids=[case[0] for case in BY_PROCESS])
def test_a_file_that_is_not_an_answer_fails_with_its_own_sentence(text: str, said: str, learner: Callable[[str], Path]) -> None:
    file = learner(text)
    outcome = check(RMSNORM, file)
    assert not outcome.passed
    assert said in page(RMSNORM, file, outcome, None)


def test_a_traceback_has_the_learners_frames_only(learner: Callable[[str], Path]) -> None:
    text = with_body(RMSNORM, "y = x", "return y / self.epsilon")
    line = text.splitlines().index("        return y / self.epsilon") + 1
    file = learner(text)
    told = page(RMSNORM, file, check(RMSNORM, file), None)
    assert f"  {file}:{line} in forward\n    return y / self.epsilon\n" in told
    assert "site-packages" not in told and "test_rmsnorm.py" not in told


def test_a_loop_without_an_end_is_stopped(learner: Callable[[str], Path]) -> None:
    outcome = check(RMSNORM, learner(with_body(RMSNORM, "while True:", "    pass")), seconds=10)
    assert not outcome.passed
    assert outcome.trouble is not None
    assert "was still running after 10 seconds, and was stopped" in outcome.trouble.problem


def test_a_check_needs_neither_pytest_nor_transformers() -> None:
    names = [running.tests_module(kata) for kata in course().values()]
    code = "import sys, importlib, conformance.katas.checking.child\n"
    code += f"for n in {names}: importlib.import_module(n)\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"pytest", "hypothesis", "transformers", "_pytest"} & set(run.stdout.split())


# --- what is believed


def passing() -> Report:
    """The child's report of a file that passes."""
    return Report("/k/layers.py", None, [ReportedTest(name) for name in RMSNORM.test_names])


def test_only_a_whole_report_with_the_secret_of_this_check_is_accepted() -> None:
    record = report_to_json(passing())
    good = json.dumps(record | {"secret": "s"}).encode()
    assert signed_report(good, "s") == passing()
    assert signed_report(good, "other") is None
    assert signed_report(good[:-1], "s") is None
    assert signed_report(json.dumps({"file": "/k/layers.py", "secret": "s"}).encode(), "s") is None
    assert signed_report(json.dumps(record | {"tests": [1], "secret": "s"}).encode(), "s") is None
    assert signed_report(b"PASSED all 12 tests\n", "s") is None
    assert signed_report(b"12", "s") is None
    assert signed_report(b"", "s") is None


def test_a_report_must_be_about_this_file_and_all_tests() -> None:
    def passes(**changes: Any) -> bool:
        return checking.outcome_of(RMSNORM, Path("/k/layers.py"), changed_in(passing(), **changes), {}).passed

    assert passes()
    assert not passes(file="/other/layers.py")
    assert not passes(tests=[])
    assert not passes(tests=passing().tests[:-1])
    assert not passes(trouble=Trouble("x"))
    assert not passes(tests=[*passing().tests[:-1], changed_in(passing().tests[-1], problem="x")])
    assert not Outcome(None).passed  # no test, no pass


def test_what_is_printed_goes_to_the_test_that_ran_then() -> None:
    raw = b"at import\n\nm test_a\none\ntwo\n\nm test_b\n\nm test_c\nthree"
    assert by_test(raw, "m") == {"": "at import", "test_a": "one\ntwo", "test_b": "", "test_c": "three"}
    assert by_test(None, "m") == {"": ""}


# --- the table


def test_a_field_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"kata x has \['hint'\]"):
        read_kata("x", {"hint": "none"})
    with pytest.raises(NanollamaError, match="there is no kata 'x'"):
        find_kata("x")


def test_every_kata_has_its_files_and_every_file_its_kata() -> None:
    names = set(course())
    assert {path.stem.removeprefix("test_") for path in table.KATAS.glob("exercises/*/test_*.py")} == names
    assert {path.stem for path in table.KATAS.glob("alternatives/*/*.py")} - {"__init__"} == names


# --- the laws


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, which may fork."""
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_quick_laws_hold_for_every_kata() -> None:
    done = run("-m", "conformance.katas.laws", "--fast")
    assert done.returncode == 0 and done.stdout.endswith("all laws hold\n"), done.stdout + done.stderr


def test_the_laws_see_a_kata_that_breaks_them() -> None:
    code = """
import json
from dataclasses import replace
from conformance.katas.laws import laws
kata = laws.course()["rmsnorm"]
def breaches(law, **changes):
    found = laws.Findings(replace(kata, **changes))
    law(found)
    return found.breaches
laws.variants = lambda kata: {"wrong": {"RMSNorm.forward": "        return x\\n"}}
print(json.dumps([
    breaches(laws.red, targets=("LayerNorm.forward",)),
    breaches(laws.power, mistakes=("layernorm-bias-dropped", "no-such-bug")),
    breaches(laws.kills, elsewhere={"rmsnorm-sums-the-squares": "x", "gone": "x"}),
    breaches(laws.kills, name="rope"),
    breaches(laws.form, hints=("wide = x.to(at_least_float32(x.dtype))", "b", "c"), items=("Norms",), after=("none",)),
    breaches(laws.fairness),
]))
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    red, power, kills, idle, form, fairness = json.loads(done.stdout)
    assert len(red) == 1 and "these tests fail for another reason: test_a_vector" in red[0]
    assert power == [
        "2 mistakes, want at least 4",
        "mistake layernorm-bias-dropped is not in the zoo, or edits more than the targets",
        "mistake no-such-bug is not in the zoo, or edits more than the targets",
    ]
    assert kills[0].startswith("rmsnorm-sums-the-squares is listed as spared, but test_a_vector")
    assert kills[1:] == ["listed as spared, but not in the zoo: gone"]
    assert any(breach.startswith("mutant-layers-RMSNorm.forward-1 survives") for breach in idle)
    assert any(breach.startswith("no mistake, bug or mutant fails test_") for breach in idle)
    assert len(form) == 3
    assert fairness[0] == "1 alternatives, want at least 2"
    assert fairness[1].startswith("alternative wrong fails test_a_vector")


def test_a_change_of_the_runtime_needs_no_second_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    docstring = '"""[..., size] → the same shape and dtype."""'
    source = RMSNORM.source.replace(docstring, '"""Another docstring."""\n        # a comment', 1)
    assert source != RMSNORM.source
    moved = type("Moved", (type(RMSNORM),), {"source": source})
    kata = moved(**{name: getattr(RMSNORM, name) for name in RMSNORM.__dataclass_fields__})
    cut = stub.stub(kata)
    assert "Another docstring." in cut and "# a comment" not in cut
    assert stub.replace(cut, stub.bodies(source, kata.targets)) == source
    assert changed_in(kata, name="other").source == source

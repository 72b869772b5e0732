"""What katas are made of: bodies that are cut and put back, values that are compared."""

import ast
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from conformance import ROOT
from conformance.katas import stub
from conformance.katas.course import course
from conformance.katas.pages.difference import difference
from conformance.katas.pages.show import shown
from conformance.katas.testing.compare import Disagreement, agree, answers, refuses
from nanollama.errors import NanollamaError

RMSNORM = course()["rmsnorm"]

# --- cutting


SOURCE = '''\
"""A module."""


class Box:
    def __init__(self, size):
        # a comment that tells the answer
        self.size = size  # and one behind it

    def area(self):
        """The square.

        Of its size.
        """
        text = """
not indented
"""
        return self.size ** 2, text


def after():  # stays
    return 1
'''


def test_a_body_is_cut_below_the_docstring_and_with_the_comments_above_it() -> None:
    cut = stub.bodies(SOURCE, ["Box.__init__", "Box.area", "after"])
    assert cut == {
        "Box.__init__": "        # a comment that tells the answer\n        self.size = size  # and one behind it\n",
        "Box.area": '        text = """\nnot indented\n"""\n        return self.size ** 2, text\n',
        "after": "    return 1\n",
    }


def test_what_was_cut_can_be_put_back_to_the_byte() -> None:
    cut = stub.bodies(SOURCE, ["Box.__init__", "Box.area"])
    gaps = stub.replace(SOURCE, {"Box.__init__": "        pass\n", "Box.area": "        pass\n"})
    assert "tells the answer" not in gaps and "Of its size." in gaps and "# stays" in gaps
    assert stub.replace(gaps, cut) == SOURCE


def test_every_function_of_the_runtime_can_be_cut_out_and_put_back() -> None:
    count = 0
    for path in sorted((ROOT / "nanollama").rglob("*.py")):
        source = path.read_bytes().decode()
        for name, function in stub.functions(ast.parse(source)):
            if function.body[0].lineno == function.lineno or len(function.body) == bool(ast.get_docstring(function)):
                continue
            cut = stub.bodies(source, [name])
            gap = " " * function.body[0].col_offset + "raise NotImplementedError\n"
            assert stub.replace(stub.replace(source, {name: gap}), cut) == source, f"{path}: {name}"
            count += 1
    assert count > 300


def test_a_function_without_lines_of_its_own_is_refused_and_one_that_is_gone_too() -> None:
    with pytest.raises(ValueError, match="f has no body on separate lines"):
        stub.bodies("def f(): return 1\n", ["f"])
    with pytest.raises(ValueError, match="no body"):
        stub.bodies('def f():\n    """Only said."""\n', ["f"])
    with pytest.raises(LookupError, match=r"no function Box\.volume"):
        stub.bodies(SOURCE, ["Box.area", "Box.volume"])


def test_a_body_from_elsewhere_is_indented_as_the_place_is() -> None:
    assert stub.fitted(SOURCE, "Box.area", "def other(self):\n    if self:\n\n        return 1\n") == (
        "        if self:\n\n            return 1\n"
    )


def test_a_learners_file_says_what_it_was_cut_from() -> None:
    text = stub.header(RMSNORM) + stub.stub(RMSNORM)
    assert text.startswith(f"# kata rmsnorm, cut from nanollama/model/layers.py {stub.fingerprint(RMSNORM)}; ")
    assert not stub.has_moved(RMSNORM, text)
    assert stub.has_moved(RMSNORM, text.replace(stub.fingerprint(RMSNORM), "0123456789ab"))
    assert not stub.has_moved(RMSNORM, stub.without_header(text))  # a learner may delete the line
    assert stub.without_header(text) == stub.stub(RMSNORM)


# --- comparing


ROW = torch.tensor([1.0, 2.0])


@pytest.mark.parametrize(
    ("got", "want", "said"),
    [
        (ROW, ROW, None),
        (None, ROW, "returned nothing: is there a `return`?"),
        ([1.0, 2.0], ROW, "is of type list, want a tensor"),
        (ROW[None], ROW, "has the shape [1, 2], want [2]"),
        (ROW.double(), ROW, "has the dtype float64, want float32"),
        (torch.tensor([1.0, math.nan]), ROW, "NaN at [1], want 2; 1 of 2 numbers are NaN"),
        (ROW + 1, ROW, "first difference at [0]: got 2, want 1 (tolerance 1.9e-06); 2 of 2 differ"),
        (ROW + 1e-6, ROW, None),  # eight units in the last place of 2
        (ROW + 4e-6, ROW, "first difference at [0]: got 1.00000405, want 1 (tolerance 1.9e-06); 2 of 2 differ"),
        (torch.tensor([[0, 1], [2, 9]]), torch.tensor([[0, 1], [2, 3]]), "first difference at [1, 1]: got 9, want 3"),
        (torch.tensor([-math.inf]), torch.tensor([-math.inf]), None),
        (torch.tensor(True), torch.tensor(False), "first difference: got True, want False"),
        (1, 1.0, "is of type int, want float"),
        (0.5, 0.25, "first difference: got 0.5, want 0.25"),
        ([1, "a"], [1, "b"], "item 1: got 'a', want 'b'"),
        ([1], [1, 2], "has 1 items, want 2: got [1], want [1, 2]"),
        ((ROW, 3), (ROW, 4), "item 1: got 3, want 4"),
        ("ab", "abc", "got 'ab', want 'abc'"),
        (None, None, None),
    ],
)
def test_the_first_thing_that_differs_is_said(got: Any, want: Any, said: str | None) -> None:
    found = difference(got, want)
    assert found is None if said is None else found is not None and found.startswith(said)


def test_how_far_off_a_number_may_be_can_be_stated() -> None:
    assert difference(ROW + 0.5, ROW, within=0.5) is None
    assert difference(ROW + 0.5, ROW, within=0.25) is not None
    assert difference(torch.tensor([300.0]).half(), torch.tensor([301.0]).half()) is None  # 8 · 2^-10 · 301 is 2.4


def double(x: torch.Tensor, by: int = 2) -> torch.Tensor:
    """A right answer."""
    return x * by


def in_place(x: torch.Tensor) -> torch.Tensor:
    """A right answer that spoils its input."""
    return x.mul_(2)


def appends(x: list[int]) -> list[int]:
    """Another."""
    x.append(3)
    return x


def test_an_answer_is_judged_with_the_name_and_the_inputs() -> None:
    answers(double, ROW, want=torch.tensor([2.0, 4.0]))
    answers(double, ROW, 3, want=torch.tensor([3.0, 6.0]))
    with pytest.raises(Disagreement, match=r"(?s)^double: first difference at \[1\]: got 4, want 5 .*\ninputs: x = \[1, 2\]$"):
        answers(double, ROW, want=torch.tensor([2.0, 5.0]))


@pytest.mark.parametrize(("function", "given", "want"), [(in_place, ROW, 2 * ROW), (appends, [1], [1, 3])])
def test_an_input_edited_in_place_is_seen_and_the_tests_own_copy_is_spared(
    function: Callable[..., Any], given: Any, want: Any
) -> None:
    before = given.clone() if isinstance(given, torch.Tensor) else list(given)
    with pytest.raises(Disagreement, match="edited its input x in place"):
        answers(function, given, want=want)
    assert difference(given, before) is None


def test_an_error_must_be_of_its_kind_and_say_what_is_asked() -> None:
    def parse(text: str) -> int:
        if text == "x":
            raise NanollamaError("'x' is no number; expected digits")
        return int(text)

    refuses(parse, "x", error=NanollamaError, naming="'x'")
    with pytest.raises(Disagreement, match="should name 'letters'; its message is: 'x' is no number"):
        refuses(parse, "x", error=NanollamaError, naming="letters")
    with pytest.raises(Disagreement, match=r"returned 7, want an error \(NanollamaError\) that names 'seven'"):
        refuses(parse, "7", error=NanollamaError, naming="seven")
    with pytest.raises(ValueError, match="invalid literal"):
        refuses(parse, "y", error=NanollamaError, naming="y")


def test_long_inputs_are_left_out_and_dtypes_that_are_not_usual_are_named() -> None:
    with pytest.raises(Disagreement) as caught:
        agree("f", 1, 2, inputs={"x": list(range(100))})
    assert str(caught.value) == "f: got 1, want 2"
    assert shown({"x": ROW.half(), "n": 3}) == "x = [1, 2] (float16), n = 3"
    assert shown(torch.zeros(9, 9)) == "a tensor [9, 9] of float32"

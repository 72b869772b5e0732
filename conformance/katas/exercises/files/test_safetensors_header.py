"""The checks of a header, written again: each number is checked before it is used."""

import random
from itertools import pairwise
from typing import Any

import torch

from conformance.katas.testing.compare import agree, refuses
from nanollama.checkpoint.safetensors import Entry, _check_layout, _entry
from nanollama.errors import NanollamaError

START = 100  # where the data begins in the file
NAMES = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]


def stated(dtype: Any, shape: Any, begin: Any, end: Any) -> dict[str, Any]:
    """The header's entry of one tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def entry(value: Any) -> list[Any]:
    """dtype, shape and place of the entry."""
    made = _entry(value, START, "tensor w")
    return [str(made.dtype), made.shape, made.begin, made.end]


def bad(value: Any, naming: str) -> None:
    """The header must raise an error that contains this."""
    refuses(entry, value, error=NanollamaError, naming=naming)


def laid_out(*places: tuple[int, int], size: int) -> None:
    """Tensors alpha, beta, gamma … at these places of a file."""
    entries = {NAMES[i]: Entry(torch.uint8, (end - begin,), begin, end) for i, (begin, end) in enumerate(places)}
    agree("_check_layout", _check_layout(entries, START, size, "the file"), None)  # type: ignore[func-returns-value]


def torn(*places: tuple[int, int], size: int, naming: str) -> None:
    """The same, which must be refused."""
    entries = {NAMES[i]: Entry(torch.uint8, (end - begin,), begin, end) for i, (begin, end) in enumerate(places)}
    refuses(_check_layout, entries, START, size, "the file", error=NanollamaError, naming=naming)


def test_an_entry_is_read_and_its_place_counted_in_the_file() -> None:
    """2 x 3 numbers of 4 bytes are 24: from 8 to 32 in the data, which begins at 100."""
    agree("the entry", entry(stated("F32", [2, 3], 8, 32)), ["torch.float32", (2, 3), 108, 132])


def test_every_dtype_has_its_size() -> None:
    """Four numbers of 1, 2, 4 and 8 bytes."""
    for name, dtype, size in (("U8", "uint8", 1), ("BF16", "bfloat16", 2), ("F32", "float32", 4), ("F64", "float64", 8)):
        agree(f"the entry of {name}", entry(stated(name, [4], 0, 4 * size)), [f"torch.{dtype}", (4,), 100, 100 + 4 * size])


def test_one_number_has_no_dimension_and_no_number_has_no_bytes() -> None:
    """A shape of [] is one number, 2 bytes; a shape of [3, 0] is none."""
    agree("the entry of one number", entry(stated("F16", [], 0, 2)), ["torch.float16", (), 100, 102])
    agree("the entry of no number", entry(stated("F16", [3, 0], 6, 6)), ["torch.float16", (3, 0), 106, 106])


def test_the_shape_must_need_the_bytes_that_are_there() -> None:
    """2 x 3 numbers of 4 bytes are 24, neither 23 nor 25, nor 6."""
    for end in (23, 25, 6, 0):
        bad(stated("F32", [2, 3], 0, end), "24")


def test_an_entry_must_be_an_object_of_three_keys() -> None:
    """A list, a word, a number; a key too few, one too many, one of another name."""
    wrong: list[Any] = [
        [],
        "F32",
        7,
        None,
        {},
        {"dtype": "F32", "shape": [1]},
        {**stated("F32", [1], 0, 4), "strides": [1]},
    ]
    for value in wrong:
        bad(value, "keys")
    bad({"dtype": "F32", "shape": [1], "offsets": [0, 4]}, "keys")


def test_a_dtype_that_is_none_is_refused() -> None:
    """F31, a number, and a list, which can't be looked up in a dict."""
    for dtype in ("F31", "f32", "", 32, ["F32"], None):
        bad(stated(dtype, [1], 0, 4), "dtype")


def test_a_shape_is_a_list_of_whole_numbers_from_0() -> None:
    """Not -1, which NumPy accepts; not 1.0; not true, which equals 1 in Python."""
    for shape in ([-1], [-2, -2], [1.0], [True], ["1"], 4, "1", None):
        bad(stated("F32", shape, 0, 4), "shape")


def test_a_shape_may_have_64_dimensions_and_no_more() -> None:
    """torch can store more dimensions, but not compute with them."""
    agree("the entry of 64 dimensions", entry(stated("U8", [1] * 64, 0, 1)), ["torch.uint8", (1,) * 64, 100, 101])
    bad(stated("U8", [1] * 65, 0, 1), "shape")


def test_sizes_that_no_memory_has_are_refused_before_they_are_multiplied_by_torch() -> None:
    """2^62 numbers of 2 bytes are 2^63, one more than torch can count; with a 0 in the shape there are no bytes."""
    agree("one dimension of 2^62 bytes, and 0", entry(stated("U8", [2**62, 0], 0, 0))[1], (2**62, 0))
    agree("2^61 numbers of 2 bytes, and 0", entry(stated("F16", [2**61, 0], 0, 0))[1], (2**61, 0))
    for shape in ([2**62, 0], [2**31, 2**31, 0], [0, 2**62]):
        bad(stated("F16", shape, 0, 0), "shape")


def test_a_place_is_two_numbers_in_order() -> None:
    """Not one, not three; not from 4 to 0, nor from -4 to 0."""
    for offsets in ([0], [0, 4, 8], [], [4, 0], [-4, 0], [0.0, 4.0], [0, True], "04", None, 4):
        bad({"dtype": "F32", "shape": [1], "data_offsets": offsets}, "data_offsets")


def test_tensors_side_by_side_are_a_file() -> None:
    """100 to 104, 104 to 110, and the file ends there. And a file without tensors ends where its data would begin."""
    laid_out((100, 104), (104, 110), size=110)
    laid_out(size=100)


def test_the_order_of_the_header_is_any() -> None:
    """Some writers sort the names, none the places."""
    laid_out((108, 110), (100, 104), (104, 108), size=110)


def test_empty_tensors_may_lie_anywhere_between() -> None:
    """Two empty ones at 104, one at the beginning, one at the end."""
    laid_out((104, 108), (104, 104), (100, 104), (104, 104), (100, 100), (108, 108), size=108)


def test_no_byte_belongs_to_two_tensors() -> None:
    """100 to 104, and 103 to 110: beta is named. The same place twice, or one within the other: an overlap."""
    torn((100, 104), (103, 110), size=110, naming="beta")
    torn((100, 104), (100, 104), size=104, naming="overlap")
    torn((100, 110), (102, 104), size=110, naming="overlap")


def test_no_byte_belongs_to_none() -> None:
    """105 follows 104: beta is named. Or the first begins at 101: a gap."""
    torn((100, 104), (105, 110), size=110, naming="beta")
    torn((101, 104), size=104, naming="gap")


def test_the_data_end_with_the_file() -> None:
    """At 110, in a file of 111 bytes or of 109."""
    for size in (111, 109, 1000):
        torn((100, 104), (104, 110), size=size, naming="10")


def test_any_cut_of_the_data_is_sound_and_a_shifted_one_is_not() -> None:
    """40 random cuts, shuffled; then one boundary is moved for one of its two tensors only."""
    dice = random.Random(0)
    for _ in range(40):
        borders = sorted({START, *dice.sample(range(START + 1, START + 60), 4)})
        places = list(pairwise(borders))
        dice.shuffle(places)
        laid_out(*places, size=borders[-1])
        moved = dice.randrange(len(places))
        begin, end = places[moved]
        places[moved] = (begin, end + 1) if dice.random() < 0.5 else (begin - 1, end)
        torn(*places, size=borders[-1], naming="the file")

"""The rule for comparisons, by hand-made numbers and by drawn ones."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from conformance.truth.compare import (
    TapError,
    compare_taps,
    equal_elements,
    equal_values,
    first_beyond,
    norm_error,
    relative_error,
    rms_error,
    row_error,
    worst,
)

INF, NAN = math.inf, math.nan
ERRORS = pytest.mark.parametrize("error", [relative_error, row_error, norm_error, rms_error])
Error = Callable[[Tensor, Tensor], float]
numbers = st.floats(-1e6, 1e6) | st.sampled_from([INF, -INF])


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# The same rule in every error


@ERRORS
@given(st.lists(numbers, min_size=1, max_size=6))
def test_a_value_equals_itself_with_its_infinities(error: Error, values: list[float]) -> None:
    assert error(tensor(*values), tensor(*values)) == 0.0


@ERRORS
@given(st.lists(numbers, min_size=1, max_size=6), st.data())
def test_nan_passes_nowhere(error: Error, values: list[float], data: st.DataObject) -> None:
    spoilt = list(values)
    spoilt[data.draw(st.integers(0, len(values) - 1))] = NAN
    for got, want in ((spoilt, values), (values, spoilt), (spoilt, spoilt)):
        assert error(tensor(*got), tensor(*want)) == INF


@ERRORS
@given(st.lists(numbers, min_size=1, max_size=6), st.data())
def test_an_infinity_equals_no_other_value(error: Error, values: list[float], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(values) - 1))
    other = list(values)
    values[place], other[place] = INF, data.draw(numbers.filter(lambda value: value != INF))
    assert error(tensor(*values), tensor(*other)) == error(tensor(*other), tensor(*values)) == INF


@ERRORS
@pytest.mark.parametrize(("got", "want"), [((2, 2), (2,)), ((2,), (2, 1)), ((1, 2), (3, 2)), ((0,), (0,)), ((2, 0), (2, 0))])
def test_another_shape_and_nothing_at_all_cannot_be_compared(error: Error, got: tuple[int, ...], want: tuple[int, ...]) -> None:
    assert error(torch.ones(got), torch.ones(want)) == INF


@ERRORS
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6), st.integers(0, 5))
def test_one_changed_number_is_an_error_of_every_kind(error: Error, values: list[float], place: int) -> None:
    want = tensor(*values)
    got = want.clone()
    got[place % len(values)] += 1.0
    assert 0.0 < error(got, want) < INF


# Each by hand


@pytest.mark.parametrize(
    ("got", "want", "error"),
    [
        (tensor(1, 2), tensor(1, 2), 0.0),
        (tensor(1, 3), tensor(1, 4), 0.25),  # the largest difference over the largest expected magnitude
        (tensor(1.5, -4), tensor(1, -4), 0.125),
        (tensor(0, 0), tensor(0, 0), 0.0),
        (tensor(0, 5), tensor(0, 0), 5 / torch.finfo(torch.float64).tiny),
        (tensor(1, -INF), tensor(1, -INF), 0.0),
        (tensor(3, -INF), tensor(4, -INF), 0.25),
        (tensor(1, 2), tensor(1, -INF), INF),
        (tensor(1, -INF), tensor(1, 2), INF),
        (tensor(-INF, 1), tensor(1, -INF), INF),
        (tensor(1, INF), tensor(1, -INF), INF),
        (tensor(1, NAN), tensor(1, 2), INF),
        (tensor(1, 2), tensor(1, NAN), INF),
        (tensor(NAN, NAN), tensor(NAN, NAN), INF),
        (tensor(-INF, -INF), tensor(-INF, -INF), 0.0),  # equal infinities are equal
        (tensor(), tensor(), INF),  # nothing was compared
        (tensor(1, 2), tensor(1, 2)[None], INF),
        (tensor(1, 1), tensor(1), INF),
        (tensor(1e308, 0), tensor(-1e308, 0), INF),
    ],
)
def test_relative_error_by_hand(got: Tensor, want: Tensor, error: float) -> None:
    assert relative_error(got, want) == error


def test_values_are_compared_in_float64_whatever_they_are_stored_in() -> None:
    third = torch.tensor([1 / 3], dtype=torch.bfloat16)
    assert relative_error(third, tensor(1 / 3)) == pytest.approx(abs(float(third) - 1 / 3) * 3, rel=1e-12)
    assert relative_error(torch.tensor([2]), tensor(2)) == 0.0


@settings(max_examples=100)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5), st.integers(0, 4), st.floats(1e-6, 1e6))
def test_one_changed_number_is_seen_wherever_it_is(values: list[float], place: int, change: float) -> None:
    want = tensor(*values)
    got = want.clone()
    got[place % len(values)] += change
    assert relative_error(want, want) == 0.0
    assert relative_error(got, want) > 0.0


def test_missing_and_extra_taps_are_infinitely_wrong() -> None:
    want = {"a": tensor(1), "b": tensor(2), "c": tensor(4)}
    errors = compare_taps({"c": tensor(5), "a": tensor(1), "x": tensor(0)}, want)
    assert errors == [TapError("a", 0.0), TapError("b", INF), TapError("c", 0.25), TapError("x", INF)]
    assert worst(errors).error == INF
    assert first_beyond(errors, 1e-3) == TapError("b", INF)
    assert [e.error for e in compare_taps({}, want)] == [INF, INF, INF]


def test_a_comparison_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no taps to compare with"):
        compare_taps({"a": tensor(1)}, {})


def test_an_error_that_is_not_a_number_is_beyond_every_bar() -> None:
    assert first_beyond([TapError("a", 0.0), TapError("b", NAN)], INF) == TapError("b", NAN)
    assert first_beyond([TapError("a", 1e-11)], 1e-10) is None


def test_rms_error_by_hand_and_infinite_for_nan() -> None:
    assert rms_error(tensor(1, 2, 3, 6), tensor(1, 2, 3, 4)) == 1.0
    assert rms_error(tensor(1, NAN), tensor(1, 2)) == INF


@pytest.mark.parametrize(
    ("got", "want", "error"),
    [
        ([[1e-6, 2e-6], [1.0, 2.0]], [[2e-6, 2e-6], [1.0, 2.0]], 0.5),  # the small row counts like the large one
        ([[1.0, -INF], [3.0, 4.0]], [[1.0, -INF], [3.0, 5.0]], 0.2),
        ([[-INF, -INF], [3.0, 4.0]], [[-INF, -INF], [3.0, 4.0]], 0.0),
        ([[-INF, 1.0]], [[1.0, -INF]], INF),
        ([[[1.0, 2.0]]], [[1.0, 2.0]], 0.0),  # one batch axis more
        ([[[1.0, 2.0]]], [1.0, 2.0], 0.0),
        ([[[1.0], [2.0]]], [1.0, 2.0], INF),
        ([[1.0], [2.0]], [[1.0, 2.0]], INF),
    ],
)
def test_row_error_by_hand(got: Any, want: Any, error: float) -> None:
    assert row_error(torch.tensor(got).double(), torch.tensor(want).double()) == pytest.approx(error, rel=1e-12)


def test_norm_error_by_hand() -> None:
    assert norm_error(tensor(3, 0), tensor(3, 4)) == 0.8
    assert norm_error(tensor(3, 0, INF), tensor(3, 4, INF)) == 0.8
    assert rms_error(tensor(1, -INF), tensor(3, -INF)) == math.sqrt(2)


# Equality


def test_equal_elements_take_nan_for_equal_only_for_a_reason() -> None:
    got, want = tensor(1, NAN, INF, 2), tensor(1, NAN, INF, 3)
    assert equal_elements(got, want).tolist() == [True, False, True, False]
    assert equal_elements(got, want, "a reason").tolist() == [True, True, True, False]
    assert equal_elements(got, tensor(NAN, 1, NAN, 2), "a reason").tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("got", "want", "equal"),
    [
        (1, 1, True),
        (1, 1.0, False),
        (True, 1, False),
        ("a", "a", True),
        ([1, (2.0, "a")], [1, (2.0, "a")], True),
        ([1, (2.0, "a")], [1, (2, "a")], False),
        ([1, 2], (1, 2), False),
        ([1, 2], [1, 2, 3], False),
        ({"a": [1]}, {"a": [1]}, True),
        ({"a": [1]}, {"a": [True]}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        (torch.float32, torch.float32, True),
        (None, None, True),
        (None, 0, False),
        (0, None, False),
    ],
)
def test_equal_values_by_hand(got: Any, want: Any, equal: bool) -> None:
    assert equal_values(got, want) is equal


def test_nan_is_not_equal_even_where_python_finds_the_same_object() -> None:
    values = [NAN]
    assert values == values
    assert not equal_values(values, values)
    assert not equal_values({"a": NAN}, {"a": NAN})

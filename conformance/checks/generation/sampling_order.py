"""All steps together, the draw, and the limits of a request's parameters; runs after the checks of each filter."""

# mypy: disable-error-code="assignment,misc,var-annotated"
# tables mix good and bad arguments

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from conformance.checks import check
from conformance.checks.assertions import expect, expect_close, expect_equal, expect_refused
from conformance.checks.generation.rigged import blamed
from conformance.checks.generation.sampling_filters import INF, distributions, probabilities, rows
from nanollama.generation import sampling

LN = math.log


def params(**fields: Any) -> sampling.SamplingParams:
    return sampling.SamplingParams(**fields)


def kept(logits: Tensor) -> set[int]:
    return {i for i, x in enumerate(logits[0].tolist()) if x > -INF}


@check("SAMP-002", "SAMP-010", "PENA-009", area="sampling")
def the_order_of_the_steps() -> None:
    place = "generation.sampling.process"
    skewed = rows([LN(0.4), LN(0.3), LN(0.2), LN(0.1)])
    plain = rows([1.0, 1.0, 1.0])
    for fields, prompt, answer, wanted in (
        ({"logit_bias": {0: -2.0}, "repetition_penalty": 2.0}, [0], [], [-2.0, 1.0, 1.0]),  # the penalty sees the bias
        ({"repetition_penalty": 2.0, "frequency_penalty": 0.75}, [], [0], [-0.25, 1.0, 1.0]),
        ({"repetition_penalty": 2.0, "presence_penalty": 0.75}, [], [0, 0], [-0.25, 1.0, 1.0]),
        ({"temperature": 2.0, "presence_penalty": 0.5}, [], [0], [0.25, 0.5, 0.5]),  # not 0
        ({"temperature": 2.0, "logit_bias": {1: 1.0}}, [], [], [0.5, 1.0, 0.5]),
        ({"temperature": 0.0, "top_k": 1, "presence_penalty": 0.5}, [], [0], [0.5, 1.0, 1.0]),  # greedy ends there
    ):
        with blamed(place):
            got = sampling.process(plain, params(**fields), prompt, answer).tolist()
        expect_equal(place, got, [wanted], f"{fields}")
    for fields, wanted in (
        ({"top_k": 2, "top_p": 0.5}, {0}),  # of 0.57 and 0.43 the first reaches 0.5, of 0.4 and 0.3 it would not
        ({"top_k": 2, "typical_p": 0.5}, {0}),  # entropy 0.68: 0.4 of 0.7 is 0.12 off, 0.3 of 0.7 is 0.16
        ({"top_p": 0.5, "min_p": 0.6}, {0, 1}),  # with min_p first: 0.57, which reaches 0.5
        ({"min_p": 0.6, "typical_p": 0.5}, {0}),
        ({"top_p": 0.6, "typical_p": 0.5}, {0}),
        ({"temperature": 0.25, "top_p": 0.6}, {0}),  # 0.72 after the temperature
        ({"temperature": 4.0, "min_p": 0.8}, {0, 1, 2}),  # 0.93, 0.84 and 0.71 of the largest
        ({"temperature": 4.0, "min_p": 0.75}, {0, 1, 2}),
        ({"top_k": 3}, {0, 1, 2}),
        ({"top_p": 0.65}, {0, 1}),
        ({"min_p": 0.3}, {0, 1, 2}),
        ({"typical_p": 0.25}, {1}),  # entropy 1.28: surprises 0.92, 1.20, 1.61 and 2.30
        ({}, {0, 1, 2, 3}),
    ):
        with blamed(place):
            left = kept(sampling.process(skewed, params(**fields), [], []))
        expect_equal(place, left, wanted, f"what {fields} keeps")


@check("SAMP-011", "NUMR-006", area="sampling")
def sampling_computes_in_at_least_float32() -> None:
    for dtype, wanted in ((torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)):
        for t in (0.0, 3.0):
            given = torch.tensor([[1.0, 2.0]], dtype=dtype)
            got = sampling.process(given, params(temperature=t), [], [])
            expect_equal("generation.sampling.process", got.dtype, wanted, f"the dtype of processed {dtype}")
            expect_close(
                "generation.sampling.process",
                got,
                torch.tensor([[1.0, 2.0]], dtype=wanted) / (t or 1),
                1e-7,
                f"{dtype} at temperature {t}",
            )


@check("SAMP-012", area="sampling")
def greedy_takes_the_largest_and_of_equals_the_first() -> None:
    for row in itertools.product((-1.0, 0.0, 2.0), repeat=3):
        got = sampling.greedy(rows(row, row[::-1]))
        wanted = [row.index(max(row)), row[::-1].index(max(row))]
        expect_equal(
            "generation.sampling.greedy",
            (got.tolist(), got.dtype),
            (wanted, torch.int64),
            f"the greedy choice of {row} and reversed",
        )


@check("DRAW-001", "DRAW-004", area="sampling")
def the_uniform_number_is_the_requests_own() -> None:
    place = "generation.sampling.uniform"

    def numbers(seed: int, count: int) -> list[float]:
        generator = torch.Generator().manual_seed(seed)
        return [sampling.uniform(generator) for _ in range(count)]

    many = numbers(7, 2000)
    expect_equal(place, many[:50], numbers(7, 50), "the numbers of one seed")
    expect(place, not set(many) & set(numbers(8, 50)), "two seeds give the same numbers")
    expect(place, len(set(many)) == 2000 and min(many) > 0 and max(many) <= 1, "numbers repeat, or are not in (0, 1]")
    coarse = sum(u * 2**24 == int(u * 2**24) for u in many)  # as float32 has them: rare tokens would never be drawn
    expect(place, coarse < 20, f"{coarse} of 2000 numbers have no digits beyond float32's")
    for low in range(10):  # 200 expected in each tenth; five standard deviations are 67
        found = sum(low / 10 < u <= (low + 1) / 10 for u in many)
        expect(place, 133 < found < 267, f"{found} of 2000 numbers lie between {low / 10} and {(low + 1) / 10}")


@check("DRAW-002", "DRAW-003", area="sampling")
def the_draw_inverts_the_distribution() -> None:
    place = "generation.sampling.draw"
    got = sampling.draw(rows([0.0, 0.0], [-INF, 1.0], [1.0, -INF]), 0.25)
    expect_equal(place, (got.tolist(), got.dtype), ([0, 1, 0], torch.int64), "the draw of three rows")
    for row in distributions(8, 12, 300):  # in float32 the sum of all may round to less than 1
        narrow = torch.tensor([row + [-INF] * 5])
        expect_equal(
            place,
            sampling.draw(narrow, 1.0).tolist(),
            [max(i for i, x in enumerate(row) if x > -80)],
            "the last draw in float32",
        )
    for row in [[0.0] * 4, [-INF, 0.0, 0.0, -INF], *distributions(4, 30, 6)]:
        probs = probabilities(row)
        sums = [0.0, *itertools.accumulate(probs)]
        living = [i for i, p in enumerate(probs) if p > 0]
        for token in living:
            for share in (0.001, 0.5, 0.999):
                u = sums[token] + share * probs[token]
                expect_equal(place, sampling.draw(rows(row), u).tolist(), [token], f"the draw at u = {u} from {probs}")
        expect_equal(place, sampling.draw(rows(row), 1.0).tolist(), [living[-1]], f"the draw at u = 1 from {probs}")
        expect_equal(place, sampling.draw(rows(row), 2.0**-53).tolist(), [living[0]], f"the draw at the least u from {probs}")


@check("DRAW-005", "SAMP-012", area="sampling")
def pick_takes_one_token_and_reports_when_there_is_none() -> None:
    place = "generation.sampling.pick"
    for row in distributions(5, 20, 5):
        probs = probabilities([x / 0.7 for x in row])
        generator, twin = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
        for _ in range(4):
            got = sampling.pick(rows(row), params(temperature=0.7), [], [], generator)
            sums, u = list(itertools.accumulate(probs)), sampling.uniform(twin)
            wanted = next(i for i, total in enumerate(sums) if total >= u * (1 - 1e-12) and probs[i] > 0)
            expect_equal(place, (got.tolist(), got.dtype), ([wanted], torch.int64), f"the pick at u = {u} from {probs}")
        greedy = sampling.pick(rows(row), params(temperature=0.0), [], [], generator)
        expect_equal(place, greedy.tolist(), [row.index(max(row))], f"the pick at temperature 0 from {row}")
    penalised = sampling.pick(rows([1.0, 1.5]), params(temperature=0.0, presence_penalty=1.0), [], [1], torch.Generator())
    expect_equal(place, penalised.tolist(), [0], "the greedy pick after a penalty")
    for t in (0.0, 1.0):
        for bad in ([math.nan, 1.0], [-INF, -INF], [INF, 1.0]):
            got = sampling.pick(rows(bad), params(temperature=t), [], [], torch.Generator().manual_seed(0))
            expect_equal(place, got.tolist(), [-1], f"the pick from {bad} at temperature {t}")


@check("ERRS-009", area="sampling")
def why_no_token_can_be_chosen() -> None:
    text = sampling.no_choice(rows([math.nan, math.nan, INF, -INF, -INF, -INF, 0.0]), params(logit_bias={3: -INF, 4: 1.0}))
    for part in ("2 NaN", "1 +inf", "3 -inf", "7 logits", "1 tokens"):
        expect("generation.sampling.no_choice", part in text, f"the message {text!r} does not name {part!r}")


@check("ERRS-003", area="sampling")
def numbers_are_checked_against_their_range() -> None:
    place, check_number = "generation.sampling.check_number", sampling.check_number
    for value, whole in ((1, True), (3, True), (1.0, False), (3, False), (2.5, False)):
        expect_equal(place, check_number("x", value, 1, 3, "note", whole=whole), None, f"{value} from 1 to 3")
    for bad, whole in (
        (0, True),
        (4, True),
        (2.0, True),
        (0.9, False),
        (3.1, False),
        (True, False),
        (True, True),
        ("2", False),
    ):
        what = "a whole number" if whole else "a number"
        for part in (f"x is {bad!r}", f"{what} from 1 to 3", "note"):
            expect_refused(
                place, lambda bad=bad, whole=whole: check_number("x", bad, 1, 3, "note", whole=whole), part, f"{bad!r}"
            )
    expect_refused(place, lambda: check_number("x", 0, 1, INF, "note"), "a number of at least 1", "0")


@check("ERRS-003", "SAMP-013", area="sampling")
def parameters_out_of_range_are_refused_by_name() -> None:
    low, high = "generation.sampling.SamplingParams", 2**32
    allowed: dict[str, tuple[list[Any], list[Any]]] = {
        "temperature": ([0, 0.0, 1e-6, 1.0, 2, 1e6], [-1e-9, 1e-7, 1e6 + 1, INF, math.nan]),
        "top_p": ([0.0, 0.5, 1.0, 1], [-0.01, 1.01]),
        "min_p": ([0.0, 1.0], [-0.01, 1.01]),
        "typical_p": ([0.0, 1.0], [-0.01, 1.01]),
        "repetition_penalty": ([0.01, 1.0, 100.0], [0.0, -1.0, 101.0]),
        "presence_penalty": ([-2.0, 2.0], [-2.1, 2.1]),
        "frequency_penalty": ([-2.0, 2.0], [-2.1, 2.1]),
        "top_k": ([0, 1, 10**9], [-1, 1.5, 1.0]),
        "penalty_window": ([-1, 0, 5], [-2, 0.5]),
        "seed": ([None, 0, high - 1], [-1, high, 1.0]),
    }
    for name, (good, bad) in allowed.items():
        for value in good:
            expect_equal(low, getattr(params(**{name: value}), name), value, f"{name} {value}")
        for value in [*bad, True, "1", *([None] if name != "seed" else [])]:
            expect_refused(low, lambda name=name, value=value: params(**{name: value}), name, f"{name} {value!r}")


@check("ERRS-003", "SAMP-003", area="sampling")
def a_logit_bias_is_checked_and_copied() -> None:
    place = "generation.sampling.check_logit_bias"
    for good in ({}, {0: -100, 3: 100.0}, {1: INF}, {1: -INF}):
        expect_equal(place, dict(params(logit_bias=good).logit_bias), good, f"logit_bias {good}")
    for bad in (
        [],
        None,
        {-1: 0.0},
        {1.0: 0.0},
        {"1": 0.0},
        {True: 0.0},
        {1: 100.5},
        {1: -101},
        {1: math.nan},
        {1: "x"},
        {1: True},
    ):
        expect_refused(place, lambda bad=bad: params(logit_bias=bad), "logit_bias", f"logit_bias {bad!r}")
    given = {1: 1.0}
    made = params(logit_bias=given)
    given[2] = 2.0
    expect_equal(
        "generation.sampling.SamplingParams", dict(made.logit_bias), {1: 1.0}, "logit_bias after the caller's dict changed"
    )

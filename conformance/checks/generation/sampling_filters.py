"""Each step from logits to logits alone: bias, counts, penalties, temperature, top-k, top-p, min-p, typical-p.

Inputs are small enough to redo by hand; filters are also swept against a definition in plain Python floats. The sweeps leave
out borders that rounding could move; exact borders (equal logits) are tested on purpose.
"""

# mypy: disable-error-code="arg-type"
# tables mix good and bad arguments

import itertools
import math
import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from conformance.checks import check
from conformance.checks.assertions import expect, expect_close, expect_equal
from nanollama.generation import sampling

INF = math.inf
BAR = 1e-12  # float64 against float64
Row = Sequence[float]


def rows(*values: Row) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def filtered(place: str, function: Callable[[Tensor, float], Tensor], row: Row, parameter: float, kept: set[int]) -> None:
    """Exactly these tokens must stay, with unchanged ratios of probability; the input and the next row have no part in it."""
    given = rows(row, [*row[1:], row[0]])
    before = given.clone()
    got = function(given, parameter)
    what = f"{place}({[round(x, 3) for x in row]}, {parameter:.6g})"
    expect(place, got.shape == given.shape and bool((given == before).all()), f"{what} edited its input or has another shape")
    for line, shift in ((0, 0), (1, 1)):
        wanted = {(i - shift) % len(row) for i in kept}
        finite = {i for i, x in enumerate(got[line].tolist()) if x > -INF}
        expect_equal(place, finite, wanted, f"what {what} keeps")
        left = sorted(wanted)
        expect_close(place, got[line, left].softmax(-1), given[line, left].softmax(-1), BAR, f"probabilities after {what}")


def distributions(seed: int, count: int, size: int) -> list[list[float]]:
    """Logits without ties, some of them with banned tokens."""
    random_ = random.Random(seed)
    found = []
    for number in range(count):
        row = [random_.gauss(0, 2) for _ in range(size)]
        for banned in random_.sample(range(size), number % 3):
            row[banned] = -INF
        found.append(row)
    return found


def probabilities(row: Row) -> list[float]:
    peak = max(row)
    powers = [math.exp(x - peak) for x in row]
    return [power / math.fsum(powers) for power in powers]


@check("SAMP-003", area="sampling")
def a_bias_is_added_and_infinity_decides() -> None:
    place = "generation.sampling.add_bias"
    given = rows([1.0, 2.0, 3.0, 4.0])
    for bias, wanted in (
        ({}, [1.0, 2.0, 3.0, 4.0]),
        ({1: 2.5, 3: -100.0}, [1.0, 4.5, 3.0, -96.0]),
        ({0: -INF}, [-INF, 2.0, 3.0, 4.0]),
        ({2: INF}, [-INF, -INF, 3.0, -INF]),
        ({2: INF, 0: INF, 3: 5.0, 1: -INF}, [1.0, -INF, 3.0, -INF]),
    ):
        got = sampling.add_bias(given, bias)
        expect_equal(place, got.tolist(), [wanted], f"[1, 2, 3, 4] with bias {bias}")
    expect_equal(place, given.tolist(), [[1.0, 2.0, 3.0, 4.0]], "the input afterwards")


@check("PENA-001", area="sampling")
def tokens_are_counted() -> None:
    place = "generation.sampling.token_counts"
    for ids, wanted in (([], [0.0] * 4), ([2], [0.0, 0.0, 1.0, 0.0]), ([3, 0, 3, 3], [1.0, 0.0, 0.0, 3.0])):
        got = sampling.token_counts(ids, rows([0.0] * 4))
        expect_equal(place, (got.tolist(), got.dtype), (wanted, torch.float64), f"counts of {ids}")


@check("PENA-002", "PENA-003", area="sampling")
def the_repetition_penalty_divides_positive_and_multiplies_negative_logits_once() -> None:
    place = "generation.sampling.repetition_penalty"
    counts = torch.tensor([0.0, 1.0, 3.0, 0.0, 2.0, 1.0], dtype=torch.float64)
    given = rows([2.0, 2.0, 3.0, -1.0, -1.0, 0.0], [-4.0, -4.0, 5.0, 5.0, 0.5, -0.5])
    for penalty in (2.0, 0.5):
        wanted = [
            [x if n == 0 else x * penalty if x < 0 else x / penalty for x, n in zip(row, counts.tolist(), strict=True)]
            for row in given.tolist()
        ]
        expect_equal(place, sampling.repetition_penalty(given, counts, penalty).tolist(), wanted, f"penalty {penalty}")


@check("PENA-004", "PENA-005", area="sampling")
def presence_is_taken_off_once_and_frequency_for_each_time() -> None:
    counts = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    given = rows([1.0, 1.0, 1.0])
    for penalty in (0.5, -0.25):
        got = sampling.presence_penalty(given, counts, penalty).tolist()
        expect_equal("generation.sampling.presence_penalty", got, [[1.0, 1 - penalty, 1 - penalty]], f"presence {penalty}")
        got = sampling.frequency_penalty(given, counts, penalty).tolist()
        expect_equal(
            "generation.sampling.frequency_penalty", got, [[1.0, 1 - penalty, 1 - 3 * penalty]], f"frequency {penalty}"
        )


@check("PENA-006", area="sampling")
def the_window_is_the_last_tokens() -> None:
    ids = [5, 6, 7]
    for window, wanted in ((-1, [5, 6, 7]), (0, []), (1, [7]), (2, [6, 7]), (3, [5, 6, 7]), (9, [5, 6, 7])):
        expect_equal("generation.sampling.last", list(sampling.last(ids, window)), wanted, f"the last {window} of {ids}")
    expect_equal("generation.sampling.last", list(sampling.last([], 3)), [], "the last 3 of none")


@check("PENA-007", "PENA-008", area="sampling")
def who_counts_for_which_penalty() -> None:
    place, given = "generation.sampling.penalise", rows([8.0, 8.0, 8.0, -8.0])
    params = sampling.SamplingParams
    for penalties, prompt, generated, wanted in (
        ({"repetition_penalty": 2.0}, [0], [1], [4.0, 4.0, 8.0, -8.0]),
        ({"repetition_penalty": 2.0}, [3, 3], [], [8.0, 8.0, 8.0, -16.0]),
        ({"presence_penalty": 1.0}, [0], [1, 1], [8.0, 7.0, 8.0, -8.0]),
        ({"frequency_penalty": 1.0}, [0], [1, 1], [8.0, 6.0, 8.0, -8.0]),
        ({"frequency_penalty": 1.0, "presence_penalty": 0.5}, [], [1, 1], [8.0, 5.5, 8.0, -8.0]),
        ({"frequency_penalty": -1.0, "presence_penalty": 0.5}, [2], [2, 1, 1, 3], [8.0, 9.5, 8.5, -7.5]),
        ({"repetition_penalty": 2.0, "frequency_penalty": 1.0}, [0], [1, 1], [4.0, 2.0, 8.0, -8.0]),
        ({"repetition_penalty": 2.0, "penalty_window": 2}, [0, 1], [2], [8.0, 4.0, 4.0, -8.0]),
        ({"repetition_penalty": 2.0, "penalty_window": 0}, [0, 1], [2], [8.0, 8.0, 8.0, -8.0]),
        ({"presence_penalty": 1.0, "penalty_window": 1}, [0], [1, 2], [8.0, 8.0, 7.0, -8.0]),
        ({"frequency_penalty": 1.0, "penalty_window": 2}, [0], [2, 2, 2], [8.0, 8.0, 6.0, -8.0]),
        ({}, [0, 1], [2, 3], [8.0, 8.0, 8.0, -8.0]),
    ):
        got = sampling.penalise(given, params(**penalties), prompt, generated).tolist()
        expect_equal(place, got, [wanted], f"{penalties} after prompt {prompt} and answer {generated}")


@check("SAMP-001", area="sampling")
def temperature_divides() -> None:
    for t in (0.5, 1.0, 4.0):
        got = sampling.temperature(rows([2.0, -1.0, 0.0]), t).tolist()
        expect_equal("generation.sampling.temperature", got, [[2 / t, -1 / t, 0.0]], f"temperature {t}")


@check("SAMP-004", "SAMP-005", "SAMP-014", area="sampling")
def top_k_keeps_the_k_largest_and_their_ties() -> None:
    for row in itertools.product((0.0, 1.0, 2.5), repeat=4):
        for k in (0, 1, 2, 3, 4, 7):
            ranked = sorted(row, reverse=True)
            border = -INF if k == 0 else ranked[min(k, 4) - 1]
            filtered("generation.sampling.top_k", sampling.top_k, row, k, {i for i, x in enumerate(row) if x >= border})


@check("SAMP-006", "SAMP-007", area="sampling")
def top_p_keeps_the_smallest_set_that_reaches_p() -> None:
    place = "generation.sampling.top_p"
    for size in (2, 4, 8):
        for keep in range(1, size + 1):  # equal logits: every sum is exact, and a sum of exactly p is enough
            got = sampling.top_p(rows([0.5] * size), keep / size)
            expect_equal(place, int(got.isfinite().sum()), keep, f"how many of {size} equal tokens top_p = {keep / size} keeps")
    filtered(place, sampling.top_p, [0.0, 3.0, 1.0], 0.0, {1})
    filtered(place, sampling.top_p, [0.0, 3.0, -INF], 1.0, {0, 1})
    filtered(place, sampling.top_p, [50.0, 0.0, -3.0], 1.0, {0, 1, 2})  # although the first one rounds to the whole
    for row in distributions(1, 12, 6):
        probs = probabilities(row)
        ranked = sorted(range(6), key=lambda i: -probs[i])
        sums = [0.0, *itertools.accumulate(probs[i] for i in ranked)]
        for keep in range(1, sum(p > 0 for p in probs) + 1):
            p = (sums[keep - 1] + sums[keep]) / 2  # in the middle of the probability of the last token kept
            filtered(place, sampling.top_p, row, p, set(ranked[:keep]))


@check("SAMP-008", area="sampling")
def min_p_keeps_tokens_near_the_most_probable() -> None:
    place = "generation.sampling.min_p"
    filtered(place, sampling.min_p, [1.0, 3.0, 3.0, -2.0], 1.0, {1, 2})
    filtered(place, sampling.min_p, [1.0, 3.0, 3.0, -20.0], 0.0, {0, 1, 2, 3})
    filtered(place, sampling.min_p, [0.0, -math.log(2.0), -3.0], 0.5, {0, 1})  # exactly half as probable
    for row in distributions(2, 12, 6):
        probs = probabilities(row)
        shares = sorted(p / max(probs) for p in probs if p > 0)
        for low, high in itertools.pairwise([0.0, *shares]):
            p = (low + high) / 2
            filtered(place, sampling.min_p, row, p, {i for i in range(6) if probs[i] >= p * max(probs)})


@check("SAMP-009", area="sampling")
def typical_p_keeps_the_surprises_nearest_to_the_entropy() -> None:
    place = "generation.sampling.typical_p"
    filtered(place, sampling.typical_p, [0.0, 3.0, -INF], 1.0, {0, 1})
    filtered(place, sampling.typical_p, [50.0, 0.0, -3.0], 1.0, {0, 1, 2})
    for row in distributions(6, 6, 40):  # in float32 a sum may never reach what rounds to 1
        got = sampling.typical_p(torch.tensor([row]), 1 - 1e-9)
        mass = float(rows(row).softmax(-1)[0, got[0].isfinite()].sum())
        expect(place, mass > 0.999, f"typical_p just below 1 leaves {mass:.3f} of the probability")
    filtered(place, sampling.typical_p, [1.0] * 4, 0.3, {0, 1, 2, 3})  # all ties stay
    for row in distributions(3, 15, 6):
        probs = probabilities(row)
        entropy = -math.fsum(p * math.log(p) for p in probs if p > 0)
        living = [i for i in range(6) if probs[i] > 0]
        ranked = sorted(living, key=lambda i: abs(-math.log(probs[i]) - entropy))
        sums = [0.0, *itertools.accumulate(probs[i] for i in ranked)]
        for keep in range(1, len(ranked) + 1):
            filtered(place, sampling.typical_p, row, (sums[keep - 1] + sums[keep]) / 2, set(ranked[:keep]))

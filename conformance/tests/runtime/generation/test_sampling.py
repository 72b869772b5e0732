"""Sampling: hand-checkable vectors, transformers' processors as oracle, and draws against their distribution.

Statistical checks use fixed seeds, so they never flicker; FALSE_ALARM is the chance, had other seeds been chosen, that
a correct sampler would fail one of them. A control shows that the same number of draws does reject a wrong sampler.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.generation import logits_process as hf

from nanollama.errors import NanollamaError
from nanollama.generation import sampling
from nanollama.generation.sampling import SamplingParams, draw, greedy, no_choice, pick, process, uniform

INF, NAN = math.inf, math.nan
FALSE_ALARM = 1e-3
HALVES = (0.5, 0.25, 0.125, 0.125)  # exact in binary, so sums can land on p exactly


def logits_of(*probs: float) -> Tensor:
    return torch.tensor([probs], dtype=torch.float64).log()


def kept(logits: Tensor) -> list[list[int]]:
    return [[i for i, value in enumerate(row) if value > -INF] for row in logits.tolist()]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    assert torch.equal(got, want), f"{got} is not {want}"


# --- by hand: each function


def test_temperature_divides() -> None:
    same(sampling.temperature(torch.tensor([[4.0, -2.0, 0.0]]), 2.0), torch.tensor([[2.0, -1.0, 0.0]]))


def test_top_k_keeps_the_k_largest() -> None:
    same(sampling.top_k(torch.tensor([[1.0, 4.0, 3.0, 2.0]]), 2), torch.tensor([[-INF, 4.0, 3.0, -INF]]))


def test_top_k_keeps_all_tokens_tied_with_the_kth() -> None:
    assert kept(sampling.top_k(torch.tensor([[5.0, 7.0, 5.0, 1.0, 5.0]]), 2)) == [[0, 1, 2, 4]]


@pytest.mark.parametrize("k", [0, 3, 4, 2**70])
def test_top_k_of_zero_or_more_than_the_vocabulary_keeps_everything(k: int) -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    same(sampling.top_k(logits, k), logits)


@pytest.mark.parametrize(
    ("p", "want"),
    [(0.0, [0]), (1e-9, [0]), (0.5, [0]), (0.6, [0, 1]), (0.75, [0, 1]), (0.8, [0, 1, 2]), (0.876, [0, 1, 2, 3])],
)
def test_top_p_keeps_the_crossing_token_and_no_more(p: float, want: list[int]) -> None:
    assert kept(sampling.top_p(logits_of(*HALVES), p)) == [want]


def test_top_p_of_one_keeps_even_tokens_below_rounding() -> None:
    logits = torch.tensor([[0.0, -50.0, -80.0]])
    same(sampling.top_p(logits, 1.0), logits)


def test_top_p_ranks_by_probability_whatever_the_order_of_the_vocabulary() -> None:
    assert kept(sampling.top_p(logits_of(0.0625, 0.0625, 0.375, 0.5), 0.45)) == [[3]]
    assert kept(sampling.top_p(logits_of(0.125, 0.5, 0.125, 0.25), 0.6)) == [[1, 3]]


def test_top_p_normalises_logits_first() -> None:
    assert kept(sampling.top_p(logits_of(*HALVES) + 7, 0.6)) == [[0, 1]]


def test_top_p_sees_each_row_alone() -> None:
    both = torch.cat([logits_of(*HALVES), logits_of(*reversed(HALVES))])
    assert kept(sampling.top_p(both, 0.6)) == [[0, 1], [2, 3]]


def test_top_p_leaves_the_kept_logits_as_they_were() -> None:
    logits = torch.tensor([[3.0, 9.0, 8.5]])
    same(sampling.top_p(logits, 0.9), torch.tensor([[-INF, 9.0, 8.5]]))


@pytest.mark.parametrize("size", [4, 1000])
def test_top_p_takes_the_lower_id_of_tied_tokens(size: int) -> None:
    # `size` equal tokens: half of the mass is half of the tokens
    assert kept(sampling.top_p(torch.zeros(1, size, dtype=torch.float64), 0.5 - 1e-9)) == [list(range(size // 2))]


@pytest.mark.parametrize(
    ("p", "want"), [(0.0, [0, 1, 2, 3]), (0.2, [0, 1, 2, 3]), (0.25, [0, 1, 2, 3]), (0.26, [0, 1]), (1.0, [0])]
)
def test_min_p_compares_probabilities_with_the_largest(p: float, want: list[int]) -> None:
    assert kept(sampling.min_p(torch.tensor([HALVES]).log(), p)) == [want]


def test_min_p_is_about_probabilities_not_logits() -> None:
    # probabilities 0.73 and 0.27: a ratio of 0.37, while the logits' ratio is 0.9
    assert kept(sampling.min_p(torch.tensor([[10.0, 9.0]]), 0.5)) == [[0]]


@pytest.mark.parametrize(("p", "want"), [(0.0, [1]), (0.2, [1]), (0.3, [0, 1]), (0.7, [0, 1]), (0.8, [0, 1, 2, 3])])
def test_typical_p_starts_at_the_entropy_and_keeps_ties(p: float, want: list[int]) -> None:
    # surprise 1, 2, 3, 3 bits; entropy 1.75 bits: token 1 is nearest (0.25), then 0 (0.75), then 2 and 3 (1.25)
    assert kept(sampling.typical_p(logits_of(*HALVES), p)) == [want]


def test_typical_p_stops_when_the_sum_is_exactly_p() -> None:
    logits = logits_of(*HALVES)
    exactly = float(logits.log_softmax(-1).exp()[0, 1])  # the most typical token's probability, as rounded
    assert kept(sampling.typical_p(logits, exactly)) == [[1]]


def test_typical_p_keeps_everything_where_rounding_leaves_the_sum_below_p() -> None:
    almost_one = math.nextafter(1.0, 0.0)
    for size in range(2, 300):
        assert kept(sampling.typical_p(torch.zeros(1, size), almost_one)) == [list(range(size))]


def test_typical_p_may_drop_the_most_probable_token() -> None:
    # 0.4 and sixty times 0.01: entropy 3.13, surprises 0.92 and 4.61
    logits = logits_of(0.4, *[0.01] * 60)
    assert kept(sampling.typical_p(logits, 0.3)) == [list(range(1, 61))]


def test_typical_p_is_not_confused_by_banned_tokens() -> None:
    assert kept(sampling.typical_p(logits_of(*HALVES, 0.0), 0.3)) == [[0, 1]]


def counted(ids: list[int], logits: Tensor) -> Tensor:
    return torch.tensor([float(ids.count(i)) for i in range(logits.shape[-1])])


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    logits = torch.tensor([[6.0, -6.0, 6.0, -6.0, 0.0]])
    got = sampling.repetition_penalty(logits, counted([0, 1, 4], logits), 3.0)
    same(got, torch.tensor([[2.0, -18.0, 6.0, -6.0, 0.0]]))


def test_repetition_penalty_counts_a_token_once() -> None:
    logits = torch.tensor([[8.0, 1.0]])
    same(sampling.repetition_penalty(logits, counted([0, 0, 0], logits), 2.0), torch.tensor([[4.0, 1.0]]))


def test_presence_penalty_subtracts_once_and_frequency_penalty_each_time() -> None:
    logits = torch.tensor([[8.0, 8.0, 8.0]])
    counts = counted([0, 0, 0, 1], logits)
    same(sampling.presence_penalty(logits, counts, 0.5), torch.tensor([[7.5, 7.5, 8.0]]))
    same(sampling.frequency_penalty(logits, counts, 0.5), torch.tensor([[6.5, 7.5, 8.0]]))


def test_token_counts_counts() -> None:
    logits = torch.zeros(2, 5, dtype=torch.float64)
    same(sampling.token_counts([3, 0, 3], logits), torch.tensor([1.0, 0, 0, 2, 0], dtype=torch.float64))
    same(sampling.token_counts([], logits), torch.zeros(5, dtype=torch.float64))


@pytest.mark.parametrize(("window", "want"), [(-1, [1, 2, 3]), (0, []), (1, [3]), (2, [2, 3]), (3, [1, 2, 3]), (9, [1, 2, 3])])
def test_the_window_takes_the_most_recent_tokens(window: int, want: list[int]) -> None:
    assert sampling.last([1, 2, 3], window) == want


def test_repetition_counts_the_prompt_but_presence_and_frequency_do_not() -> None:
    logits = torch.full((1, 4), 8.0)
    say = {"prompt": [0, 0], "generated": [1, 1]}
    same(sampling.penalise(logits, SamplingParams(repetition_penalty=2.0), **say), torch.tensor([[4.0, 4, 8, 8]]))
    same(sampling.penalise(logits, SamplingParams(presence_penalty=1.0), **say), torch.tensor([[8.0, 7, 8, 8]]))
    same(sampling.penalise(logits, SamplingParams(frequency_penalty=1.0), **say), torch.tensor([[8.0, 6, 8, 8]]))


def test_the_penalty_window_reaches_back_over_generated_tokens_into_the_prompt() -> None:
    logits = torch.full((1, 4), 8.0)
    params = SamplingParams(repetition_penalty=2.0, frequency_penalty=1.0, penalty_window=3)
    got = sampling.penalise(logits, params, prompt=[0, 1], generated=[2, 2])  # the window: 1, 2, 2
    same(got, torch.tensor([[8.0, 4.0, 2.0, 8.0]]))
    params = SamplingParams(frequency_penalty=1.0, penalty_window=1)
    same(sampling.penalise(logits, params, prompt=[], generated=[2, 2]), torch.tensor([[8.0, 8, 7, 8]]))


def test_logit_bias_adds() -> None:
    same(sampling.add_bias(torch.tensor([[1.0, 2.0, 3.0]]), {2: -1.5, 0: 1}), torch.tensor([[2.0, 2.0, 1.5]]))


def test_minus_infinity_bans_a_token_and_plus_infinity_all_others() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    same(sampling.add_bias(logits, {3: -INF}), torch.tensor([[1.0, 2.0, 3.0, -INF]]))
    same(sampling.add_bias(logits, {0: INF, 1: INF, 2: 5.0, 3: -INF}), torch.tensor([[1.0, 2.0, -INF, -INF]]))


@pytest.mark.parametrize("size", [3, 1000, 150_000])
def test_greedy_takes_the_lowest_of_tied_ids(size: int) -> None:
    logits = torch.zeros(1, size)
    logits[0, [size - 2, size - 1]] = 1.0
    assert greedy(logits).tolist() == [size - 2]


@pytest.mark.parametrize(
    ("u", "want"),
    [(2**-53, 1), (0.25, 1), (0.2500001, 2), (0.75, 2), (0.7500001, 4), (1.0, 4)],
)
def test_draw_inverts_the_cumulative_distribution(u: float, want: int) -> None:
    logits = torch.tensor([[0.0, 0.25, 0.5, 0.0, 0.25, 0.0]]).log()  # probability 0 first, between and last
    assert draw(logits, u).tolist() == [want]


@pytest.mark.parametrize("error", [-1e-6, 1e-6])
@pytest.mark.parametrize("u", [2**-53, 0.3, 0.499, 0.6, 1.0])
def test_draw_never_takes_a_banned_token_though_a_parallel_scan_rounds(
    monkeypatch: pytest.MonkeyPatch, error: float, u: float
) -> None:
    logits = torch.tensor([[0.0, 0.5, 0.0, 0.0, 0.5, 0.0]]).log()
    exact = logits.softmax(-1).cumsum(-1)
    for banned in (0, 2, 3, 5, slice(0, 6)):  # one of the sums is off, or all
        scan = exact.clone()
        scan[0, banned] += error
        with monkeypatch.context() as patch:
            patch.setattr(Tensor, "cumsum", lambda *_, scan=scan: scan)
            assert draw(logits, u).tolist() == [1 if u <= 0.5 else 4]


def test_the_uniform_number_is_never_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.zeros((), dtype=torch.float64))  # once in 2 ** 53 draws
    assert uniform(generator(0)) == 1.0


# --- by hand: order, dtypes, bad logits


def test_the_temperature_comes_before_top_p() -> None:
    # at temperature 1/2 the probabilities 1/2, 1/4, 1/8, 1/8 become 16/22, 4/22, 1/22, 1/22
    params = SamplingParams(temperature=0.5, top_p=0.72)
    assert kept(process(logits_of(*HALVES), params, [], [])) == [[0]]


def test_the_temperature_comes_before_min_p() -> None:
    params = SamplingParams(temperature=0.5, min_p=0.3)  # 4/16 is below 0.3, 1/2 is not
    assert kept(process(logits_of(*HALVES), params, [], [])) == [[0]]


def test_top_p_sees_what_top_k_left_as_the_whole() -> None:
    # of the top 2 the first has 2/3: enough for 0.6, which it isn't (0.5) among all four
    assert kept(process(logits_of(*HALVES), SamplingParams(top_k=2, top_p=0.6), [], [])) == [[0]]
    assert kept(process(logits_of(*HALVES), SamplingParams(top_k=1, top_p=0.8), [], [])) == [[0]]


def test_typical_p_comes_last() -> None:
    # among all four token 1 is the most typical; of the two that top-k leaves (2/3, 1/3) it is token 0
    assert kept(process(logits_of(*HALVES), SamplingParams(typical_p=0.1), [], [])) == [[1]]
    assert kept(process(logits_of(*HALVES), SamplingParams(typical_p=0.1, top_k=2), [], [])) == [[0]]


def test_the_bias_comes_before_the_repetition_penalty() -> None:
    params = SamplingParams(logit_bias={0: 2.0}, repetition_penalty=2.0)
    same(process(torch.tensor([[4.0, 1.0]]), params, [0], []), torch.tensor([[3.0, 1.0]]))


def test_repetition_comes_before_presence_and_frequency() -> None:
    params = SamplingParams(repetition_penalty=2.0, presence_penalty=1.0, frequency_penalty=0.5)
    same(process(torch.tensor([[8.0, 1.0]]), params, [], [0, 0]), torch.tensor([[2.0, 1.0]]))


def test_greedy_ignores_filters_but_not_bias_and_penalties() -> None:
    logits = logits_of(0.4, *[0.01] * 60)
    plain = SamplingParams(temperature=0.0, typical_p=0.3, top_k=1, top_p=0.1, min_p=0.9)
    assert pick(logits, plain, [], [], generator(0)).tolist() == [0]
    biased = SamplingParams(temperature=0.0, logit_bias={7: 100.0})
    assert pick(logits, biased, [], [], generator(0)).tolist() == [7]
    penalised = SamplingParams(temperature=0.0, presence_penalty=2.0)
    assert pick(torch.tensor([[3.0, 2.0]]), penalised, [], [0], generator(0)).tolist() == [1]


def test_greedy_leaves_the_generator_alone() -> None:
    own = generator(5)
    before = own.get_state()
    pick(torch.randn(1, 9), SamplingParams(temperature=0.0), [], [], own)
    assert torch.equal(own.get_state(), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_widened_before_anything_is_done_to_them(dtype: torch.dtype) -> None:
    logits = torch.tensor([[60000.0, 50000.0]], dtype=dtype)  # doubled, both exceed float16's 65504
    got = process(logits, SamplingParams(temperature=0.5), [], [])
    same(got, logits.float() * 2)


def test_float64_logits_stay_float64_through_every_step() -> None:
    params = SamplingParams(0.7, 3, 0.99, 0.001, 0.99, 1.1, 0.1, 0.1, -1, {1: 0.1})
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    got = process(logits, params, [1], [2, 2, 2])
    assert got.dtype == torch.float64
    # one third is not a float32: 4 unpenalised, 2 + 0.1 over 1.1, 3 over 1.1 less 0.3 and 0.1
    want = torch.tensor([[1.0, 2.1 / 1.1, 3 / 1.1 - 0.4, 4.0]], dtype=torch.float64) / 0.7
    finite = got > -INF
    assert finite.sum() > 1
    assert (got - want)[finite].abs().max() < 1e-14


def test_no_function_edits_its_input() -> None:
    params = SamplingParams(0.7, 3, 0.9, 0.1, 0.9, 1.1, 0.1, 0.1, -1, {1: 0.1, 2: -INF})
    logits = torch.randn(1, 9, generator=generator(1))
    before = logits.clone()
    pick(logits, params, [1], [2, 2, 2], generator(0))
    assert torch.equal(logits, before)


EVERYTHING = SamplingParams(0.7, 3, 0.9, 0.1, 0.9, 1.1, 0.1, 0.1, 2, {1: 0.1}, 3)


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(temperature=0.0), EVERYTHING])
@pytest.mark.parametrize("bad", [[NAN, 1.0, 2.0], [1.0, 2.0, NAN], [NAN] * 3, [-INF] * 3, [INF, 1.0, 2.0], [INF] * 3])
def test_logits_without_a_finite_maximum_give_no_token(params: SamplingParams, bad: list[float]) -> None:
    assert pick(torch.tensor([bad]), params, [1], [2], generator(0)).tolist() == [-1]


def test_the_error_says_what_was_wrong_with_the_logits() -> None:
    text = no_choice(torch.tensor([[NAN, NAN, INF, -INF, 1.0]]), SamplingParams())
    assert "2 NaN, 1 +inf and 1 -inf among 5 logits" in text
    text = no_choice(torch.zeros(1, 2), SamplingParams(logit_bias={0: -INF, 1: -INF}))
    assert "0 NaN, 0 +inf and 0 -inf among 2 logits" in text
    assert "logit_bias bans or forces 2 tokens" in text


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(temperature=0.0), EVERYTHING])
def test_picking_never_waits_for_the_device(params: SamplingParams) -> None:
    # a meta tensor has no values: reading one back on the host, which is what waiting means, would raise
    assert pick(torch.zeros(1, 9, device="meta"), params, [1, 2], [3], generator(0)).device.type == "meta"


# --- SamplingParams


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("temperature", -0.1, "from 0 to 1000000"),
        ("temperature", 1e-7, "0 is greedy, otherwise at least 1e-06"),
        ("temperature", NAN, "a number from 0"),
        ("temperature", INF, "a number from 0"),
        ("temperature", True, "a number from 0"),
        ("temperature", "0.7", "a number from 0"),
        ("temperature", None, "a number from 0"),
        ("top_k", -1, "a whole number of at least 0 (0 is off)"),
        ("top_k", 5.0, "a whole number"),
        ("top_k", True, "a whole number"),
        ("top_p", -0.01, "from 0 to 1 (1 is off)"),
        ("top_p", 1.01, "from 0 to 1"),
        ("top_p", NAN, "from 0 to 1"),
        ("min_p", 1.01, "from 0 to 1 (0 is off)"),
        ("min_p", -1, "from 0 to 1"),
        ("typical_p", 2, "from 0 to 1"),
        ("typical_p", False, "from 0 to 1"),
        ("repetition_penalty", 0, "from 0.01 to 100"),
        ("repetition_penalty", -1.0, "from 0.01 to 100"),
        ("repetition_penalty", INF, "from 0.01 to 100"),
        ("presence_penalty", 2.5, "from -2 to 2"),
        ("frequency_penalty", -2.5, "from -2 to 2"),
        ("frequency_penalty", NAN, "from -2 to 2"),
        ("penalty_window", -2, "of at least -1"),
        ("penalty_window", 1.5, "a whole number"),
        ("seed", -1, "from 0 to 4294967295"),
        ("seed", 2**32, "from 0 to 4294967295"),
        ("seed", 1.0, "a whole number"),
        ("seed", True, "a whole number"),
        ("logit_bias", [1], "a mapping of token id to bias"),
        ("logit_bias", None, "a mapping of token id to bias"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name_value_and_range(name: str, value: Any, expected: str) -> None:
    with pytest.raises(NanollamaError) as caught:
        SamplingParams(**{name: value})
    assert f"{name} is {value!r}" in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("bias", "named"),
    [({"5": 1.0}, "'5'"), ({-1: 1.0}, "-1"), ({True: 1.0}, "True"), ({1: 100.5}, "100.5"), ({1: NAN}, "nan"), ({1: []}, "[]")],
)
def test_a_bad_logit_bias_is_refused(bias: Any, named: str) -> None:
    with pytest.raises(NanollamaError, match="logit_bias") as caught:
        SamplingParams(logit_bias=bias)
    assert f"is {named}; expected" in str(caught.value)


def test_the_ends_of_every_range_are_allowed() -> None:
    for name, (low, high, _) in sampling.RANGES.items():
        assert getattr(SamplingParams(**{name: low}), name) == low  # type: ignore[arg-type]
        assert getattr(SamplingParams(**{name: high}), name) == high  # type: ignore[arg-type]
    SamplingParams(temperature=1, top_p=1, seed=2**32 - 1, penalty_window=-1, logit_bias={0: -100, 1: 100, 2: INF})


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(TypeError, match="mirostat"):
        SamplingParams(mirostat=2)  # type: ignore[call-arg]


def test_params_keep_their_own_copy_of_the_bias() -> None:
    bias = {1: 2.0}
    params = SamplingParams(logit_bias=bias)
    bias[1] = -100.0
    assert params.logit_bias == {1: 2.0}
    assert hash(params) == hash(SamplingParams(logit_bias={1: 2.0}))


def test_torch_ignores_seed_bits_above_32_which_is_why_they_are_refused() -> None:
    assert uniform(generator(5)) == uniform(generator(5 + 2**32))


CHANGES: dict[str, Any] = {
    "temperature": 0.5,
    "top_k": 2,
    "top_p": 0.6,
    "min_p": 0.3,
    "typical_p": 0.3,
    "repetition_penalty": 1.5,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "logit_bias": {1: 0.5},
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_parameter_changes_the_distribution_and_its_default_does_not(name: str) -> None:
    logits = torch.tensor([[2.0, 1.5, 1.0, 0.5, -1.0]])
    same(process(logits, SamplingParams(), [0], [1, 1]), logits)
    changed = process(logits, SamplingParams(**{name: CHANGES[name]}), [0], [1, 1])
    assert (changed.softmax(-1) - logits.softmax(-1)).abs().max() > 0.01


def test_window_and_seed_change_something_too() -> None:
    logits = torch.tensor([[2.0, 1.5, 1.0, 0.5, -1.0]])
    wide, narrow = (SamplingParams(repetition_penalty=1.5, penalty_window=w) for w in (-1, 1))
    assert not torch.equal(process(logits, wide, [0], [1]), process(logits, narrow, [0], [1]))
    assert set(CHANGES) | {"penalty_window", "seed"} == set(SamplingParams.__dataclass_fields__)
    assert uniform(generator(1)) != uniform(generator(2))


# --- transformers as oracle

Warp = Callable[[torch.LongTensor, Tensor], Tensor]
batches = st.tuples(st.integers(0, 2**31), st.integers(1, 4), st.integers(2, 40), st.floats(0.1, 8), st.booleans())


def random_logits(drawn: tuple[int, int, int, float, bool], dtype: torch.dtype = torch.float64) -> Tensor:
    """Random logits [B, V] of a drawn scale; the last draw rounds them to whole numbers, which makes many ties."""
    seed, rows, size, scale, ties = drawn
    logits = torch.randn(rows, size, dtype=torch.float64, generator=generator(seed)) * scale
    return (logits.round() if ties else logits).to(dtype)


def warped(warp: Any, logits: Tensor, ids: list[int] | None = None) -> Tensor:
    context = torch.tensor([ids or [0]]).expand(len(logits), -1)
    result: Tensor = warp(context, logits.clone())
    return result


def clear_of(p: float, sums: Tensor) -> None:
    """Leave out sums within rounding of p, where the order of additions decides (by hand above, in exact numbers)."""
    assume(bool(((sums - p).abs() > 1e-5).all()))


@given(batches, st.floats(0.01, 50), st.sampled_from([torch.float32, torch.float64]))
def test_temperature_equals_transformers(drawn: Any, t: float, dtype: torch.dtype) -> None:
    logits = random_logits(drawn, dtype)
    same(sampling.temperature(logits, t), warped(hf.TemperatureLogitsWarper(t), logits))


@given(batches, st.integers(1, 60), st.sampled_from([torch.float32, torch.float64]))
def test_top_k_equals_transformers_ties_included(drawn: Any, k: int, dtype: torch.dtype) -> None:
    logits = random_logits(drawn, dtype)
    same(sampling.top_k(logits, k), warped(hf.TopKLogitsWarper(k), logits))


@given(batches, st.floats(0, 1), st.sampled_from([torch.float32, torch.float64]))
def test_top_p_equals_transformers_and_keeps_as_many_of_tied_tokens(drawn: Any, p: float, dtype: torch.dtype) -> None:
    logits = random_logits(drawn, dtype)
    clear_of(p, logits.softmax(-1).sort(descending=True).values.cumsum(-1)[:, :-1])
    got, want = sampling.top_p(logits, p), warped(hf.TopPLogitsWarper(p), logits)
    same(got.sort().values, want.sort().values)  # of tied tokens transformers leaves the choice to an unstable sort
    if not drawn[-1]:
        same(got, want)


@given(batches, st.floats(0, 1), st.sampled_from([torch.float32, torch.float64]))
def test_min_p_equals_transformers_ties_included(drawn: Any, p: float, dtype: torch.dtype) -> None:
    logits = random_logits(drawn, dtype)
    same(sampling.min_p(logits, p), warped(hf.MinPLogitsWarper(p), logits))


@given(batches, st.floats(0.001, 0.999), st.sampled_from([torch.float32, torch.float64]))
def test_typical_p_equals_transformers_ties_included(drawn: Any, p: float, dtype: torch.dtype) -> None:
    logits = random_logits(drawn, dtype)
    log_probs = logits.log_softmax(-1)
    order = (-log_probs + (log_probs.exp() * log_probs).sum(-1, keepdim=True)).abs().argsort(-1)
    clear_of(p, log_probs.exp().gather(-1, order).cumsum(-1))
    same(sampling.typical_p(logits, p), warped(hf.TypicalLogitsWarper(p), logits))


@given(batches, st.floats(0.01, 100), st.lists(st.integers(0, 10**6), min_size=1, max_size=9), st.data())
def test_repetition_penalty_equals_transformers(drawn: Any, penalty: float, seen: list[int], data: Any) -> None:
    logits = random_logits(drawn)
    ids = [i % logits.shape[1] for i in seen]
    cut = data.draw(st.integers(0, len(ids)))  # where the prompt ends makes no difference
    got = sampling.penalise(logits, SamplingParams(repetition_penalty=penalty), ids[:cut], ids[cut:])
    same(got, warped(hf.RepetitionPenaltyLogitsProcessor(float(penalty)), logits, ids) if penalty != 1 else logits)


@given(batches, st.dictionaries(st.integers(0, 1), st.floats(-100, 100), min_size=1))
def test_logit_bias_equals_transformers_sequence_bias(drawn: Any, bias: dict[int, float]) -> None:
    logits = random_logits(drawn, torch.float32)
    sequences: Any = [[[token], value] for token, value in bias.items()]
    same(sampling.add_bias(logits, bias), warped(hf.SequenceBiasLogitsProcessor(sequences), logits))


@pytest.fixture(scope="module")
def tiny_llama() -> Any:
    torch.manual_seed(0)
    sizes: Any = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=24, max_position_embeddings=64, initializer_range=1.0, **sizes)
    model: Any = LlamaForCausalLM(config)
    return model.double().eval()


CHAIN: dict[str, Any] = {
    "temperature": 1.7,
    "top_k": 15,
    "top_p": 0.93,
    "min_p": 0.02,
    "typical_p": 0.9,
    "repetition_penalty": 1.4,
}


@pytest.mark.parametrize("left_out", [None, *CHAIN])
def test_the_whole_chain_equals_the_scores_of_transformers_generate(tiny_llama: Any, left_out: str | None) -> None:
    off = {"top_k": 0, "temperature": 1.0, "top_p": 1.0, "min_p": None, "typical_p": 1.0, "repetition_penalty": 1.0}
    options = CHAIN if left_out is None else CHAIN | {left_out: off[left_out]}
    bias: Any = [[[3], 2.5], [[7], -1.5]]
    record = {"output_scores": True, "output_logits": True, "return_dict_in_generate": True, "pad_token_id": 0}
    torch.manual_seed(1)
    prompt = [5, 3, 9, 3]
    out = tiny_llama.generate(
        torch.tensor([prompt]), do_sample=True, max_new_tokens=12, eos_token_id=None, sequence_bias=bias, **options, **record
    )
    ours = {name: value for name, value in options.items() if value is not None}
    params = SamplingParams(logit_bias={3: 2.5, 7: -1.5}, **ours)
    generated = out.sequences[0, len(prompt) :].tolist()
    assert len(generated) == 12
    for step, (raw, want) in enumerate(zip(out.logits, out.scores, strict=True)):
        got = process(raw, params, prompt, generated[:step])
        assert kept(got) == kept(want)
        finite = want > -INF
        assert (got - want)[finite].abs().max() < 1e-5 * want[finite].abs().max()  # transformers casts to float32


# --- draws against the distribution


def chi_square_p_value(observed: list[int], probs: list[float]) -> float:
    """The chance that a sampler of `probs` deviates at least as much as `observed` (Pearson); cells of 0 must be empty."""
    assert all(n == 0 for n, p in zip(observed, probs, strict=True) if p == 0)
    total, cells = sum(observed), [(n, p) for n, p in zip(observed, probs, strict=True) if p > 0]
    assert min(p for _, p in cells) * total >= 5  # below five expected the chi-square law is not a good approximation
    statistic = sum((n - total * p) ** 2 / (total * p) for n, p in cells)
    half = torch.tensor([(len(cells) - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def test_the_chi_square_p_value_is_that_of_the_tables() -> None:
    # one degree of freedom: 3.841 is the 5 % point, so 1.96 standard deviations; 60:40 of 100 fair tosses gives 4
    assert chi_square_p_value([60, 40], [0.5, 0.5]) == pytest.approx(0.0455, abs=1e-4)
    assert chi_square_p_value([25, 25, 50, 0], [0.25, 0.25, 0.5, 0.0]) == 1


def draws(logits: Tensor, params: SamplingParams, count: int, seed: int) -> list[int]:
    own, seen = generator(seed), [0] * logits.shape[-1]
    for _ in range(count):
        seen[int(pick(logits, params, [], [], own))] += 1
    return seen


def softmax(logits: list[float]) -> list[float]:
    weights = [math.exp(value) for value in logits]
    return [weight / sum(weights) for weight in weights]


DRAWS = 4000
ROW = [1.0, -0.5, 0.3, 2.0, -1.0, 0.0]
CASES = {
    "plain": (SamplingParams(), softmax(ROW)),
    "hot": (SamplingParams(temperature=2.0), softmax([value / 2 for value in ROW])),
    "cold": (SamplingParams(temperature=0.5), softmax([value * 2 for value in ROW])),
    "hottest": (SamplingParams(temperature=1e6), [1 / 6] * 6),
    "top three": (SamplingParams(top_k=3), softmax([1.0, -INF, 0.3, 2.0, -INF, -INF])),
    "biased": (SamplingParams(logit_bias={4: 3.0, 0: -INF}), softmax([-INF, -0.5, 0.3, 2.0, 2.0, 0.0])),
    "two thirds": (SamplingParams(top_p=0.66), softmax([1.0, -INF, -INF, 2.0, -INF, -INF])),
}


@pytest.mark.parametrize("case", CASES)
def test_draws_follow_the_distribution(case: str) -> None:
    params, probs = CASES[case]
    assert chi_square_p_value(draws(torch.tensor([ROW]), params, DRAWS, seed=11), probs) > FALSE_ALARM


@pytest.mark.parametrize("wrong", [SamplingParams(temperature=1.15), SamplingParams(logit_bias={3: 0.25})])
def test_as_many_draws_reject_a_slightly_wrong_distribution(wrong: SamplingParams) -> None:
    assert chi_square_p_value(draws(torch.tensor([ROW]), wrong, DRAWS, seed=11), softmax(ROW)) < FALSE_ALARM


def test_the_first_draws_of_neighbouring_seeds_are_uniform_and_independent() -> None:
    first = [uniform(generator(seed)) for seed in range(4096)]
    cells = [0] * 16
    for u in first:
        cells[min(int(u * 16), 15)] += 1
    assert chi_square_p_value(cells, [1 / 16] * 16) > FALSE_ALARM
    rising = sum(a < b for a, b in pairwise(first))  # of 4095 pairs half rise, give or take 3.3 sqrt(4095 / 12)
    assert abs(rising - 4095 / 2) < 3.3 * math.sqrt(4095 / 12)


@given(st.integers(0, 2**31), st.integers(1, 300), st.floats(0.1, 30), st.floats(2**-53, 1))
def test_draw_equals_a_plain_walk_along_the_sums_and_never_takes_a_banned_token(
    seed: int, size: int, scale: float, u: float
) -> None:
    logits = torch.randn(1, size, dtype=torch.float64, generator=generator(seed)) * scale
    logits[0, torch.rand(size, generator=generator(seed + 1)) < 0.5] = -INF
    assume(bool((logits > -INF).any()))
    probs = [weight / math.fsum(logits[0].exp().tolist()) for weight in logits[0].exp().tolist()]
    sums = [math.fsum(probs[: i + 1]) for i in range(size)]
    assume(min(abs(total - u) for total in sums) > 1e-12 or u == 1)
    chosen = int(draw(logits, u))
    assert probs[chosen] > 0
    if u < 1:
        assert chosen == next(i for i, total in enumerate(sums) if total >= u)
    assert probs[int(draw(logits.float(), u))] > 0


def test_a_request_draws_the_same_ids_whatever_else_is_drawn() -> None:
    logits = torch.randn(50, 1, 20, generator=generator(3))
    alone = generator(7)
    want = [int(pick(row, SamplingParams(), [], [], alone)) for row in logits]
    own, other = generator(7), generator(8)
    got = []
    for row in logits:
        pick(row.flip(-1), SamplingParams(), [], [], other)
        torch.rand(3)  # the global generator
        got.append(int(pick(row, SamplingParams(), [], [], own)))
    assert got == want
    assert len(set(got)) > 3


numbers = st.floats(width=32) | st.sampled_from([NAN, INF, -INF, 0.0, 65504.0, 3e38, -3e38])
anything = st.builds(
    SamplingParams,
    temperature=st.just(0.0) | st.floats(1e-6, 1e6),
    top_k=st.integers(0, 20),
    top_p=st.floats(0, 1),
    min_p=st.floats(0, 1),
    typical_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.01, 100),
    presence_penalty=st.floats(-2, 2),
    frequency_penalty=st.floats(-2, 2),
    penalty_window=st.integers(-1, 9),
    logit_bias=st.dictionaries(st.integers(0, 3), st.floats(-100, 100) | st.sampled_from([INF, -INF])),
)


@given(st.lists(numbers, min_size=4, max_size=12), anything, st.sampled_from([torch.float16, torch.bfloat16, torch.float32]))
def test_whatever_the_logits_a_pick_is_a_possible_token_or_none(
    row: list[float], params: SamplingParams, dtype: torch.dtype
) -> None:
    logits = torch.tensor([row], dtype=torch.float32).to(dtype)
    chosen = int(pick(logits, params, [0, 1], [1, 2], generator(0)))
    scores = process(logits, params, [0, 1], [1, 2])
    if bool(scores.amax().isfinite()):
        assert 0 <= chosen < len(row)
        assert scores[0, chosen] > -INF
    else:
        assert chosen == -1

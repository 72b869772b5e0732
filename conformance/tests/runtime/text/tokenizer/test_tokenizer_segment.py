"""Byte-pair merging and the unigram lattice, by hand and against slow, obvious versions of the same."""

from collections.abc import Callable, Mapping
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanollama.text.bpe.merge import ScoredBpe, merge_pairs
from nanollama.text.sentencepiece.unigram import Unigram

Ranks = Mapping[tuple[str, str], float]

short = st.text("abc", min_size=1, max_size=3)
vocabularies = st.dictionaries(st.text("abc▁", min_size=1, max_size=4), st.integers(-4, 4).map(float), min_size=1, max_size=12)


def obvious_merge(symbols: list[str], rank: Callable[[str, str], float | None]) -> list[str]:
    """Look at every pair, join the best, start again."""
    while True:
        ranked = [(rank(*pair), place) for place, pair in enumerate(pairwise(symbols))]
        found = [(priority, place) for priority, place in ranked if priority is not None]
        if not found:
            return symbols
        place = min(found)[1]
        symbols = [*symbols[:place], symbols[place] + symbols[place + 1], *symbols[place + 2 :]]


def ranks_of(table: Ranks) -> Callable[[str, str], float | None]:
    return lambda left, right: table.get((left, right))


def test_the_pair_of_lowest_rank_is_joined_first() -> None:
    assert merge_pairs(list("abc"), ranks_of({("b", "c"): 0, ("a", "b"): 1})) == ["a", "bc"]
    assert merge_pairs(list("abc"), ranks_of({("b", "c"): 1, ("a", "b"): 0})) == ["ab", "c"]


def test_the_leftmost_of_equal_pairs_is_joined_first() -> None:
    assert merge_pairs(list("aaa"), ranks_of({("a", "a"): 0})) == ["aa", "a"]


def test_a_joined_pair_can_be_joined_again() -> None:
    table = {("a", "b"): 0, ("ab", "c"): 1, ("abc", "abc"): 2}
    assert merge_pairs(list("abcabc"), ranks_of(table)) == ["abcabc"]


def test_a_pair_that_lost_its_neighbour_is_not_joined() -> None:
    assert merge_pairs(list("abc"), ranks_of({("a", "b"): 1, ("b", "c"): 0, ("a", "bc"): 2})) == ["abc"]
    assert merge_pairs(list("abb"), ranks_of({("a", "b"): 0, ("b", "b"): 1})) == ["ab", "b"]


@pytest.mark.parametrize("text", ["", "x"])
def test_nothing_to_join_stays_as_it_is(text: str) -> None:
    assert merge_pairs(list(text), ranks_of({("x", "x"): 0})) == list(text)


@given(st.text("abc", max_size=30), st.dictionaries(st.tuples(short, short), st.integers(0, 5).map(float), max_size=15))
def test_merging_with_heaps_equals_merging_by_looking_at_every_pair(text: str, table: Ranks) -> None:
    assert merge_pairs(list(text), ranks_of(table)) == obvious_merge(list(text), ranks_of(table))


def test_a_long_run_of_one_letter_takes_a_linear_number_of_looks() -> None:
    looks = 0

    def rank(left: str, right: str) -> float | None:
        nonlocal looks
        looks += 1
        return float(len(left + right)) if left == right else None

    assert merge_pairs(["a"] * 2**14, rank) == ["a" * 2**14]
    assert looks <= 4 * 2**14


@given(st.text("abc▁", max_size=30), vocabularies)
def test_cutting_where_no_piece_spans_changes_nothing(text: str, scores: dict[str, float]) -> None:
    def rank(left: str, right: str) -> float | None:
        return None if left + right not in scores else -scores[left + right]

    assert ScoredBpe(scores, frozenset(), None).segment(text) == obvious_merge(list(text), rank)


def test_an_unused_piece_helps_in_merging_and_is_taken_apart_again() -> None:
    scores = {"ab": -1.0, "abc": -2.0, "abcd": -3.0}
    assert ScoredBpe(scores, frozenset({"abc"}), None).segment("abcd") == ["abcd"]
    assert ScoredBpe(scores, frozenset({"abc"}), None).segment("abce") == ["ab", "c", "e"]


def every_cut(text: str) -> list[list[str]]:
    places = [[0, *inner, len(text)] for n in range(len(text)) for inner in combinations(range(1, len(text)), n)]
    return [[text[a:b] for a, b in pairwise(cut)] for cut in places]


@pytest.mark.parametrize(("joined", "expected"), [(-1.5, ["ab"]), (-2.5, ["a", "b"]), (-2.0, ["ab"])])
def test_the_cut_with_the_best_sum_wins_and_on_a_tie_the_one_found_first(joined: float, expected: list[str]) -> None:
    assert Unigram({"a": -1.0, "b": -1.0, "ab": joined}, -99.0).segment("ab") == expected


def test_an_unknown_letter_stands_alone() -> None:
    assert Unigram({"a": -1.0, "ab": -1.0}, -11.0).segment("xabx") == ["x", "ab", "x"]


@given(st.text("abcx", min_size=1, max_size=8), vocabularies)
@settings(max_examples=200)
def test_no_cut_has_a_better_sum(text: str, scores: dict[str, float]) -> None:
    def total(cut: list[str]) -> float | None:
        known = [scores.get(piece, -20.0 if len(piece) == 1 else None) for piece in cut]
        return None if None in known else sum(score for score in known if score is not None)

    best = max(value for cut in every_cut(text) if (value := total(cut)) is not None)
    assert total(Unigram(scores, -20.0).segment(text)) == best

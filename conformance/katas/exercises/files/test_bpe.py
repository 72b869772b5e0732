"""Byte-pair merging, written again: the pair of lowest rank is joined first, wherever it is."""

import random
from collections.abc import Callable

from conformance.katas.testing.compare import agree
from nanollama.text.bpe.merge import merge_pairs


def ranks(*pairs: str) -> Callable[[str, str], float | None]:
    """A pair's rank is its index in this list: "a b" joins a and b."""
    places = {tuple(pair.split()): float(place) for place, pair in enumerate(pairs)}
    return lambda left, right: places.get((left, right))


def merged(text: str, *pairs: str) -> list[str]:
    """The pieces of a text, beginning with its letters."""
    return merge_pairs(list(text), ranks(*pairs))


def in_plain_python(symbols: list[str], rank: Callable[[str, str], float | None]) -> list[str]:
    """The rule literally: rank every pair, join the best one, repeat."""
    while True:
        found = [(rank(*symbols[i : i + 2]), i) for i in range(len(symbols) - 1)]
        known = [(place, i) for place, i in found if place is not None]
        if not known:
            return symbols
        _, i = min(known)
        symbols = [*symbols[:i], symbols[i] + symbols[i + 1], *symbols[i + 2 :]]


def test_a_pair_that_has_a_rank_is_joined() -> None:
    """a b c with "a b": ab c."""
    agree("the pieces of 'abc'", merged("abc", "a b"), ["ab", "c"])


def test_without_a_rank_nothing_happens() -> None:
    """ "b a" is another pair than "a b"."""
    agree("the pieces of 'abc'", merged("abc", "b a"), ["a", "b", "c"])


def test_nothing_and_a_single_letter() -> None:
    """There is no pair."""
    agree("the pieces of ''", merged("", "a b"), [])
    agree("the pieces of 'a'", merged("a", "a b"), ["a"])


def test_the_lowest_rank_goes_first() -> None:
    """a b c: "b c" comes before "a b" in the list, so a bc, although ab comes first in the text."""
    agree("the pieces of 'abc'", merged("abc", "b c", "a b"), ["a", "bc"])


def test_of_one_rank_the_leftmost_goes_first() -> None:
    """a a a with "a a": aa a, and not a aa."""
    agree("the pieces of 'aaa'", merged("aaa", "a a"), ["aa", "a"])


def test_a_joined_symbol_joins_again_to_the_right() -> None:
    """a b c: ab, then ab c makes abc."""
    agree("the pieces of 'abc'", merged("abc", "a b", "ab c"), ["abc"])


def test_a_joined_symbol_joins_again_to_the_left() -> None:
    """a b c: bc, then a bc makes abc."""
    agree("the pieces of 'abc'", merged("abc", "b c", "a bc"), ["abc"])


def test_a_pair_that_is_gone_is_not_joined() -> None:
    """a b c d: "b c" joins b and c, so neither "a b" nor "c d" is left."""
    agree("the pieces of 'abcd'", merged("abcd", "b c", "a b", "c d"), ["a", "bc", "d"])


def test_a_new_pair_may_go_before_older_ones() -> None:
    """a b c d: first a b (rank 1). ab c has rank 0, so it is joined before c d with rank 2."""
    agree("the pieces of 'abcd'", merged("abcd", "ab c", "a b", "c d"), ["abc", "d"])


def test_a_pair_counts_with_both_of_its_sides() -> None:
    """x a b x: only "x ab" and "a b" are listed; xa and bx are no pairs."""
    agree("the pieces of 'xabx'", merged("xabx", "a b", "x ab"), ["xab", "x"])


def test_pairs_in_two_places_are_joined_in_both() -> None:
    """a b a b: twice ab, then abab."""
    agree("the pieces of 'abab'", merged("abab", "a b", "ab ab"), ["abab"])


def test_runs_double() -> None:
    """Seven a with aa, aaaa: 4 + 2 + 1."""
    agree("the pieces of seven a", merged("a" * 7, "a a", "aa aa"), ["aaaa", "aa", "a"])


def test_a_rank_may_be_any_number() -> None:
    """SentencePiece's ranks are minus the score: -2 comes before 0.5."""
    table = {("a", "b"): 0.5, ("b", "c"): -2.0}
    agree("the pieces of 'abc'", merge_pairs(list("abc"), lambda left, right: table.get((left, right))), ["a", "bc"])


def test_the_rank_of_a_pair_may_change_what_it_was() -> None:
    """a b c b c: bc and bc (rank 0), a bc (1), abc bc (2)."""
    agree("the pieces of 'abcbc'", merged("abcbc", "b c", "a bc", "abc bc"), ["abcbc"])


def test_symbols_may_be_long_from_the_start() -> None:
    """A symbol is any text: "th" and "e" make "the"."""
    agree("the pieces of 'th', 'e'", merge_pairs(["th", "e", "th"], ranks("th e")), ["the", "th"])


def test_no_text_is_lost_and_every_join_is_the_best_one() -> None:
    """200 words of up to 12 letters out of three, with random lists of 14 pairs: compared with the literal rule."""
    dice = random.Random(0)
    for _ in range(200):
        made = ["a", "b", "c"]
        pairs = []
        for _ in range(14):
            left, right = dice.choice(made), dice.choice(made)
            pairs.append(f"{left} {right}")
            made.append(left + right)
        dice.shuffle(pairs)
        word = "".join(dice.choice("abc") for _ in range(dice.randrange(13)))
        agree(f"the pieces of {word!r}", merged(word, *pairs), in_plain_python(list(word), ranks(*pairs)))

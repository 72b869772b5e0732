"""The algorithms of tokenizers: merging, its queue, scored merging and the unigram lattice."""

# mypy: disable-error-code="assignment,attr-defined,var-annotated"
# tables mix good and bad arguments

import itertools
import random
import re
from collections.abc import Callable, Sequence

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from conformance.checks import check
from conformance.checks.assertions import expect_equal
from nanollama.text.bpe import merge as segment
from nanollama.text.sentencepiece.unigram import Unigram


def merged(symbols: Sequence[str], rank: Callable[[str, str], float | None]) -> list[str]:
    """The definition: repeatedly merge the pair of the lowest rank, the leftmost of equals."""
    symbols = list(symbols)
    while True:
        ranks = [rank(a, b) for a, b in itertools.pairwise(symbols)]
        if all(found is None for found in ranks):
            return symbols
        least = min(found for found in ranks if found is not None)
        at = ranks.index(least)
        symbols[at : at + 2] = ["".join(symbols[at : at + 2])]


@check("TOKN-010", "TOKN-011", area="tokenization")
def pairs_merge_by_rank_and_from_the_left() -> None:
    tables: list[dict[tuple[str, str], float]] = [
        {("a", "b"): 0, ("b", "c"): 1, ("ab", "c"): 2},
        {("b", "c"): 0, ("a", "b"): 1, ("a", "bc"): 2, ("ab", "c"): 3},
        {("a", "a"): 0, ("aa", "a"): 1, ("aa", "aa"): 2, ("aa", "b"): 3},
        {("a", "a"): 5, ("a", "b"): 5, ("b", "a"): 5, ("aa", "b"): 1, ("ab", "ab"): 5},
        {("b", "a"): 3, ("a", "ba"): 2, ("aba", "ba"): 1, ("c", "c"): 0},
        {},
    ]
    for pairs in tables:

        def rank(left: str, right: str, pairs: dict[tuple[str, str], float] = pairs) -> float | None:
            return pairs.get((left, right))

        for length in range(7):
            for text in itertools.product("abc" if length < 5 else "ab", repeat=length):
                got = segment.merge_pairs(list(text), rank)
                expect_equal("text.bpe.merge.merge_pairs", got, merged(text, rank), f"{''.join(text)!r} merged by {pairs}")
    random_ = random.Random(3)
    pairs = {(a, b): random_.random() for a in ("a", "b", "aa", "ab", "ba") for b in ("a", "b", "ab", "bb")}
    for _ in range(20):
        text = random_.choices("ab", k=40)
        expect_equal(
            "text.bpe.merge.merge_pairs",
            segment.merge_pairs(list(text), rank_of(pairs)),
            merged(text, rank_of(pairs)),
            "a long text",
        )


def rank_of(pairs: dict[tuple[str, str], float]) -> Callable[[str, str], float | None]:
    return lambda left, right: pairs.get((left, right))


@check("TOKN-010", area="tokenization")
def a_queue_gives_the_lowest_rank_and_of_equals_the_leftmost() -> None:
    queue, added = segment.RankedPlaces(), []
    random_ = random.Random(1)
    for _ in range(300):
        if random_.random() < 0.6 or not added:
            added.append((float(random_.randrange(4)), random_.randrange(1000)))
            queue.push(*added[-1])
        else:
            expect_equal("text.bpe.merge.RankedPlaces", queue.pop(), min(added), "what comes first")
            added.remove(min(added))
    rest = [queue.pop() for _ in range(len(added) + 1)]
    expect_equal("text.bpe.merge.RankedPlaces", rest, [*sorted(added), None], "the rest")


def by_score(text: str, scores: dict[str, float]) -> list[str]:
    return merged(list(text), lambda a, b: None if a + b not in scores else -scores[a + b])


@check("TOKN-012", area="tokenization")
def the_pair_of_the_highest_score_is_made_first() -> None:
    place, scores = (
        "text.bpe.merge.ScoredBpe",
        {"a": -9.0, "b": -9.0, "ab": -2.0, "ba": -1.0, "abb": -3.0, "bab": -0.5, "aa": -1.0},
    )
    subject = segment.ScoredBpe(scores, frozenset(), None)
    for length in range(8):
        for letters in itertools.product("ab" if length > 4 else "abz", repeat=length):
            text = "".join(letters)
            expect_equal(place, subject.segment(text), by_score(text, scores), f"{text!r} cut")
    long = "abba" * 12 + "z" + "bab" * 15
    expect_equal(place, subject.segment(long), by_score(long, scores), "a long text cut")
    unused = segment.ScoredBpe(scores | {"abab": 0.0}, frozenset({"ab", "abab"}), None)
    for text, wanted in (("ab", ["a", "b"]), ("abab", ["a", "b", "a", "b"][:0] or ["a", "bab"]), ("aab", ["aa", "b"])):
        expect_equal(place, unused.segment(text), wanted, f"{text!r} with unused pieces")
    kept = segment.ScoredBpe(scores, frozenset(), re.compile("ba"))
    expect_equal(place, kept.segment("abaab"), ["a", "ba", "ab"], "with a piece that is found first")


def best_cut(text: str, scores: dict[str, float], unknown: float) -> tuple[float, list[str]]:
    """The best of all segmentations; a character that is not a piece scores `unknown`."""
    if not text:
        return 0.0, []
    found = []
    for end in range(1, len(text) + 1):
        score = scores.get(text[:end], unknown if end == 1 else None)
        if score is not None:
            rest, pieces = best_cut(text[end:], scores, unknown)
            found.append((score + rest, [text[:end], *pieces]))
    return max(found)


@check("TOKN-013", area="tokenization")
def the_cut_with_the_highest_sum_wins() -> None:
    scores = {"a": -3.0, "b": -4.5, "ab": -5.25, "ba": -6.0, "aba": -7.5, "bb": -8.75, "abab": -9.0}
    subject = Unigram(scores, -20.0)
    for length in range(7):
        for letters in itertools.product("abz" if length < 5 else "ab", repeat=length):
            text = "".join(letters)
            got = subject.segment(text)
            expect_equal("text.sentencepiece.unigram.Unigram", "".join(got), text, "the pieces put together")
            total = sum((scores.get(piece, -20.0) for piece in got), 0.0)
            expect_equal("text.sentencepiece.unigram.Unigram", total, best_cut(text, scores, -20.0)[0], f"the score of {got}")
    expect_equal("text.sentencepiece.unigram.Unigram", subject.segment("zab"), ["z", "ab"], "an unknown character stands alone")
    tie = Unigram({"a": -1.0, "b": -1.0, "ab": -2.0}, -20.0)
    proto = trained([("a", -1.0), ("b", -1.0), ("ab", -2.0)])
    expect_equal(
        "text.sentencepiece.unigram.Unigram",
        tie.segment("abab"),
        proto.encode("abab", out_type=str),
        "a tie, as sentencepiece decides it",
    )
    long = Unigram({"a": -3e4, "b": -7e4, "ab": -9.5e4}, -2e5)
    proto = trained([("a", -3e4), ("b", -7e4), ("ab", -9.5e4)])
    text = "abba" * 20
    expect_equal(
        "text.sentencepiece.unigram.Unigram", long.segment(text), proto.encode(text, out_type=str), "sums that begin anew"
    )


def trained(pieces: list[tuple[str, float]]) -> sentencepiece.SentencePieceProcessor:
    """The sentencepiece library's processor of a unigram model without normalisation."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.pieces.add(piece="<unk>", score=0, type=2)
    for piece, score in pieces:
        proto.pieces.add(piece=piece, score=score)
    proto.trainer_spec.model_type = 1
    proto.normalizer_spec.add_dummy_prefix = False
    proto.normalizer_spec.remove_extra_whitespaces = False
    return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())

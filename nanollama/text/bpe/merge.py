"""Byte-pair merging. `merge_pairs` serves every BPE tokenizer here; they differ only in the rank of a pair.

Nothing here depends on files, special tokens or normalisation.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from heapq import heappop, heappush

Rank = Callable[[str, str], float | None]
"""(left, right) → the rank of the pair (lower is joined first), or None if the vocabulary has no such pair."""

CACHED_WORDS = 65_536
CACHED_LENGTH = 32  # longer words hardly ever occur twice
DEEPEST_UNDO = 100  # kMaxBpeResegmentDepth in sentencepiece's bpe_model.cc


def merge_pairs(symbols: list[str], rank: Rank) -> list[str]:
    """Join adjacent symbols, the lowest-ranked pair first, the leftmost on a tie, until no pair has a rank.

    O(n log n) for n symbols; overwrites `symbols`. Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words
    with Subword Units"; ties as in sentencepiece, tiktoken and tokenizers.
    """
    end = len(symbols)
    after, before = list(range(1, end + 1)), list(range(-1, end - 1))
    current: list[float | None] = [None] * end  # the rank of the pair that begins here
    queue = RankedPlaces()

    def offer(left: int) -> None:
        right = after[left]
        current[left] = found = rank(symbols[left], symbols[right]) if right < end else None
        if found is not None:
            queue.push(found, left)

    for left in range(end):
        offer(left)
    while (best := queue.pop()) is not None:
        priority, left = best
        if current[left] != priority:
            continue  # one of the two has been joined to another neighbour since
        right = after[left]
        symbols[left] += symbols[right]
        symbols[right], current[right], after[left] = "", None, after[right]
        if after[left] < end:
            before[after[left]] = left
        if before[left] >= 0:
            offer(before[left])
        offer(left)
    return [symbol for symbol in symbols if symbol]


class RankedPlaces:
    """A priority queue: the lowest rank first, of equal ranks the leftmost place. Most ranks occur many times."""

    def __init__(self) -> None:
        self._places: dict[float, list[int]] = {}  # rank -> heap
        self._ranks: list[float] = []  # heap

    def push(self, rank: float, place: int) -> None:
        """Add one place."""
        if rank not in self._places:
            self._places[rank] = []
            heappush(self._ranks, rank)
        heappush(self._places[rank], place)

    def pop(self) -> tuple[float, int] | None:
        """Remove and return (rank, place) of the first; None if the queue is empty."""
        while self._ranks:
            if places := self._places[self._ranks[0]]:
                return self._ranks[0], heappop(places)
            del self._places[heappop(self._ranks)]
        return None


class ScoredBpe:
    """SentencePiece's BPE: of all adjacent pairs that make a piece, the piece of the highest score is made first.

    scores: every piece that text may become (never control, byte or unknown pieces). unused: the pieces among them that
    take part in merging but are split again at the end. kept: the pieces that are found first and never merge.
    Source: sentencepiece, bpe_model.cc.
    """

    def __init__(self, scores: dict[str, float], unused: frozenset[str], kept: re.Pattern[str] | None) -> None:
        self._scores, self._unused, self._kept = scores, unused, kept
        self._bigrams = {piece[at : at + 2] for piece in scores for at in range(len(piece) - 1)}
        self._cached = lru_cache(CACHED_WORDS)(self._merge)

    def segment(self, text: str) -> list[str]:
        """`text` cut into pieces; a character that is no piece is a piece by itself."""
        pieces, start = [], 0
        for match in self._kept.finditer(text) if self._kept else ():
            pieces += [*self._segment(text[start : match.start()]), match[0]]
            start = match.end()
        return pieces + self._segment(text[start:])

    def _segment(self, text: str) -> list[str]:
        if self._unused:
            return self._merge_and_undo(text)
        return [piece for word in self._words(text) for piece in self._word(word)]

    def _words(self, text: str) -> Iterator[str]:
        """Yields words, cut between two characters that are adjacent in no piece: no merge crosses such a place."""
        start = 0
        for at in range(1, len(text)):
            if text[at - 1 : at + 1] not in self._bigrams:
                yield text[start:at]
                start = at
        if text:
            yield text[start:]

    def _word(self, word: str) -> list[str]:
        return self._cached(word) if len(word) <= CACHED_LENGTH else self._merge(word)

    def _merge(self, word: str) -> list[str]:
        return [word] if len(word) < 2 else merge_pairs(list(word), self._rank)

    def _rank(self, left: str, right: str) -> float | None:
        score = self._scores.get(left + right)
        return None if score is None else -score

    def _merge_and_undo(self, text: str) -> list[str]:
        made_of: dict[str, tuple[str, str]] = {}

        def rank(left: str, right: str) -> float | None:
            if left + right in self._unused:
                made_of[left + right] = (left, right)
            return self._rank(left, right)

        def undo(piece: str, depth: int = 0) -> list[str]:
            if piece not in made_of or depth > DEEPEST_UNDO:
                return [piece]
            return [part for half in made_of[piece] for part in undo(half, depth + 1)]

        return [part for piece in merge_pairs(list(text), rank) for part in undo(piece)]

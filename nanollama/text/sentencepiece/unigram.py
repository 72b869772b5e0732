"""The unigram model: of all ways to cut a text into pieces, the one with the highest sum of scores."""

from array import array
from typing import Any

UNKNOWN_PENALTY = 10.0
"""An unknown character scores this much below the worst piece (kUnkPenalty in sentencepiece's unigram_model.cc)."""

LARGEST_SUM = 100_000.0


class Unigram:
    """SentencePiece's unigram model: the cut whose pieces have the highest sum of scores (Viterbi's algorithm).

    scores: every piece that text may become. unknown_score: of a character that is no piece. Sums are rounded to float32 at
    every step and restart past ±100,000, as in sentencepiece: near-ties decide ids.
    Source: Kudo 2018, "Subword Regularization"; EncodeOptimized in sentencepiece's unigram_model.cc.
    """

    def __init__(self, scores: dict[str, float], unknown_score: float) -> None:
        self._unknown_score = unknown_score
        self._trie: Any = {}  # letter → trie of the letters that follow; "" → score of the piece that ends here
        for piece, score in scores.items():
            node = self._trie
            for letter in piece:
                node = node.setdefault(letter, {})
            node[""] = score

    def segment(self, text: str) -> list[str]:
        """`text` cut into pieces; a character that is no piece is a piece by itself."""
        best = array("f", bytes(4 * (len(text) + 1)))
        origin = [-1] * (len(text) + 1)
        furthest = 0
        for start in range(len(text)):
            if abs(here := best[start]) > LARGEST_SUM:
                for end in range(start, furthest + 1):
                    best[end] -= here
                here = 0.0
            for end, score in self._arcs(text, start):
                furthest = max(furthest, end)
                reached, total = best[end], here + score
                if origin[end] < 0 or total > reached:
                    best[end] = total  # rounded here: it may no longer be better
                    if origin[end] < 0 or best[end] > reached:
                        origin[end] = start
        end, pieces = len(text), []
        while end:
            pieces.append(text[origin[end] : end])
            end = origin[end]
        return pieces[::-1]

    def _arcs(self, text: str, start: int) -> list[tuple[int, float]]:
        """(end, score) of every piece that begins at `start`, the shortest first; then of the unknown character."""
        arcs: list[tuple[int, float]] = []
        node = self._trie
        for end in range(start + 1, len(text) + 1):
            if (node := node.get(text[end - 1])) is None:
                break
            if "" in node:
                arcs.append((end, node[""]))
        if not arcs or arcs[0][0] > start + 1:
            arcs.append((start + 1, self._unknown_score))
        return arcs

"""A language model of a few lines for the server of the tests: what comes next depends on the last two tokens, by a hash.

Its tokens are the end, the 256 bytes and some words. Characters of several bytes are written byte by byte, so that there is
something to split. Nothing is learned, and everything can be computed again by hand.
"""

import math
import random
import re
from collections.abc import Sequence
from functools import cache

END = 0
WORDS = """
    Once upon a time the cat sat on mat and dog ran to red hat sky was blue I like you one day girl look in went home by
    """.split()  # noqa: SIM905
PIECES = [b"", *(bytes([byte]) for byte in range(256)), *(f" {word}".encode() for word in WORDS)]
PIECES += [word.encode() for word in WORDS if len(word) > 1]
IDS = {piece: id for id, piece in enumerate(PIECES) if piece}
LONGEST_FIRST = re.compile(b"|".join(re.escape(piece) for piece in sorted(IDS, key=len, reverse=True)), re.DOTALL)
NEXT_BYTE = {0xC3: 0xA9, 0xF0: 0x9F, 0x9F: 0x98, 0x98: 0x80}  # é, and a face of four bytes
NEVER, SURELY = -30.0, 30.0


class HashedModel:
    """Ids from text, texts from ids, and scores of what comes next."""

    end = END
    context = 4096

    def encode(self, text: str) -> list[int]:
        """The longest piece that fits, again and again."""
        return [IDS[piece] for piece in LONGEST_FIRST.findall(text.encode())]

    def piece(self, id: int) -> bytes:
        """The bytes of a token."""
        return PIECES[id]

    def scores(self, ids: Sequence[int]) -> list[float]:
        """Logits [V] after these ids."""
        return scores_after(*ids[-2:])


@cache
def scores_after(*last: int) -> list[float]:
    """Logits after the last two tokens: bell-shaped noise for words and first bytes, certainty within a character."""
    noise = random.Random(repr(last))
    scores = [NEVER] * len(PIECES)
    for id in (END, 1 + 0xC3, 1 + 0xF0, *range(257, len(PIECES))):
        scores[id] = 2.5 * noise.gauss()
    scores[END] -= 1
    if last and last[-1] - 1 in NEXT_BYTE:
        scores[1 + NEXT_BYTE[last[-1] - 1]] = SURELY
    return scores


def log_softmax(scores: Sequence[float]) -> list[float]:
    """Log-probabilities that add up to 1."""
    top = max(scores)
    total = top + math.log(sum(math.exp(score - top) for score in scores))
    return [score - total for score in scores]

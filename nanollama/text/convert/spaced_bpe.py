"""SentencePiece's BPE in a tokenizer.json: its spaces, and the conversion of scores to merges and back.

SentencePiece joins any two tokens that make a third, in the order of the third's score; of equal scores the leftmost pair goes
first. A tokenizer.json lists the pairs. Both are the same if all pairs that make one token are neighbours in the list, except
for repeated letters: of `xx x` and `x xx` in `xxxxx`, the list prefers one, SentencePiece the leftmost.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nanollama.errors import NanollamaError, quote
from nanollama.text.bpe.merge import merge_pairs
from nanollama.text.sentencepiece.normalize import SPACE

LONGEST = 1024  # letters of a token; Jais 2 has one of 512 spaces
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
PREPEND = {"type": "Prepend", "prepend": SPACE}
NO_CUT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
"""Gemma's pre-tokenizer; it cuts nothing, since the normaliser has replaced the spaces."""


def space_prefix(content: Mapping[str, Any]) -> bool:
    """Whether a space is put before text, by the normalizer and pre-tokenizer of a tokenizer.json.

    It accepts the forms that transformers writes for SentencePiece models, else NanollamaError. (Metaspace adds no space to a
    text that begins with one; llama.cpp and SentencePiece do.)
    """
    normalizer, cut = content["normalizer"], content["pre_tokenizer"]
    steps = (normalizer or {"normalizers": []}).get("normalizers", [normalizer])
    if cut in (None, NO_CUT) and steps in ([REPLACE], [PREPEND, REPLACE]):
        return PREPEND in steps
    if cut and cut["type"] == "Metaspace" and not steps and cut["replacement"] == SPACE and not cut["split"]:
        return bool(cut["prepend_scheme"] != "never")
    raise NanollamaError(
        f"tokenizer.json has a BPE with byte_fallback, the normalizer {quote(normalizer)} and the pre-tokenizer {quote(cut)}; "
        "expected spaces that become ▁, and nothing else. Export as a folder instead"
    )


def scores_of(tokens: Mapping[str, int], merges: Sequence[Sequence[str]]) -> dict[int, float]:
    """The scores, by id, with which SentencePiece joins what these merges join: minus the place of a token's merges.

    tokens: the tokens that text can become, to their ids. NanollamaError if there are no such scores.
    """
    places: dict[str, int] = {}
    last = None
    for left, right in merges:
        if (token := left + right) != last and token in places:
            raise not_scored(f"the merges that make {quote(token)} are not neighbours")
        places.setdefault(token, len(places))
        last = token
    known = set(map(tuple, merges))
    if missing := next((pair for token in tokens for pair in halves(token, tokens) if pair not in known), None):
        raise not_scored(f"{quote(missing)} never merge, although they make a token")
    return {id: -float(places.get(token, len(places))) for token, id in tokens.items()}


def not_scored(why: str) -> NanollamaError:
    """The error for merges that no scores express."""
    return NanollamaError(
        f"the merges of tokenizer.json can't be written as the scores of a GGUF file: {why}. Put the tokenizer.model "
        "into the folder, or export as a folder"
    )


def merges_of(scores: Mapping[str, float]) -> list[tuple[str, str]] | None:
    """The merges, in order, that join what SentencePiece joins with these scores of tokens; None if no list does."""
    places = {token: place for place, token in enumerate(scores)}
    made = {token: pairs for token in scores if (pairs := list(halves(token, scores)))}
    order = sorted(made, key=lambda token: (-scores[token], places[token]))
    merges = [pair for token in order for pair in sorted(made[token], key=lambda pair: (places[pair[0]], places[pair[1]]))]
    tied = defaultdict(list)
    for token in order:
        tied[scores[token]].append(token)
    ranks = {pair: place for place, pair in enumerate(merges)}
    groups = [tokens for tokens in tied.values() if len(tokens) > 1]
    return merges if all(settles_ties(tokens, scores, ranks) for tokens in groups) else None


def halves(token: str, tokens: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yields the pairs of tokens that make this one, the shortest left token first."""
    if len(token) > LONGEST:
        raise NanollamaError(f"the token {quote(token)} has {len(token):,} letters; expected at most {LONGEST:,}")
    for at in range(1, len(token)):
        if token[:at] in tokens and token[at:] in tokens:
            yield token[:at], token[at:]


def settles_ties(tied: Sequence[str], scores: Mapping[str, float], ranks: Mapping[tuple[str, str], int]) -> bool:
    """Whether merges in this order give the same result as tokens that share a score.

    True if the tokens are runs of one letter (Llama's tokens of spaces) that are part of no other token, and texts up to four
    times the longest run give the same result.
    """
    letter, longest = tied[0][0], max(map(len, tied))
    if any(set(token) != {letter} for token in tied) or any(letter * 2 in token for token in scores.keys() - set(tied)):
        return False
    for length in range(2, 4 * longest + 1):
        by_score = merge_pairs([letter] * length, lambda left, right: 0 if left + right in scores else None)
        if by_score != merge_pairs([letter] * length, lambda left, right: ranks.get((left, right))):
            return False
    return True

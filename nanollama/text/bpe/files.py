"""Reads the files of byte-level BPE: tiktoken's `tokenizer.model`, and `vocab.json` with `merges.txt`."""

import binascii
from typing import Any

from nanollama.errors import NanollamaError, quote
from nanollama.text.bpe.byte_level import spell

MOST_TOKENS = 2_000_000


def read_tiktoken(data: bytes) -> dict[str, int]:
    """Token, in the vocabulary's spelling, to rank. A line is the token's bytes in base64, a space and its rank.

    Source: openai/tiktoken, tiktoken/load.py.
    """
    ranks: dict[str, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line:
            continue
        encoded, _, rank = line.partition(b" ")
        try:
            token = spell(binascii.a2b_base64(encoded, strict_mode=True))
        except binascii.Error as error:
            raise NanollamaError(f"tokenizer.model, line {number}: {quote(encoded)} is not base64: {error}") from error
        if not token or not rank.isdigit() or len(rank) > 9:
            raise NanollamaError(f"tokenizer.model, line {number} is {quote(line)}; expected base64, a space and a rank")
        if token in ranks:
            raise NanollamaError(f"tokenizer.model, line {number}: the token {quote(token)} occurs twice")
        ranks[token] = int(rank)
        if len(ranks) > MOST_TOKENS:
            raise NanollamaError(f"tokenizer.model has more than {MOST_TOKENS:,} tokens: expected a vocabulary")
    check_ids(ranks, "tokenizer.model")
    return ranks


def read_vocab(value: dict[str, Any]) -> dict[str, int]:
    """Token to id, from the parsed `vocab.json`; NanollamaError for ids that are no ids or occur twice."""
    for token, id in value.items():
        if not isinstance(id, int) or isinstance(id, bool) or not 0 <= id < 1 << 31:
            raise NanollamaError(f"vocab.json gives {quote(token)} the id {quote(id)}; expected a number from 0 up")
    check_ids(value, "vocab.json")
    return value


def check_ids(vocab: dict[str, int], what: str) -> None:
    """Raise for an empty vocabulary, and for an id that two tokens share. what: names the file in errors."""
    tokens: dict[int, str] = {}
    for token, id in vocab.items():
        if tokens.setdefault(id, token) != token:
            raise NanollamaError(f"{what} gives the id {id} to {quote(tokens[id])} and to {quote(token)}; expected one")
    if not tokens:
        raise NanollamaError(f"{what} has no tokens")


def read_merges(data: bytes) -> list[tuple[str, str]]:
    """The pairs of `merges.txt` in order of rank: two tokens with a space between them per line, after a version line."""
    try:
        lines = data.decode("utf-8").rstrip("\r\n").split("\n")
    except UnicodeDecodeError as error:
        raise NanollamaError(f"merges.txt is not UTF-8: {error}") from error
    merges: list[tuple[str, str]] = []
    for number, line in enumerate(lines, 1):
        if line.startswith("#version") or lines == [""]:
            continue
        left, _, right = line.removesuffix("\r").partition(" ")
        if not left or not right or " " in right:
            raise NanollamaError(f"merges.txt, line {number} is {quote(line)}; expected two tokens and a space")
        merges.append((left, right))
    return merges

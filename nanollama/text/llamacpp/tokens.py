"""The tokens in a GGUF file's metadata: everything is checked, nothing is repaired.

Source of the keys: docs/gguf.md of github.com/ggml-org/ggml, and llama.cpp's src/llama-vocab.cpp (impl::load).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter, methodcaller
from typing import Any, TypeVar

from nanollama.errors import NanollamaError, quote
from nanollama.text.llamacpp.special import settle_types
from nanollama.text.sentencepiece.model import PieceType

T = TypeVar("T")

KEY = "tokenizer.ggml."
SPACES_IN, WITHOUT_SPACE = methodcaller("count", " "), methodcaller("replace", " ", "")
NO_ID = 2**32 - 1  # -1, which some converters write for "no such token"
ROLES = {
    "bos_token_id": "bos",
    "eos_token_id": "eos",
    "eot_token_id": "eot",
    "eom_token_id": "eom",
    "unknown_token_id": "unk",
    "seperator_token_id": "sep",  # spelled so in the format
    "padding_token_id": "pad",
    "mask_token_id": "mask",
    "fim_pre_token_id": "fim_pre",
    "fim_suf_token_id": "fim_suf",
    "fim_mid_token_id": "fim_mid",
    "fim_pad_token_id": "fim_pad",
    "fim_rep_token_id": "fim_rep",
    "fim_sep_token_id": "fim_sep",
    "prefix_token_id": "fim_pre",  # these three are old names; they win, as in llama.cpp
    "suffix_token_id": "fim_suf",
    "middle_token_id": "fim_mid",
}
ROLE_KEYS = {role: key.removesuffix("_token_id") for key, role in ROLES.items()}
BYTE_TOKENS = frozenset(f"<0x{byte:02X}>" for byte in range(256))
LLAMA_ROLES = {"unk": 0, "bos": 1, "eos": 2}
"""The default ids with `tokenizer.ggml.model` "llama"."""


@dataclass(frozen=True)
class GgufTokens:
    """The parts that every kind of GGUF vocabulary has. The index of a token or type is its id.

    types: by llama.cpp's rules (`settle_types`). roles: the ids that the file names, by the short names of ROLES. ends: the
    ids that end an answer.
    """

    tokens: list[str]
    ids: dict[str, int]
    types: list[PieceType]
    roles: dict[str, int]
    ends: frozenset[int]


def read_tokens(metadata: Mapping[str, Any], kind: str) -> GgufTokens:
    """The tokens, their types and the ids with a role; `kind` is `tokenizer.ggml.model`."""
    tokens = strings(metadata, KEY + "tokens")
    if not tokens:
        raise NanollamaError(f"{KEY}tokens is empty; expected at least one token")
    if "" in tokens:  # llama.cpp's names for them
        tokens = [token or f"[EMPTY_{id}]" for id, token in enumerate(tokens)]
    if "\0" in "".join(tokens):
        id = next(id for id, token in enumerate(tokens) if "\0" in token)
        raise NanollamaError(f"{KEY}tokens: token {id} {quote(tokens[id])} has a NUL character; expected none")
    ids = {token: id for id, token in enumerate(tokens)}
    if len(ids) < len(tokens):
        id = next(id for id, token in enumerate(tokens) if ids[token] != id)
        raise NanollamaError(f"{KEY}tokens: {quote(tokens[id])} is token {id} and {ids[tokens[id]]}; expected every token once")
    roles = read_roles(metadata, kind, len(tokens))
    types, ends = settle_types(ids, read_types(metadata, tokens), roles)
    return GgufTokens(tokens, ids, types, roles, ends)


def read_types(metadata: Mapping[str, Any], tokens: Sequence[str]) -> list[PieceType]:
    """The stored type of every token; all are normal if the file has no types."""
    if KEY + "token_type" not in metadata:
        return [PieceType.NORMAL] * len(tokens)
    numbers = values(metadata, KEY + "token_type", {int}, len(tokens))
    known = {int(type): type for type in PieceType}
    if unknown := set(numbers) - known.keys():
        id = next(id for id, number in enumerate(numbers) if number in unknown)
        raise NanollamaError(
            f"{KEY}token_type: token {id} {quote(tokens[id])} has type {numbers[id]}; expected one of 1 to {len(known)}"
        )
    types = [known[number] for number in numbers]
    for id, type in enumerate(types):
        if type is PieceType.BYTE and tokens[id] not in BYTE_TOKENS:
            raise NanollamaError(f"token {id} {quote(tokens[id])} is of type byte; expected a text from <0x00> to <0xFF>")
    return types


def read_scores(metadata: Mapping[str, Any], count: int) -> list[float]:
    """The score of every token."""
    scores = [float(score) for score in values(metadata, KEY + "scores", {int, float}, count)]
    for id, score in enumerate(scores):
        if not math.isfinite(score):
            raise NanollamaError(f"{KEY}scores: token {id} has the score {score}; expected a finite number")
    return scores


def read_merges(metadata: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, int]:
    """The rank of every merge, which is two tokens with a space between them; together they are a third.

    Gemma 4 has half a million, so whole lists are checked at once, and one by one only to name the wrong one. (If the third
    is a token but one of the two is not, the merge never happens.)
    """
    merges = strings(metadata, KEY + "merges")
    ranks = {merge: rank for rank, merge in enumerate(merges)}
    sound = len(ranks) == len(merges) and set(map(SPACES_IN, merges)) <= {1}
    sound = sound and " " not in {end for place in (0, -1) for end in set(map(itemgetter(place), merges))}
    if not sound or not all(map(ids.__contains__, map(WITHOUT_SPACE, merges))):
        raise _wrong_merge(merges, ids)
    return ranks


def _wrong_merge(merges: Sequence[str], ids: Mapping[str, int]) -> NanollamaError:
    seen: set[str] = set()
    for place, merge in enumerate(merges):
        at = f"{KEY}merges: merge {place} is {quote(merge)}"
        if not all(merge.split(" ")) or merge.count(" ") != 1:
            return NanollamaError(f"{at}; expected two tokens with one space between them")
        if merge in seen:
            return NanollamaError(f"{at}, as an earlier one; expected every merge once")
        if (token := WITHOUT_SPACE(merge)) not in ids:
            return NanollamaError(f"{at}, but {quote(token)} is not in the vocabulary")
        seen.add(merge)
    raise AssertionError("no merge is wrong")


def read_roles(metadata: Mapping[str, Any], kind: str | None, count: int) -> dict[str, int]:
    """The ids below `count` that have a role."""
    roles = {name: id for name, id in LLAMA_ROLES.items() if id < count} if kind == "llama" else {}
    for key, name in ROLES.items():
        id = value(metadata, KEY + key, int)
        if id is None or id == NO_ID:
            continue
        if not 0 <= id < count:
            raise NanollamaError(f"{KEY}{key} is {id}; expected an id below {count}, the number of tokens")
        roles[name] = id
    return roles


def value(metadata: Mapping[str, Any], key: str, kind: type[T]) -> T | None:
    """A single value, None if the file has none."""
    found = metadata.get(key)
    if found is None:
        return None
    if type(found) is not kind:
        raise NanollamaError(f"{key} is {quote(found)}; expected a value of type {kind.__name__}")
    if isinstance(found, str):
        _check_text(key, found)
    return found


def flag(metadata: Mapping[str, Any], name: str, default: bool) -> bool:
    """A boolean value, `default` if the file has none."""
    found = value(metadata, KEY + name, bool)
    return default if found is None else found


def strings(metadata: Mapping[str, Any], key: str) -> list[str]:
    """An array of strings, all valid UTF-8."""
    found: list[str] = values(metadata, key, {str})
    try:
        "".join(found).encode("utf-8")
    except UnicodeEncodeError:
        for text in found:
            _check_text(key, text)
        raise
    return found


def values(metadata: Mapping[str, Any], key: str, kinds: set[type], count: int | None = None) -> list[Any]:
    """An array of `count` values of these types."""
    found = metadata.get(key)
    if found is None:
        raise NanollamaError(f"the metadata has no {key}, which this vocabulary needs; convert the model again")
    expected = f"expected an array of {' or '.join(sorted(kind.__name__ for kind in kinds))}"
    if not isinstance(found, list):
        raise NanollamaError(f"{key} is {quote(found)}; {expected}")
    if not set(map(type, found)) <= kinds:  # by type: isinstance takes True for an int
        wrong = next(item for item in found if type(item) not in kinds)
        raise NanollamaError(f"{key} holds {quote(wrong)}; {expected}")
    if count is not None and count != len(found):
        raise NanollamaError(f"{key} has {len(found):,} values for {count:,} tokens; expected one per token")
    return found


def _check_text(key: str, text: str) -> None:
    """Raise unless a string is valid UTF-8; other bytes are lone surrogates (see checkpoint/gguf/values.py)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        data = text.encode("utf-8", "surrogatepass")
        raise NanollamaError(f"{key} has the text {quote(data)}, which is not UTF-8; expected UTF-8") from None

"""Added tokens: special tokens and others that are found in text before the model cuts it."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
"""Unicode's White_Space; Python's `str.isspace` takes four characters more."""
SPACES = re.compile(f"[{WHITE_SPACE}]*")


@dataclass(frozen=True)
class AddedToken:
    """One added token. The field names are those of tokenizer.json and `added_tokens_decoder`.

    special: found in text only on request, and left out of decoded text on request. lstrip, rstrip: the white space to its
    left or right belongs to it. single_word: found only if no letter, digit or underscore touches it.
    """

    content: str
    id: int
    special: bool
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


class AddedTokens:
    """The added tokens of one vocabulary. Source of the rules: tokenizers, added_vocabulary.rs (find_matches)."""

    def __init__(self, tokens: Iterable[AddedToken]) -> None:
        self.by_content = {token.content: token for token in tokens}
        self.by_id = {token.id: token for token in self.by_content.values()}
        self._every = self._pattern(self.by_content)
        self._ordinary = self._pattern(name for name, token in self.by_content.items() if not token.special)

    @staticmethod
    def _pattern(contents: Iterable[str]) -> re.Pattern[str] | None:
        longest_first = sorted(contents, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def split(self, text: str, parse_special: bool) -> Iterator[int | str]:
        """Yields, in order, the id of every added token in `text` and the non-empty texts between them."""
        pattern = self._every if parse_special else self._ordinary
        done = 0
        for match in pattern.finditer(text) if pattern else ():
            token = self.by_content[match[0]]
            start, end = match.span()
            neighbours = text[max(0, start - 1) : start] + text[end : end + 1]
            if start < done or (token.single_word and any(map(_in_word, neighbours))):
                continue
            if token.lstrip:
                start = done + len(text[done:start].rstrip(WHITE_SPACE))
            if token.rstrip and (white := SPACES.match(text, end)):
                end = white.end()
            if start > done:
                yield text[done:start]
            yield token.id
            done = end
        if done < len(text):
            yield text[done:]


def _in_word(letter: str) -> bool:
    """Whether \\w matches the letter in Unicode's regular expressions (UTS 18, annex C); Python's matches more numbers."""
    category = unicodedata.category(letter)
    return category[0] in "LM" or category in ("Nd", "Nl", "Pc") or letter in "\u200c\u200d"


class TextModel(Protocol):
    """The interface that `ModelVocabulary` needs of a BPE or SentencePiece model: plain text ↔ ids below `size`."""

    @property
    def size(self) -> int: ...
    @property
    def unknown_id(self) -> int | None: ...
    def encode(self, text: str, *, first: bool, last: bool) -> list[int]: ...
    def decode(self, parts: Iterable[int | str]) -> str: ...
    def token_to_id(self, token: str) -> int | None: ...
    def id_to_token(self, id: int) -> str | None: ...


class ModelVocabulary:
    """A text model and its added tokens.

    prefix_every_text: every text between special tokens is encoded as if it began the input (`legacy`). unused: ids that
    decode to nothing.
    """

    def __init__(
        self,
        model: TextModel,
        added: AddedTokens | Iterable[AddedToken],
        *,
        prefix_every_text: bool = False,
        unused: frozenset[int] = frozenset(),
    ) -> None:
        self._model, self._prefix_every_text, self._unused = model, prefix_every_text, unused
        self._added = added if isinstance(added, AddedTokens) else AddedTokens(added)
        self.size = max(model.size, *(id + 1 for id in self._added.by_id), 0)
        special = {token.id for token in self._added.by_content.values() if token.special}
        self.special_ids = frozenset(special - {model.unknown_id})

    def encode(self, text: str, parse_special: bool) -> list[int]:
        """The ids of `text`."""
        ids: list[int] = []
        parts = list(self._added.split(text, parse_special))
        for place, part in enumerate(parts):
            if isinstance(part, int):
                ids.append(part)
            else:
                first = place == 0 or self._prefix_every_text
                ids += self._model.encode(part, first=first, last=place == len(parts) - 1)
        return ids

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        """The text of ids; an id without a token gives none. With `skip_special`, the model decodes the unknown id."""
        return self._model.decode(part for id in ids if (part := self._part(id, skip_special)) is not None)

    def _part(self, id: int, skip_special: bool) -> int | str | None:
        if id in self._unused:
            return None
        token = self._added.by_id.get(id)
        if token is None or (skip_special and id == self._model.unknown_id):
            return None if self._model.id_to_token(id) is None else id
        return None if skip_special and token.special else token.content

    def token_to_id(self, token: str) -> int | None:
        """The id of a token, None if there is no such token."""
        added = self._added.by_content.get(token)
        return added.id if added else self._model.token_to_id(token)

    def id_to_token(self, id: int) -> str | None:
        """The token of an id, None if it has none."""
        added = self._added.by_id.get(id)
        return added.content if added else self._model.id_to_token(id)

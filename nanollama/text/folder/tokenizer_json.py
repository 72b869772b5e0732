"""tokenizer.json: a whole tokenizer in one file, run by the library that defines the format, `tokenizers`."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import tokenizers

from nanollama.errors import NanollamaError, quote
from nanollama.text.added_tokens import AddedToken

LONGEST_MESSAGE = 300  # characters of the library's message; it quotes whole values of the file


class LibraryVocabulary:
    """A tokenizer.json. All of it applies except truncation and padding.

    added, special: tokens that other files declare, and those that they call special. A declared token that the file lacks is
    added, and must get the declared id.
    """

    def __init__(self, data: bytes, added: Sequence[AddedToken], special: set[str]) -> None:
        self._lock = Lock()  # the library's object has one setting for parsing special tokens
        with library_errors("tokenizer.json is not usable"):
            self._library = tokenizers.Tokenizer.from_buffer(data)
            self._library.no_truncation()
            self._library.no_padding()
            self._add(added, special)
            self.before, self.after = template_ids(self._library)
            tokens = self._library.get_vocab(with_added_tokens=True)
            if missing := {*self.before, *self.after} - set(tokens.values()):
                raise NanollamaError(f"tokenizer.json: the post-processor adds the id {missing.pop()}, which has no token")
            known = self._library.get_added_tokens_decoder()
        self._size = max(tokens.values(), default=-1) + 1
        self.special_ids = frozenset(id for id, token in known.items() if token.special)

    @property
    def size(self) -> int:
        """The highest id plus one."""
        return self._size

    def _add(self, added: Sequence[AddedToken], special: set[str]) -> None:
        known = {token.content for token in self._library.get_added_tokens_decoder().values()}
        for token in sorted(added, key=lambda token: token.id):
            if token.content not in known:
                flags = {"lstrip": token.lstrip, "rstrip": token.rstrip, "single_word": token.single_word}
                new = tokenizers.AddedToken(token.content, special=token.special, normalized=not token.special, **flags)
                self._library.add_tokens([new])
            if (id := self._library.token_to_id(token.content)) != token.id:
                raise NanollamaError(
                    f"{quote(token.content)} has the id {id} in tokenizer.json and {token.id} in the folder's other files"
                )
        new_special = special - known - {token.content for token in added}
        self._library.add_special_tokens(
            [token for token in sorted(new_special) if self._library.token_to_id(token) is not None]
        )

    def encode(self, text: str, parse_special: bool) -> list[int]:
        """The ids of `text`, without those of the post-processor."""
        with self._lock, library_errors(f"tokenizer.json can't encode {quote(text)}"):
            self._library.encode_special_tokens = not parse_special
            return list(self._library.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        """The text of ids; an id without a token gives none."""
        with library_errors("tokenizer.json can't decode"):
            return str(self._library.decode([id for id in ids if id < self._size], skip_special_tokens=skip_special))

    def token_to_id(self, token: str) -> int | None:
        """The id of a token, None if there is no such token."""
        id = self._library.token_to_id(token)
        return None if id is None else int(id)

    def id_to_token(self, id: int) -> str | None:
        """The token of an id, None if it has none."""
        return self._library.id_to_token(id) if id < self._size else None


@contextmanager
def library_errors(what: str) -> Iterator[None]:
    """Turns the library's errors into NanollamaError. A panic of its Rust code is not a subclass of Exception.

    (The library also writes a line about a panic to stderr, which can't be prevented here.)
    """
    try:
        yield
    except NanollamaError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise NanollamaError(f"{what}: {str(error)[:LONGEST_MESSAGE]}") from error


def template_ids(library: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """The ids that the post-processor puts before and after a text."""
    before: list[int] = []
    after: list[int] = []
    for step in _steps(json.loads(library.post_processor.__getstate__()) if library.post_processor else None):
        if step["type"] == "TemplateProcessing":
            left, right = _around(step)
        elif step["type"] in ("BertProcessing", "RobertaProcessing"):
            left, right = [step["cls"][1]], [step["sep"][1]]
        elif step["type"] == "ByteLevel":
            left, right = [], []
        else:
            raise NanollamaError(f"tokenizer.json: the post-processor {quote(step['type'])} is not implemented")
        before, after = left + before, after + right
    return before, after


def _steps(state: dict[str, Any] | None) -> list[dict[str, Any]]:
    if state is None:
        return []
    return [step for part in state["processors"] for step in _steps(part)] if state["type"] == "Sequence" else [state]


def _around(template: dict[str, Any]) -> tuple[list[int], list[int]]:
    """The ids before and after the text in a template for one text; NanollamaError unless the text occurs once."""
    sides: list[list[int]] = [[]]
    for item in template["single"]:
        if "Sequence" in item:
            sides.append([])
        else:
            sides[-1] += template["special_tokens"][item["SpecialToken"]["id"]]["ids"]
    if len(sides) != 2:
        raise NanollamaError(f"tokenizer.json: the post-processor has the text {len(sides) - 1} times; expected it once")
    return sides[0], sides[1]

"""The two text models that only GGUF files have: llama.cpp's version of SentencePiece, and its BPE of plain characters.

Both write a space as `▁` and have a token per byte (`<0x0A>`) for characters that are no token. Plain text may become any
token that merges lead to: llama.cpp ignores types here. (Hugging Face and sentencepiece never turn plain text into a control
token.) Source: llama.cpp, src/llama-vocab.cpp.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from nanollama.errors import NanollamaError, quote
from nanollama.text.bpe.merge import CACHED_LENGTH, CACHED_WORDS, ScoredBpe, merge_pairs
from nanollama.text.sentencepiece.model import PieceType
from nanollama.text.sentencepiece.normalize import SPACE

LINES = re.compile(r"[^\n]+|\n+")


class SpacedVocabulary:
    """The tokens of such a model, their ids and their decoding.

    tokens, types: by id. drops_space: one space at the start of decoded text is left out, because `encode` adds it.
    drops_bytes: bytes without a token are left out, else they are an error.
    """

    unknown_id = None

    def __init__(
        self, tokens: Sequence[str], ids: dict[str, int], types: Sequence[PieceType], *, drops_space: bool, drops_bytes: bool
    ) -> None:
        self._tokens, self._ids, self._types = tokens, ids, types
        self._drops_space, self._drops_bytes = drops_space, drops_bytes
        self._byte_ids = [ids.get(f"<0x{byte:02X}>") for byte in range(256)]
        self.size = len(tokens)

    def token_to_id(self, token: str) -> int | None:
        """The id of a token, None if there is no such token."""
        return self._ids.get(token)

    def id_to_token(self, id: int) -> str | None:
        """The token of an id, None if it has none."""
        return self._tokens[id] if id < self.size else None

    def ids_of(self, pieces: Iterable[str]) -> list[int]:
        """The ids of pieces of text; a piece that is no token becomes its bytes."""
        ids: list[int] = []
        for piece in pieces:
            if (id := self._ids.get(piece)) is not None:
                ids.append(id)
            else:
                found = [id for byte in piece.encode("utf-8") if (id := self._byte_ids[byte]) is not None]
                if len(found) < len(piece.encode("utf-8")) and not self._drops_bytes:
                    raise NanollamaError(f"the vocabulary has neither {quote(piece)} nor all of its bytes as tokens")
                ids += found
        return ids

    def decode(self, parts: Iterable[int | str]) -> str:
        """The text of ids and of texts between them; bytes that are not UTF-8 become U+FFFD."""
        data = [part.encode("utf-8") if isinstance(part, str) else self._bytes(part) for part in parts]
        if self._drops_space and data:
            data[0] = data[0].removeprefix(b" ")
        return b"".join(data).decode("utf-8", "replace")

    def _bytes(self, id: int) -> bytes:
        if self._types[id] is PieceType.BYTE:
            return bytes([int(self._tokens[id][3:5], 16)])
        return self._tokens[id].replace(SPACE, " ").encode("utf-8")


class ScoredMerges(SpacedVocabulary):
    """`tokenizer.ggml.model` "llama": of all adjacent pairs that make a token, the token of the highest score is made first.

    scores: by id, float32 values. prefix_space: a space is put before the text, even one that begins with a space.
    Nothing is normalised: runs of spaces stay even with `remove_extra_whitespaces`, as in llama.cpp.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        ids: dict[str, int],
        types: Sequence[PieceType],
        scores: Sequence[float],
        *,
        prefix_space: bool,
    ) -> None:
        super().__init__(tokens, ids, types, drops_space=prefix_space, drops_bytes=False)
        self._segmenter = ScoredBpe(dict(zip(tokens, scores, strict=True)), frozenset(), None)
        self._prefix = SPACE if prefix_space else ""

    def encode(self, text: str, *, first: bool = True, last: bool = True) -> list[int]:
        """The ids of `text`. first: it begins the input or follows a special token; then the space comes before it."""
        return self.ids_of(self._segmenter.segment((self._prefix if first else "") + text.replace(" ", SPACE)))


class CharacterBpe(SpacedVocabulary):
    """`tokenizer.ggml.model` "gemma4": BPE of characters, over whole lines.

    ranks: of merges, each two pieces with a space between them. whole_lines: a run of newlines that is a token is not split;
    false for `tokenizer.ggml.pre` "sarvam-moe".
    """

    def __init__(
        self,
        tokens: Sequence[str],
        ids: dict[str, int],
        types: Sequence[PieceType],
        ranks: dict[str, int],
        *,
        whole_lines: bool,
    ) -> None:
        super().__init__(tokens, ids, types, drops_space=False, drops_bytes=True)
        self._ranks, self._whole_lines = ranks, whole_lines
        self._bigrams = {merge[at - 1] + merge[at + 1] for merge in ranks if (at := merge.index(" "))}
        self._cached = lru_cache(CACHED_WORDS)(self._word_ids)

    def encode(self, text: str, *, first: bool = True, last: bool = True) -> list[int]:
        """The ids of `text`. first, last (whether it begins and ends the input) make no difference here."""
        ids: list[int] = []
        for line in LINES.findall(text.replace(" ", SPACE)):
            if self._whole_lines and line[0] == "\n" and line in self._ids:
                ids.append(self._ids[line])
                continue
            for word in self._words(line):
                ids += (self._cached if len(word) <= CACHED_LENGTH else self._word_ids)(word)
        return ids

    def _words(self, line: str) -> Iterator[str]:
        """Yields words, cut between two characters that no merge joins: no merge crosses such a place."""
        start = 0
        for at in range(1, len(line)):
            if line[at - 1 : at + 1] not in self._bigrams:
                yield line[start:at]
                start = at
        yield line[start:]

    def _word_ids(self, word: str) -> list[int]:
        return self.ids_of(merge_pairs(list(word), lambda left, right: self._ranks.get(f"{left} {right}")))

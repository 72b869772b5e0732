"""SentencePiece tokenizers: a vocabulary of scored pieces, text to ids and back.

`SentencePieceModel` is plain data (reader.py reads it from a `tokenizer.model`); `SentencePiece` encodes and decodes. The
reference for both directions is the sentencepiece library (0.2.3).
"""

import math
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby

from nanollama.errors import NanollamaError, quote
from nanollama.text.bpe.merge import ScoredBpe
from nanollama.text.sentencepiece.normalize import SPACE, Charsmap, Normalizer
from nanollama.text.sentencepiece.unigram import UNKNOWN_PENALTY, Unigram

LONGEST_PIECE = 8000  # bytes, exclusive; kMaxPieceSize in sentencepiece's model_interface.cc
LARGEST_FLOAT = 3.4028234663852886e38  # FLT_MAX
UNDECODABLE = re.compile("[\ud800-\udfff]")


class PieceType(IntEnum):
    """The role of a piece. Source: sentencepiece_model.proto (GGUF's token types have the same numbers)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class SentencePieceModel:
    """All data that the ids depend on. The index of a piece is its id; scores are float32 values.

    kind: "unigram" or "bpe". unk_surface: the text of an unknown id. The remaining fields are those of `trainer_spec` and
    `normalizer_spec` in sentencepiece_model.proto, with its defaults. Raises NanollamaError for inconsistent data.
    """

    kind: str
    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    types: tuple[PieceType, ...]
    byte_fallback: bool = False
    unk_surface: str = " ⁇ "
    bos_piece: str = "<s>"
    eos_piece: str = "</s>"
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True
    whitespace_as_suffix: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("unigram", "bpe"):
            raise NanollamaError(f"SentencePiece model type {self.kind!r} is not implemented; known: unigram, bpe")
        if not len(self.pieces) == len(self.scores) == len(self.types) or not self.pieces:
            counts = f"{len(self.pieces)} pieces, {len(self.scores)} scores, {len(self.types)} types"
            raise NanollamaError(f"a SentencePiece vocabulary has {counts}; expected one of each per id, at least one")
        seen: set[str] = set()
        for id, (piece, score) in enumerate(zip(self.pieces, self.scores, strict=True)):
            if not piece or "\0" in piece or len(piece.encode("utf-8", "surrogatepass")) >= LONGEST_PIECE:
                raise NanollamaError(f"piece {id} is {quote(piece)}; expected 1 to {LONGEST_PIECE - 1} bytes and no NUL")
            if not math.isfinite(score):
                raise NanollamaError(f"piece {id} {quote(piece)} has the score {score}; expected a finite number")
            if piece in seen:
                raise NanollamaError(f"piece {id} {quote(piece)} occurs twice; expected every piece once")
            seen.add(piece)
        self._check_types()

    def of_type(self, *types: PieceType) -> list[str]:
        """The pieces of these types, in the order of their ids."""
        return [piece for piece, type in zip(self.pieces, self.types, strict=True) if type in types]

    def _check_types(self) -> None:
        if self.types.count(PieceType.UNKNOWN) != 1:
            count = self.types.count(PieceType.UNKNOWN)
            raise NanollamaError(f"the vocabulary has {count} unknown pieces (<unk>); expected exactly one")
        found = set(self.of_type(PieceType.BYTE))
        wanted = {f"<0x{byte:02X}>" for byte in range(256)} if self.byte_fallback else set()
        if odd := sorted(found ^ wanted):
            raise NanollamaError(
                f"byte_fallback is {self.byte_fallback} and {len(found)} pieces are bytes; expected all 256 or none: "
                f"{quote(odd[0])} is {'missing' if odd[0] in wanted else 'too many'}"
            )


class SentencePiece:
    """Text to ids and back by the rules of one SentencePiece model."""

    def __init__(self, model: SentencePieceModel) -> None:
        self.model = model
        self.size = len(model.pieces)
        self.unknown_id = model.types.index(PieceType.UNKNOWN)
        self._ids = {piece: id for id, piece in enumerate(model.pieces)}
        self._text_ids = {piece: self._ids[piece] for piece in model.of_type(PieceType.NORMAL, PieceType.USER_DEFINED)}
        self._bytes = {self._ids[piece]: int(piece[3:5], 16) for piece in model.of_type(PieceType.BYTE)}
        longest_first = sorted(model.of_type(PieceType.USER_DEFINED), key=len, reverse=True)
        kept = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._segmenter = _segmenter(model, kept)
        self._normalizer = Normalizer(
            charsmap=Charsmap(model.charsmap) if model.charsmap else None,
            kept=kept,
            add_dummy_prefix=model.add_dummy_prefix,
            remove_extra_whitespaces=model.remove_extra_whitespaces,
            escape_whitespaces=model.escape_whitespaces,
            whitespace_as_suffix=model.whitespace_as_suffix,
        )

    def token_to_id(self, token: str) -> int | None:
        """The id of a piece, None if there is no such piece."""
        return self._ids.get(token)

    def id_to_token(self, id: int) -> str | None:
        """The piece of an id, None if it has none."""
        return self.model.pieces[id] if id < len(self.model.pieces) else None

    def encode(self, text: str, *, first: bool = True, last: bool = True) -> list[int]:
        """The ids of `text`; no control piece is ever among them. first, last: see `Normalizer.normalize`."""
        ids: list[int] = []
        for piece in self._segmenter.segment(self._normalizer.normalize(text, first=first, last=last)):
            if (id := self._text_ids.get(piece)) is not None:
                ids.append(id)
            elif self.model.byte_fallback:
                ids += [self._ids[f"<0x{byte:02X}>"] for byte in piece.encode("utf-8")]
            elif not ids or ids[-1] != self.unknown_id:  # a run of unknown characters is one unknown id
                ids.append(self.unknown_id)
        return ids

    def decode(self, parts: Iterable[int | str]) -> str:
        """The text of ids, with texts between them taken as they are.

        A byte that is no UTF-8 becomes U+FFFD. The space that the dummy prefix put at the start is dropped, and where
        the model removes extra whitespace every space at the start; all other spaces stay. Source: sentencepiece,
        sentencepiece_processor.cc (Decode).
        """
        model = self.model
        strips = model.add_dummy_prefix or model.remove_extra_whitespaces
        texts: list[str] = []
        for part in self._join_bytes(parts):
            if isinstance(part, str):
                text = part
            elif part == self.unknown_id:
                text = model.unk_surface
            else:
                text = model.pieces[part]
                if strips and text.startswith(SPACE):
                    text = text[1:]
                    strips = model.remove_extra_whitespaces
                text = text.replace(SPACE, " ")
            strips = strips and not text
            texts.append(text)
        return "".join(texts)

    def _join_bytes(self, parts: Iterable[int | str]) -> Iterator[int | str]:
        """Yields the parts with every run of byte ids replaced by its text."""
        for are_bytes, run in groupby(parts, lambda part: isinstance(part, int) and part in self._bytes):
            if are_bytes:
                text = bytes(self._bytes[int(id)] for id in run).decode("utf-8", "surrogateescape")
                yield UNDECODABLE.sub("\ufffd", text)
            else:
                yield from run


def _segmenter(model: SentencePieceModel, kept: re.Pattern[str] | None) -> ScoredBpe | Unigram:
    """The algorithm that cuts text into pieces. kept: user-defined pieces, which BPE finds first.

    In a unigram model a user-defined piece scores 0.1 per byte after the first, and unused pieces do not exist.
    (sentencepiece before 0.2.2 scored user-defined pieces about -0.1, whatever their length.)
    """
    scores = dict(zip(model.pieces, model.scores, strict=True))
    normal = {piece: scores[piece] for piece in model.of_type(PieceType.NORMAL)}
    symbols, unused = model.of_type(PieceType.USER_DEFINED), model.of_type(PieceType.UNUSED)
    if model.kind == "bpe":
        return ScoredBpe(normal | {piece: scores[piece] for piece in (*symbols, *unused)}, frozenset(unused), kept)
    unknown = _float32(min(normal.values(), default=LARGEST_FLOAT) - UNKNOWN_PENALTY)
    bonus = {piece: _float32(_float32(0.1) * (len(piece.encode("utf-8")) - 1)) for piece in symbols}
    return Unigram(normal | bonus, unknown)


def _float32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])

"""Reads a SentencePiece `tokenizer.model`, a protocol buffer, without its library.

The file is untrusted. Every length is checked against the remaining bytes before it is used, and a field that would change
the ids but is not implemented is refused by name.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nanollama.errors import NanollamaError
from nanollama.text.sentencepiece.model import PieceType, SentencePieceModel

MOST_PIECES = 2_000_000  # the largest vocabulary in use has 901,629
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
KINDS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}

Value = int | bytes


def fields(data: bytes, what: str) -> Iterator[tuple[int, int, Value]]:
    """Yields (number, wire type, value) of every field of a message, in file order.

    what: names the message in errors. Source: protobuf.dev/programming-guides/encoding.
    """
    at = 0
    while at < len(data):
        tag, at = _varint(data, at, what)
        number, wire = tag >> 3, tag & 7
        value: Value
        if wire == VARINT:
            value, at = _varint(data, at, what)
        elif wire in (FIXED64, BYTES, FIXED32):
            size, at = _varint(data, at, what) if wire == BYTES else ((8 if wire == FIXED64 else 4), at)
            if size > len(data) - at:
                raise NanollamaError(
                    f"{what}: field {number} claims {size:,} bytes, {len(data) - at:,} are left; the file is cut or damaged"
                )
            value, at = data[at : at + size], at + size
        else:
            raise NanollamaError(f"{what}: field {number} has wire type {wire}; expected 0, 1, 2 or 5")
        if not 0 < number < 1 << 29:
            raise NanollamaError(f"{what}: field number {number}; expected 1 to {(1 << 29) - 1}")
        yield number, wire, value


def _varint(data: bytes, at: int, what: str) -> tuple[int, int]:
    value = 0
    for size in range(10):
        if at + size >= len(data):
            raise NanollamaError(f"{what}: ends within a number; the file is cut")
        byte = data[at + size]
        value |= (byte & 0x7F) << 7 * size
        if byte < 0x80:
            return value & (1 << 64) - 1, at + size + 1
    raise NanollamaError(f"{what}: a number of more than 10 bytes; the file is damaged")


@dataclass(frozen=True)
class Field:
    """A field to read: its name in the result, its wire type, and the conversion of its value."""

    name: str
    wire: int
    convert: Callable[[Any], Any]


def _text(value: bytes) -> str:
    return value.decode("utf-8")


def _float(value: bytes) -> float:
    return float(struct.unpack("<f", value)[0])


def _kind(value: int) -> str:
    return KINDS.get(value, str(value))


# Field numbers: sentencepiece_model.proto.
MODEL = {
    1: Field("piece", BYTES, bytes),
    2: Field("trainer_spec", BYTES, bytes),
    3: Field("normalizer_spec", BYTES, bytes),
    5: Field("denormalizer_spec", BYTES, bytes),
}
PIECE = {1: Field("piece", BYTES, _text), 2: Field("score", FIXED32, _float), 3: Field("type", VARINT, PieceType)}
TRAINER = {
    3: Field("kind", VARINT, _kind),
    24: Field("whitespace_as_suffix", VARINT, bool),
    35: Field("byte_fallback", VARINT, bool),
    44: Field("unk_surface", BYTES, _text),
    46: Field("bos_piece", BYTES, _text),
    47: Field("eos_piece", BYTES, _text),
}
NORMALIZER = {
    2: Field("charsmap", BYTES, bytes),
    3: Field("add_dummy_prefix", VARINT, bool),
    4: Field("remove_extra_whitespaces", VARINT, bool),
    5: Field("escape_whitespaces", VARINT, bool),
}


def _known(data: bytes, schema: dict[int, Field], what: str) -> Iterator[tuple[str, Any]]:
    """Yields (name, value) of the fields of a message that are in its schema; the others do not change ids."""
    for number, wire, value in fields(data, what):
        if (field := schema.get(number)) is None:
            continue
        if wire != field.wire:
            raise NanollamaError(f"{what}: {field.name} has wire type {wire}; expected {field.wire}")
        try:
            yield field.name, field.convert(value)
        except ValueError as error:
            raise NanollamaError(f"{what}: {field.name} is not readable: {error}") from error


def read_sentencepiece(data: bytes) -> SentencePieceModel:
    """The model in the bytes of a `tokenizer.model`. Refuses damaged files and model types word and char."""
    pieces: list[dict[str, Any]] = []
    settings: dict[str, Any] = {"kind": "unigram"}
    for name, value in _known(data, MODEL, "tokenizer.model"):
        if name == "piece":
            if len(pieces) == MOST_PIECES:
                raise NanollamaError(f"tokenizer.model has more than {MOST_PIECES:,} pieces: expected a vocabulary")
            pieces.append({"score": 0.0, "type": PieceType.NORMAL, "piece": ""})
            pieces[-1].update(_known(value, PIECE, f"piece {len(pieces) - 1} of tokenizer.model"))
        elif name == "denormalizer_spec":
            if dict(_known(value, NORMALIZER, name)).get("charsmap"):
                raise NanollamaError("tokenizer.model has denormalizer rules, which are not implemented")
        else:
            settings.update(_known(value, TRAINER if name == "trainer_spec" else NORMALIZER, name))
    settings = {name: value for name, value in settings.items() if value != "" or name == "unk_surface"}
    return SentencePieceModel(
        pieces=tuple(piece["piece"] for piece in pieces),
        scores=tuple(piece["score"] for piece in pieces),
        types=tuple(piece["type"] for piece in pieces),
        **settings,
    )

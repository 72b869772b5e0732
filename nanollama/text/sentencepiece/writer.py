"""The inverse of reader.py: a SentencePiece model as the bytes of a `tokenizer.model`.

Source of the field numbers: sentencepiece_model.proto; of the encoding: protobuf.dev/programming-guides/encoding.
"""

import struct
from collections.abc import Mapping

from nanollama.text.sentencepiece.model import SentencePieceModel
from nanollama.text.sentencepiece.reader import BYTES, FIXED32, KINDS, VARINT

PIECE, TRAINER, NORMALIZER = 1, 2, 3  # of the model
TRAINER_IDS = {"unk": 40, "bos": 41, "eos": 42, "pad": 43}
TRAINER_PIECES = {"unk": 45, "bos": 46, "eos": 47, "pad": 48}
NO_ID = (1 << 64) - 1  # encodes -1; it must be written, since the library's default for bos and eos is an id


def sentencepiece_bytes(model: SentencePieceModel, roles: Mapping[str, int]) -> bytes:
    """The bytes of the file. roles: the ids of "unk", "bos", "eos" and "pad", as far as the vocabulary has them."""
    pieces = [
        bytes_field(PIECE, bytes_field(1, piece.encode("utf-8")) + float_field(2, score) + number_field(3, type))
        for piece, score, type in zip(model.pieces, model.scores, model.types, strict=True)
    ]
    return b"".join(pieces) + bytes_field(TRAINER, trainer(model, roles)) + bytes_field(NORMALIZER, normalizer(model))


def trainer(model: SentencePieceModel, roles: Mapping[str, int]) -> bytes:
    """The fields of `trainer_spec` that readers use."""
    kind = next(number for number, name in KINDS.items() if name == model.kind)
    parts = [number_field(3, kind), number_field(4, len(model.pieces)), number_field(24, model.whitespace_as_suffix)]
    parts += [number_field(35, model.byte_fallback)]
    parts += [number_field(number, roles.get(role, NO_ID)) for role, number in TRAINER_IDS.items()]
    parts += [bytes_field(44, model.unk_surface.encode("utf-8"))]
    named = [(number, model.pieces[roles[role]]) for role, number in TRAINER_PIECES.items() if role in roles]
    return b"".join([*parts, *(bytes_field(number, piece.encode("utf-8")) for number, piece in named)])


def normalizer(model: SentencePieceModel) -> bytes:
    """`normalizer_spec`."""
    flags = (model.add_dummy_prefix, model.remove_extra_whitespaces, model.escape_whitespaces)
    name = b"user_defined" if model.charsmap else b"identity"
    rules = bytes_field(1, name) + bytes_field(2, model.charsmap)
    return rules + b"".join(number_field(number, flag) for number, flag in enumerate(flags, 3))


def varint(value: int) -> bytes:
    """A number in groups of seven bits, the lowest group first."""
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def number_field(number: int, value: int) -> bytes:
    return varint(number << 3 | VARINT) + varint(value)


def float_field(number: int, value: float) -> bytes:
    return varint(number << 3 | FIXED32) + struct.pack("<f", value)


def bytes_field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | BYTES) + varint(len(value)) + value

"""GGUF models written byte by byte, without the `gguf` package and without torch: random valid ones, and any others.

For the GGUF fuzz to damage and for tests by hand. A model is a tree (Model), then a list of fields, then bytes.
"""

import math
import random
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
# Type number, values per block, bytes per block: a few formats of each block size.
BLOCKS = [(0, 1, 4), (1, 1, 2), (28, 1, 8), (24, 1, 1), (30, 1, 2), (2, 32, 18), (8, 32, 34), (14, 256, 210), (39, 32, 17)]


class Field(NamedTuple):
    """A stretch of a GGUF file: an integer that counts or names something, the bytes of a text, or plain data."""

    role: str
    raw: bytes


class Pair(NamedTuple):
    key: bytes
    kind: int
    value: Any  # of an array: (element kind, values)


class Tensor(NamedTuple):
    name: bytes
    dimensions: list[int]
    kind: int
    data: bytes


class Model(NamedTuple):
    version: int
    alignment: int
    pairs: list[Pair]
    tensors: list[Tensor]


def random_value(rng: random.Random, kind: int, depth: int = 0) -> Any:
    if kind == STRING:
        return rng.choice([b"", b"a", "Ġthe".encode(), b"\xe2\x96", b"{{ x }}", b"general.alignment"])
    if kind == ARRAY:
        element = rng.choice([*NUMBERS, STRING, STRING, *([ARRAY] if depth < 3 else [])])
        return element, [random_value(rng, element, depth + 1) for _ in range(rng.choice([0, 1, 2, 9]))]
    letter = NUMBERS[kind]
    if letter in "fd":
        return rng.choice([0.0, -1.5, 1e-5, math.inf, math.nan])
    top = 2 if letter == "?" else 256 ** struct.calcsize(f"<{letter}")
    least = -top // 2 if letter.islower() else 0
    return rng.choice([least, least + top - 1, rng.randrange(least, least + top)])


def random_model(rng: random.Random) -> Model:
    """A valid model: metadata of every type, up to five tensors."""
    kinds = rng.choices([*NUMBERS, STRING, ARRAY, ARRAY], k=rng.randrange(8))
    pairs = [Pair(b"general.architecture", STRING, b"llama")]
    pairs += [Pair(b"key.%d" % i, kind, random_value(rng, kind)) for i, kind in enumerate(kinds)]
    alignment = rng.choice([32, 32, 8, 64, 4096])
    if alignment != 32:
        pairs.insert(rng.randrange(len(pairs) + 1), Pair(b"general.alignment", 4, alignment))
    tensors = []
    for i in range(rng.randrange(6)):
        kind, size, stored = rng.choice(BLOCKS)
        dimensions = [size * rng.randrange(1, 4)] + [rng.randrange(1, 4) for _ in range(rng.randrange(4))]
        tensors.append(Tensor(b"blk.%d.weight" % i, dimensions, kind, rng.randbytes(math.prod(dimensions) // size * stored)))
    return Model(rng.choice([2, 3]), alignment, pairs, tensors)


def parts_of(model: Model, count: int) -> list[Model]:
    """The model in `count` parts, as llama.cpp splits it."""
    parts = []
    for i in range(count):
        numbers = [Pair(b"split.no", 2, i), Pair(b"split.count", 2, count), Pair(b"split.tensors.count", 5, len(model.tensors))]
        own = [pair for pair in model.pairs if i == 0 or pair.key == b"general.alignment"]
        parts.append(model._replace(pairs=own + numbers, tensors=model.tensors[i::count]))
    return parts


# A model as the fields of a file


def integer(value: int, size: int) -> Field:
    return Field("integer", (value % 256**size).to_bytes(size, "little"))


def text_fields(text: bytes) -> Iterator[Field]:
    yield integer(len(text), 8)
    yield Field("text", text)


def value_fields(kind: int, value: Any) -> Iterator[Field]:
    if kind == STRING:
        yield from text_fields(value)
    elif kind == ARRAY:
        element, values = value
        yield integer(element, 4)
        yield integer(len(values), 8)
        for item in values:
            yield from value_fields(element, item)
    else:
        yield Field("data", struct.pack(f"<{NUMBERS[kind]}", value))


def model_fields(model: Model) -> list[Field]:
    fields = [Field("text", b"GGUF"), integer(model.version, 4), integer(len(model.tensors), 8), integer(len(model.pairs), 8)]
    for key, kind, value in model.pairs:
        fields += [*text_fields(key), integer(kind, 4), *value_fields(kind, value)]
    offset, data = 0, b""
    for name, dimensions, kind, raw in model.tensors:
        fields += [*text_fields(name), integer(len(dimensions), 4), *(integer(size, 8) for size in dimensions)]
        fields += [integer(kind, 4), integer(offset, 8)]
        data += raw + bytes(-len(raw) % model.alignment)
        offset = len(data)
    padding = -sum(len(field.raw) for field in fields) % model.alignment
    return [*fields, Field("padding", bytes(padding)), Field("data", data)]


def model_bytes(model: Model) -> bytes:
    return b"".join(field.raw for field in model_fields(model))

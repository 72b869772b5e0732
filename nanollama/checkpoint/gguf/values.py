"""Reads the values before a GGUF file's data: numbers, strings and arrays, without padding between them.

A string is its length in bytes (uint64) and that many bytes. An array is its element type (uint32), its length (uint64)
and its elements, which may be arrays. A boolean is one byte, 0 or 1. Source: docs/gguf.md of github.com/ggml-org/ggml.

Two facts about strings are decided here:
- Metadata keys and tensor names must be UTF-8. The specification wants ASCII for keys; llama.cpp takes any bytes.
- String values need not be: llama.cpp keeps them as bytes. Bytes that are not UTF-8 become lone surrogates, so a value is
  always a `str`, and `value.encode("utf-8", "surrogateescape")` returns the bytes.
"""

import struct
from typing import Any, NamedTuple

from nanollama.errors import NanollamaError, quote

MAX_BYTES = 100_000_000  # before the data; Gemma 4's vocabulary, the largest known, takes 16 MB
MAX_ITEMS = 5_000_000  # array elements in one file, up to 80 bytes of memory each; Gemma 4's vocabulary has 1.3 million
MAX_DEPTH = 8  # arrays in arrays; no known key uses even two
ARRAY_ITEMS = 64  # an array in an array counts as so many elements: it takes as much time

UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64 = 4, 5, 6, 7, 8, 9, 10, 11
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # `struct` letters
NAMES = (
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "float32",
    "bool",
    "string",
    "array",
    "uint64",
    "int64",
    "float64",
)
LENGTH = struct.Struct("<Q")
# Bytes of a value; of strings and arrays the smallest.
SIZES = {kind: struct.calcsize(f"<{letter}") for kind, letter in NUMBERS.items()} | {
    STRING: 8,
    ARRAY: 12,
}


class ValueType(NamedTuple):
    """The stored type of a value. kind: its number. elements: for an array, that of its elements. inner: the types of arrays
    in an array."""

    kind: int
    elements: int | None = None
    inner: tuple["ValueType", ...] = ()

    def __str__(self) -> str:
        return NAMES[self.kind] if self.elements is None else f"array of {NAMES[self.elements]}"


class ValueReader:
    """Reads values from the start of `memory`. The caller sets `at`, which names the value in errors."""

    def __init__(self, memory: memoryview, source: str) -> None:
        self.memory = memory[:MAX_BYTES]
        self.position = 0
        self.at = "the header"
        self._source = source
        self._items = 0
        self._is_whole = len(memory) <= MAX_BYTES  # then missing bytes are missing in the file

    def error(self, problem: str) -> NanollamaError:
        return NanollamaError(f"{self._source}: {self.at} {problem}")

    def number(self, kind: int) -> Any:
        return self.numbers(kind, 1)[0]

    def numbers(self, kind: int, count: int) -> list[Any]:
        raw = self._take(count, SIZES[kind])
        if kind == BOOL and count and max(raw) > 1:
            raise self.error(f"holds a boolean of value {max(raw)}: expected 0 or 1; the file is damaged")
        return list(struct.unpack(f"<{count}{NUMBERS[kind]}", raw))

    def name(self, max_bytes: int) -> str:
        """A metadata key or a tensor's name: 1 to `max_bytes` bytes of UTF-8."""
        raw = self._take(self.number(UINT64), 1)
        if not 1 <= len(raw) <= max_bytes:
            raise self.error(f"has a name of {len(raw):,} bytes: expected 1 to {max_bytes:,}; the file is damaged")
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"has the name {quote(bytes(raw))}: expected UTF-8; the file is damaged") from error

    def value(self, kind: int, depth: int = 0) -> tuple[Any, ValueType]:
        """One value (int, float, bool, str or a list of these) and its type."""
        if kind == ARRAY:
            return self._array(depth + 1)
        if kind == STRING:
            return self._strings(1)[0], ValueType(kind)
        if kind not in NUMBERS:
            raise self.error(f"has value type {kind}: expected 0 to {max(NUMBERS)}; the file is damaged or too new")
        return self.number(kind), ValueType(kind)

    def _array(self, depth: int) -> tuple[list[Any], ValueType]:
        if depth > MAX_DEPTH:
            raise self.error(f"is nested too deeply: expected at most {MAX_DEPTH} arrays in each other")
        kind, count = self.number(UINT32), self.number(UINT64)
        if kind not in SIZES:
            raise self.error(f"is an array of value type {kind}: expected 0 to {max(SIZES)}; the file is damaged or too new")
        self._check_room(count, SIZES[kind])
        self._items += count * (ARRAY_ITEMS if kind == ARRAY else 1)
        if self._items > MAX_ITEMS:
            raise self.error(f"brings the array elements of this file to {self._items:,}: expected at most {MAX_ITEMS:,}")
        if kind == ARRAY:
            found = [self._array(depth + 1) for _ in range(count)]
            return [value for value, _ in found], ValueType(ARRAY, kind, tuple(inner for _, inner in found))
        return self.numbers(kind, count) if kind in NUMBERS else self._strings(count), ValueType(ARRAY, kind)

    def _strings(self, count: int) -> list[str]:
        """`count` strings. A vocabulary has some hundred thousand, so this loop avoids function calls."""
        memory, position, end, values = self.memory, self.position, len(self.memory), []
        for _ in range(count):
            begin = position + 8
            if begin > end:
                raise self._too_short(position, 8)
            position = begin + LENGTH.unpack_from(memory, position)[0]
            if position > end:
                raise self._too_short(begin, position - begin)
            values.append(str(memory[begin:position], "utf-8", "surrogateescape"))
        self.position = position
        return values

    def _take(self, count: int, size: int) -> memoryview:
        """The next `count` × `size` bytes, not copied."""
        self._check_room(count, size)
        begin = self.position
        self.position += count * size
        return self.memory[begin : self.position]

    def _check_room(self, count: int, size: int) -> None:
        if count * size > len(self.memory) - self.position:  # Python's integers do not overflow
            raise self._too_short(self.position, count * size)

    def _too_short(self, position: int, needed: int) -> NanollamaError:
        limit = "before the end of the file: it is cut or damaged, download it again"
        if not self._is_whole:
            limit = f"before byte {MAX_BYTES:,}, where the limit on metadata and tensor list is"
        room = len(self.memory) - position
        return self.error(f"needs {needed:,} bytes at byte {position:,}, but there are {room:,} {limit}")

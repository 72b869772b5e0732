"""The inverse of values.py: metadata values as bytes, checked against their types."""

import struct
from typing import Any

from nanollama.checkpoint.gguf.values import (
    ARRAY,
    ARRAY_ITEMS,
    BOOL,
    FLOAT32,
    INT32,
    INT64,
    LENGTH,
    MAX_DEPTH,
    MAX_ITEMS,
    NAMES,
    NUMBERS,
    STRING,
    UINT32,
    UINT64,
    ValueType,
)
from nanollama.errors import NanollamaError, quote

RANGES = {INT32: (-(2**31), 2**31), UINT32: (0, 2**32), INT64: (-(2**63), 2**63), UINT64: (0, 2**64)}
PYTHON = {kind: {"f": float, "d": float, "?": bool}.get(letter, int) for kind, letter in NUMBERS.items()} | {STRING: str}


def type_of(value: Any) -> ValueType:
    """The default type of a value.

    bool → BOOL, str → STRING, float → FLOAT32; int → the first of UINT32, INT32, UINT64, INT64 that holds it. In an array the
    first integer type tried is INT32, as in the `gguf` package: llama.cpp reads token types as INT32.
    """
    if not isinstance(value, list):
        return ValueType(kind_of([value], (UINT32, INT32, UINT64, INT64)))
    if value and all(isinstance(item, list) for item in value):
        return ValueType(ARRAY, ARRAY, tuple(type_of(item) for item in value))
    return ValueType(ARRAY, kind_of(value, (INT32, UINT32, INT64, UINT64)))


def kind_of(values: list[Any], integers: tuple[int, ...]) -> int:
    """The type number of these values, which must all have one Python type. integers: the types to try for int, in order."""
    if not values:
        raise NanollamaError("an empty list has no element type: expected a type for it, such as array of string")
    for kind, python in ((BOOL, bool), (STRING, str), (FLOAT32, float)):
        if all(type(value) is python for value in values):
            return kind
    if not all(type(value) is int for value in values):
        raise NanollamaError(f"{quote(values)} can't be stored: expected bool, int, float or str, and all of one type")
    for kind in integers:
        first, end = RANGES[kind]
        if first <= min(values) and max(values) < end:
            return kind
    raise NanollamaError(f"{quote(values)} does not fit 64 bits")


def stored_value(value: Any, type_: ValueType) -> bytes:
    """The bytes of a value of this type; NanollamaError if it has another type."""
    if type_.kind != ARRAY:
        return stored_items([value], type_.kind)
    if items(value, type_) > MAX_ITEMS:
        raise NanollamaError(f"it has {items(value, type_):,} array elements: expected at most {MAX_ITEMS:,}")
    return stored_array(value, type_, 1)


def stored_array(value: Any, type_: ValueType, depth: int) -> bytes:
    kind = type_.elements
    if not isinstance(value, list) or kind is None:
        raise NanollamaError(f"{quote(value)} is not an {type_}")
    if depth > MAX_DEPTH:
        raise NanollamaError(f"it is nested too deeply: expected at most {MAX_DEPTH} arrays in each other")
    head = struct.pack("<IQ", kind, len(value))
    if kind != ARRAY:
        return head + stored_items(value, kind)
    if len(value) != len(type_.inner):
        raise NanollamaError(f"its type is for {len(type_.inner)} arrays: expected one for each of {len(value)}")
    return head + b"".join(stored_array(item, inner, depth + 1) for item, inner in zip(value, type_.inner, strict=True))


def items(value: Any, type_: ValueType) -> int:
    """The array elements that the reader counts; an array in an array counts as ARRAY_ITEMS."""
    if not isinstance(value, list):
        return 0
    inner = sum(items(item, each) for item, each in zip(value, type_.inner, strict=False))
    return inner + len(value) * (ARRAY_ITEMS if type_.elements == ARRAY else 1)


def stored_items(values: list[Any], kind: int) -> bytes:
    """The bytes of values of one type that is not an array."""
    if kind not in PYTHON:
        raise NanollamaError(f"value type {kind} does not exist: expected 0 to {max(NUMBERS)}")
    if wrong := [value for value in values if type(value) is not PYTHON[kind]]:
        raise NanollamaError(f"{quote(wrong[0])} is a {type(wrong[0]).__name__}: expected {NAMES[kind]}")
    if kind == STRING:
        return b"".join([stored_string(value) for value in values])
    try:
        return struct.pack(f"<{len(values)}{NUMBERS[kind]}", *values)
    except (struct.error, OverflowError) as error:
        raise NanollamaError(
            f"{quote(values if len(values) > 1 else values[0])} does not fit {NAMES[kind]}: {error}"
        ) from error


def stored_string(text: str) -> bytes:
    """A string after its length; lone surrogates of `surrogateescape` become the bytes that they stand for."""
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise NanollamaError(f"{quote(text)} has an unpaired surrogate, which has no UTF-8") from error
    return LENGTH.pack(len(raw)) + raw

"""Untrusted files: opened only if they are plain files, read and parsed only within limits.

A file is refused, never repaired. The formats built on top (safetensors, the shard index, config.json) add their checks.
"""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO

from nanollama.errors import NanollamaError, quote

MAX_FILE_BYTES = 64_000_000  # of a file that is read whole; Gemma 3's tokenizer.json, the largest in use, has 33 MB
MAX_JSON_ITEMS = 2_500_000  # that file has 262 thousand tokens and 515 thousand pairs; an item costs up to 250 bytes of memory
MAX_DIGITS = 40  # tokenizer_config.json states model_max_length as int(1e30): 31; int() takes quadratic time over longer runs
LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # git-lfs/docs/spec.md: the first line of every pointer


@contextmanager
def open_plain(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for reading if it is a plain file (or a link to one) and not a git-lfs pointer.

    A pipe would block for ever and a device never ends, so the kind is checked before opening. Every OSError from
    opening or from reading in the `with` body becomes a NanollamaError that names the file.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise NanollamaError(f"{path} is not a plain file: expected a file that can be read from start to end")
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise NanollamaError(
                    f"{path} is a git-lfs pointer, not the file itself: run `git lfs pull` in its folder, or download "
                    "the model again"
                )
            file.seek(0)
            yield file
    except OSError as error:
        raise NanollamaError(f"{path} cannot be read: {error.strerror or error}") from error


def member(folder: Path, name: str) -> Path:
    """The path of the file `name` directly in `folder`; refuses every name that leads out of it.

    Windows' rules are the stricter ones (both slashes, drives, streams), so they apply on every system. A *link* in the
    folder may point outside: the hub cache consists of such links, and a name in an index cannot create one.
    """
    if not name or "\0" in name or name in (".", "..") or PureWindowsPath(name).name != name:
        raise NanollamaError(f"the file name {quote(name)} leads out of {folder}: expected a plain name without folders")
    return folder / name


def read_bytes(path: Path, max_bytes: int = MAX_FILE_BYTES, expected: str = "a small file") -> bytes:
    """The bytes of a plain file of at most `max_bytes`; `expected` describes the file in the error for a larger one."""
    with open_plain(path) as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise NanollamaError(f"{path} is larger than {max_bytes:,} bytes: expected {expected}")
        return file.read()


def read_json(path: Path, max_bytes: int = MAX_FILE_BYTES) -> dict[str, Any]:
    """The JSON object in the file `path` (config.json, an index, tokenizer.json), parsed by `parse_object`."""
    return parse_object(read_bytes(path, max_bytes, "a small JSON file"), str(path))


def read_json_if_present(path: Path, max_bytes: int = MAX_FILE_BYTES) -> dict[str, Any]:
    """As `read_json`; {} if there is no such file."""
    return read_json(path, max_bytes) if path.exists() else {}


def parse_object(raw: bytes, source: str, max_items: int = MAX_JSON_ITEMS) -> dict[str, Any]:
    """The JSON object in `raw` (UTF-8); `source` names it in errors.

    Stricter than `json.loads`: no duplicate keys, no NaN or infinity (nor 1e999), no integer of more than MAX_DIGITS, no
    unpaired surrogate in a key, bounded nesting and number of items. Source: RFC 8259, sections 4, 6 and 8.
    """
    items = sum(raw.count(mark) for mark in b"{[,")  # before parsing: "[[],[],[]" makes 20 bytes of objects per byte
    if items > max_items:
        raise NanollamaError(f"{source} has about {items:,} JSON items: expected at most {max_items:,}")
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_refuse_constant,
        )
    except RecursionError as error:
        raise NanollamaError(f"{source} is not acceptable JSON: it is nested too deeply") from error
    except ValueError as error:
        raise NanollamaError(f"{source} is not acceptable JSON: {error}") from error
    if not isinstance(value, dict):
        raise NanollamaError(f"{source} holds a JSON {type(value).__name__}: expected an object in braces")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {quote(key)} occurs twice")
        if not key.isascii() and any("\ud800" <= letter <= "\udfff" for letter in key):
            raise ValueError(f"the key {quote(key)} has an unpaired surrogate")
        result[key] = value
    return result


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"the number {digits[:MAX_DIGITS]}… has {len(digits)} characters, more than {MAX_DIGITS}")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {digits[:MAX_DIGITS]} is too large")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")

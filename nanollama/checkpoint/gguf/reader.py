"""Reads GGUF, the model files of llama.cpp: metadata, a list of tensors, then their bytes, memory-mapped and never copied.

The format (docs/gguf.md of https://github.com/ggml-org/ggml; versions 2 and 3 are the same in little-endian files):

    4 bytes    "GGUF"
    uint32     version
    uint64     number of tensors
    uint64     number of metadata pairs
    pairs      each: key (string), value type (uint32), value; see values.py
    tensors    each: name (string, at most 64 bytes), number of dimensions (uint32, at most 4), the dimensions (uint64,
               fastest first: the reverse of torch's shape), type (uint32, ggml's number), offset (uint64)
    padding    to a multiple of the alignment: the pair `general.alignment` (uint32), else 32
    the data   tensors in the order of the list, each padded to the alignment; offsets count from here

A tensor is stored as blocks, see nanollama/quant. The specification only asks for aligned offsets; llama.cpp's reader
(ggml/src/gguf.cpp) and this one accept only this order without gaps. As in llama.cpp, the last tensor's padding may be
missing, and bytes after the data are ignored. Unlike there, arrays in arrays are read, and empty tensors are refused.

A model may be split into PREFIX-00001-of-0000N.gguf and so on. Each part is a whole GGUF file with the pairs `split.no`
(from 0), `split.count` and `split.tensors.count` (of all parts together); the model's metadata is in the first part.
Every number is checked before memory is allocated for it. For the other direction see writer.py.
"""

import math
import mmap
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nanollama.checkpoint.files import open_plain
from nanollama.checkpoint.gguf.values import UINT32, UINT64, ValueReader, ValueType
from nanollama.checkpoint.safetensors import DAMAGED
from nanollama.errors import NanollamaError, quote
from nanollama.quant.formats.format import Format
from nanollama.quant.formats.table import format_of_type

MAX_ENTRIES = 65_536  # tensors, and metadata pairs; the largest models have a few thousand and about fifty
MAX_KEY_BYTES = 65_535
MAX_NAME_BYTES = 64  # llama.cpp takes 63
MAX_DIMENSIONS = 4
ALIGNMENT = "general.alignment"
DEFAULT_ALIGNMENT = 32
PART = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})\.gguf", re.DOTALL)


@dataclass(frozen=True, eq=False)
class GGUFTensor:
    """A tensor as it is stored.

    shape: row-major, as torch has it: the reverse of the file's dimensions. format: how the values are stored; `.name` and
    `.id` are ggml's, "Q4_0" and 2. blocks: uint8 [blocks, bytes per block], a view of the mapped file; the blocks of a row
    are neighbours, and the rows are in order. `nanollama.quant.dequantize(blocks, format, shape)` gives the values.
    """

    name: str
    shape: tuple[int, ...]
    format: Format
    blocks: torch.Tensor


@dataclass(frozen=True, eq=False)
class GGUF:
    """A model: metadata in the file's order (int, float, bool, str or lists of them), and tensors by name.

    types: the stored type of each value, for a writer. paths: the files, in order.
    """

    metadata: dict[str, Any]
    tensors: dict[str, GGUFTensor]
    types: dict[str, ValueType] = field(default_factory=dict)
    paths: tuple[Path, ...] = ()


class Entry(NamedTuple):
    """One entry of the list of tensors; `offset` counts from the start of the data."""

    name: str
    shape: tuple[int, ...]
    format: Format
    offset: int

    @property
    def size(self) -> int:  # bytes, not padded; exact, for Python's integers do not overflow
        return math.prod(self.shape) // self.format.block_size * self.format.block_bytes


def read_gguf(path: Path) -> GGUF:
    """The model in `path`; if that is any part of a split model, the whole model.

    As with `read_safetensors`: pages are read on first touch, writing to blocks changes a private copy of the page and
    never the file, the mapping lives as long as any of the tensors, and the file must not be cut while it does.
    """
    part = _read_file(path)
    count = part.metadata.get("split.count", 1)
    if count in (0, 1):  # llama.cpp takes both for "not split"
        return part
    paths = _part_paths(path, count)
    return _join({other: part if other == path else _read_file(other) for other in paths}, count)


def _read_file(path: Path) -> GGUF:
    """One file, a part or a whole model."""
    if sys.byteorder != "little":
        raise NanollamaError(f"{path} is little-endian and this machine is not: that is not supported")
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size < 24:
            raise NanollamaError(f"{path} has {size} bytes: expected at least the 24 of the header; {DAMAGED}")
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    reader = ValueReader(memoryview(memory), str(path))
    _check_version(memory[:8], str(path))
    reader.position = 8
    tensors, pairs = reader.numbers(UINT64, 2)
    if max(tensors, pairs) > MAX_ENTRIES:
        raise reader.error(
            f"announces {tensors:,} tensors and {pairs:,} metadata pairs: expected at most {MAX_ENTRIES:,}; {DAMAGED}"
        )
    metadata, types = _read_metadata(reader, pairs)
    alignment = metadata.get(ALIGNMENT, DEFAULT_ALIGNMENT)
    entries = _read_entries(reader, tensors)
    start = pad(reader.position, alignment)
    _check_layout(reader, entries, alignment, len(memory) - start)
    return GGUF(metadata, {entry.name: _tensor(memory, entry, start) for entry in entries}, types, (path,))


def _check_version(head: bytes, source: str) -> None:
    if head[:4] != b"GGUF":
        raise NanollamaError(f"{source} starts with {quote(head[:4])}, expected b'GGUF': it is not a GGUF file")
    version = int.from_bytes(head[4:], "little")
    if version in (2, 3):
        return
    if version and version % 2**16 == 0:  # a small number with its bytes reversed; llama.cpp makes the same test
        raise NanollamaError(f"{source} is a big-endian GGUF file: only little-endian ones are supported; convert it again")
    raise NanollamaError(
        f"{source} is GGUF version {version}: expected 2 or 3; "
        + (f"{DAMAGED}, or too new for this program" if version != 1 else "convert the model again, llama.cpp dropped it too")
    )


def _read_metadata(reader: ValueReader, count: int) -> tuple[dict[str, Any], dict[str, ValueType]]:
    """The metadata and their types, by key."""
    metadata: dict[str, Any] = {}
    types: dict[str, ValueType] = {}
    for number in range(1, count + 1):
        reader.at = f"metadata pair {number} of {count}"
        key = reader.name(MAX_KEY_BYTES)
        reader.at = f"metadata key {quote(key)}"
        if key in metadata:
            raise reader.error(f"occurs twice; {DAMAGED}")
        kind = reader.number(UINT32)
        metadata[key], types[key] = reader.value(kind)
        if key == ALIGNMENT and not is_alignment(metadata[key], types[key]):
            raise reader.error(f"is {quote(metadata[key])} (type {kind}): expected a power of two from 8 on, of type {UINT32}")
    return metadata, types


def is_alignment(value: Any, type_: ValueType) -> bool:
    """Whether tensors can be aligned to `value` bytes."""
    return type_.kind == UINT32 and value >= 8 and value & (value - 1) == 0


def _read_entries(reader: ValueReader, count: int) -> list[Entry]:
    entries: dict[str, Entry] = {}
    for number in range(1, count + 1):
        reader.at = f"tensor {number} of {count}"
        name = reader.name(MAX_NAME_BYTES)
        reader.at = f"tensor {quote(name)}"
        if name in entries:
            raise reader.error(f"occurs twice; {DAMAGED}")
        entries[name] = _read_entry(reader, name)
    return list(entries.values())


def _read_entry(reader: ValueReader, name: str) -> Entry:
    """The rest of an entry, after the name: rank, dimensions, type and offset."""
    rank = reader.number(UINT32)
    if rank > MAX_DIMENSIONS:
        raise reader.error(f"has {rank:,} dimensions: expected at most {MAX_DIMENSIONS}; {DAMAGED}")
    shape = tuple(reversed(reader.numbers(UINT64, rank)))
    type_id, offset = reader.number(UINT32), reader.number(UINT64)
    try:
        format = format_of_type(type_id)
    except NanollamaError as error:
        raise reader.error(f"is refused: {error}") from error
    if 0 in shape:
        raise reader.error(f"has shape {list(shape)}: expected no dimension of 0; {DAMAGED}")
    columns = shape[-1] if shape else 1
    if columns % format.block_size:
        raise reader.error(f"has rows of {columns:,} values: {format.name} stores {format.block_size} at a time; {DAMAGED}")
    return Entry(name, shape, format, offset)


def pad(position: int, alignment: int) -> int:
    """The smallest multiple of the alignment that is at least `position`."""
    return -(-position // alignment) * alignment


def _check_layout(reader: ValueReader, entries: list[Entry], alignment: int, room: int) -> None:
    """Each tensor starts where the one before it ends, padded, and the last ends within the `room` bytes of data."""
    end = 0
    for entry in entries:
        reader.at = f"tensor {quote(entry.name)}"
        if entry.offset != pad(end, alignment):
            raise reader.error(
                f"starts at data byte {entry.offset:,}: expected {pad(end, alignment):,}, the end of the tensor before it "
                f"padded to {alignment}; {DAMAGED}"
            )
        end = entry.offset + entry.size
        if end > room:
            raise reader.error(
                f"of type {entry.format.name} and shape {list(entry.shape)} needs {entry.size:,} bytes of data, but "
                f"the file has {max(0, room - entry.offset):,} there; {DAMAGED}"
            )


def _tensor(memory: mmap.mmap, entry: Entry, start: int) -> GGUFTensor:
    flat = torch.frombuffer(memory, dtype=torch.uint8, count=entry.size, offset=start + entry.offset)
    return GGUFTensor(entry.name, entry.shape, entry.format, flat.reshape(-1, entry.format.block_bytes))


def _part_paths(path: Path, count: Any) -> list[Path]:
    """The paths of the `count` parts of a model, one of which is `path`."""
    match = PART.fullmatch(path.name)
    if not match or type(count) is not int or int(match[3]) != count:
        raise NanollamaError(
            f"{path} is one of {quote(count)} parts by its split.count: expected a name that ends in -00001-of-0000N.gguf, "
            "N being that number; give the file its original name"
        )
    paths = [path.with_name(f"{match[1]}-{number:05}-of-{match[3]}.gguf") for number in range(1, count + 1)]
    missing = [other for other in paths if not other.exists()]
    if missing:
        raise NanollamaError(f"{missing[0]} is missing, one of {len(missing)} missing of {count} parts: download them again")
    if path not in paths:
        raise NanollamaError(f"{path} is not one of its {count} parts: expected a number from 00001 to {match[3]} in its name")
    return paths


def _join(parts: dict[Path, GGUF], count: int) -> GGUF:
    """One model of all parts in order: the metadata of the first part, the tensors of all."""
    tensors: dict[str, GGUFTensor] = {}
    for number, (path, part) in enumerate(parts.items()):
        found = part.metadata.get("split.no"), part.metadata.get("split.count")
        if found != (number, count):
            raise NanollamaError(
                f"{path} has split.no and split.count {quote(found)}: expected {(number, count)} by its name; it belongs to "
                "another model or was renamed"
            )
        for name in part.tensors.keys() & tensors.keys():
            raise NanollamaError(f"{path} holds tensor {quote(name)}, which an earlier part holds too; {DAMAGED}")
        tensors |= part.tensors
    first, (metadata, types) = next((path, (part.metadata, part.types)) for path, part in parts.items())
    if metadata.get("split.tensors.count") != len(tensors):
        raise NanollamaError(
            f"{first} announces {quote(metadata.get('split.tensors.count'))} tensors in {count} parts (split.tensors.count), "
            f"but they hold {len(tensors)}; {DAMAGED}"
        )
    return GGUF(metadata, tensors, types, tuple(parts))

"""Writes GGUF, version 3, little endian, in the layout that reader.py demands and llama.cpp writes.

Everything is planned and checked before the first byte is written. Then one tensor at a time is made and written, so memory
holds one tensor, or less if its data come in pieces. The file appears whole or not at all, see checkpoint/atomic.py.

`write_gguf(path, model.metadata, [stored(tensor) for tensor in model.tensors.values()], model.types)` copies a model.
"""

import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nanollama.checkpoint.atomic import new_file
from nanollama.checkpoint.gguf.reader import (
    ALIGNMENT,
    DEFAULT_ALIGNMENT,
    MAX_DIMENSIONS,
    MAX_ENTRIES,
    MAX_KEY_BYTES,
    GGUFTensor,
    is_alignment,
    pad,
)
from nanollama.checkpoint.gguf.values import LENGTH, MAX_BYTES, ValueType
from nanollama.checkpoint.gguf.values_writer import stored_string, stored_value, type_of
from nanollama.errors import NanollamaError, quote
from nanollama.quant import quantize, row_bytes
from nanollama.quant.formats.format import Format

MAX_NAME_BYTES = 63  # llama.cpp's limit, GGML_MAX_NAME less its zero
MAX_ALIGNMENT = 65_536  # more would only fill the file with zeros
SLAB = 1 << 20  # values encoded at a time: 4 MiB of float32


class NewTensor(NamedTuple):
    """A tensor to write: name, shape in torch's order, format, and a function that makes its bytes.

    `data()` returns uint8 tensors of any shape; their bytes, joined, are the tensor's.
    """

    name: str
    shape: tuple[int, ...]
    format: Format
    data: Callable[[], Iterable[Tensor]]

    @property
    def size(self) -> int:
        """Bytes, not padded."""
        return prod(self.shape[:-1]) * row_bytes(self.format, self.shape[-1] if self.shape else 1)


class GgufPlan(NamedTuple):
    """A file to write: the arguments of `write_gguf`, and warnings for the person who asked for it."""

    metadata: dict[str, Any]
    tensors: list[NewTensor]
    types: dict[str, ValueType]
    warnings: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all tensors, not padded."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def values(self) -> int:
        """Values in all tensors."""
        return sum(prod(tensor.shape) for tensor in self.tensors)


def stored(tensor: GGUFTensor) -> NewTensor:
    """A tensor of another file, byte for byte."""
    return NewTensor(tensor.name, tensor.shape, tensor.format, lambda: [tensor.blocks])


def encoded(name: str, shape: Sequence[int], format: Format, rows: Callable[[slice], Tensor]) -> NewTensor:
    """A tensor encoded a slab of rows at a time, on all cores; `rows(slice)` returns these rows, floating [rows, columns]."""
    count, columns = prod(shape[:-1]), shape[-1] if shape else 1
    step = max(1, SLAB // max(1, columns))

    def encode(start: int) -> Tensor:
        try:
            return quantize(rows(slice(start, min(start + step, count))), format)
        except NanollamaError as error:
            raise NanollamaError(f"tensor {quote(name)}: {error}") from error

    return NewTensor(name, tuple(shape), format, lambda: on_all_cores(encode, range(0, count, step)))


def on_all_cores(function: Callable[[int], Tensor], arguments: Sequence[int]) -> Iterator[Tensor]:
    """Yields function(argument) for each argument, in order; as many calls as torch has threads run at once.

    Each call uses one core: torch's threads would wait for each other after each of very many small steps.
    """
    workers = torch.get_num_threads()
    torch.set_num_threads(1)
    pool, pending = ThreadPoolExecutor(workers), deque[Future[Tensor]]()
    try:
        for argument in arguments:
            pending.append(pool.submit(function, argument))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(workers)


def write_gguf(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Sequence[NewTensor],
    types: Mapping[str, ValueType] | None = None,
) -> None:
    """Write a model to `path`, whole or not at all; a file of that name is replaced.

    metadata: bool, int, float, str, or lists of these, written in this order. types: the stored types of values, as in
    `GGUF.types`; the default is `type_of`. Tensors are aligned to `general.alignment`, else 32 bytes.
    NanollamaError for anything that the reader or llama.cpp would refuse, and for a full disk.
    """
    head, alignment = plan(metadata, tensors, types or {})
    with new_file(path) as file:
        file.write(head)
        for tensor in tensors:
            written = 0
            for piece in tensor.data():
                raw = piece.contiguous().reshape(-1)
                written += file.write(raw.numpy().data)
            if written != tensor.size:
                raise NanollamaError(f"tensor {quote(tensor.name)} came with {written:,} bytes: expected {tensor.size:,}")
            file.write(bytes(-written % alignment))


def plan(metadata: Mapping[str, Any], tensors: Sequence[NewTensor], types: Mapping[str, ValueType]) -> tuple[bytes, int]:
    """The bytes before the data, padded, and the alignment."""
    if max(len(metadata), len(tensors)) > MAX_ENTRIES:
        raise NanollamaError(
            f"{len(tensors):,} tensors and {len(metadata):,} metadata pairs can't be written: expected at most {MAX_ENTRIES:,}"
        )
    pairs = [stored_pair(key, value, types.get(key)) for key, value in metadata.items()]
    alignment = metadata.get(ALIGNMENT, DEFAULT_ALIGNMENT)
    if not is_alignment(alignment, types.get(ALIGNMENT) or type_of(alignment)) or alignment > MAX_ALIGNMENT:
        raise NanollamaError(
            f"{ALIGNMENT} is {quote(alignment)}: expected a power of two from 8 to {MAX_ALIGNMENT:,}, as UINT32"
        )
    entries: dict[str, bytes] = {}
    offset = 0
    for tensor in tensors:
        if tensor.name in entries:
            raise NanollamaError(f"tensor {quote(tensor.name)} can't be written twice: expected names that differ")
        entries[tensor.name] = stored_entry(tensor, offset)
        offset = pad(offset + tensor.size, alignment)
    head = b"".join([b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata)), *pairs, *entries.values()])
    if len(head) > MAX_BYTES:
        raise NanollamaError(f"metadata and tensor list take {len(head):,} bytes: expected at most {MAX_BYTES:,}")
    return head + bytes(-len(head) % alignment if tensors else 0), alignment


def stored_pair(key: str, value: Any, type_: ValueType | None) -> bytes:
    """The bytes of a metadata pair."""
    try:
        type_ = type_ or type_of(value)
        return stored_name(key, MAX_KEY_BYTES) + struct.pack("<I", type_.kind) + stored_value(value, type_)
    except NanollamaError as error:
        raise NanollamaError(f"metadata key {quote(key)} can't be written: {error}") from error


def stored_entry(tensor: NewTensor, offset: int) -> bytes:
    """The bytes of a tensor's entry in the list."""
    rank = len(tensor.shape)
    try:
        name = stored_name(tensor.name, MAX_NAME_BYTES)
        if rank > MAX_DIMENSIONS or any(not 1 <= length < 2**63 for length in tensor.shape):
            raise NanollamaError(f"its shape is {list(tensor.shape)}, expected at most {MAX_DIMENSIONS} lengths from 1 on")
        row_bytes(tensor.format, tensor.shape[-1] if tensor.shape else 1)
    except NanollamaError as error:
        raise NanollamaError(f"tensor {quote(tensor.name)} can't be written: {error}") from error
    return name + struct.pack(f"<I{rank}QIQ", rank, *reversed(tensor.shape), tensor.format.id, offset)


def stored_name(name: str, max_bytes: int) -> bytes:
    """The bytes of a metadata key or a tensor's name: 1 to `max_bytes` bytes of UTF-8, none of them 0."""
    raw = stored_string(name)
    size = len(raw) - LENGTH.size
    if not 1 <= size <= max_bytes or "\0" in name:
        zero = " and a zero character" if "\0" in name else ""
        raise NanollamaError(f"its name has {size:,} bytes{zero}: expected 1 to {max_bytes:,}, and no zero")
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise NanollamaError("its name has an unpaired surrogate, which has no UTF-8")
    return raw

"""Reads safetensors: a length, a JSON header, then the tensors' bytes, memory-mapped and never copied.

The format (https://github.com/huggingface/safetensors, section "Format"):

    8 bytes    N, the header's length, unsigned, little-endian
    N bytes    {"NAME": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [BEGIN, END]}, …}, UTF-8, starts with "{",
               may end in spaces; the optional key "__metadata__" maps strings to strings
    the rest   the data: little-endian, row-major; offsets count from here; no gaps and no overlaps

Every number is checked against the size of the file before anything is allocated. It reads only; to write, use the
`safetensors` library.
"""

import math
import mmap
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from nanollama.checkpoint.files import member, open_plain, parse_object, read_json
from nanollama.errors import NanollamaError, quote

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
MAX_HEADER_ITEMS = 1_000_000  # eight for each of 125,000 tensors; see MAX_JSON_ITEMS for what an item costs
MAX_DIMENSIONS = 64  # torch can't compute with more
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DAMAGED = "the file is cut or damaged: download it again"

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}


@dataclass(frozen=True)
class Entry:
    """One tensor of the header; its bytes are `begin:end`, counted from the start of the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of one file by name, in the header's order: CPU, contiguous, writable, backed by the mapped file.

    Pages are read on first touch and can be dropped by the system; writing to a tensor changes a private copy of the
    page, never the file. The mapping lives as long as any of the tensors, and the file must not be cut while it does.
    """
    with open_plain(path) as file:
        entries = _read_header(file, str(path))
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return {name: _tensor(memory, file, entry) for name, entry in entries.items()}


def read_header(path: Path) -> dict[str, Entry]:
    """The checked header of one file, without touching the data."""
    with open_plain(path) as file:
        return _read_header(file, str(path))


def read_folder(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of the checkpoint in `folder`, by name: from the shards of the index, or from the only safetensors file."""
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except (OSError, ValueError) as error:  # ValueError: a zero character in the path
        raise NanollamaError(f"no folder to read ({error}): expected the one that holds config.json and {SINGLE}") from error
    if INDEX in names:
        return _read_shards(folder, names)
    return read_safetensors(folder / _only_file(folder, names))


def _tensor(memory: mmap.mmap, file: BinaryIO, entry: Entry) -> torch.Tensor:
    """One tensor: a view of the mapped bytes, or a copy of them if they are not aligned to the element size."""
    if entry.begin == entry.end:  # torch.frombuffer refuses empty buffers
        return torch.empty(entry.shape, dtype=entry.dtype)
    if entry.begin % entry.dtype.itemsize == 0:
        flat = torch.frombuffer(
            memory, dtype=entry.dtype, count=(entry.end - entry.begin) // entry.dtype.itemsize, offset=entry.begin
        )
        return flat.reshape(entry.shape)
    # Early writers did not pad the header, and kernels may assume aligned elements. The bytes are read,
    # not copied out of the mapping, which would take the memory twice.
    copy = bytearray(entry.end - entry.begin)
    file.seek(entry.begin)
    file.readinto(copy)  # type: ignore[attr-defined]  # BinaryIO lacks it, every file opened "rb" has it
    return torch.frombuffer(copy, dtype=entry.dtype).reshape(entry.shape)


def _read_header(file: BinaryIO, source: str) -> dict[str, Entry]:
    if sys.byteorder != "little":
        raise NanollamaError(f"{source} is little-endian and this machine is not: that is not supported")
    size = os.fstat(file.fileno()).st_size
    if size < 8:
        raise NanollamaError(f"{source} has {size} bytes: expected at least the 8 of the header's length; {DAMAGED}")
    length = int.from_bytes(file.read(8), "little")
    if length > min(size - 8, MAX_HEADER_BYTES):
        raise NanollamaError(
            f"{source} announces a header of {length:,} bytes: expected at most {min(size - 8, MAX_HEADER_BYTES):,} "
            f"in a file of {size:,}; {DAMAGED}, or it is not safetensors"
        )
    raw = file.read(length)
    if not raw.startswith(b"{"):
        raise NanollamaError(f"{source}: the header starts with {quote(raw[:1])}, expected '{{'; {DAMAGED}")
    header = parse_object(raw, f"the header of {source}", MAX_HEADER_ITEMS)
    _check_metadata(header.pop("__metadata__", {}), source)
    entries = {name: _entry(value, 8 + length, f"{source}: tensor {quote(name)}") for name, value in header.items()}
    _check_layout(entries, 8 + length, size, source)
    return entries


def _check_metadata(metadata: Any, source: str) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise NanollamaError(f"{source}: __metadata__ is {quote(metadata)}, expected an object of strings")


def _entry(value: Any, start: int, what: str) -> Entry:
    """One checked header entry; `start` is where the data begins in the file."""
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise NanollamaError(f"{what} is {quote(value)}: expected exactly the keys dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise NanollamaError(f"{what} has dtype {quote(dtype)}: supported are {', '.join(DTYPES)}")
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise NanollamaError(f"{what} has shape {quote(shape)}: expected at most {MAX_DIMENSIONS} integers ≥ 0")
    # torch computes strides in int64, zeros counted as ones; Python's integers make the check itself exact
    if math.prod(max(1, dim) for dim in shape) * DTYPES[dtype].itemsize >= 2**63:
        raise NanollamaError(f"{what} has shape {quote(shape)}: that is more than 2⁶³ bytes")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise NanollamaError(f"{what} has data_offsets {quote(offsets)}: expected [begin, end] with 0 ≤ begin ≤ end")
    needed = math.prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != needed:
        raise NanollamaError(f"{what}: {dtype} {shape} needs {needed:,} bytes, but data_offsets is {quote(offsets)}")
    return Entry(DTYPES[dtype], tuple(shape), start + offsets[0], start + offsets[1])


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)  # not a bool


def _check_layout(entries: dict[str, Entry], start: int, size: int, source: str) -> None:
    """The tensors must tile the data exactly: each starts where the one before it ends, the last ends with the file."""
    end = start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != end:
            problem = "overlaps the tensor before it" if entry.begin < end else "leaves a gap before it"
            raise NanollamaError(
                f"{source}: tensor {quote(name)} starts at data byte {entry.begin - start:,} and {problem}, which ends "
                f"at {end - start:,}; {DAMAGED}"
            )
        end = entry.end
    if end != size:
        raise NanollamaError(f"{source} holds {size - start:,} bytes of data, but its tensors cover {end - start:,}; {DAMAGED}")


def _only_file(folder: Path, names: list[str]) -> str:
    """The name of the one safetensors file of an unsharded checkpoint."""
    files = [name for name in names if name.endswith(".safetensors")]
    if SINGLE in files:
        return SINGLE
    shard = next((match for name in files if (match := re.search(r"-of-(\d{1,9})\.", name)) and int(match[1]) > 1), None)
    if shard:
        raise NanollamaError(f"{folder} holds {shard.string}, one of {int(shard[1])} shards, but no {INDEX}: download it")
    if len(files) > 1:
        raise NanollamaError(f"{folder} holds {quote(files)}: expected {SINGLE}, or a single safetensors file")
    if not files:
        raise NanollamaError(f"{folder} holds no {SINGLE}: {_advice(names)}")
    return files[0]


def _advice(names: list[str]) -> str:
    suffixes = {Path(name).suffix for name in names}
    if suffixes & {".bin", ".pth", ".pt"}:
        return (
            "only PyTorch pickles, which can run code when opened and are never unpickled here; on a machine where you "
            "trust the file, load it with transformers and write it again with model.save_pretrained(folder)"
        )
    if ".gguf" in suffixes:
        return "only GGUF, which this version cannot read; give the original safetensors folder"
    return "download the model again, or give the folder that holds its weights"


def _read_shards(folder: Path, names: list[str]) -> dict[str, torch.Tensor]:
    """The tensors of all shards; each shard must hold exactly the tensors that the index lists for it."""
    listed = _listed(folder)
    paths = {shard: member(folder, shard) for shard in listed}
    missing = [shard for shard in listed if shard not in names]
    if missing:
        raise NanollamaError(
            f"{folder} lacks {quote(missing[0])}, {len(missing)} of the {len(listed)} shards that {INDEX} lists: "
            "download them again"
        )
    if SINGLE in names and SINGLE not in listed:
        raise NanollamaError(f"{folder} holds both {SINGLE} and an index of other files: delete the one that is stale")
    merged: dict[str, torch.Tensor] = {}
    for shard, path in paths.items():
        tensors = read_safetensors(path)
        for name in listed[shard] - tensors.keys():
            raise NanollamaError(f"{path} lacks tensor {quote(name)}, which {INDEX} lists there: {DAMAGED}")
        for name in tensors.keys() - listed[shard]:
            raise NanollamaError(f"{path} holds tensor {quote(name)}, which {INDEX} does not list there: {DAMAGED}")
        merged.update(tensors)
    return merged


def _listed(folder: Path) -> dict[str, set[str]]:
    """Shard name → the tensors that the index lists for it."""
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(s, str) for s in weight_map.values()):
        raise NanollamaError(f"{folder / INDEX}: weight_map is {quote(weight_map)}, expected tensor name → file name")
    listed: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        listed.setdefault(shard, set()).add(name)
    return dict(sorted(listed.items()))

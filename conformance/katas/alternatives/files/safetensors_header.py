"""Other right ways to check a header."""

import math
from typing import Any

from nanollama.checkpoint.safetensors import DTYPES, MAX_DIMENSIONS, Entry, _are_sizes
from nanollama.errors import NanollamaError, quote


def _entry__questions_first(value: Any, start: int, what: str) -> Entry:
    """one condition after the other, sizes multiplied one by one"""
    if type(value) is not dict or sorted(value) != ["data_offsets", "dtype", "shape"]:
        raise NanollamaError(f"{what} is {quote(value)}: expected exactly the keys dtype, shape and data_offsets")
    name, shape, place = value["dtype"], value["shape"], value["data_offsets"]
    dtype = DTYPES.get(name) if type(name) is str else None
    if dtype is None:
        raise NanollamaError(f"{what} has dtype {quote(name)}: there is no such dtype")
    if not _are_sizes(shape) or not len(shape) <= MAX_DIMENSIONS:
        raise NanollamaError(f"{what} has shape {quote(shape)}: expected sizes")
    counted, needed = dtype.itemsize, dtype.itemsize
    for size in shape:
        counted, needed = counted * (size or 1), needed * size
    if counted > 2**63 - 1:
        raise NanollamaError(f"{what} has shape {quote(shape)}: that is more than 2⁶³ bytes")
    if not (_are_sizes(place) and len(place) == 2 and place[0] <= place[1]):
        raise NanollamaError(f"{what} has data_offsets {quote(place)}: expected [begin, end]")
    begin, end = place
    if begin + needed != end:
        raise NanollamaError(f"{what}: {name} {shape} needs {needed:,} bytes, but has {end - begin:,}")
    return Entry(dtype, tuple(shape), begin + start, end + start)


def _check_layout__neighbours(entries: dict[str, Entry], start: int, size: int, source: str) -> None:
    """the places in order, each compared with the next"""
    places = sorted((entry.begin, entry.end, name) for name, entry in entries.items())
    ends = [start, *(end for _, end, _ in places)]
    for (begin, _, name), end in zip(places, ends, strict=False):
        if begin < end:
            raise NanollamaError(f"{source}: tensor {quote(name)} starts at data byte {begin - start:,} and overlaps another")
        if begin > end:
            raise NanollamaError(f"{source}: tensor {quote(name)} starts at data byte {begin - start:,} and leaves a gap")
    if ends[-1] != size:
        raise NanollamaError(f"{source} has {size - start} bytes of data, but its tensors cover {ends[-1] - start:,}")


def _entry__one_list(value: Any, start: int, what: str) -> Entry:
    """the conditions in a list, the first that holds is the error"""
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise NanollamaError(f"{what}: expected exactly the keys dtype, shape and data_offsets")
    dtype, shape, place = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise NanollamaError(f"{what} has dtype {quote(dtype)}")
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise NanollamaError(f"{what} has shape {quote(shape)}")
    if math.prod(size for size in shape if size) * DTYPES[dtype].itemsize >= 1 << 63:
        raise NanollamaError(f"{what} has shape {quote(shape)}: that is more than 2⁶³ bytes")
    if not _are_sizes(place) or len(place) != 2 or place != sorted(place):
        raise NanollamaError(f"{what} has data_offsets {quote(place)}")
    needed = DTYPES[dtype].itemsize * math.prod(shape)
    if place[1] != place[0] + needed:
        raise NanollamaError(f"{what} needs {needed:,} bytes")
    return Entry(DTYPES[dtype], (*shape,), *(start + at for at in place))

"""Mapped weights, written again: eight numbers at known places, then properties of every mapped tensor."""

import mmap
import random
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree
from nanollama.checkpoint.safetensors import Entry, _tensor

NUMBERS = struct.pack("<8f", 0, 1, 2, 3, 4, 5, 6, 7)


@contextmanager
def mapped(raw: bytes) -> Iterator[tuple[mmap.mmap, BinaryIO]]:
    """A file with these bytes, mapped copy-on-write."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights")
        path.write_bytes(raw)
        with path.open("rb") as file:
            yield mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), file


def f32(begin: int, end: int, *shape: int) -> Entry:
    """The header's entry of a float32 tensor in bytes begin … end - 1 of the file."""
    return Entry(torch.float32, shape, begin, end)


def address(memory: mmap.mmap, byte: int) -> int:
    """The memory address of a byte of the file."""
    return torch.frombuffer(memory, dtype=torch.uint8).data_ptr() + byte


def found(raw: bytes, entry: Entry) -> Tensor:
    """A copy of _tensor's result for an entry."""
    with mapped(raw) as (memory, file):
        return _tensor(memory, file, entry).clone()


def test_a_tensor_is_the_bytes_that_the_header_names() -> None:
    """Bytes 8 … 23 are the third number to the sixth: 2, 3, 4, 5."""
    agree("_tensor", found(NUMBERS, f32(8, 24, 4)), torch.tensor([2.0, 3.0, 4.0, 5.0]))


def test_rows_follow_each_other() -> None:
    """Six numbers as [2, 3]; a number alone has no axis."""
    agree("_tensor", found(NUMBERS, f32(0, 24, 2, 3)), torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]))
    agree("_tensor", found(NUMBERS, f32(28, 32)), torch.tensor(7.0))


def test_the_dtype_decides_what_the_bytes_mean() -> None:
    """0x3F80 is 1 in bfloat16, and two small numbers as uint8."""
    raw = bytes([0x80, 0x3F, 0x00, 0x40])
    agree("_tensor", found(raw, Entry(torch.bfloat16, (2,), 0, 4)), torch.tensor([1.0, 2.0]).bfloat16())
    agree("_tensor", found(raw, Entry(torch.uint8, (2,), 1, 3)), torch.tensor([0x3F, 0], dtype=torch.uint8))


def test_nothing_is_copied() -> None:
    """The tensor's first number is at the address of the file's byte 8."""
    with mapped(NUMBERS) as (memory, file):
        tensor = _tensor(memory, file, f32(8, 24, 2, 2))
        agree("whether the tensor lies at the file's mapped byte 8", tensor.data_ptr() == address(memory, 8), True)


def test_writing_changes_the_mapping_and_not_the_file() -> None:
    """The mapping is copy-on-write: writing 9 over 2 does not change the file."""
    with mapped(NUMBERS) as (memory, file):
        _tensor(memory, file, f32(8, 24, 4))[0] = 9.0
        agree("the number in the mapping", struct.unpack("<f", memory[8:12])[0], 9.0)
        agree("the bytes of the file", file.read().hex(), NUMBERS.hex())


def test_a_tensor_may_have_no_elements() -> None:
    """Three empty rows: there are no bytes to map, and the shape is kept."""
    agree("_tensor", found(NUMBERS, f32(8, 8, 3, 0)), torch.empty(3, 0))


def test_an_odd_address_is_not_mapped() -> None:
    """Three bytes in front: the numbers begin at byte 3, unaligned for float32. They are copied to an aligned address."""
    with mapped(b"abc" + NUMBERS) as (memory, file):
        tensor = _tensor(memory, file, f32(11, 27, 2, 2))
        agree("_tensor", tensor, torch.tensor([[2.0, 3.0], [4.0, 5.0]]))
        agree("the tensor's address, modulo 4", tensor.data_ptr() % 4, 0)


def test_a_copy_is_independent() -> None:
    """Two bytes in front, and the file's position has moved: the read begins at the tensor."""
    with mapped(b"ab" + NUMBERS) as (memory, file):
        file.read(17)
        tensor = _tensor(memory, file, f32(6, 18, 3))
        agree("_tensor", tensor, torch.tensor([1.0, 2.0, 3.0]))
        tensor[0] = 9.0
        agree("the number in the mapping", struct.unpack("<f", memory[6:10])[0], 1.0)


def test_every_dtype_is_mapped_where_its_size_divides_the_offset() -> None:
    """Two hundred random places: the numbers are those that struct reads there, and they are mapped exactly if aligned."""
    draw = random.Random(0)
    raw = draw.randbytes(256)
    with mapped(raw) as (memory, file):
        for _ in range(200):
            dtype, letter = draw.choice([(torch.int8, "b"), (torch.int16, "h"), (torch.int32, "i"), (torch.int64, "q")])
            size, count, begin = struct.calcsize(f"<{letter}"), draw.randrange(1, 9), draw.randrange(180)
            end = begin + size * count
            tensor = _tensor(memory, file, Entry(dtype, (count,), begin, end))
            want = torch.tensor(struct.unpack(f"<{count}{letter}", raw[begin:end]), dtype=dtype)
            agree(f"_tensor, of {dtype} from byte {begin} on", tensor, want)
            agree(f"whether byte {begin} is mapped", tensor.data_ptr() == address(memory, begin), begin % size == 0)

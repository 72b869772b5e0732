"""The header of a GGUF file, read again: bytes made by hand, then files with wrong numbers."""

import random
import struct
import tempfile
from pathlib import Path

import torch

from conformance.katas.testing.compare import agree, answers, refuses
from nanollama.checkpoint.gguf.reader import Entry, _check_layout, _read_entry, _read_metadata, pad, read_gguf
from nanollama.checkpoint.gguf.values import ValueReader, ValueType
from nanollama.errors import NanollamaError
from nanollama.quant.formats.table import find_format

UINT32, BOOL, STRING, UINT64 = 4, 7, 8, 10  # of values
F32, F16, Q8_0 = 0, 1, 8  # of tensors


def u32(*numbers: int) -> bytes:
    """Little-endian, four bytes each."""
    return struct.pack(f"<{len(numbers)}I", *numbers)


def u64(*numbers: int) -> bytes:
    """Little-endian, eight bytes each."""
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def string(text: str) -> bytes:
    """Its length in bytes, and the bytes."""
    return u64(len(text.encode())) + text.encode()


def reader(raw: bytes) -> ValueReader:
    """A reader at the start of these bytes."""
    return ValueReader(memoryview(raw), "model.gguf")


def alignment(number: int) -> bytes:
    """The pair that sets the alignment."""
    return string("general.alignment") + u32(UINT32, number)


def tensor(name: str, offset: int, kind: str = "F32", *shape: int) -> Entry:
    """An entry of the list of tensors; of 24 bytes, if no shape is given."""
    return Entry(name, shape or (6,), find_format(kind), offset)


def read_entry(raw: bytes) -> tuple[str, tuple[int, ...], str, int]:
    """The result of _read_entry for the name "w": name, shape, type and offset."""
    found = _read_entry(reader(raw), "w")
    return found.name, found.shape, found.format.name, found.offset


def test_pad_goes_to_the_next_multiple() -> None:
    """Of 32: 1 goes to 32, 33 to 64; 32 and 0 are multiples already."""
    for position, want in ((1, 32), (33, 64), (32, 32), (0, 0)):
        answers(pad, position, 32, want=want)
    answers(pad, 9, 8, want=16)


def test_a_pair_is_a_key_a_type_and_a_value() -> None:
    """A string, a number and a boolean; each is kept with its type."""
    pairs = string("general.name") + u32(STRING) + string("Ada")
    pairs += string("a.count") + u32(UINT32, 7) + string("a.flag") + u32(BOOL) + b"\1"
    values = {"general.name": "Ada", "a.count": 7, "a.flag": True}
    types = {"general.name": ValueType(STRING), "a.count": ValueType(UINT32), "a.flag": ValueType(BOOL)}
    answers(_read_metadata, reader(pairs), 3, want=(values, types))


def test_only_as_many_pairs_are_read_as_there_are() -> None:
    """The list of tensors begins after two pairs, and the reader's position must be there."""
    source = reader(string("a") + u32(UINT32, 1) + string("b") + u32(UINT32, 2) + b"tensors")
    agree("_read_metadata, its values", _read_metadata(source, 2)[0], {"a": 1, "b": 2})
    agree("where the reader stands", source.position, 2 * (8 + 1 + 4 + 4))


def test_a_key_comes_once() -> None:
    """One of two values would be used silently, and readers disagree which."""
    refuses(_read_metadata, reader((string("a.b") + u32(UINT32, 1)) * 2), 2, error=NanollamaError, naming="a.b")


def test_an_alignment_is_a_power_of_two_from_8_on() -> None:
    """As uint32. 24 is no power of two, 4 is too small, and a uint64 is another type."""
    answers(
        _read_metadata, reader(alignment(64)), 1, want=({"general.alignment": 64}, {"general.alignment": ValueType(UINT32)})
    )
    for number in (24, 4, 0):
        refuses(_read_metadata, reader(alignment(number)), 1, error=NanollamaError, naming="general.alignment")
    wide = string("general.alignment") + u32(UINT64) + u64(32)
    refuses(_read_metadata, reader(wide), 1, error=NanollamaError, naming="general.alignment")


def test_dimensions_come_fastest_first() -> None:
    """The file says 3 and then 2: rows of 3, two of them, which torch calls [2, 3]. Then the type, then the offset."""
    raw = u32(2) + u64(3, 2) + u32(F16) + u64(96)
    answers(read_entry, raw, want=("w", (2, 3), "F16", 96))


def test_a_tensor_may_have_no_dimension_and_up_to_four() -> None:
    """No dimension is a single number. Five are refused before anything else is read."""
    answers(read_entry, u32(0, F32) + u64(0), want=("w", (), "F32", 0))
    four = u32(4) + u64(5, 4, 3, 2) + u32(F32) + u64(0)
    answers(read_entry, four, want=("w", (2, 3, 4, 5), "F32", 0))
    refuses(read_entry, u32(5) + u64(1, 1, 1, 1, 1) + u32(F32) + u64(0), error=NanollamaError, naming="5")


def test_rows_are_whole_blocks() -> None:
    """Q8_0 stores 32 values at a time: rows of 64 are allowed, rows of 48 are not, although two of them are three blocks."""
    fits = u32(2) + u64(64, 3) + u32(Q8_0) + u64(0)
    answers(read_entry, fits, want=("w", (3, 64), "Q8_0", 0))
    answers(read_entry, u32(1) + u64(32) + u32(Q8_0) + u64(0), want=("w", (32,), "Q8_0", 0))
    for rank, *dimensions in ((2, 48, 2), (2, 48, 32), (0,)):
        raw = u32(rank) + u64(*dimensions) + u32(Q8_0) + u64(0)
        refuses(read_entry, raw, error=NanollamaError, naming="Q8_0")


def test_a_dimension_of_0_and_an_unknown_type_are_refused() -> None:
    """The bytes are missing, or the type is unknown."""
    refuses(read_entry, u32(2) + u64(3, 0) + u32(F32) + u64(0), error=NanollamaError, naming="0")
    refuses(read_entry, u32(1) + u64(3) + u32(999) + u64(0), error=NanollamaError, naming="999")


def test_tensors_follow_each_other_padded() -> None:
    """24 bytes each, aligned to 32: they begin at 0, 32 and 64. A Q8_0 row of 64 is 68 bytes, so the next begins at 96."""
    answers(_check_layout, reader(b""), [tensor("alpha", 0), tensor("beta", 32), tensor("gamma", 64)], 32, 88, want=None)
    answers(_check_layout, reader(b""), [tensor("alpha", 0, "Q8_0", 1, 64), tensor("beta", 96)], 32, 120, want=None)
    answers(_check_layout, reader(b""), [tensor("alpha", 0), tensor("beta", 64)], 64, 88, want=None)


def test_the_end_may_lack_its_padding_or_have_bytes_after_it() -> None:
    """24 bytes, or 1000: bytes after the last tensor are allowed. Without tensors no data is needed."""
    for room in (24, 32, 1000):
        answers(_check_layout, reader(b""), [tensor("alpha", 0)], 32, room, want=None)
    answers(_check_layout, reader(b""), [], 32, 0, want=None)


def test_no_tensor_lies_over_another_or_leaves_a_gap() -> None:
    """The second one at 0, at 24 without its padding, or at 64 although 32 is free."""
    for offset in (0, 24, 64):
        refuses(
            _check_layout,
            reader(b""),
            [tensor("alpha", 0), tensor("beta", offset)],
            32,
            500,
            error=NanollamaError,
            naming="beta",
        )
    refuses(_check_layout, reader(b""), [tensor("alpha", 32)], 32, 500, error=NanollamaError, naming="alpha")


def test_no_tensor_ends_after_the_file() -> None:
    """It needs bytes 32 … 55, and the file has one fewer; or the tensor is larger than any memory."""
    refuses(_check_layout, reader(b""), [tensor("alpha", 0), tensor("beta", 32)], 32, 55, error=NanollamaError, naming="beta")
    huge = tensor("alpha", 0, "F32", 2**62, 2**62)
    refuses(_check_layout, reader(b""), [huge], 32, 500, error=NanollamaError, naming="alpha")


def test_a_whole_file() -> None:
    """Two pairs, one of which sets the alignment to 64, and two tensors: 24 bytes at 0, and one number at 64."""
    head = b"GGUF" + u32(3) + u64(2, 2) + alignment(64) + string("a.name") + u32(STRING) + string("x")
    head += string("w") + u32(2) + u64(3, 2) + u32(F32) + u64(0)
    head += string("b") + u32(0, F32) + u64(64)
    start = -(-len(head) // 64) * 64
    data = struct.pack("<6f", 0, 1, 2, 3, 4, 5).ljust(64, b"\0") + struct.pack("<f", 7)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.gguf")
        path.write_bytes(head.ljust(start, b"\0") + data)
        model = read_gguf(path)
    agree("the metadata", model.metadata, {"general.alignment": 64, "a.name": "x"})
    for name, shape, want in (("w", (2, 3), torch.arange(6.0)), ("b", (), torch.tensor([7.0]))):
        agree(f"the shape of {name}", model.tensors[name].shape, shape)
        agree(f"the numbers of {name}", model.tensors[name].blocks.reshape(-1).view(torch.float32), want)


def test_any_list_without_gaps_is_taken_and_no_other() -> None:
    """Forty random lists; then one of the tensors is moved by one alignment."""
    draw = random.Random(0)
    for _ in range(40):
        step, end, entries = draw.choice([8, 32, 128]), 0, []
        for number in range(draw.randrange(1, 6)):
            count = draw.randrange(1, 60)
            start = end if end % step == 0 else (end // step + 1) * step
            entries.append(tensor(f"t{number}", start, "F16", count))
            end = start + 2 * count
        answers(_check_layout, reader(b""), entries, step, end, want=None)
        moved = draw.randrange(len(entries))
        entries[moved] = entries[moved]._replace(offset=entries[moved].offset + step)
        refuses(_check_layout, reader(b""), entries, step, end + 1000, error=NanollamaError, naming=f"t{moved}")

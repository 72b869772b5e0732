"""Reading GGUF: every value and every byte, no copies, and one clear error for every kind of damage.

The oracle is the `gguf` package; it also writes well-formed files. Files that it cannot write are made by sound_gguf.
NANOLLAMA_FUZZ_CASES sets the size of the fuzz's slice; the full run is `python -m conformance.fuzz.gguf --cases 50000`.
"""

import gc
import math
import os
import random
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFEndian, GGUFValueType, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import given
from hypothesis import strategies as st

from conformance.fuzz.checkpoint import Job, fuzz
from conformance.fuzz.gguf import TARGET, compare_with_peer
from conformance.fuzz.valid_gguf import ARRAY, NUMBERS, STRING, Model, Pair, Tensor, model_bytes, parts_of, random_model
from nanollama.checkpoint.gguf.reader import GGUF, read_gguf
from nanollama.errors import NanollamaError
from nanollama.quant import FORMATS, dequantize

U32, U64, F32 = 4, 10, 0
ONE_TWO = struct.pack("<2f", 1.0, 2.0)
X = Tensor(b"x", [2], F32, ONE_TWO)
BY_HAND = bytes.fromhex(
    "47475546 03000000 0100000000000000 0100000000000000"  # GGUF, version 3, 1 tensor, 1 pair
    "0100000000000000 61 04000000 07000000"  # a: uint32 7
    "0100000000000000 78 02000000 0200000000000000 0100000000000000 00000000 0000000000000000"  # x: dimensions 2 × 1, F32 at 0
    + "00" * 14  # 82 bytes so far, padded to 96
    + "0000803f 00000040"  # 1.0 and 2.0, little-endian float32
)


def read(tmp_path: Path, content: bytes | Model) -> GGUF:
    path = tmp_path / "model.gguf"
    path.write_bytes(content if isinstance(content, bytes) else model_bytes(content))
    return read_gguf(path)


def model(*pairs: Pair, tensors: list[Tensor] | None = None, alignment: int = 32) -> Model:
    return Model(3, alignment, list(pairs), [X] if tensors is None else tensors)


def write_parts(folder: Path, count: int = 3, changed: dict[int, Any] | None = None) -> list[Path]:
    """A model of four tensors in parts; `changed` maps a part's number to other pairs for it."""
    whole = model(Pair(b"a", U32, 7), tensors=[X._replace(name=b"x%d" % i) for i in range(4)])
    paths = [folder / f"m-{i + 1:05}-of-{count:05}.gguf" for i in range(count)]
    for i, (path, part) in enumerate(zip(paths, parts_of(whole, count), strict=True)):
        path.write_bytes(model_bytes(part._replace(**(changed or {}).get(i, {}))))
    return paths


# Well-formed files


def test_a_file_written_by_hand_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, BY_HAND)
    assert found.metadata == {"a": 7}
    (x,) = found.tensors.values()
    assert (x.name, x.shape, x.format.id, x.format.name) == ("x", (1, 2), 0, "F32")
    assert x.blocks.tolist() == [[0, 0, 0x80, 0x3F], [0, 0, 0, 0x40]]
    assert dequantize(x.blocks, x.format, x.shape).tolist() == [[1.0, 2.0]]


VALUES: dict[str, list[Any]] = {
    "uint8": [0, 255], "int8": [-128, 127], "uint16": [0, 65535], "int16": [-32768, 32767], "uint32": [0, 2**32 - 1],
    "int32": [-(2**31), 2**31 - 1], "uint64": [0, 2**64 - 1], "int64": [-(2**63), 2**63 - 1], "float32": [0.5, math.inf],
    "float64": [0.1, -math.inf], "bool": [True, False], "string": ["", "Ġé\0"],
}  # fmt: skip


def test_every_value_type_alone_and_in_arrays_is_read_as_the_package_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "llama")
    expected: dict[str, Any] = {"general.architecture": "llama"}
    for name, values in VALUES.items():
        kind = GGUFValueType[name.upper()]
        for i, value in enumerate(values):
            writer.add_key_value(f"{name}.{i}", value, kind)
            expected[f"{name}.{i}"] = value
        for length in (1, 2, 1000):
            expected[f"{name}.{length}"] = (values * length)[:length]
            writer.add_key_value(f"{name}.{length}", expected[f"{name}.{length}"], GGUFValueType.ARRAY, sub_type=kind)
    write_all(writer)
    found = read_gguf(path)
    assert found.metadata == expected and found.tensors == {}
    assert {key: type(value) for key, value in found.metadata.items()} == {key: type(value) for key, value in expected.items()}
    compare_with_peer(found, [path])


def write_all(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("name", FORMATS)
def test_tensors_of_every_format_are_the_bytes_that_the_package_reads(name: str, tmp_path: Path) -> None:
    kind = GGMLQuantizationType[name]
    size, stored = GGML_QUANT_SIZES[kind]
    path, rng = tmp_path / "model.gguf", np.random.default_rng(0)
    writer = GGUFWriter(path, "llama")
    for i, shape in enumerate([(2 * size,), (3, size), (2, 3, 2 * size), (2, 1, 3, size)]):
        raw = rng.integers(0, 256, (*shape[:-1], shape[-1] // size * stored), dtype=np.uint8)
        writer.add_tensor(f"blk.{i}.weight", raw, raw_dtype=kind)  # the package takes raw bytes of a type with their shape
    write_all(writer)
    found = read_gguf(path)
    compare_with_peer(found, [path])
    assert [x.shape for x in found.tensors.values()] == [(2 * size,), (3, size), (2, 3, 2 * size), (2, 1, 3, size)]
    assert all(x.blocks.shape == (math.prod(x.shape) // size, stored) for x in found.tensors.values())


def test_nested_and_empty_arrays_keep_their_structure(tmp_path: Path) -> None:
    nested = (ARRAY, [(U32, [1, 2]), (STRING, []), (ARRAY, [(STRING, [b"a"])])])
    pairs = [Pair(b"nested", ARRAY, nested), Pair(b"empty", ARRAY, (STRING, [])), Pair(b"none", ARRAY, (7, []))]
    found = read(tmp_path, model(*pairs))
    assert found.metadata == {"nested": [[1, 2], [], [["a"]]], "empty": [], "none": []}


def test_a_string_that_is_not_utf8_can_be_turned_into_its_bytes(tmp_path: Path) -> None:
    texts = [b"\xff\xfe", "é".encode(), b"\xed\xa0\x80", b"\xe2\x96", b"\0"]
    found = read(tmp_path, model(Pair(b"texts", ARRAY, (STRING, texts)), Pair(b"text", STRING, texts[0])))
    assert [text.encode("utf-8", "surrogateescape") for text in found.metadata["texts"]] == texts
    assert found.metadata["text"] == "\udcff\udcfe"
    assert found.metadata["texts"][1] == "é"


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_are_read(version: int, tmp_path: Path) -> None:
    assert read(tmp_path, model()._replace(version=version)).tensors["x"].blocks.numpy().tobytes() == ONE_TWO


@pytest.mark.parametrize("alignment", [8, 32, 64, 2**16])
def test_every_alignment_places_every_tensor(alignment: int, tmp_path: Path) -> None:
    content = model(
        Pair(b"general.alignment", U32, alignment), tensors=[X, X._replace(name=b"y", data=ONE_TWO[::-1])], alignment=alignment
    )
    tensors = read(tmp_path, content).tensors
    assert [tensors[name].blocks.numpy().tobytes() for name in "xy"] == [ONE_TWO, ONE_TWO[::-1]]
    assert all(x.blocks.data_ptr() % min(alignment, 4096) == 0 for x in tensors.values())


def test_the_last_padding_may_be_missing_and_bytes_after_the_data_are_ignored(tmp_path: Path) -> None:
    raw = model_bytes(model())
    for content in (raw[:-24], raw, raw + b"more"):
        assert read(tmp_path, content).tensors["x"].blocks.numpy().tobytes() == ONE_TWO
    with pytest.raises(NanollamaError, match=r"needs 8 bytes of data, but the file has 7 there"):
        read(tmp_path, raw[:-25])


def test_a_scalar_and_a_file_without_tensors_are_read(tmp_path: Path) -> None:
    assert read(tmp_path, model(tensors=[Tensor(b"x", [], F32, ONE_TWO[:4])])).tensors["x"].shape == ()
    assert read(tmp_path, model(Pair(b"a", U32, 1), tensors=[])).tensors == {}
    assert read(tmp_path, model(tensors=[])).metadata == {}


def test_tensors_are_views_of_one_private_mapping(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    before = model_bytes(model(tensors=[X, X._replace(name=b"y")]))
    tensors = read(tmp_path, before).tensors
    assert tensors["y"].blocks.data_ptr() - tensors["x"].blocks.data_ptr() == 32
    tensors["x"].blocks.fill_(7)
    assert path.read_bytes() == before, "writing to a tensor must not reach the file"
    kept = tensors.pop("y").blocks
    path.unlink()
    del tensors
    gc.collect()
    assert kept.numpy().tobytes() == ONE_TWO, "the mapping lives as long as one of its tensors"


@pytest.mark.skipif(sys.platform != "linux", reason="the list of mappings is read from /proc")
def test_the_mapping_is_closed_with_the_last_tensor(tmp_path: Path) -> None:
    path, maps = tmp_path / "named-for-this-test", Path("/proc/self/maps")
    path.write_bytes(BY_HAND)
    found = read_gguf(path)
    assert path.name in maps.read_text()
    del found
    gc.collect()
    assert path.name not in maps.read_text()


MEASURE = r"""
import pathlib, re, sys, torch
from nanollama.checkpoint.gguf.reader import read_gguf
peak = lambda: 1024 * int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1])
before = peak()
x = read_gguf(pathlib.Path(sys.argv[1])).tensors["x"]
mapped = peak() - before
x.blocks.max()
print(mapped, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_reading_every_byte_costs_the_file_once(tmp_path: Path) -> None:
    """256 MB of Q8_0 (a sparse file), touched end to end in a fresh process: at most 1.1 × its size in peak resident memory."""
    rows, path = 2**13, tmp_path / "model.gguf"
    path.write_bytes(model_bytes(model(tensors=[Tensor(b"x", [30720, rows], 8, b"")])))
    size = rows * 30720 // 32 * 34
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + size)
    done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
    mapped, touched = map(int, done.stdout.split())
    assert mapped < 0.05 * size, "mapping alone must not read the data"
    assert 0.9 * size < touched <= 1.1 * size


# Models in parts


@pytest.mark.parametrize("part", range(3))
def test_any_part_opens_the_whole_model(part: int, tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    found = read_gguf(paths[part])
    assert set(found.tensors) == {"x0", "x1", "x2", "x3"} and found.metadata["a"] == 7
    assert all(x.blocks.numpy().tobytes() == ONE_TWO for x in found.tensors.values())
    compare_with_peer(found, paths)


def test_a_model_that_the_package_splits_is_read(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=2, small_first_shard=True)
    for i in range(5):
        writer.add_tensor(f"x{i}", np.full((2, 3), i, dtype=np.float32))
    write_all(writer)
    paths = sorted(tmp_path.glob("*.gguf"))
    assert [path.name for path in paths] == [f"m-0000{i}-of-00004.gguf" for i in (1, 2, 3, 4)]
    found = read_gguf(paths[1])
    compare_with_peer(found, paths)
    assert list(found.tensors) == ["x0", "x1", "x2", "x3", "x4"]


def test_a_file_that_is_its_only_part_needs_no_particular_name(tmp_path: Path) -> None:
    for count in (0, 1):
        assert set(read(tmp_path, model(Pair(b"split.count", 2, count))).tensors) == {"x"}


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    paths[1].unlink()
    for path in (paths[0], paths[2]):
        with pytest.raises(NanollamaError, match=r"m-00002-of-00003.gguf is missing, one of 1 missing of 3 parts"):
            read_gguf(path)


def numbers(no: int, count: int, total: int) -> dict[str, Any]:
    return {"pairs": [Pair(b"split.no", 2, no), Pair(b"split.count", 2, count), Pair(b"split.tensors.count", 5, total)]}


DAMAGED_PARTS = {
    "a part of another place": ({1: numbers(2, 3, 4)}, r"split.no and split.count \(2, 3\): expected \(1, 3\)"),
    "a part of another split": ({1: numbers(1, 4, 4)}, r"split.no and split.count \(1, 4\): expected \(1, 3\)"),
    "a part without numbers": ({2: {"pairs": []}}, r"\(None, None\): expected \(2, 3\)"),
    "a tensor too few": ({2: {"tensors": []}}, r"m-00001-of-00003.gguf announces 4 tensors in 3 parts .*, but they hold 3"),
    "a tensor twice": ({2: {"tensors": [X._replace(name=b"x1")]}}, r"m-00003.* 'x1', which an earlier part holds too"),
    "another total": ({0: numbers(0, 3, 5)}, "announces 5 tensors in 3 parts"),
    "no total": ({0: {"pairs": numbers(0, 3, 5)["pairs"][:2]}}, "announces None tensors"),
    "a count that is no number": ({0: {"pairs": [Pair(b"split.count", STRING, b"3")]}}, "one of '3' parts"),
    "a huge count": ({0: {"pairs": [Pair(b"split.count", U64, 2**64 - 1)]}}, "one of 18446744073709551615 parts"),
    "a negative count": ({0: {"pairs": [Pair(b"split.count", 5, -3)]}}, "one of -3 parts"),
}


@pytest.mark.parametrize(("changed", "message"), DAMAGED_PARTS.values(), ids=DAMAGED_PARTS)
def test_a_damaged_part_is_refused(changed: dict[int, Any], message: str, tmp_path: Path) -> None:
    paths = write_parts(tmp_path, changed=changed)
    with pytest.raises(NanollamaError, match=message):
        read_gguf(paths[0])


@pytest.mark.parametrize("name", ["m.gguf", "m-00001-of-00004.gguf", "m-1-of-3.gguf", "m-٠٠٠٠١-of-٠٠٠٠٣.gguf"])
def test_a_part_whose_name_does_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    path = write_parts(tmp_path)[0].replace(tmp_path / name)
    with pytest.raises(NanollamaError, match=r"one of 3 parts by its split.count: expected a name that ends in"):
        read_gguf(path)


def test_a_part_whose_number_is_too_large_is_refused(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    (tmp_path / "m-00004-of-00003.gguf").write_bytes(paths[0].read_bytes())
    with pytest.raises(NanollamaError, match=r"m-00004-of-00003.gguf is not one of its 3 parts"):
        read_gguf(tmp_path / "m-00004-of-00003.gguf")


# Damage


def header(version: int = 3, tensors: int = 0, pairs: int = 0, order: str = "<") -> bytes:
    return b"GGUF" + struct.pack(f"{order}IQQ", version, tensors, pairs)


def text(raw: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def pair(kind: int, raw: bytes, key: bytes = b"k") -> bytes:
    return header(pairs=1) + text(key) + struct.pack("<I", kind) + raw


def array(kind: int, count: int, raw: bytes = b"") -> bytes:
    return pair(ARRAY, struct.pack("<IQ", kind, count) + raw)


def info(dimensions: list[int], kind: int = F32, offset: int = 0, rank: int | None = None, name: bytes = b"x") -> bytes:
    """The list of one tensor, and 64 bytes of data or a little more."""
    rank = len(dimensions) if rank is None else rank
    raw = header(tensors=1) + text(name) + struct.pack(f"<I{len(dimensions)}QIQ", rank, *dimensions, kind, offset)
    return raw + bytes(-len(raw) % 32 + 64)


CUT = "before the end of the file: it is cut or damaged"
DAMAGED_FILES = {
    "empty file": (b"", "has 0 bytes: expected at least the 24"),
    "cut in the header": (header()[:23], "has 23 bytes"),
    "another format": (b"PK\3\4" + bytes(20), r"starts with b'PK\\x03\\x04', expected b'GGUF'"),
    "the format before GGUF": (b"tjgg" + bytes(20), "expected b'GGUF'"),
    "version 0": (header(0), "GGUF version 0: expected 2 or 3"),
    "version 1": (header(1), "GGUF version 1: expected 2 or 3; convert the model again, llama.cpp dropped it too"),
    "version 4": (header(4), "GGUF version 4: expected 2 or 3.* or too new"),
    "big endian": (header(order=">"), "is a big-endian GGUF file: only little-endian"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"),
    "more pairs than fit": (header(pairs=2), f"metadata pair 1 of 2 needs 8 bytes at byte 24, but there are 0 {CUT}"),
    "2**64-1 pairs": (header(pairs=2**64 - 1), "announces 0 tensors and 18,446,744,073,709,551,615 metadata pairs"),
    "2**63 tensors": (header(tensors=2**63), "announces 9,223,372,036,854,775,808 tensors and 0 .*: expected at most 65,536"),
    "key without end": (header(pairs=1) + text(b"k", 2**64 - 1), "needs 18,446,744,073,709,551,615 bytes at byte 32"),
    "empty key": (pair(U32, bytes(4), b""), "pair 1 of 1 has a name of 0 bytes: expected 1 to 65,535"),
    "long key": (pair(U32, bytes(4), b"k" * 65_536), "has a name of 65,536 bytes"),
    "key that is not UTF-8": (pair(U32, bytes(4), b"k\xff"), r"has the name b'k\\xff': expected UTF-8"),
    "key twice": (header(pairs=2) + (text(b"k") + struct.pack("<II", 4, 1)) * 2, "key 'k' occurs twice"),
    "cut in a value type": (header(pairs=1) + text(b"k") + b"\4", f"key 'k' needs 4 bytes at byte 33, but there are 1 {CUT}"),
    "value type 13": (pair(13, bytes(8)), "key 'k' has value type 13: expected 0 to 12"),
    "value type 2**32-1": (pair(2**32 - 1, bytes(8)), "value type 4294967295"),
    "cut in a number": (pair(10, bytes(7)), f"needs 8 bytes at byte 37, but there are 7 {CUT}"),
    "boolean 2": (pair(7, b"\2"), "'k' holds a boolean of value 2: expected 0 or 1"),
    "boolean 255 in an array": (array(7, 3, b"\0\1\xff"), "boolean of value 255"),
    "cut in a string's length": (pair(8, bytes(7)), f"needs 8 bytes at byte 37, but there are 7 {CUT}"),
    "string without end": (pair(8, text(b"abc", 4)), f"needs 4 bytes at byte 45, but there are 3 {CUT}"),
    "string of 2**64-1 bytes": (pair(8, text(b"abc", 2**64 - 1)), "needs 18,446,744,073,709,551,615 bytes"),
    "array without a length": (pair(9, b"\4\0\0\0"), "needs 8 bytes"),
    "array of unknown type": (array(13, 0), "is an array of value type 13"),
    "array of 2**62 numbers": (array(4, 2**62), "needs 18,446,744,073,709,551,616 bytes at byte 49"),
    "array of 2**61 strings": (array(8, 2**61), "needs 18,446,744,073,709,551,616 bytes at byte 49"),
    "array of a string too many": (array(8, 2, text(b"abcdefgh")), f"needs 8 bytes at byte 65, but there are 0 {CUT}"),
    "array of 2**60 arrays": (array(9, 2**60), "needs 13,835,058,055,282,163,712 bytes"),
    "nesting": (array(9, 1, struct.pack("<IQ", 9, 1) * 100_000), "key 'k' is nested too deeply: expected at most 8"),
    "5,000,001 booleans": (array(7, 5_000_001, bytes(5_000_001)), "to 5,000,001: expected at most 5,000,000"),
    "80,000 arrays": (array(9, 80_000, bytes(12 * 80_000)), "elements of this file to 5,120,000: expected at most 5,000,000"),
    "tensor without a name": (info([2], name=b""), "tensor 1 of 1 has a name of 0 bytes: expected 1 to 64"),
    "tensor with a long name": (info([2], name=b"x" * 65), "has a name of 65 bytes: expected 1 to 64"),
    "tensor name that is not UTF-8": (info([2], name=b"\xff"), "expected UTF-8"),
    "tensor twice": (model_bytes(model(tensors=[X, X])), "tensor 'x' occurs twice"),
    "five dimensions": (info([1] * 5), "'x' has 5 dimensions: expected at most 4"),
    "2**32-1 dimensions": (info([], rank=2**32 - 1), "has 4,294,967,295 dimensions"),
    "dimension 0": (info([0]), r"has shape \[0\]: expected no dimension of 0"),
    "dimension 0 of type Q4_0": (info([0, 5], 2), r"has shape \[5, 0\]"),
    "product of 2**64": (info([2**32, 2**32]), r"of type F32 and shape \[.*\] needs 73,786,976,294,838,206,464 bytes"),
    "product of 2**256": (info([2**63] * 4), "needs .* bytes of data, but the file has 64 there"),
    "size of 2**63": (info([2**61]), "needs 9,223,372,036,854,775,808 bytes of data, but the file has 64 there"),
    "data past the end": (info([17]), r"F32 and shape \[17\] needs 68 bytes of data, but the file has 64 there"),
    "no data at all": (info([2])[:57], "needs 8 bytes of data, but the file has 0 there"),
    "cut in the tensor list": (info([2])[:50], f"tensor 'x' needs 8 bytes at byte 49, but there are 1 {CUT}"),
    "rows of half blocks": (info([48], 2), "has rows of 48 values: Q4_0 stores 32 at a time"),
    "rows of half blocks, whole blocks in all": (info([16, 2], 2), "has rows of 16 values"),
    "removed type": (info([32], 4), r"'x' is refused: ggml type 4, which is Q4_2 \(removed from ggml\),"),
    "unknown type": (info([32], 999), "'x' is refused: ggml type 999 can't be read; expected one of F32"),
    "type 2**32-1": (info([32], 2**32 - 1), "ggml type 4294967295"),
    "unaligned offset": (info([2], offset=4), "byte 4: expected 0, the end of the tensor before it padded to 32"),
    "gap": (info([2], offset=32), "starts at data byte 32: expected 0"),
    "offset 2**64-32": (info([2], offset=2**64 - 32), "starts at data byte 18,446,744,073,709,551,584"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), DAMAGED_FILES.values(), ids=DAMAGED_FILES)
def test_a_damaged_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(NanollamaError, match=message) as caught:
        read(tmp_path, content)
    assert len(str(caught.value)) < 600 + len(str(tmp_path)) and str(caught.value).isprintable()


def test_tensors_that_overlap_or_leave_a_gap_are_refused(tmp_path: Path) -> None:
    sound = model_bytes(model(tensors=[X, X._replace(name=b"y")]))
    place = sound.index(struct.pack("<IQ", F32, 32)) + 4
    for offset in (0, 8, 31, 33, 64):
        with pytest.raises(NanollamaError, match=rf"'y' starts at data byte {offset}: expected 32"):
            read(tmp_path, sound[:place] + struct.pack("<Q", offset) + sound[place + 8 :])


@pytest.mark.parametrize(
    ("kind", "value"), [(4, 0), (4, 1), (4, 4), (4, 24), (4, 2**32 - 1), (10, 32), (5, -32), (STRING, b"32")]
)
def test_an_alignment_that_is_no_power_of_two_or_no_uint32_is_refused(kind: int, value: Any, tmp_path: Path) -> None:
    with pytest.raises(NanollamaError, match=r"'general.alignment' is .*: expected a power of two from 8 on, of type 4"):
        read(tmp_path, model(Pair(b"general.alignment", kind, value)))


def test_an_alignment_beyond_the_file_is_refused_where_there_is_data(tmp_path: Path) -> None:
    huge = Pair(b"general.alignment", U32, 2**31)
    with pytest.raises(NanollamaError, match="needs 8 bytes of data, but the file has 0 there"):
        read(tmp_path, model(huge))
    assert read(tmp_path, model(huge, tensors=[])).tensors == {}


def test_a_string_of_a_gigabyte_of_nothing_is_refused_unread(tmp_path: Path) -> None:
    """A sparse file that really is that long: the limit on what stands before the data holds."""
    path = tmp_path / "model.gguf"
    path.write_bytes(pair(8, text(b"", 2**30)))
    with path.open("r+b") as file:
        file.truncate(2**31)
    with pytest.raises(NanollamaError, match="before byte 100,000,000, where the limit on metadata and tensor list is"):
        read_gguf(path)


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    raw = model_bytes(model(Pair(b"k", ARRAY, (STRING, [b"ab", b"c"])), Pair(b"n", 12, 0.5)))
    for length in range(len(raw) - 24):  # the last 24 bytes are padding
        with pytest.raises(NanollamaError, match="cut or damaged"):
            read(tmp_path, raw[:length])


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NanollamaError, match="not a plain file"):
        read_gguf(tmp_path)
    with pytest.raises(NanollamaError, match="cannot be read"):
        read_gguf(tmp_path / "missing.gguf")


# Any model, real files, and the fuzz


@given(seed=st.integers(0, 2**32), count=st.integers(1, 4))
def test_any_sound_model_is_read_as_the_package_reads_it(
    seed: int, count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = random_model(random.Random(seed))
    folder = tmp_path_factory.mktemp("sound")
    paths = [folder / f"m-{i + 1:05}-of-{count:05}.gguf" for i in range(count)]
    for path, part in zip(paths, parts_of(whole, count), strict=True):
        path.write_bytes(model_bytes(part))
    found = read_gguf(paths[seed % count])
    compare_with_peer(found, paths)
    assert {x.name.encode(): x.blocks.numpy().tobytes() for x in found.tensors.values()} == {
        x.name: x.data for x in whole.tensors
    }


VOCABULARIES = [
    *("deepseek-llm", "gemma-4", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2", "starcoder"),
]
SMALL = ["gpt-2", "llama-spm", "phi-3", "starcoder"]  # the package takes half a minute for all of them


def vocabulary(data_dir: Path, name: str) -> Path:
    return data_dir / "tokenizers" / "ggml-vocab" / f"ggml-vocab-{name}.gguf"


def stored(kind: int, value: Any, raw: bytes) -> bytes:
    """A value as a file holds it; `raw` starts with the file's own bytes of it, which only tell the type of elements."""
    if kind == STRING:
        return text(value.encode("utf-8", "surrogateescape"))
    if kind != ARRAY:
        return struct.pack(f"<{NUMBERS[kind]}", value)
    element = int.from_bytes(raw[:4], "little")
    return struct.pack("<IQ", element, len(value)) + b"".join(stored(element, item, b"") for item in value)


@pytest.mark.parametrize("name", VOCABULARIES)
def test_real_metadata_written_again_are_the_bytes_of_the_file(name: str, data_dir: Path) -> None:
    raw = vocabulary(data_dir, name).read_bytes()
    found = read_gguf(vocabulary(data_dir, name))
    place = 24
    for key, value in found.metadata.items():
        kind = int.from_bytes(raw[place + 8 + len(key.encode()) :][:4], "little")
        start = text(key.encode()) + struct.pack("<I", kind)
        start += stored(kind, value, raw[place + len(start) :])
        assert raw[place : place + len(start)] == start, f"{key} is not what the file holds"
        place += len(start)
    assert raw[:24] == header(int.from_bytes(raw[4:8], "little"), 0, len(found.metadata)) and found.tensors == {}
    assert len(raw) - place < 32, "nothing follows but padding"
    assert len(found.metadata["tokenizer.ggml.tokens"]) == len(found.metadata["tokenizer.ggml.token_type"]) >= 32_000


@pytest.mark.parametrize("name", SMALL)
def test_real_metadata_read_as_the_package_reads_them(name: str, data_dir: Path) -> None:
    path = vocabulary(data_dir, name)
    compare_with_peer(read_gguf(path), [path])


def test_a_real_model_reads_as_the_package_reads_it(data_dir: Path) -> None:
    path = data_dir / "weights" / "stories260K.gguf"
    found = read_gguf(path)
    compare_with_peer(found, [path])
    assert len(found.tensors) == 48 and found.tensors["token_embd.weight"].shape == (512, 64)


def test_every_real_vocabulary_is_in_the_list(data_dir: Path) -> None:
    paths = sorted((data_dir / "tokenizers" / "ggml-vocab").glob("*.gguf"))
    assert paths == [vocabulary(data_dir, name) for name in VOCABULARIES]


def test_big_endian_files_of_the_package_are_refused_by_name(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "a", "llama", endianess=GGUFEndian.BIG)
    write_all(writer)
    with pytest.raises(NanollamaError, match="big-endian"):
        read_gguf(tmp_path / "a")


@pytest.mark.skipif(sys.platform != "linux", reason="the fuzz reads a worker's memory from /proc")
def test_no_mutated_file_escapes_the_one_error() -> None:
    kinds, cases = Counter[str](), int(os.environ.get("NANOLLAMA_FUZZ_CASES", "300"))
    for outcome in fuzz(Job(TARGET), range(cases)):
        assert not outcome.is_finding, f"case {outcome.case} {outcome.kind}\n{outcome.detail}"
        kinds[outcome.kind] += 1
    assert kinds["loaded"] > cases / 20 and kinds["refused"] > cases / 2, "neither kind may be rare, or little is tested"


def test_the_comparison_sees_a_wrong_value_and_a_wrong_byte(tmp_path: Path) -> None:
    found, path = read(tmp_path, model(Pair(b"a", U32, 7), Pair(b"s", STRING, b"x"))), tmp_path / "model.gguf"
    compare_with_peer(found, [path])
    for metadata in ({"a": 8, "s": "x"}, {"a": 7.0, "s": "x"}, {"a": True, "s": "x"}, {"a": 7, "s": "y"}, {"s": "x", "a": 7}):
        with pytest.raises(AssertionError):
            compare_with_peer(GGUF(metadata, found.tensors), [path])
    found.tensors["x"].blocks[1, 0] = 1
    with pytest.raises(AssertionError, match="tensor"):
        compare_with_peer(found, [path])

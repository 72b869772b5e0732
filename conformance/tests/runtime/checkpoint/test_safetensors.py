"""Reading one safetensors file: right bytes, no copies, and one clear error for every kind of damage.

The oracle is the `safetensors` library; it also writes the well-formed files.
"""

import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanollama.checkpoint.safetensors import DTYPES, read_header, read_safetensors
from nanollama.errors import NanollamaError

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
ONE_TWO = bytes.fromhex("0000803f 00000040")  # 1.0 and 2.0, little-endian float32


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    """A file with this data after this header: its bytes as they are, or an object, padded as the library pads it."""
    raw = header
    if not isinstance(header, bytes):
        raw = json.dumps(header).encode()
        raw += b" " * (-len(raw) % 8)
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


def same_bytes(left: torch.Tensor, right: torch.Tensor) -> bool:
    return torch.equal(left.reshape(-1).view(torch.uint8), right.reshape(-1).view(torch.uint8))


def test_a_file_written_by_hand_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a", {"x": F32}, ONE_TWO)
    assert {name: tensor.tolist() for name, tensor in read_safetensors(path).items()} == {"x": [1.0, 2.0]}
    entry = read_header(path)["x"]
    assert (entry.dtype, entry.shape, entry.end - entry.begin) == (torch.float32, (2,), 8)
    assert path.read_bytes()[entry.begin : entry.end] == ONE_TWO


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_reads_as_the_library_reads_it(name: str, tmp_path: Path) -> None:
    raw = torch.arange(48, dtype=torch.uint8) % 2 if name == "BOOL" else torch.arange(48, dtype=torch.uint8) * 5
    path = tmp_path / "a"
    safetensors.torch.save_file({"x": raw.view(DTYPES[name]).reshape(2, -1)}, path)
    (ours,), (theirs,) = read_safetensors(path).values(), safetensors.torch.load_file(path).values()
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    assert same_bytes(ours, theirs) and same_bytes(ours, raw)
    assert f'"dtype":"{name}"'.encode() in path.read_bytes()


def test_every_dtype_that_the_library_and_torch_share_is_supported() -> None:
    packed = {torch.float4_e2m1fn_x2}  # two values in a byte: its shape is not the header's
    assert set(DTYPES.values()) == set(safetensors.torch._TYPES.values()) | {torch.float8_e8m0fnu} - packed


def test_a_scalar_an_empty_tensor_and_an_empty_file_are_read(tmp_path: Path) -> None:
    header = {
        "none": {"dtype": "F32", "shape": [0, 3], "data_offsets": [0, 0]},
        "one": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
        "end": {"dtype": "I64", "shape": [2, 0], "data_offsets": [4, 4]},
    }
    tensors = read_safetensors(write(tmp_path / "a", header, ONE_TWO[:4]))
    assert [tuple(tensor.shape) for tensor in tensors.values()] == [(0, 3), (), (2, 0)]
    assert tensors["one"].item() == 1.0
    assert read_safetensors(write(tmp_path / "b", {})) == {}


@pytest.mark.parametrize("padding", range(8))
def test_data_at_any_alignment_gives_aligned_tensors(padding: int, tmp_path: Path) -> None:
    entry = {"dtype": "F64", "shape": [2], "data_offsets": [0, 16]}
    path = write(tmp_path / "a", json.dumps({"x": entry}).encode() + b" " * padding, bytes(range(16)))
    (tensor,) = read_safetensors(path).values()
    assert bytes(tensor.view(torch.uint8).tolist()) == bytes(range(16))
    assert tensor.data_ptr() % 8 == 0


def test_tensors_are_views_of_one_private_mapping(tmp_path: Path) -> None:
    path = tmp_path / "a"
    safetensors.torch.save_file({"x": torch.zeros(1000), "y": torch.ones(1000)}, path)
    before = path.read_bytes()
    tensors = read_safetensors(path)
    assert abs(tensors["x"].data_ptr() - tensors["y"].data_ptr()) == 4000
    tensors["x"].fill_(7)
    assert path.read_bytes() == before, "writing to a tensor must not reach the file"
    kept = tensors.pop("y")
    path.unlink()
    del tensors
    gc.collect()
    assert kept.sum() == 1000, "the mapping lives as long as one of its tensors"


@pytest.mark.skipif(sys.platform != "linux", reason="the list of mappings is read from /proc")
def test_the_mapping_is_closed_with_the_last_tensor(tmp_path: Path) -> None:
    path = write(tmp_path / "named-for-this-test", {"x": F32}, ONE_TWO)
    maps = Path("/proc/self/maps")
    tensors = read_safetensors(path)
    assert path.name in maps.read_text()
    del tensors
    gc.collect()
    assert path.name not in maps.read_text()


DAMAGED_FILES = {
    "empty file": (b"", "has 0 bytes"),
    "cut in the length": (b"\x10\0\0", "has 3 bytes"),
    "header longer than the file": ((100).to_bytes(8, "little") + b"{}", "announces a header of 100 bytes"),
    "header of 2**64-1 bytes": (b"\xff" * 8 + b"{}", "announces a header of 18,446,744,073,709,551,615 bytes"),
    "no header": (bytes(8), "expected '{'"),
    "a list": ((2).to_bytes(8, "little") + b"[]", "expected '{'"),
    "leading space": ((3).to_bytes(8, "little") + b" {}", "expected '{'"),
    "not UTF-8": ((4).to_bytes(8, "little") + b'{"\xff"', "utf-8"),
    "not JSON": ((5).to_bytes(8, "little") + b"{x:1}", "not acceptable JSON"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED_FILES.values(), ids=DAMAGED_FILES)
def test_a_damaged_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(NanollamaError, match=message):
        read_safetensors(tmp_path / "a")


DAMAGED_HEADERS = {
    "unknown dtype": ({"x": {**F32, "dtype": "Q4"}}, "dtype 'Q4': supported are BOOL"),
    "dtype of another type": ({"x": {**F32, "dtype": ["F32"]}}, r"dtype \['F32'\]"),
    "negative size": ({"x": {**F32, "shape": [-2]}}, r"shape \[-2\]"),
    "true as a size": ({"x": {**F32, "shape": [True, 2]}}, r"shape \[True, 2\]"),
    "fraction as a size": ({"x": {**F32, "shape": [2.0]}}, r"shape \[2.0\]"),
    "shape of another type": ({"x": {**F32, "shape": 2}}, "shape 2: expected"),
    "65 dimensions": ({"x": {**F32, "shape": [1] * 64 + [2]}}, "at most 64 integers"),
    "absurd sizes": ({"x": {**F32, "shape": [2**40, 2**40]}}, "more than 2⁶³ bytes"),
    "absurd strides of nothing": ({"x": {**F32, "shape": [0, 2**62, 2**62]}}, "more than 2⁶³ bytes"),
    "shape that needs more": ({"x": {**F32, "shape": [3]}}, r"F32 \[3\] needs 12 bytes"),
    "shape that needs less": ({"x": {**F32, "shape": [1]}}, r"F32 \[1\] needs 4 bytes"),
    "offsets swapped": ({"x": {**F32, "data_offsets": [8, 0]}}, "expected .begin, end."),
    "offset negative": ({"x": {**F32, "data_offsets": [-8, 0]}}, "expected .begin, end."),
    "one offset": ({"x": {**F32, "data_offsets": [8]}}, "expected .begin, end."),
    "offsets past the end": ({"x": {**F32, "data_offsets": [2**62, 2**62 + 8]}}, "leaves a gap"),
    "overlap": ({"x": F32, "y": {**F32, "data_offsets": [4, 12]}}, "'y' starts at data byte 4 and overlaps"),
    "same bytes twice": ({"x": F32, "y": F32}, "overlaps"),
    "gap": ({"x": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]}}, "'x' starts at data byte 4 and leaves a gap"),
    "too much data": ({"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}, "8 bytes of data, but .* cover 4"),
    "too little data": ({"x": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}}, "8 bytes of data, but .* cover 9"),
    "missing key": ({"x": {"dtype": "F32", "shape": [2]}}, "expected exactly the keys"),
    "unknown key": ({"x": {**F32, "stride": [1]}}, "expected exactly the keys"),
    "entry of another type": ({"x": [1]}, "expected exactly the keys"),
    "metadata of another type": ({"__metadata__": {"a": 1}, "x": F32}, "expected an object of strings"),
    "duplicate tensor": (b'{"x":%b,"x":%b}' % (json.dumps(F32).encode(), json.dumps(F32).encode()), "'x' occurs twice"),
    "NaN": (b'{"x":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', "NaN is not a JSON number"),
    "5,000 digits": (b'{"x":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}', "5000 characters"),
    "nesting": (b'{"x":' + b"[" * 100_000, "nested too deeply"),
    "a million lists": (b'{"x":[' + b"[]," * 1_000_000, "2,000,002 JSON items: expected at most 1,000,000"),
}


@pytest.mark.parametrize(("header", "message"), DAMAGED_HEADERS.values(), ids=DAMAGED_HEADERS)
def test_a_damaged_header_is_refused(header: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(NanollamaError, match=message) as caught:
        read_safetensors(write(tmp_path / "a", header, ONE_TWO))
    assert len(str(caught.value)) < 600 + len(str(tmp_path))


def test_a_hostile_name_is_shortened_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(NanollamaError) as caught:
        read_safetensors(write(tmp_path / "a", {"\x1b" * 1_000_000: 1}))
    assert len(str(caught.value)) < 600 + len(str(tmp_path)) and str(caught.value).isprintable()


NAMES = st.text(max_size=20).filter(lambda name: name != "__metadata__")
KINDS = st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.uint8])


@given(spec=st.dictionaries(NAMES, st.tuples(KINDS, st.lists(st.integers(0, 4), max_size=4)), max_size=5))
def test_what_the_library_writes_is_read_back(
    spec: dict[str, tuple[torch.dtype, list[int]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("written") / "a"
    tensors = {name: torch.randint(0, 100, shape).to(dtype) for name, (dtype, shape) in spec.items()}
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    ours = read_safetensors(path)
    assert ours.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (ours[name].dtype, ours[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(ours[name], tensor)


@given(place=st.integers(0, 200), byte=st.integers(0, 255))
def test_what_is_accepted_with_one_byte_changed_is_what_the_library_reads(
    place: int, byte: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("changed") / "a"
    safetensors.torch.save_file({"x": torch.arange(6.0).reshape(2, 3), "y": torch.ones(4, dtype=torch.int8)}, path)
    raw = bytearray(path.read_bytes())
    raw[place % len(raw)] = byte
    path.write_bytes(raw)
    try:
        ours = read_safetensors(path)
    except NanollamaError:
        return
    theirs = safetensors.torch.load_file(path)
    assert ours.keys() == theirs.keys()
    assert all(ours[name].shape == theirs[name].shape and same_bytes(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("model", ["stories260K-hf", "babyllama-tok105-hf"])
def test_real_checkpoints_read_as_the_library_reads_them(model: str, data_dir: Path) -> None:
    path = data_dir / "weights" / model / "model.safetensors"
    ours, theirs = read_safetensors(path), safetensors.torch.load_file(path)
    assert ours.keys() == theirs.keys()
    assert all(ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in theirs)


MEASURE = r"""
import pathlib, re, sys, torch
from nanollama.checkpoint.safetensors import read_safetensors
peak = lambda: 1024 * int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1])
before = peak()
x = read_safetensors(pathlib.Path(sys.argv[1]))["x"]
mapped = peak() - before
x.view(torch.int16).max()
print(mapped, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("padding", [0, 1], ids=["aligned", "unaligned"])
def test_reading_every_byte_costs_the_file_once(padding: int, tmp_path: Path) -> None:
    """256 MB (a sparse file), touched end to end in a fresh process: at most 1.1 × its size in peak resident memory."""
    size, path = 2**28, tmp_path / "a"
    header = json.dumps({"x": {"dtype": "BF16", "shape": [2**13, 2**14], "data_offsets": [0, size]}}).encode()
    write(path, header + b" " * (padding + len(header) % 2))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + size)
    done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
    mapped, touched = map(int, done.stdout.split())
    assert padding or mapped < 0.05 * size, "mapping alone must not read the data"
    assert 0.9 * size < touched <= 1.1 * size

"""Writing GGUF: what is written is what the reader, the `gguf` package and llama.cpp read, type by type and byte by byte.

Files made by sound_gguf and by others are copied; NANOLLAMA_LLAMACPP may name an interpreter that has llama-cpp-python.
"""

import json
import random
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader, GGUFValueType
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from conformance.fuzz.gguf import compare_with_peer
from conformance.fuzz.valid_gguf import model_bytes, random_model
from conformance.truth.peers.llamacpp_quantize import peer_python
from nanollama.checkpoint.gguf.reader import GGUF, read_gguf
from nanollama.checkpoint.gguf.values import ARRAY, BOOL, FLOAT32, INT32, INT64, STRING, UINT32, UINT64, ValueType
from nanollama.checkpoint.gguf.writer import NewTensor, encoded, stored, write_gguf
from nanollama.errors import NanollamaError
from nanollama.quant import FORMATS, dequantize, quantize

BY_HAND = bytes.fromhex(
    "47475546 03000000 0100000000000000 0100000000000000"  # GGUF, version 3, 1 tensor, 1 pair
    "0100000000000000 61 04000000 07000000"  # a: uint32 7
    "0100000000000000 78 02000000 0200000000000000 0100000000000000 00000000 0000000000000000"  # x: dimensions 2 × 1, F32 at 0
    + "00" * 14  # 82 bytes so far, padded to 96
    + "0000803f 00000040"  # 1.0 and 2.0, little-endian float32
    + "00" * 24  # padded to 32
)


def tensor(name: str = "x", shape: tuple[int, ...] = (1, 2), format: str = "F32", data: Tensor | None = None) -> NewTensor:
    content = torch.tensor([1.0, 2.0]).view(torch.uint8) if data is None else data
    return NewTensor(name, shape, FORMATS[format], lambda: [content])


def copy(model: GGUF, path: Path) -> GGUF:
    write_gguf(path, model.metadata, [stored(each) for each in model.tensors.values()], model.types)
    return read_gguf(path)


def test_a_file_is_written_as_by_hand(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a", {"a": 7}, [tensor()])
    assert (tmp_path / "a").read_bytes() == BY_HAND


# Types

TYPES: list[tuple[Any, ValueType]] = [
    (0, ValueType(UINT32)),
    (2**32 - 1, ValueType(UINT32)),
    (-1, ValueType(INT32)),
    (2**32, ValueType(UINT64)),
    (2**64 - 1, ValueType(UINT64)),
    (-(2**31) - 1, ValueType(INT64)),
    (True, ValueType(BOOL)),
    (0.1, ValueType(FLOAT32)),
    ("é\0", ValueType(STRING)),
    ("\udcff", ValueType(STRING)),
    ([1, 2], ValueType(ARRAY, INT32)),
    ([2**31], ValueType(ARRAY, UINT32)),
    ([-1, 2**31], ValueType(ARRAY, INT64)),
    ([2**63], ValueType(ARRAY, UINT64)),
    ([True, False], ValueType(ARRAY, BOOL)),
    ([0.5], ValueType(ARRAY, FLOAT32)),
    (["a", ""], ValueType(ARRAY, STRING)),
    ([[1], ["a"]], ValueType(ARRAY, ARRAY, (ValueType(ARRAY, INT32), ValueType(ARRAY, STRING)))),
]


@pytest.mark.parametrize(("value", "expected"), TYPES, ids=[repr(value) for value, _ in TYPES])
def test_a_value_without_a_type_gets_the_first_that_holds_it(value: Any, expected: ValueType, tmp_path: Path) -> None:
    write_gguf(tmp_path / "a", {"k": value}, [])
    found = read_gguf(tmp_path / "a")
    assert found.types == {"k": expected}
    assert found.metadata == {"k": torch.tensor(value).item() if isinstance(value, float) else value}
    if expected.elements != ARRAY:
        kinds = GGUFReader(tmp_path / "a").fields["k"].types
        assert kinds == [GGUFValueType(kind) for kind in (expected.kind, expected.elements) if kind is not None]


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, 5, 10, 11])
def test_a_type_that_is_given_is_used(kind: int, tmp_path: Path) -> None:
    types = {"k": ValueType(kind), "list": ValueType(ARRAY, kind), "empty": ValueType(ARRAY, kind), "d": ValueType(12)}
    write_gguf(tmp_path / "a", {"k": 7, "list": [7, 8], "empty": [], "d": 0.1}, [], types)
    found = read_gguf(tmp_path / "a")
    assert (found.metadata, found.types) == ({"k": 7, "list": [7, 8], "empty": [], "d": 0.1}, types)


NESTED: Any = [1]
for _ in range(8):
    NESTED = [NESTED]
REFUSED: dict[str, tuple[dict[str, Any], list[NewTensor], str]] = {
    "no key": ({"": 1}, [], "its name has 0 bytes: expected 1 to 65,535"),
    "a long key": ({"k" * 65_536: 1}, [], "its name has 65,536 bytes"),
    "a zero in a key": ({"a\0b": 1}, [], r"metadata key 'a\\x00b' can't be written: .* and a zero character"),
    "a key with a surrogate": ({"\udcff": 1}, [], "unpaired surrogate"),
    "a string with a surrogate": ({"k": "\ud800"}, [], "metadata key 'k' can't be written: .* unpaired surrogate"),
    "an empty list": ({"k": []}, [], "metadata key 'k' can't be written: an empty list"),
    "mixed": ({"k": [1, "a"]}, [], "all of one type"),
    "int and bool": ({"k": [1, True]}, [], "all of one type"),
    "nothing": ({"k": None}, [], "expected bool, int, float or str"),
    "a dict": ({"k": {}}, [], "expected bool, int, float or str"),
    "65 bits": ({"k": 2**64}, [], "does not fit 64 bits"),
    "a float too large": ({"k": 1e300}, [], "1e.300 does not fit float32"),
    "deep": ({"k": NESTED}, [], "nested too deeply"),
    "too many elements": ({"k": [True] * 5_000_001}, [], "5,000,001 array elements: expected at most 5,000,000"),
    "too many pairs": ({str(i): i for i in range(65_537)}, [], "65,537 metadata pairs"),
    "alignment 24": ({"general.alignment": 24}, [], "is 24: expected a power of two from 8 to 65,536"),
    "alignment 2**17": ({"general.alignment": 2**17}, [], "is 131072"),
    "alignment true": ({"general.alignment": True}, [], "is True"),
    "alignment text": ({"general.alignment": "32"}, [], "is '32'"),
    "a tensor twice": ({}, [tensor(), tensor()], "tensor 'x' can't be written twice"),
    "no name": ({}, [tensor("")], "tensor '' can't be written: its name has 0 bytes"),
    "64 bytes": ({}, [tensor("é" * 32)], "its name has 64 bytes: expected 1 to 63"),
    "a zero in a name": ({}, [tensor("x\0")], "a zero character"),
    "five dimensions": ({}, [tensor(shape=(1, 1, 1, 1, 2))], "expected at most 4 lengths"),
    "no rows": ({}, [tensor(shape=(0, 2))], r"its shape is \[0, 2\], expected at most 4 lengths from 1 on"),
    "half a block": ({}, [tensor(shape=(2, 16), format="Q4_0")], "tensor 'x' can't be written: a row of 16 values"),
}  # fmt: skip


@pytest.mark.parametrize(("metadata", "tensors", "message"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_read_again_is_refused_before_a_byte_is_written(
    metadata: dict[str, Any], tensors: list[NewTensor], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanollama.checkpoint.gguf.writer.new_file", None)
    with pytest.raises(NanollamaError, match=message) as caught:
        write_gguf(tmp_path / "a", metadata, tensors)
    assert len(str(caught.value)) < 800 and str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("value", "type_", "message"),
    [
        (256, ValueType(0), "256 does not fit uint8"),
        (-1, ValueType(UINT32), "-1 does not fit uint32"),
        ([1, 2**31], ValueType(ARRAY, INT32), "does not fit int32"),
        ("a", ValueType(UINT32), "'a' is a str: expected uint32"),
        (1, ValueType(STRING), "1 is a int: expected string"),
        (1, ValueType(FLOAT32), "1 is a int: expected float32"),
        (True, ValueType(UINT32), "True is a bool: expected uint32"),
        ([1], ValueType(UINT32), "expected uint32"),
        (1, ValueType(ARRAY, UINT32), "1 is not an array of uint32"),
        ([1], ValueType(ARRAY), "is not an array"),
        (1, ValueType(13), "value type 13 does not exist"),
        ([1], ValueType(ARRAY, 13), "value type 13 does not exist"),
        ([[1]], ValueType(ARRAY, ARRAY), "its type is for 0 arrays: expected one for each of 1"),
    ],
)  # fmt: skip
def test_a_value_that_its_type_can_not_hold_is_refused(value: Any, type_: ValueType, message: str, tmp_path: Path) -> None:
    with pytest.raises(NanollamaError, match=message):
        write_gguf(tmp_path / "a", {"k": value}, [], {"k": type_})
    assert not list(tmp_path.iterdir())


# Tensors


def test_tensors_are_made_one_at_a_time_in_order(tmp_path: Path) -> None:
    made: list[str] = []

    def pieces(name: str) -> Iterator[Tensor]:
        made.append(name)
        for i in range(3):
            yield torch.full((2, 5), 10 * len(made) + i, dtype=torch.uint8)

    tensors = [NewTensor(name, (3, 10), FORMATS["I8"], partial(pieces, name)) for name in "ab"]
    write_gguf(tmp_path / "a", {"general.alignment": 64}, tensors)
    found = read_gguf(tmp_path / "a").tensors
    assert made == ["a", "b"]
    assert [found[name].blocks.flatten().tolist() for name in "ab"] == [
        [start + i for i in range(3) for _ in range(10)] for start in (10, 20)
    ]
    assert (found["b"].blocks.data_ptr() - found["a"].blocks.data_ptr()) == 64


@pytest.mark.parametrize("size", [7, 9])
def test_a_tensor_that_comes_with_other_bytes_than_its_shape_has_leaves_no_file(size: int, tmp_path: Path) -> None:
    with pytest.raises(NanollamaError, match=f"tensor 'x' came with {size} bytes: expected 8"):
        write_gguf(tmp_path / "a", {}, [tensor(data=torch.zeros(size, dtype=torch.uint8))])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["F16", "Q8_0", "Q4_K"])
def test_a_tensor_encoded_in_slabs_is_the_tensor_encoded_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanollama.checkpoint.gguf.writer.SLAB", 1500)
    values, threads = torch.randn(2, 7, 512, generator=torch.Generator().manual_seed(0)), torch.get_num_threads()
    rows = values.reshape(14, 512)
    asked: list[int] = []

    def some(part: slice) -> Tensor:
        asked.append(part.stop - part.start)
        return rows[part]

    write_gguf(tmp_path / "a", {}, [encoded("x", (2, 7, 512), FORMATS[name], some)])
    found = read_gguf(tmp_path / "a").tensors["x"]
    assert torch.equal(found.blocks.flatten(), quantize(values, name).flatten())
    assert found.shape == (2, 7, 512) and asked == [2] * 7 and torch.get_num_threads() == threads


def test_a_tensor_that_can_not_be_encoded_is_named_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(NanollamaError, match=r"tensor 'x': the tensor holds infinite or NaN values"):
        write_gguf(tmp_path / "a", {}, [encoded("x", (1, 32), FORMATS["Q8_0"], lambda part: torch.full((1, 32), torch.nan))])
    assert not list(tmp_path.iterdir()) and torch.get_num_threads() == 1


# Any model and real files


@given(seed=st.integers(0, 2**32))
def test_any_model_is_copied_with_every_type_name_shape_and_byte(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The package reads the copy as we do, and the copy is the original where that is version 3 in the usual layout."""
    model, folder = random_model(random.Random(seed)), tmp_path_factory.mktemp("copy")
    (folder / "in.gguf").write_bytes(model_bytes(model))
    before = read_gguf(folder / "in.gguf")
    after = copy(before, folder / "out.gguf")
    if not any(each.shape == () and each.format.name == "BF16" for each in after.tensors.values()):
        compare_with_peer(after, [folder / "out.gguf"])  # the package raises IndexError on a scalar of that type
    assert (after.types, list(after.metadata)) == (before.types, list(before.metadata))
    usual = model_bytes(model._replace(version=3))
    size = (folder / "out.gguf").stat().st_size
    assert (folder / "out.gguf").read_bytes() == usual[:size] and (size == len(usual) or not model.tensors)


REAL = [
    "weights/stories260K.gguf",
    *(f"tokenizers/ggml-vocab/ggml-vocab-{name}.gguf" for name in ("deepseek-llm", "gemma-4", "gpt-2", "llama-bpe")),
    *(f"tokenizers/ggml-vocab/ggml-vocab-{name}.gguf" for name in ("llama-spm", "phi-3", "qwen2", "starcoder")),
]


@pytest.mark.parametrize("name", REAL)
def test_a_real_file_is_copied_byte_for_byte(name: str, data_dir: Path, tmp_path: Path) -> None:
    copy(read_gguf(data_dir / name), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == (data_dir / name).read_bytes()


LLAMA_CPP = r"""
import ctypes, json, sys
import llama_cpp as api
model = api.llama_model_load_from_file(sys.argv[1].encode(), api.llama_model_default_params())
assert model, "llama.cpp does not load it"
text, found = ctypes.create_string_buffer(100_000), {}
for i in range(api.llama_model_meta_count(model)):
    api.llama_model_meta_key_by_index(model, i, text, 100_000)
    key = text.value.decode()
    api.llama_model_meta_val_str_by_index(model, i, text, 100_000)
    found[key] = text.value.decode()
print(json.dumps([found, api.llama_model_size(model), api.llama_model_n_params(model)]))
"""


def test_llama_cpp_reads_what_is_written(data_dir: Path, tmp_path: Path) -> None:
    python = peer_python()
    if not python:
        pytest.skip("llama-cpp-python is not installed, and NANOLLAMA_LLAMACPP is not set: llama.cpp read nothing here")
    model = read_gguf(data_dir / "weights" / "stories260K.gguf")
    values = {name: dequantize(each.blocks, each.format, each.shape) for name, each in model.tensors.items()}
    tensors = [
        encoded(name, each.shape, FORMATS["F16"], values[name].__getitem__) if len(each.shape) == 2 else stored(each)
        for name, each in model.tensors.items()
    ]
    metadata = model.metadata | {"test.bool": True, "test.int": -5, "test.text": "é", "test.large": 2**40, "test.float": 0.5}
    write_gguf(tmp_path / "a.gguf", metadata, tensors, model.types)
    done = subprocess.run([python, "-c", LLAMA_CPP, tmp_path / "a.gguf"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found, size, parameters = json.loads(done.stdout)
    plain = {key: str(value) for key, value in metadata.items() if isinstance(value, (int, str)) and type(value) is not bool}
    assert {key: found[key] for key in plain} == plain
    assert (found["test.bool"], float(found["test.float"])) == ("true", 0.5)
    assert (size, parameters) == (sum(each.size for each in tensors), 292_800)

"""`nanollama quantize`: what a file keeps, what changes, and what is refused. Which tensor gets which format: test_mixes.py."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conformance.fuzz.checkpoint import Job, fuzz
from conformance.fuzz.gguf_tools import TARGET
from nanollama.checkpoint.gguf.reader import GGUF, read_gguf
from nanollama.checkpoint.gguf.values import ARRAY, INT32, STRING, UINT32, ValueType
from nanollama.checkpoint.gguf.writer import NewTensor, write_gguf
from nanollama.cli.main import main
from nanollama.quant import FORMATS, dequantize, quantize
from nanollama.quant.file_types import FILE_TYPES


def write_model(path: Path, format: str = "F32", metadata: dict[str, Any] | None = None) -> GGUF:
    """One matrix, one vector, and metadata of several types, of an architecture that nobody knows."""
    values = torch.randn(4, 256, generator=torch.Generator().manual_seed(0))
    parts = {"blk.0.attn_q.weight": (values, format), "blk.0.attn_norm.weight": (values[0], "F32")}
    tensors = [
        NewTensor(name, tuple(x.shape), FORMATS[each], lambda x=x, each=each: [quantize(x, each)])  # type: ignore[misc]
        for name, (x, each) in parts.items()
    ]
    kept = {"general.architecture": "none", "none.list": [1, 2], "none.small": 3, "none.text": "\udcff"}
    write_gguf(path, kept | (metadata or {}), tensors, {"none.small": ValueType(0), "none.list": ValueType(ARRAY, 2)})
    return read_gguf(path)


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def call(*arguments: str) -> Any:
        status = main(["quantize", *(str(tmp_path / each) if each.endswith(".gguf") else each for each in arguments)])
        return (status, *capfd.readouterr())

    return call


def test_metadata_keep_their_types_and_tensors_their_order(run: Any, tmp_path: Path) -> None:
    before = write_model(tmp_path / "in.gguf", "F32", {"general.file_type": 0, "split.count": 1, "split.no": 0})
    status, out, err = run("in.gguf", "--to", "out.gguf", "--type", "Q8_0")
    after = read_gguf(tmp_path / "out.gguf")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"{tmp_path}/out.gguf: 2 tensors, 5,120 → 2,112 bytes (32.00 → 13.20 bits per weight)",
        "  Q8_0         1 tensors            1,088 bytes",
        "  F32          1 tensors            1,024 bytes",
    ]
    changed = {"general.file_type": 7, "general.quantization_version": 2}
    assert after.metadata == {k: v for k, v in before.metadata.items() if not k.startswith("split")} | changed
    assert after.types["none.small"] == ValueType(0) and after.types["none.list"] == ValueType(ARRAY, 2)
    assert {after.types[key] for key in changed} == {ValueType(UINT32)} and after.types["none.text"] == ValueType(STRING)
    matrix, vector = after.tensors.values()
    assert torch.equal(
        matrix.blocks, quantize(dequantize(before.tensors[matrix.name].blocks, "F32", matrix.shape), "Q8_0").view(-1, 34)
    )
    assert torch.equal(vector.blocks, before.tensors[vector.name].blocks)


@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_every_file_type_is_written(file_type: str, run: Any, tmp_path: Path) -> None:
    write_model(tmp_path / "in.gguf")
    assert run("in.gguf", "--to", "out.gguf", "--type", file_type)[0] == 0
    found = read_gguf(tmp_path / "out.gguf")
    expected = "Q8_0" if file_type == "mxfp4_moe" else FILE_TYPES[file_type].main
    assert found.tensors["blk.0.attn_q.weight"].format.name == expected
    assert found.metadata["general.file_type"] == FILE_TYPES[file_type].number


def test_rounding_twice_must_be_asked_for(run: Any, tmp_path: Path) -> None:
    before = write_model(tmp_path / "in.gguf", "Q8_0")
    status, out, err = run("in.gguf", "--to", "out.gguf", "--type", "q4_0")
    assert (status, out) == (2, "") and "1 tensors are quantized already (Q8_0)" in err and "--allow-requantize" in err
    assert not (tmp_path / "out.gguf").exists()
    status, _, err = run("in.gguf", "--to", "out.gguf", "--type", "q4_0", "--allow-requantize")
    assert status == 0 and "decoded to float32 and rounded a second time" in err
    again, name = read_gguf(tmp_path / "out.gguf"), "blk.0.attn_q.weight"
    once = dequantize(before.tensors[name].blocks, "Q8_0", (4, 256))
    assert torch.equal(again.tensors[name].blocks, quantize(once, "Q4_0").view(-1, 18))
    assert run("in.gguf", "--to", "out.gguf", "--type", "q8_0")[0] == 0, "what has the format already is copied"


def test_whole_numbers_are_copied_and_half_precision_is_decoded(run: Any, tmp_path: Path) -> None:
    indices = torch.arange(64, dtype=torch.int32).view(torch.uint8)
    halves = torch.linspace(-1, 1, 64).half()
    tensors = [
        NewTensor("a.weight", (2, 32), FORMATS["I32"], lambda: [indices]),
        NewTensor("b.weight", (2, 32), FORMATS["F16"], lambda: [halves.view(torch.uint8)]),
    ]
    write_gguf(tmp_path / "in.gguf", {}, tensors)
    assert run("in.gguf", "--to", "out.gguf", "--type", "q4_0")[0] == 0
    found = read_gguf(tmp_path / "out.gguf").tensors
    assert (found["a.weight"].format.name, found["a.weight"].blocks.flatten().tolist()) == ("I32", indices.tolist())
    assert torch.equal(found["b.weight"].blocks.flatten(), quantize(halves, "Q4_0"))


def test_a_split_model_becomes_one_file_and_no_part_of_it_is_overwritten(run: Any, tmp_path: Path) -> None:
    for i in range(2):
        split = {"split.no": i, "split.count": 2, "split.tensors.count": 2}
        data = torch.full((2, 32), float(i)).view(torch.uint8)
        tensors = [NewTensor(f"x{i}.weight", (2, 32), FORMATS["F32"], lambda data=data: [data])]  # type: ignore[misc]
        write_gguf(tmp_path / f"m-0000{i + 1}-of-00002.gguf", {"a": 1} | split, tensors)
    for target in ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf"):
        status, _, err = run("m-00002-of-00002.gguf", "--to", target, "--type", "q8_0")
        assert status == 2 and f"{target} is the file that is read: expected another name" in err
    assert run("m-00002-of-00002.gguf", "--to", "whole.gguf", "--type", "q8_0")[0] == 0
    found = read_gguf(tmp_path / "whole.gguf")
    assert list(found.tensors) == ["x0.weight", "x1.weight"] and not [key for key in found.metadata if "split" in key]


@pytest.mark.parametrize("kind", ["itself", "link", "hard link", "link to the folder"])
def test_its_own_input_is_never_written(kind: str, run: Any, tmp_path: Path) -> None:
    write_model(tmp_path / "in.gguf")
    raw, target = (tmp_path / "in.gguf").read_bytes(), tmp_path / "out.gguf"
    if kind == "link":
        target.symlink_to("in.gguf")
    elif kind == "hard link":
        target.hardlink_to(tmp_path / "in.gguf")
    elif kind == "link to the folder":
        (tmp_path / "again").symlink_to(tmp_path)
        target = tmp_path / "again" / "in.gguf"
    else:
        target = tmp_path / "in.gguf"
    status, _, err = run("in.gguf", "--to", str(target), "--type", "q8_0")
    assert status == 2 and "is the file that is read" in err and (tmp_path / "in.gguf").read_bytes() == raw


def test_what_can_not_be_done_is_one_line_and_leaves_nothing(run: Any, tmp_path: Path) -> None:
    write_model(tmp_path / "in.gguf")
    write_gguf(
        tmp_path / "nan.gguf",
        {},
        [NewTensor("x.weight", (2, 32), FORMATS["F32"], lambda: [torch.full((256,), 255, dtype=torch.uint8)])],
    )
    (tmp_path / "folder.gguf").mkdir()
    for arguments, named in {
        ("in.gguf", "--to", "out.gguf", "--type", "q9"): "there is no file type 'q9'; there are f32, f16",
        ("in.gguf", "--to", "out.gguf"): "the following arguments are required: --type",
        ("nan.gguf", "--to", "out.gguf", "--type", "q8_0"): "tensor 'x.weight': the tensor holds infinite or NaN values",
        ("folder.gguf", "--to", "out.gguf", "--type", "q8_0"): "is a folder: expected a GGUF file",
        ("missing.gguf", "--to", "out.gguf", "--type", "q8_0"): "missing.gguf cannot be read: No such file",
        ("in.gguf", "--to", "folder.gguf", "--type", "q8_0"): "is not a plain file, so it can't be replaced",
        ("in.gguf", "--to", f"{tmp_path}/none/out.gguf", "--type", "q8_0"): "can't be written: No such file or directory",
    }.items():
        status, out, err = run(*arguments)
        assert (status, out, err.count("\n")) == (2, "", 1) and named in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.gguf", "in.gguf", "nan.gguf"]


def test_a_vocabulary_without_tensors_is_copied(data_dir: Path, run: Any, tmp_path: Path) -> None:
    path = data_dir / "tokenizers" / "ggml-vocab" / "ggml-vocab-gpt-2.gguf"
    (tmp_path / "in.gguf").write_bytes(path.read_bytes())
    assert run("in.gguf", "--to", "out.gguf", "--type", "f16")[0] == 0
    found, before = read_gguf(tmp_path / "out.gguf"), read_gguf(path)
    assert found.metadata == before.metadata | {"general.quantization_version": 2, "general.file_type": 1}
    assert found.types["tokenizer.ggml.token_type"] == ValueType(ARRAY, INT32)


def test_no_mutated_file_escapes_the_one_error_of_the_tools() -> None:
    kinds, cases = {"loaded": 0, "refused": 0}, int(os.environ.get("NANOLLAMA_FUZZ_CASES", "300"))
    for outcome in fuzz(Job(TARGET), range(cases)):
        assert not outcome.is_finding, f"case {outcome.case} {outcome.kind}\n{outcome.detail}"
        kinds[outcome.kind] += 1
    assert kinds["loaded"] > cases / 20 and kinds["refused"] > cases / 2, "neither kind may be rare, or little is tested"

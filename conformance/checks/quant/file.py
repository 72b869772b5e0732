"""`nanollama quantize`: what a new file type keeps, copies, decodes, rounds and refuses, and the messages."""

import contextlib
import io
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy
import torch
from torch import Tensor

from conformance.checks import check
from conformance.checks.assertions import at, expect, expect_equal, expect_equal_tensor, expect_refused
from conformance.truth.cases import workplace
from nanollama.checkpoint.gguf.quantize import refuse_input_as_target
from nanollama.checkpoint.gguf.reader import read_gguf
from nanollama.cli.quantize import quantize_command

MATRIX, NORM, INDEX = "blk.0.attn_q.weight", "blk.0.attn_norm.weight", "blk.0.index"
KINDS = gguf.GGMLQuantizationType
VALUES = torch.randn(4, 256, generator=torch.Generator().manual_seed(11))


def write(name: str, kind: gguf.GGMLQuantizationType | None = None) -> Path:
    """Write a small file with the `gguf` package: a matrix (in blocks if asked for), a vector and integers."""
    path = workplace() / name
    writer = gguf.GGUFWriter(path, "llama")
    entries: tuple[tuple[str, Any, Any], ...] = (
        ("llama.small", writer.add_uint8, 3),
        ("llama.list", writer.add_array, [1, 2]),
        ("general.file_type", writer.add_uint32, 0),
        ("split.no", writer.add_uint16, 0),
        ("split.count", writer.add_uint16, 1),
        ("split.tensors.count", writer.add_int32, 3),
    )
    for key, put, value in entries:
        put(key, value)
    values = VALUES.numpy()
    if kind is None:
        writer.add_tensor(MATRIX, values)
    else:
        writer.add_tensor(MATRIX, gguf.quantize(values, kind), raw_dtype=kind)
    writer.add_tensor(NORM, values[0])
    writer.add_tensor(INDEX, numpy.arange(512, dtype=numpy.int32).reshape(2, 256))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return path


def options(source: Path, target: Path, file_type: str, allow: bool = False) -> Namespace:
    """A command line."""
    return Namespace(source=str(source), to=str(target), type=file_type, allow_requantize=allow)


def quantized(source: Path, file_type: str, allow: bool = False) -> tuple[Path, str, str]:
    """The file that the command writes, its stdout and its stderr."""
    target = workplace() / f"{file_type}.gguf"
    target.unlink(missing_ok=True)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = quantize_command(options(source, target, file_type, allow))
    expect_equal("cli.quantize.quantize_command", status, 0, "the exit status")
    return target, out.getvalue(), err.getvalue()


def stored(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata and tensors as the `gguf` package reads them."""
    reader = gguf.GGUFReader(path)
    fields = {
        key: (field.types[0].name, field.contents()) for key, field in reader.fields.items() if not key.startswith("GGUF.")
    }
    return fields, {tensor.name: tensor for tensor in reader.tensors}


def numbers(tensor: Any) -> Tensor:
    """A tensor's values, decoded by the `gguf` package."""
    return torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())


@check("QUNT-060", "QUNT-051", area="quantization", each=("Q8_0", "Q4_0", "F16"))
def a_file_is_written_again_in_another_type(name: str) -> None:
    kind, (number, bar) = getattr(KINDS, name), {"Q8_0": (7, 0.02), "Q4_0": (2, 0.3), "F16": (1, 0.002)}[name]
    source = write("plain.gguf")
    before, _ = stored(source)
    with at("cli.quantize.quantize_command"):
        path, out, err = quantized(source, name.lower())
    fields, tensors = stored(path)
    want = {key: value for key, value in before.items() if not key.startswith("split.")}
    want |= {"general.file_type": ("UINT32", number), "general.quantization_version": ("UINT32", 2)}
    expect_equal("checkpoint.gguf.quantize.new_metadata", fields, want, "metadata")
    expect_equal("checkpoint.gguf.quantize.plan_quantized", list(tensors), [MATRIX, NORM, INDEX], "the order of tensors")
    matrix, norm, index = tensors.values()
    types = [tensor.tensor_type.name for tensor in (matrix, norm)]
    expect_equal("checkpoint.gguf.quantize.plan_quantized", types, [name, "F32"], "types of a matrix and a vector")
    expect_equal("checkpoint.gguf.quantize.is_integer", index.tensor_type.name, "I32", "the type of whole numbers")
    expect_equal(
        "checkpoint.gguf.quantize.plan_quantized",
        index.data.tolist(),
        numpy.arange(512).reshape(2, 256).tolist(),
        "whole numbers",
    )
    expect_equal_tensor("checkpoint.gguf.quantize.plan_quantized", numbers(norm), VALUES[0], "a vector")
    if name != "F16":
        encoded = torch.from_numpy(gguf.quantize(VALUES.numpy(), kind))
        expect_equal_tensor(
            "checkpoint.gguf.quantize.recoded", torch.from_numpy(matrix.data.copy()), encoded, f"blocks of {name}"
        )
    off = float((numbers(matrix) - VALUES).abs().max())
    expect("checkpoint.gguf.quantize.recoded", off <= bar, f"{name}: off by {off:.2g} (bar {bar})")
    size = sum(tensor.n_bytes for tensor in tensors.values())
    bits = f"{8 * 7168 / 1792:.2f} → {8 * size / 1792:.2f} bits per weight"
    first = f"{path}: 3 tensors, 7,168 → {size:,} bytes ({bits})"
    expect_equal("cli.quantize.summary", out.splitlines()[0], first, "the first line")
    expect("cli.quantize.summary", f"{matrix.n_bytes:,} bytes" in out, f"{out!r} does not give the matrix's size")
    expect_equal("cli.quantize.quantize_command", err, "", "stderr")


@check("QUNT-061", area="quantization")
def blocks_are_copied_or_rounded_again_only_when_asked() -> None:
    source, place = write("blocks.gguf", KINDS.Q8_0), "checkpoint.gguf.quantize.check_requantized"
    once = gguf.quantize(VALUES.numpy(), KINDS.Q8_0)
    decoded = gguf.dequantize(once, KINDS.Q8_0)
    with at("cli.quantize.quantize_command"):
        path, _, err = quantized(source, "q8_0")
    expect_equal_tensor(
        "checkpoint.gguf.quantize.plan_quantized", bytes_of(path), torch.from_numpy(once), "blocks that have the type already"
    )
    expect_equal(place, err, "", "the notices about a copy")
    expect_refused(place, lambda: quantized(source, "q4_0"), "1 tensors are quantized already (Q8_0)", "rounding twice")
    with at("cli.quantize.quantize_command"):
        path, _, err = quantized(source, "q4_0", allow=True)
    twice = torch.from_numpy(gguf.quantize(decoded, KINDS.Q4_0))
    expect_equal_tensor("checkpoint.gguf.quantize.recoded", bytes_of(path), twice, "rounded twice")
    expect(place, "rounded a second time" in err, f"no notice about rounding twice: {err!r}")
    with at("cli.quantize.quantize_command"):
        path, _, _ = quantized(source, "f32", allow=True)
    expect_equal_tensor(
        "checkpoint.gguf.quantize.recoded", numbers(stored(path)[1][MATRIX]), torch.from_numpy(decoded), "decoded"
    )


def bytes_of(path: Path) -> Tensor:
    """The matrix's bytes."""
    return torch.from_numpy(stored(path)[1][MATRIX].data.copy())


@check("QUNT-060", area="security")
def the_file_that_is_read_is_never_written() -> None:
    source, link, place = write("own.gguf"), workplace() / "link.gguf", "checkpoint.gguf.quantize.refuse_input_as_target"
    link.unlink(missing_ok=True)
    link.symlink_to(source)
    raw = source.read_bytes()
    for target in (source, link):
        command = partial(quantize_command, options(source, target, "q8_0"))
        expect_refused(place, command, "is the file that is read", target.name)
        expect_equal(place, source.read_bytes() == raw, True, "its bytes are there still")
    link.unlink()
    with at(place):
        refuse_input_as_target(link, [source])
    folder = partial(quantize_command, options(workplace(), link, "q8_0"))
    expect_refused("cli.quantize.quantize_command", folder, "is a folder", "a folder")
    expect_refused(
        "quant.file_types.find_file_type", partial(quantize_command, options(source, link, "q9")), "q9", "an unknown type"
    )
    expect_equal(
        "checkpoint.gguf.reader.read_gguf", list(read_gguf(source).tensors), [MATRIX, NORM, INDEX], "the file is as it was"
    )

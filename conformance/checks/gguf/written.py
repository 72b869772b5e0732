"""GGUF files that the runtime writes: value types, and what the `gguf` package reads; runs after the checks of the reader."""

# mypy: disable-error-code="assignment,misc"
# tables mix good and bad arguments

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf as peer
import torch

from conformance.checks import check
from conformance.checks.assertions import expect, expect_equal, expect_equal_tensor, expect_refused
from conformance.checks.gguf.bytes import VALUES, reader
from nanollama.checkpoint.gguf import reader as gguf
from nanollama.checkpoint.gguf import values_writer as gguf_values_writer
from nanollama.checkpoint.gguf import writer as gguf_writer
from nanollama.checkpoint.gguf.values import ValueType
from nanollama.quant import FORMATS


@check("GGUF-040", area="weights")
def values_are_stored_in_the_types_that_llama_cpp_reads() -> None:
    place = "checkpoint.gguf.values_writer.type_of"
    wide, list_of = ValueType, lambda kind: ValueType(9, kind)
    for value, wanted in (
        *((True, wide(7)), ("a", wide(8)), (1.0, wide(6)), (1, wide(4)), (2**32 - 1, wide(4)), (-1, wide(5))),
        *((2**32, wide(10)), (-(2**31) - 1, wide(11)), ([1, 2], list_of(5)), ([2**31], list_of(4)), ([-1, 2**40], list_of(11))),
        *(([2**63], list_of(10)), (["a"], list_of(8)), ([[1], ["a"]], ValueType(9, 9, (list_of(5), list_of(8))))),
    ):
        expect_equal(place, gguf_values_writer.type_of(value), wanted, f"the type of {value}")
    for bad in ([], [1, "a"], [1, True], None, 2**64, [2**64], -(2**63) - 1, {"a": 1}, [1.0, 1]):
        expect_refused(place, lambda bad=bad: gguf_values_writer.type_of(bad), "", f"{bad}")
    place = "checkpoint.gguf.values_writer.stored_value"
    for kind, raw, value in VALUES:
        type_ = reader(raw).value(kind)[1]
        expect_equal(place, gguf_values_writer.stored_value(value, type_), raw, f"{value!r} as {type_}")
    for value, type_ in (
        (1, ValueType(8)),
        (True, ValueType(4)),
        (256, ValueType(0)),
        (-1, ValueType(4)),
        ([1], ValueType(4)),
        (1, ValueType(9, 4)),
        ("\ud800", ValueType(8)),
        (1e39, ValueType(6)),
        (1, ValueType(13)),
        ([[1]], ValueType(9, 9)),
    ):
        expect_refused(
            place, lambda v=value, t=type_: gguf_values_writer.stored_value(v, t), "", f"{value!r} as {tuple(type_)}"
        )


@check("GGUF-041", "GGUF-042", "SAFE-022", area="weights")
def the_peer_reads_every_written_file() -> None:
    place = "checkpoint.gguf.writer.write_gguf"
    metadata = {
        "general.architecture": "llama",
        "general.alignment": 64,
        "x.list": ["a", "é"],
        "x.f": 0.25,
        "x.flags": [True, False],
        "x.n": [-1, 5],
    }
    numbers = {
        "a.weight": torch.arange(6.0).reshape(2, 3),
        "b": torch.linspace(-1, 1, 64).reshape(2, 32),
        "c": torch.tensor([1.0]),
    }
    new = [
        gguf_writer.NewTensor(n, tuple(t.shape), FORMATS["F32"], (lambda t=t: [t.reshape(-1).view(torch.uint8)]))
        for n, t in numbers.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.gguf"
        gguf_writer.write_gguf(path, metadata, new)
        theirs, ours = peer.GGUFReader(path), gguf.read_gguf(path)
        for key, value in metadata.items():
            expect_equal(place, theirs.fields[key].contents(), value, f"{key}, read by the peer")
        for tensor in theirs.tensors:
            expect_equal(place, tensor.data.tolist(), numbers[tensor.name].tolist(), f"{tensor.name}, read by the peer")
            expect_equal(place, tensor.data_offset % 64, 0, f"where {tensor.name} begins, modulo the alignment")
        expect_equal(place, ours.metadata, metadata, "metadata, read by us")
        copy = Path(folder) / "copy.gguf"
        gguf_writer.write_gguf(copy, ours.metadata, [gguf_writer.stored(t) for t in ours.tensors.values()], ours.types)
        expect("checkpoint.gguf.writer.stored", copy.read_bytes() == path.read_bytes(), "a copied model differs")
        coded = gguf_writer.encoded("b", (2, 32), FORMATS["Q8_0"], lambda rows: numbers["b"][rows])
        got = torch.cat([piece.reshape(-1) for piece in coded.data()])
        wanted = FORMATS["Q8_0"].encode(numbers["b"])
        expect_equal_tensor("checkpoint.gguf.writer.encoded", got, wanted.reshape(-1), "rows encoded")
        for what, bad, part in bad_models(new):
            expect_refused(place, lambda bad=bad: gguf_writer.write_gguf(Path(folder) / "bad.gguf", *bad), part, what)
            expect(
                place, sorted(p.name for p in Path(folder).iterdir()) == ["copy.gguf", "x.gguf"], f"{what} left a file behind"
            )


def bad_models(new: list[gguf_writer.NewTensor]) -> list[tuple[str, tuple[Any, ...], str]]:
    tensor = new[0]
    data: Callable[[], list[torch.Tensor]] = lambda: [torch.zeros(5, dtype=torch.uint8)]  # noqa: E731
    return [
        ("a tensor twice", ({}, [tensor, tensor]), "twice"),
        ("a long name", ({}, [tensor._replace(name="n" * 64)]), "64 bytes"),
        ("no name", ({}, [tensor._replace(name="")]), "0 bytes"),
        ("five dimensions", ({}, [tensor._replace(shape=(1,) * 5)]), "at most 4"),
        ("an empty dimension", ({}, [tensor._replace(shape=(0, 3))]), "lengths from 1"),
        ("half a block", ({}, [tensor._replace(format=FORMATS["Q4_0"])]), "Q4_0"),
        ("too few bytes", ({}, [tensor._replace(data=data)]), "5 bytes"),
        ("an alignment of 7", ({"general.alignment": 7}, []), "general.alignment"),
        ("a key with a zero", ({"a\0": 1}, []), "zero"),
        ("a set as value", ({"a": {1}}, []), "'a'"),
        ("a NaN as integer", ({"a": math.nan}, [], {"a": ValueType(4)}), "'a'"),
    ]

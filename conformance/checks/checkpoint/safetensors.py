"""Files from strangers: plain files and JSON within limits, safetensors byte by byte, shards and their index."""

# mypy: disable-error-code="misc"
# tables mix good and bad arguments

import json
import struct
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from conformance.checks import check
from conformance.checks.assertions import expect_equal, expect_equal_tensor, expect_refused
from conformance.checks.checkpoint.files import folder
from nanollama.checkpoint import safetensors as own


def packed(header: Any, data: bytes = b"", pad: int = 0) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode() + b" " * pad
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: Any = "F32", shape: Any = (2,), begin: Any = 0, end: Any = 8) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@check("SAFE-011", "WGHT-001", area="weights")
def tensors_come_out_as_the_library_wrote_them() -> None:
    place = "checkpoint.safetensors.read_safetensors"
    kinds = [
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int8,
        torch.uint8,
        torch.int16,
        torch.int32,
        torch.int64,
    ]
    kinds += [torch.bool, torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32, torch.uint64]
    wanted = {f"t{i}": torch.arange(6).to(torch.float32).to(kind).reshape(2, 3) for i, kind in enumerate(kinds)}
    wanted |= {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 3), "vector": torch.tensor([1.0, -2.0])}
    with folder(x=safetensors.torch.save(wanted, {"format": "pt"})) as path:
        got = own.read_safetensors(path / "x")
        expect_equal(place, sorted(got), sorted(wanted), "names")
        for name, tensor in wanted.items():
            read = got[name]
            expect_equal(
                "checkpoint.safetensors._tensor",
                (read.dtype, read.shape, read.is_contiguous()),
                (tensor.dtype, tensor.shape, True),
                name,
            )
            expect_equal(
                "checkpoint.safetensors._tensor",
                read.view(-1).view(torch.uint8).tolist() if read.numel() else [],
                tensor.view(-1).view(torch.uint8).tolist() if tensor.numel() else [],
                f"bytes of {name}",
            )
        header = own.read_header(path / "x")
        expect_equal("checkpoint.safetensors.read_header", header["t0"].shape, (2, 3), "a shape in the header")
        before = (path / "x").read_bytes()
        got["t0"][0, 0] = 99
        expect_equal(place, (path / "x").read_bytes() == before, True, "the file after a tensor was written to")
    for pad in (0, 1, 3):  # at any address, and in another order than the header's
        with folder(
            x=packed({"b": entry("I16", [2], 8, 12), "a": entry()}, struct.pack("<2f2h", 1.5, -2.0, 7, -8), pad)
        ) as path:
            got = own.read_safetensors(path / "x")
            expect_equal_tensor(
                "checkpoint.safetensors._tensor", got["a"], torch.tensor([1.5, -2.0]), f"floats after {pad} spaces"
            )
            expect_equal_tensor(
                "checkpoint.safetensors._tensor",
                got["b"],
                torch.tensor([7, -8], dtype=torch.int16),
                f"integers after {pad} spaces",
            )


DAMAGED: tuple[tuple[bytes, str], ...] = (
    (b"", "0 bytes"),
    (b"\x01" * 7, "7 bytes"),
    (struct.pack("<Q", 2**63) + b"{}", "announces a header"),
    (struct.pack("<Q", 3) + b"{}", "announces a header of 3"),
    (packed(""), "starts with"),
    (packed(" {}"), "starts with"),
    (packed("[]"), "starts with"),
    (packed("{"), "JSON"),
    (packed('{"a": 1, "a": 2}'), "twice"),
    (packed({"__metadata__": {"a": 1}}), "__metadata__"),
    (packed({"__metadata__": []}), "__metadata__"),
    (packed({"a": 3}), "expected exactly the keys"),
    (packed({"a": {**entry(), "more": 1}}, bytes(8)), "expected exactly the keys"),
    (packed({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)), "expected exactly the keys"),
    (packed({"a": entry("F31")}, bytes(8)), "F31"),
    (packed({"a": entry(32)}, bytes(8)), "dtype 32"),
    (packed({"a": entry(shape=[-2])}, bytes(8)), "shape"),
    (packed({"a": entry(shape=[2.0])}, bytes(8)), "shape"),
    (packed({"a": entry(shape=[True, 2])}, bytes(8)), "shape"),
    (packed({"a": entry(shape=2)}, bytes(8)), "shape"),
    (packed({"a": entry("U8", [1] * 65, 0, 1)}, bytes(1)), "shape"),
    (packed({"a": entry(shape=[0, 2**62], begin=0, end=0)}), "2⁶³"),
    (packed({"a": entry(shape=[2**40, 2**40])}, bytes(8)), "2⁶³"),
    (packed({"a": entry(begin=8, end=0)}, bytes(8)), "data_offsets"),
    (packed({"a": entry(begin=-8, end=0)}, bytes(8)), "data_offsets"),
    (packed({"a": {**entry(), "data_offsets": [0, 4, 8]}}, bytes(8)), "data_offsets"),
    (packed({"a": entry(shape=[3])}, bytes(8)), "needs 12 bytes"),
    (packed({"a": entry(shape=[1])}, bytes(8)), "needs 4 bytes"),
    (packed({"a": entry(), "b": entry(begin=4, end=12)}, bytes(12)), "overlaps"),
    (packed({"a": entry(), "b": entry(begin=12, end=20)}, bytes(20)), "gap"),
    (packed({"a": entry(begin=4, end=12)}, bytes(12)), "gap"),
    (packed({"a": entry()}, bytes(7)), "holds 7 bytes"),
    (packed({"a": entry()}, bytes(9)), "holds 9 bytes"),
    (packed({}, bytes(1)), "holds 1 bytes"),
)


@check("SAFE-012", "SAFE-013", "SAFE-014", area="security")
def damaged_files_are_refused_with_the_reason() -> None:
    for data, part in DAMAGED:
        with folder(x=data) as path:
            expect_refused(
                "checkpoint.safetensors._read_header",
                lambda path=path: own.read_safetensors(path / "x"),
                part,
                f"damage: {part}",
            )
    with folder(x=packed({}), y=packed({"a": entry(), "b": entry("U8", [0], 8, 8)}, bytes(8))) as path:
        expect_equal("checkpoint.safetensors._read_header", own.read_safetensors(path / "x"), {}, "a file without tensors")
        expect_equal(
            "checkpoint.safetensors._read_header",
            sorted(own.read_safetensors(path / "y")),
            ["a", "b"],
            "a file with an empty tensor",
        )
    many = "{" + ",".join(f'"{i}":[]' for i in range(600_000)) + "}"
    with folder(x=packed(many)) as path:
        expect_refused(
            "checkpoint.files.parse_object", lambda: own.read_safetensors(path / "x"), "items", "a header of a million items"
        )


@check("SAFE-015", "SAFE-016", "SAFE-020", "WGHT-002", area="weights")
def folders_hold_one_file_or_all_shards_of_an_index() -> None:
    place = "checkpoint.safetensors.read_folder"

    def file(*names: str) -> bytes:
        return safetensors.torch.save({name: torch.tensor([float(len(name)), float(ord(name[0]))]) for name in names})

    def index(**where: str) -> bytes:
        return json.dumps({"metadata": {}, "weight_map": where}).encode()

    ix = {"model__safetensors__index__json": index(a="one.safetensors", b="two.safetensors", c="two.safetensors")}
    one, two, single = {"one__safetensors": file("a")}, {"two__safetensors": file("b", "c")}, {"model__safetensors": file("z")}
    for contents, wanted in (
        (single, ["z"]),
        ({"other__safetensors": file("y")}, ["y"]),
        ({**single, "other__safetensors": file("y")}, ["z"]),
        ({**ix, **one, **two}, ["a", "b", "c"]),
        ({**ix, **one, **two, "three__safetensors": file("x")}, ["a", "b", "c"]),
    ):
        with folder(**contents) as path:
            got = own.read_folder(path)
            expect_equal(place, sorted(got), wanted, f"tensors of {sorted(contents)}")
            for name, tensor in got.items():
                expect_equal_tensor(place, tensor, torch.tensor([1.0, float(ord(name))]), f"tensor {name}")
    for contents, part in (
        ({}, "no model.safetensors"),
        ({"pytorch_model__bin": b"x"}, "pickle"),
        ({"a__safetensors": file("a"), "b__safetensors": file("b")}, "single safetensors file"),
        ({"model-00001-of-00002__safetensors": file("a")}, "2 shards"),
        ({**ix, **one}, "two.safetensors"),
        ({**ix, **one, "two__safetensors": file("b")}, "'c'"),
        ({**ix, **one, "two__safetensors": file("b", "c", "d")}, "'d'"),
        ({**ix, **one, **two, **single}, "both"),
        ({"model__safetensors__index__json": index(a="../one.safetensors")}, "leads out"),
        ({"model__safetensors__index__json": b'{"weight_map": {}}'}, "weight_map"),
        ({"model__safetensors__index__json": b'{"weight_map": {"a": 3}}'}, "weight_map"),
        ({"model__safetensors__index__json": b"{}"}, "weight_map"),
    ):
        with folder(**contents) as path:
            expect_refused(place, lambda path=path: own.read_folder(path), part, f"{sorted(contents)}")
    expect_refused(place, lambda: own.read_folder(Path("/nonexistent\0")), "no folder", "a path that can't be")

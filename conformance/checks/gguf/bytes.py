"""GGUF files byte by byte: values of every type, the header, the list of tensors, damage, parts."""

# mypy: disable-error-code="misc"
# tables mix good and bad arguments

import struct
import tempfile
from pathlib import Path
from typing import Any

from conformance.checks import check
from conformance.checks.assertions import expect_equal, expect_refused
from conformance.fuzz.valid_gguf import Model, Pair, Tensor, model_bytes, parts_of
from nanollama.checkpoint.gguf import reader as gguf
from nanollama.checkpoint.gguf import values as gguf_values
from nanollama.checkpoint.gguf.values import ValueType

READ = "checkpoint.gguf.reader.read_gguf"
ARCHITECTURE = Pair(b"general.architecture", 8, b"llama")


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def reader(raw: bytes) -> gguf_values.ValueReader:
    return gguf_values.ValueReader(memoryview(raw), "file")


VALUES: tuple[tuple[int, bytes, Any], ...] = (
    (0, b"\xff", 255),
    (1, b"\xff", -1),
    (2, b"\x01\x02", 513),
    (3, b"\xfe\xff", -2),
    (4, b"\x01\x00\x00\x80", 2**31 + 1),
    (5, b"\xff\xff\xff\xff", -1),
    (6, struct.pack("<f", 1.5), 1.5),
    (7, b"\x01", True),
    (7, b"\x00", False),
    (8, string("é".encode()), "é"),
    (8, string(b"\xffa"), "\udcffa"),
    (8, string(b""), ""),
    (9, struct.pack("<IQ3h", 3, 3, 1, -2, 3), [1, -2, 3]),
    (9, struct.pack("<IQ", 8, 2) + string(b"a") + string(b"bc"), ["a", "bc"]),
    (9, struct.pack("<IQIQHIQ", 9, 2, 2, 1, 7, 0, 0), [[7], []]),
    (9, struct.pack("<IQ2?", 7, 2, True, False), [True, False]),
    (10, b"\xff" * 8, 2**64 - 1),
    (11, b"\xfe" + b"\xff" * 7, -2),
    (12, struct.pack("<d", -0.1), -0.1),
)


@check("GGUF-001", "GGUF-002", area="weights")
def values_of_every_type_are_read() -> None:
    place = "checkpoint.gguf.values.ValueReader"
    for kind, raw, value in VALUES:
        subject = reader(raw + b"rest")
        got, type_ = subject.value(kind)
        expect_equal(
            place,
            (got, type(got), subject.position, type_.kind),
            (value, type(value), len(raw), kind),
            f"a value of type {kind}",
        )
        for cut in range(len(raw)):
            expect_refused(
                place, lambda raw=raw[:cut], kind=kind: reader(raw).value(kind), "needs", f"type {kind}, cut after {cut} bytes"
            )
    for kind, raw, part in (
        (13, b"", "value type 13"),
        (7, b"\x02", "boolean of value 2"),
        (9, struct.pack("<IQ", 13, 0), "array of value type 13"),
        (9, struct.pack("<IQ", 4, 2**62), "needs"),
        (9, struct.pack("<IQ", 8, 2**61), "needs"),
        (8, struct.pack("<Q", 2**63), "needs"),
        (9, struct.pack("<IQ", 9, 1) * 20, "nested too deeply"),
        (9, struct.pack("<IQ2B", 7, 2, 1, 9), "boolean of value 9"),
    ):
        expect_refused(place, lambda kind=kind, raw=raw: reader(raw).value(kind), part, f"damage: {part}")
    deep = struct.pack("<IQ", 9, 1) * 7 + struct.pack("<IQB", 0, 1, 5)
    expect_equal(place, reader(deep).value(9)[0], [[[[[[[[5]]]]]]]], "eight arrays in each other")
    for raw, part in (
        (string(b""), "0 bytes"),
        (string(b"abc"), "3 bytes"),
        (string(b"\xff"), "UTF-8"),
        (string(b"a")[:-1], "needs"),
    ):
        expect_refused(place, lambda raw=raw: reader(raw).name(2), part, f"a name of {raw!r}")
    expect_equal(place, reader(string("é".encode())).name(2), "é", "a name of two bytes")
    many = struct.pack("<IQ", 0, 6_000_000) + bytes(6_000_000)
    expect_refused(place, lambda: reader(many).value(9), "array elements", "six million elements")


def read(data: bytes, name: str = "x.gguf", **others: bytes) -> gguf.GGUF:
    with tempfile.TemporaryDirectory() as folder:
        for each, raw in {name: data, **others}.items():
            (Path(folder) / each).write_bytes(raw)
        return gguf.read_gguf(Path(folder) / name)


def model(*tensors: Tensor, pairs: tuple[Pair, ...] = (ARCHITECTURE,), alignment: int = 32, version: int = 3) -> Model:
    return Model(version, alignment, list(pairs), list(tensors))


F32 = Tensor(b"a.weight", [3, 2], 0, struct.pack("<6f", *range(6)))
Q8 = Tensor(b"b", [32, 2], 8, bytes(range(68)))
ALIGNED = Pair(b"general.alignment", 4, 4096)


@check("GGUF-003", "GGUF-004", "GGUF-005", area="weights")
def a_file_is_its_metadata_and_tensors() -> None:
    for version, pairs, alignment in ((3, (ARCHITECTURE,), 32), (2, (ARCHITECTURE,), 32), (3, (ALIGNED, ARCHITECTURE), 4096)):
        got = read(model_bytes(model(F32, Q8, F32._replace(name=b"c"), pairs=pairs, alignment=alignment, version=version)))
        expect_equal(READ, got.metadata["general.architecture"], "llama", "metadata")
        expect_equal(READ, got.types["general.architecture"], ValueType(8), "the type of a value")
        facts = [(t.name, t.shape, t.format.name, tuple(t.blocks.shape)) for t in got.tensors.values()]
        wanted = [("a.weight", (2, 3), "F32", (6, 4)), ("b", (2, 32), "Q8_0", (2, 34)), ("c", (2, 3), "F32", (6, 4))]
        expect_equal(READ, facts, wanted, f"tensors of version {version}, alignment {alignment}")
        for tensor, source in zip(got.tensors.values(), (F32, Q8, F32), strict=True):
            expect_equal(
                "checkpoint.gguf.reader._tensor",
                bytes(tensor.blocks.flatten().tolist()),
                source.data,
                f"bytes of {tensor.name}",
            )
    whole = model_bytes(model(Q8))
    for data in (
        whole[: len(whole) - 28],
        whole + b"more",
    ):  # the last padding may be missing, bytes after the data are ignored
        expect_equal(READ, bytes(read(data).tensors["b"].blocks.flatten().tolist()), Q8.data, f"a file of {len(data)} bytes")
    expect_equal(READ, len(read(model_bytes(model())).tensors), 0, "tensors of a file without")
    scalar = Tensor(b"s", [], 0, struct.pack("<f", 2.0))
    expect_equal(READ, read(model_bytes(model(scalar))).tensors["s"].shape, (), "the shape of a number")


def damages() -> list[tuple[str, bytes, str]]:
    """(description, file, the name in the error)."""
    whole = model_bytes(model(F32, Q8))
    long = Tensor(b"n" * 65, [1], 0, bytes(4))
    return [
        ("a file of 23 bytes", whole[:23], "23 bytes"),
        ("another magic", b"GGML" + whole[4:], "GGML"),
        ("version 1", model_bytes(model(version=1)), "version 1"),
        ("version 4", model_bytes(model(version=4)), "version 4"),
        ("big-endian", b"GGUF" + (3).to_bytes(4, "big") + whole[8:], "big-endian"),
        ("too many tensors", whole[:8] + struct.pack("<QQ", 65_537, 1) + whole[24:], "65,537 tensors"),
        ("too many pairs", whole[:8] + struct.pack("<QQ", 0, 2**60) + whole[24:], "metadata pairs"),
        ("a key twice", model_bytes(model(pairs=(ARCHITECTURE, ARCHITECTURE))), "occurs twice"),
        ("a tensor twice", model_bytes(model(F32, F32)), "occurs twice"),
        ("a long name", model_bytes(model(long)), "65 bytes"),
        ("five dimensions", model_bytes(model(Tensor(b"t", [1] * 5, 0, bytes(4)))), "5 dimensions"),
        ("an empty dimension", model_bytes(model(Tensor(b"t", [4, 0], 0, b""))), "no dimension of 0"),
        ("a type that is not read", model_bytes(model(Tensor(b"t", [256], 16, bytes(66)))), "IQ2_XXS"),
        ("half a block", model_bytes(model(Tensor(b"t", [16, 2], 8, bytes(34)))), "rows of 16"),
        ("a size that overflows", model_bytes(model(Tensor(b"t", [2**40, 2**40], 0, bytes(64)))), "needs"),
        ("data that end early", whole[: len(whole) - 29], "needs 68 bytes"),
        ("an alignment of 12", model_bytes(model(pairs=(Pair(b"general.alignment", 4, 12),))), "general.alignment"),
        ("an alignment of 4", model_bytes(model(pairs=(Pair(b"general.alignment", 4, 4),))), "general.alignment"),
        ("an alignment of another type", model_bytes(model(pairs=(Pair(b"general.alignment", 5, 32),))), "general.alignment"),
        (
            "a tensor at another place",
            whole.replace(struct.pack("<IQ", 8, 32), struct.pack("<IQ", 8, 64)),
            "starts at data byte 64",
        ),
        ("a tensor over another", whole.replace(struct.pack("<IQ", 8, 32), struct.pack("<IQ", 8, 0)), "starts at data byte 0"),
    ]


@check("GGUF-006", "GGUF-007", "SAFE-002", area="security")
def damaged_gguf_files_are_refused_with_the_reason() -> None:
    for what, data, part in damages():
        expect_refused(READ, lambda data=data: read(data), part, what)
        expect_refused(READ, lambda data=data: read(data), "x.gguf", what)
    whole = model_bytes(model(F32, Q8))
    start = whole.index(F32.data)
    for cut in (*range(24, start, 7), start + 3):
        expect_refused(READ, lambda cut=cut: read(whole[:cut]), "", f"a file cut after {cut} bytes")


@check("GGUF-009", area="weights")
def a_split_model_is_read_whole_from_any_part() -> None:
    place, names = "checkpoint.gguf.reader._join", [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    whole = model(F32, Q8, F32._replace(name=b"c"))
    parts = [model_bytes(part) for part in parts_of(whole, 3)]
    files = dict(zip(names, parts, strict=True))
    for name in names:
        got = read(files[name], name, **{other: raw for other, raw in files.items() if other != name})
        expect_equal(
            place,
            (sorted(got.tensors), len(got.paths), got.metadata["split.no"]),
            (["a.weight", "b", "c"], 3, 0),
            f"read from {name}",
        )
    place = "checkpoint.gguf.reader._part_paths"
    expect_refused(place, lambda: read(parts[0], names[0], **{names[1]: parts[1]}), names[2], "a missing part")
    expect_refused(place, lambda: read(parts[0], "m.gguf"), "00001-of-", "a part under another name")
    expect_refused(place, lambda: read(parts[0], "m-00001-of-00004.gguf"), "3 parts", "a part of four")
    place = "checkpoint.gguf.reader._join"
    swapped = {names[1]: parts[2], names[2]: parts[1]}
    expect_refused(place, lambda: read(parts[0], names[0], **swapped), "split.no", "parts that changed names")
    twice = model_bytes(parts_of(model(F32, F32, Q8), 3)[1])
    expect_refused(
        place,
        lambda: read(parts[0], names[0], **{names[1]: twice, names[2]: parts[2]}),
        "earlier part",
        "a tensor in two parts",
    )
    fewer = [model_bytes(part) for part in parts_of(model(F32, Q8), 3)]
    expect_refused(
        place, lambda: read(parts[0], names[0], **{names[1]: parts[1], names[2]: fewer[2]}), "3 tensors", "a tensor too few"
    )

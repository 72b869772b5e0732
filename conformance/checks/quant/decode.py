"""Decoding of every block format, bit by bit: hand-made blocks, and blocks that ggml's code decoded (golden/quant)."""

import functools
import struct
from collections.abc import Callable
from types import ModuleType

import torch
from safetensors.torch import load_file
from torch import Tensor

from conformance import GOLDEN
from conformance.checks import check
from conformance.checks.assertions import expect_equal, expect_equal_tensor
from conformance.checks.generation.rigged import blamed
from nanollama.quant.formats import codebook, plain, superblock, table, ternary, uniform
from nanollama.quant.formats.format import Format

BLOCKS = GOLDEN / "quant" / "blocks.safetensors"
NAN = "a block whose scale is NaN decodes to NaN"
HOMES: dict[str, ModuleType] = {
    **dict.fromkeys(("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"), uniform),
    **dict.fromkeys(("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K"), superblock),
    **dict.fromkeys(("IQ4_NL", "IQ4_XS", "MXFP4"), codebook),
    **dict.fromkeys(("TQ1_0", "TQ2_0"), ternary),
}


@functools.cache
def goldens() -> dict[str, Tensor]:
    return load_file(BLOCKS)


def place_of(name: str, action: str = "decode") -> str:
    """ "quant.formats.superblock.decode_q4_k"."""
    return f"{HOMES[name].__name__.removeprefix('nanollama.')}.{action}_{name.lower()}"


def decoder(format: Format) -> Callable[[Tensor], Tensor]:
    """The module's current function, not the one that the table of formats holds."""
    function = getattr(HOMES[format.name], f"decode_{format.name.lower()}")

    def decode(blocks: Tensor) -> Tensor:
        with blamed(place_of(format.name)):
            values: Tensor = function(**format.split(blocks))
            return values.reshape(len(blocks), -1)

    return decode


@check("QUNT-010", "QUNT-011", "QUNT-012", "QUNT-013", "QUNT-014", area="quantization", each=list(HOMES))
def blocks_decode_to_the_bits_that_ggml_reads(name: str) -> None:
    format, place = table.FORMATS[name], place_of(name)
    for kind in ("random", "written"):
        blocks = goldens()[f"{name}/{kind}/blocks"].reshape(-1, format.block_bytes)
        wanted = goldens()[f"{name}/{kind}/values"].reshape(-1, format.block_size)
        expect_equal_tensor(place, decoder(format)(blocks), wanted, f"{kind} {name} blocks", NAN)
        expect_equal_tensor(place, format.decode(blocks), wanted, f"{kind} {name} blocks through the table", NAN)


def block(layout: str, *values: float | bytes) -> bytes:
    return struct.pack(f"<{layout}", *values)


def hand_made() -> list[tuple[str, bytes, dict[int, float]]]:
    """A block of each format with few nonzero numbers: (format, bytes, value by index)."""
    ones = bytes([0x11] * 16)
    low = bytes([0xF0 | 3]) + bytes(15)
    six = bytes([2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])  # sub-block 0: scale 2, minimum 1
    return [
        ("Q4_0", block("e16s", 2.0, low), {0: 2.0 * (3 - 8), 16: 2.0 * (15 - 8), 1: -16.0, 31: -16.0}),
        ("Q4_1", block("ee16s", 2.0, -1.0, low), {0: 5.0, 16: 29.0, 1: -1.0}),
        ("Q5_0", block("e4s16s", 2.0, bytes([1, 0, 2, 0]), low), {0: 2.0 * (19 - 16), 16: -2.0, 17: 0.0, 1: -32.0}),
        ("Q5_1", block("ee4s16s", 2.0, 1.0, bytes([1, 0, 2, 0]), low), {0: 39.0, 16: 31.0, 17: 33.0, 1: 1.0}),
        ("Q8_0", block("e32b", 0.5, *range(-16, 16)), {0: -8.0, 15: -0.5, 16: 0.0, 31: 7.5}),
        ("Q4_K", block("ee12s128s", 1.5, 0.5, six, ones * 8), {0: 2.5, 31: 2.5, 32: 0.0, 255: 0.0}),
        ("Q5_K", block("ee12s32s128s", 1.5, 0.5, six, bytes([1] * 32), ones * 8), {0: 50.5, 31: 50.5, 32: 0.0}),
        (
            "Q6_K",
            block("128s64s16be", bytes([0x21] * 128), bytes([0xE4] * 64), *range(16), 1.0),
            {0: 0.0, 16: -31.0, 32: 2 * -15.0, 255: 15 * 18.0},
        ),
        ("Q8_K", block("f256b16h", 0.25, *([4, -8] * 128), *[7] * 16), {0: 1.0, 1: -2.0, 255: -2.0}),
        (
            "Q2_K",
            block("16s64see", bytes([0x21, 0x13] + [0] * 14), bytes([0xE4] * 64), 2.0, 0.5),
            {0: -1.0, 15: -1.0, 16: -0.5, 32: 0.0},
        ),
        ("IQ4_NL", block("e16s", 2.0, bytes([0xF0] * 16)), {0: -254.0, 15: -254.0, 16: 226.0, 31: 226.0}),
        ("MXFP4", block("B16s", 128, bytes([0xF7] * 16)), {0: 12.0, 16: -12.0}),
        ("TQ2_0", block("64se", bytes([0b01100100] * 64), 3.0), {0: -3.0, 32: 0.0, 64: 3.0, 96: 0.0, 128: -3.0}),
    ]


@check("QUNT-010", "QUNT-011", area="quantization")
def blocks_made_by_hand_decode_to_what_is_written_in_them() -> None:
    for name, raw, values in hand_made():
        got = decoder(table.FORMATS[name])(torch.tensor([list(raw)], dtype=torch.uint8))[0].tolist()
        expect_equal(place_of(name), {place: got[place] for place in values}, values, f"values of a {name} block")


@check("QUNT-015", area="quantization")
def plain_numbers_are_their_own_bytes() -> None:
    layouts = {"F32": "<f", "F16": "<e", "F64": "<d", "I8": "<b", "I16": "<h", "I32": "<i", "I64": "<q"}
    for name, layout in layouts.items():
        numbers = [1, -2, 100] if name.startswith("I") else [1.5, -0.25, 100.0]
        raw = [list(struct.pack(layout, number)) for number in numbers]
        got = table.FORMATS[name].decode(torch.tensor(raw, dtype=torch.uint8))
        expect_equal("quant.formats.plain.read_value", got.flatten().tolist(), numbers, f"numbers stored as {name}")
    raw16 = [list(struct.pack("<f", number)[2:]) for number in (1.5, -0.25, 3.0)]
    got = table.FORMATS["BF16"].decode(torch.tensor(raw16, dtype=torch.uint8))
    expect_equal("quant.formats.plain.read_value", got.flatten().tolist(), [1.5, -0.25, 3.0], "numbers stored as BF16")
    kinds = {name: table.FORMATS[name].plain for name in ("F32", "BF16", "I8", "Q8_0")}
    expect_equal(
        "quant.formats.format.Format.plain",
        kinds,
        {"F32": torch.float32, "BF16": torch.bfloat16, "I8": torch.int8, "Q8_0": None},
        "dtypes",
    )
    given = torch.tensor([[1.0]])
    expect_equal_tensor("quant.formats.plain.write_value", plain.write_value(given)["value"], given, "what is written")

"""The smallest parts of block formats: packed numbers, rounding, fields of a block, six-bit scales, tables, base-3 digits.

Each is compared with a definition in plain Python, one number at a time, or with values written down by hand.
"""

# mypy: disable-error-code="arg-type,assignment,misc"
# tables mix good and bad arguments

import math
import random
import struct

import gguf
import torch
from torch import Tensor

from conformance.checks import check
from conformance.checks.assertions import expect, expect_equal, expect_equal_tensor, expect_refused
from conformance.checks.generation.rigged import blamed
from nanollama.quant.formats import bits, codebook, superblock, table, ternary, uniform
from nanollama.quant.formats import format as formats


def random_bytes(seed: int, *shape: int) -> Tensor:
    count = math.prod(shape)
    return torch.tensor(list(random.Random(seed).randbytes(count)), dtype=torch.uint8).reshape(shape)


def numbers_in(packed: list[int], width: int, run: int) -> list[int]:
    """Of each `run` bytes the lowest `width` bits of all, then the next `width` bits."""
    out = []
    for start in range(0, len(packed), run):
        for shift in range(0, 8, width):
            out += [byte >> shift & (1 << width) - 1 for byte in packed[start : start + run]]
    return out


@check("QUNT-001", area="quantization")
def numbers_come_out_of_bytes_in_order() -> None:
    got = bits.unpack(torch.tensor([[0x21, 0x43]], dtype=torch.uint8), bits=4, run=1)
    expect_equal("quant.formats.bits.unpack", (got.tolist(), got.dtype), ([[1, 2, 3, 4]], torch.int8), "the nibbles of 21 43")
    for width in (1, 2, 4):
        for run in (1, 2, 4, 8):
            packed = random_bytes(width * run, 3, 16)
            wanted = [numbers_in(row, width, run) for row in packed.tolist()]
            expect_equal(
                "quant.formats.bits.unpack",
                bits.unpack(packed, bits=width, run=run).tolist(),
                wanted,
                f"{width} bits, run {run}",
            )
            back = bits.pack(torch.tensor(wanted), bits=width, run=run)
            expect_equal_tensor("quant.formats.bits.pack", back, packed, f"packed again, {width} bits, run {run}")


@check("QUNT-002", area="quantization")
def rounding_and_reciprocals_are_those_of_c() -> None:
    halves = torch.tensor([0.0, 0.4, 0.5, 0.75, 1.5, 2.5, -0.5, -1.5, -2.4, -2.5, 7.0, 0.49999997, 8388609.0])
    wanted = [math.copysign(math.floor(abs(x) + 0.5), x) if abs(x) != 0.49999997 else 0.0 for x in halves.double().tolist()]
    wanted = [0.0 if abs(x) < 0.5 else w for x, w in zip(halves.double().tolist(), wanted, strict=True)]
    expect_equal("quant.formats.bits.round_half_away", bits.round_half_away(halves).tolist(), wanted, "rounded halves")
    got = bits.inverse(torch.tensor([4.0, 0.0, -0.5])).tolist()
    expect_equal("quant.formats.bits.inverse", got, [0.25, 0.0, -2.0], "reciprocals")
    got = bits.finite(torch.tensor([1.5, math.inf, -math.inf, math.nan])).tolist()
    expect_equal("quant.formats.bits.finite", got, [1.5, 0.0, 0.0, 0.0], "what is left of infinite numbers")
    got = bits.scaled(torch.tensor([[2.0, 3.0]]), torch.tensor([[1.0, 2.0, 3.0, 4.0]])).tolist()
    expect_equal("quant.formats.bits.scaled", got, [[[2.0, 4.0], [9.0, 12.0]]], "scaled numbers")


@check("QUNT-003", area="quantization")
def fields_are_read_little_endian_and_in_file_order() -> None:
    values = {torch.float16: ("<2e", [1.5, -2.0]), torch.float32: ("<2f", [0.1, -3.0]), torch.int16: ("<2h", [-2, 300])}
    values |= {torch.int8: ("<2b", [-1, 5]), torch.uint8: ("<2B", [255, 7])}
    for dtype, (layout, numbers) in values.items():
        raw = struct.pack(layout, *numbers)
        padded = torch.tensor([[9, *raw], [9, *raw]], dtype=torch.uint8)[:, 1:]  # at odd addresses
        got = formats.read(padded, dtype)
        wide = torch.float32 if dtype.is_floating_point else dtype
        wanted = torch.tensor([list(struct.unpack(layout, raw))] * 2, dtype=wide)
        expect_equal_tensor("quant.formats.format.read", got, wanted, f"{dtype} numbers")
    layout = {"a": formats.Field(torch.uint8, 1), "b": formats.Field(torch.float16, 2), "c": formats.Field(torch.int8, 3)}
    seen: dict[str, Tensor] = {}

    def from_fields(**fields: Tensor) -> Tensor:
        seen.update(fields)
        return fields["c"].float()

    made = formats.Format("x", 99, 3, layout, from_fields, lambda v: {"c": v, "a": v[:, :1] + 1, "b": v[:, :2] / 2})
    expect_equal(
        "quant.formats.format.Format",
        (made.block_bytes, made.bits_per_value, made.plain),
        (8, 64 / 3, None),
        "sizes of a format",
    )
    raw = struct.pack("<B2e3b", 200, 0.5, -1.0, 1, -2, 3)
    blocks = torch.tensor([list(raw), list(raw)], dtype=torch.uint8)
    got = made.decode(blocks)
    expect_equal("quant.formats.format.Format", got.tolist(), [[1.0, -2.0, 3.0]] * 2, "decoded blocks")
    expect_equal(
        "quant.formats.format.Format",
        {k: v.tolist()[1] for k, v in seen.items()},
        {"a": [200], "b": [0.5, -1.0], "c": [1, -2, 3]},
        "fields",
    )
    encoded = made.encode(torch.tensor([[1.0, -2.0, 3.0]]))
    expect_equal(
        "quant.formats.format.Format",
        bytes(encoded[0].tolist()),
        struct.pack("<B2e3b", 2, 0.5, -1.0, 1, -2, 3),
        "encoded fields",
    )


@check("QUNT-004", "GGUF-008", area="quantization")
def every_format_has_its_number_and_size() -> None:
    place, known = "quant.formats.table", {}
    for type_, (values, size) in gguf.GGML_QUANT_SIZES.items():
        known[type_.name] = (int(type_), values, size)
    for name, each in table.FORMATS.items():
        expect_equal(place, (each.name, each.id, each.block_size, each.block_bytes), (name, *known[name]), f"format {name}")
        expect("quant.formats.table.format_of_type", table.format_of_type(each.id) is each, f"type {each.id} is not {name}")
        expect("quant.formats.table.find_format", table.find_format(name.lower()) is each, f"{name.lower()} is not {name}")
    for name in ("F32", "F16", "BF16", "Q4_0", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4"):
        expect(place, name in table.FORMATS, f"{name} is missing")
    expect_refused("quant.formats.table.find_format", lambda: table.find_format("q9_9"), "q9_9", "an unknown name")
    expect_refused("quant.formats.table.format_of_type", lambda: table.format_of_type(16), "IQ2_XXS", "a type that is not read")
    expect_refused("quant.formats.table.format_of_type", lambda: table.format_of_type(999), "999", "an unknown type")


@check("QUNT-005", area="quantization")
def nibbles_and_fifth_bits() -> None:
    qs, qh = random_bytes(1, 2, 16), random_bytes(2, 2, 4)
    nibbles = [[byte & 15 for byte in row] + [byte >> 4 for byte in row] for row in qs.tolist()]
    with blamed("quant.formats.uniform.nibbles"):
        expect_equal("quant.formats.uniform.nibbles", uniform.nibbles(qs).tolist(), nibbles, "nibbles")
    fifth = [[row[i // 8] >> i % 8 & 1 for i in range(32)] for row in qh.tolist()]
    wanted = [[n + 16 * f for n, f in zip(*rows, strict=True)] for rows in zip(nibbles, fifth, strict=True)]
    with blamed("quant.formats.uniform.five_bits"):
        expect_equal("quant.formats.uniform.five_bits", uniform.five_bits(qs, qh).tolist(), wanted, "five-bit numbers")


def six_bits(raw: list[int]) -> tuple[list[int], list[int]]:
    """ggml's get_scale_min_k4, one number at a time."""
    scales, mins = [raw[j] & 63 for j in range(4)], [raw[j + 4] & 63 for j in range(4)]
    for j in range(4, 8):
        scales.append(raw[j + 4] & 15 | raw[j - 4] >> 6 << 4)
        mins.append(raw[j + 4] >> 4 | raw[j] >> 6 << 4)
    return scales, mins


@check("QUNT-006", area="quantization")
def six_bit_scales_and_minimums_share_twelve_bytes() -> None:
    raw = random_bytes(3, 9, 12)
    with blamed("quant.formats.superblock.six_bit_pairs"):
        scales, mins = superblock.six_bit_pairs(raw)
    wanted = [six_bits(row) for row in raw.tolist()]
    expect_equal("quant.formats.superblock.six_bit_pairs", scales.tolist(), [w[0] for w in wanted], "scales")
    expect_equal("quant.formats.superblock.six_bit_pairs", mins.tolist(), [w[1] for w in wanted], "minimums")
    pair = [torch.tensor([w[i] for w in wanted], dtype=torch.uint8) for i in (0, 1)]
    expect_equal_tensor(
        "quant.formats.superblock.join_six_bit_pairs", superblock.join_six_bit_pairs(*pair), raw, "joined again"
    )


@check("QUNT-007", area="quantization")
def codes_look_their_values_up() -> None:
    got = codebook.look_up((5, -6, 7), torch.tensor([[2, 0, 1]], dtype=torch.int8))
    expect_equal("quant.formats.codebook.look_up", got.tolist(), [[7, 5, -6]], "values of codes 2 0 1")
    powers = codebook.half_power_of_two(torch.arange(256, dtype=torch.uint8))
    wanted = torch.tensor([2.0 ** (e - 128) for e in range(256)], dtype=torch.float64)
    expect_equal_tensor("quant.formats.codebook.half_power_of_two", powers.double(), wanted, "half powers of two")


@check("QUNT-008", area="quantization")
def base_three_digits() -> None:
    trits = torch.tensor([[random.Random(i).randrange(3) for _ in range(20)] for i in range(8)])
    packed = ternary.pack_trits(trits, 5)
    for row, line in zip(trits.tolist(), packed.tolist(), strict=True):
        for place, byte in enumerate(line):
            number = sum(row[k * 4 + place] * 3 ** (4 - k) for k in range(5))
            expect_equal("quant.formats.ternary.pack_trits", byte, -(-number * 256 // 243), "a byte of five digits")
    expect_equal(
        "quant.formats.ternary.unpack_trits",
        ternary.unpack_trits(packed.to(torch.uint8), 5).tolist(),
        trits.tolist(),
        "five digits",
    )
    four = ternary.pack_trits(trits[:, :16], 4)
    wanted = [
        [-(-sum(row[k * 4 + p] * 3 ** (4 - k) for k in range(4)) * 256 // 243) for p in range(4)] for row in trits.tolist()
    ]
    expect_equal("quant.formats.ternary.pack_trits", four.tolist(), wanted, "bytes of four digits")
    got = ternary.unpack_trits(four.to(torch.uint8), 4).tolist()
    expect_equal("quant.formats.ternary.unpack_trits", got, trits[:, :16].tolist(), "four digits")

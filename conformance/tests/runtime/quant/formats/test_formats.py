"""Block formats by hand: one block of each that can be decoded on paper."""

import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nanollama.quant import FORMATS, dequantize
from nanollama.quant.formats.bits import pack, round_half_away, unpack

ONE = "003c"  # 1.0 as float16, little endian
TWO = "0040"
HALF = "0038"


def block(*parts: str | tuple[str, int]) -> Tensor:
    """Bytes in hexadecimal, in file order; ("88", 15) is fifteen times 88."""
    text = "".join(part if isinstance(part, str) else part[0] * part[1] for part in parts)
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)


def decoded(name: str, *parts: str | tuple[str, int]) -> list[float]:
    return dequantize(block(*parts), name, (FORMATS[name].block_size,)).tolist()


def changed(size: int, rest: float, **at: float) -> list[float]:
    """`size` times `rest`, except at the places named v0, v16, …"""
    return [at.get(f"v{place}", rest) for place in range(size)]


def test_bytes_become_nibbles_run_by_run() -> None:
    assert unpack(block("2143").reshape(2, 1), bits=4, run=1).tolist() == [[1, 2], [3, 4]]
    assert unpack(block("2143")[None], bits=4, run=1).tolist() == [[1, 2, 3, 4]]
    assert unpack(block("2143")[None], bits=4, run=2).tolist() == [[1, 3, 2, 4]]
    assert unpack(block("e4")[None], bits=2, run=1).tolist() == [[0, 1, 2, 3]]
    assert unpack(block("05")[None], bits=1, run=1).tolist() == [[1, 0, 1, 0, 0, 0, 0, 0]]


@given(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 16, 32]), st.integers(0, 2**32))
def test_packing_is_the_inverse_of_unpacking(bits: int, run: int, seed: int) -> None:
    packed = torch.randint(0, 256, (3, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(pack(unpack(packed, bits, run), bits, run), packed)


def test_halves_are_rounded_away_from_zero() -> None:
    assert round_half_away(torch.tensor([0.5, -0.5, 1.5, 2.5, -2.5, 0.49999997])).tolist() == [1, -1, 2, 3, -3, 0]


def test_q4_0_is_scale_times_nibble_minus_8() -> None:
    # low nibble f: value 0 = 2·(15 - 8); high nibble 9: value 16 = 2·(9 - 8); nibbles of 8 are zero
    assert decoded("Q4_0", TWO, "9f", ("88", 15)) == changed(32, 0.0, v0=14.0, v16=2.0)


def test_q4_1_is_scale_times_nibble_plus_minimum() -> None:
    assert decoded("Q4_1", HALF, "00bc", "20", ("00", 15)) == changed(32, -1.0, v16=0.0)  # 0.5·2 - 1


def test_q5_0_takes_its_fifth_bits_from_one_little_endian_word() -> None:
    # bits 0 and 31 set: value 0 = (16 + 15) - 16, value 31 = (16 + 1) - 16; all others 0 - 16
    assert decoded("Q5_0", ONE, "01000080", "0f", ("00", 14), "10") == changed(32, -16.0, v0=15.0, v31=1.0)


def test_q5_1_has_a_minimum_and_no_offset() -> None:
    assert decoded("Q5_1", ONE, TWO, "00000100", "0f", ("00", 15)) == changed(32, 2.0, v0=17.0, v16=18.0)


def test_q8_0_is_scale_times_signed_byte() -> None:
    assert decoded("Q8_0", HALF, "80", "7f", ("00", 30)) == changed(32, 0.0, v0=-64.0, v1=63.5)


def test_q2_k_has_a_scale_and_a_minimum_nibble_for_each_16_values() -> None:
    # sub-block 0: scale 1, min 2; all others scale 0, min 0, except 2: scale 3. Byte 0 holds 1 (value 0) and 2 (value 32).
    scales = ("21", "00", "03", *["00"] * 13)
    expected = [-1.0] * 16 + [0.0] * 240  # - 0.5·2
    expected[0], expected[32] = 1 * 1 - 1.0, 3 * 2.0
    assert decoded("Q2_K", *scales, "09", ("00", 63), ONE, HALF) == expected


def test_q3_k_subtracts_4_unless_the_mask_bit_is_set_and_32_from_its_scales() -> None:
    # hmask byte 0 = 1: value 0 has bit 2. Scale 0: low nibble 5 in byte 0, high bits 2 in byte 8: 32 + 5 - 32 = 5.
    # Scale 8: high nibble 1 of byte 0, high bits 2 (bits 4–5 of byte 8): 33 - 32 = 1. Other scales: -32.
    values = decoded("Q3_K", "01", ("00", 31), "03", ("00", 63), "15", ("00", 7), "22", ("00", 3), ONE)
    assert values[0] == 5 * (3 + 4 - 4)
    assert values[1:16] == [5 * -4] * 15
    assert values[16:32] == [-32 * -4] * 16
    assert values[128:144] == [-4.0] * 16


def test_q4_k_puts_the_high_bits_of_scales_4_to_7_into_the_first_bytes() -> None:
    # scale 0 = 3 and the two bits 01 above it go to scale 4 = 16 + 2; min 0 = 1, bits 10 above it: min 4 = 32 + 4
    values = decoded("Q4_K", ONE, HALF, "43", ("00", 3), "81", ("00", 3), "42", ("00", 3), "21", ("00", 63), "05", ("00", 63))
    assert values[:32] == [3 * 1 - 0.5] + [-0.5] * 31
    assert values[32:64] == [0.0] * 32
    assert values[128:160] == [18 * 5 - 18.0] + [-18.0] * 31


def test_q5_k_takes_the_fifth_bit_of_sub_block_i_from_bit_i() -> None:
    scales = ("01", "02", ("00", 10))  # scales 0 and 1 are 1 and 2, no mins
    values = decoded("Q5_K", ONE, HALF, *scales, "02", "01", ("00", 30), "43", ("00", 127))
    assert values[:33] == [3.0, 16.0] + [0.0] * 30 + [2 * (16 + 4.0)]
    assert not any(values[33:])


def test_q6_k_is_scale_times_six_bits_minus_32() -> None:
    # ql byte 0 = 21: value 0 low 1, value 64 low 2; qh byte 0 = 0xe4: high bits 0, 1, 2, 3 of values 0, 32, 64, 96
    scales = ("01", "00", "ff", "00", "02", "00", "03", ("00", 9))
    values = decoded("Q6_K", "21", ("00", 127), "e4", ("00", 63), *scales, ONE)
    assert (values[0], values[1]) == (1 - 32, -32)
    assert (values[32], values[33]) == (-(16 - 32), 32)
    assert (values[64], values[65]) == (2 * (32 + 2 - 32), 2 * -32)
    assert (values[96], values[97]) == (3 * (48 - 32), 3 * -32)


def test_q8_k_has_a_float32_scale_and_its_sums_are_not_read() -> None:
    assert decoded("Q8_K", "0000c03f", "fe", ("00", 255), ("77", 32)) == changed(256, 0.0, v0=-3.0)


def test_iq4_nl_looks_its_values_up() -> None:
    assert decoded("IQ4_NL", HALF, "f0", ("88", 15)) == changed(32, 0.5, v0=-63.5, v16=56.5)


def test_iq4_xs_has_six_bit_scales_in_two_places() -> None:
    # scale 0: low nibble 3, high bits 2: 35 - 32 = 3; scale 1: low nibble 1, high bits 2: 1; the others -32
    values = decoded("IQ4_XS", ONE, "0a00", "13", ("00", 3), ("88", 16), ("f8", 16), ("88", 96))
    assert values[:32] == [3.0] * 32
    assert values[32:64] == [1.0] * 16 + [113.0] * 16
    assert values[64:] == [-32.0] * 192


def test_mxfp4_is_half_a_power_of_two_times_a_doubled_e2m1() -> None:
    assert decoded("MXFP4", "80", "f1", ("70", 15)) == [1.0] + [0.0] * 15 + [-12.0] + [12.0] * 15  # e = 128: 2 · 0.5
    assert decoded("MXFP4", "00", ("11", 16)) == [2.0**-128] * 32
    assert decoded("MXFP4", "01", ("11", 16)) == [2.0**-127] * 32
    assert decoded("MXFP4", "ff", ("91", 16)) == [2.0**127] * 16 + [-(2.0**127)] * 16


def test_tq1_0_bytes_are_base_3_fractions() -> None:
    # ab = 171 = ceil(256 · 162/243): 0.20000 in base 3; 80 = 128 = ceil(256 · 121/243): 0.11111
    values = decoded("TQ1_0", "ab", ("80", 47), ("80", 4), TWO)
    assert [values[place] for place in (0, 32, 64, 96, 128)] == [2.0, -2.0, -2.0, -2.0, -2.0]
    assert [v for place, v in enumerate(values) if place % 32 or place > 128] == [0.0] * 251


def test_tq2_0_is_scale_times_two_bits_minus_1() -> None:
    values = decoded("TQ2_0", "e4", ("55", 63), TWO)
    assert values == changed(256, 0.0, v0=-2.0, v64=2.0, v96=4.0)


@pytest.mark.parametrize(
    ("name", "stored", "value"),
    [
        ("F64", struct.pack("<d", 0.1), 0.1),
        ("F32", struct.pack("<f", -1.5), -1.5),
        ("F16", struct.pack("<e", 2**-24), 2**-24),
        ("BF16", b"\x80\xbf", -1.0),
        ("I8", b"\x80", -128),
        ("I16", struct.pack("<h", -300), -300),
        ("I32", struct.pack("<i", -70000), -70000),
        ("I64", struct.pack("<q", -(2**40)), -(2**40)),
    ],
)
def test_plain_numbers_are_little_endian(name: str, stored: bytes, value: float) -> None:
    data = torch.tensor([0, *stored], dtype=torch.uint8)[1:]  # at an odd address
    assert dequantize(data, name, (1,), torch.float64).item() == value
    assert FORMATS[name].plain is not None

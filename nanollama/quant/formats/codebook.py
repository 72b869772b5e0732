"""Four-bit codes that index a table of 16 values: IQ4_NL, IQ4_XS and MXFP4.

x = d·table[q]; IQ4_XS has a 6-bit scale per 32 values, x = (d·scale)·table[q]. Every product is one float32 operation, as in
ggml's `dequantize_row_*` and the `gguf` package.
"""

import torch
from torch import Tensor

from nanollama.quant.formats.bits import pack, scaled, unpack
from nanollama.quant.formats.format import NIBBLES, SCALE, Field, Format

# ggml-common.h, kvalues_iq4nl: close together near zero, where normally distributed weights are.
IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
# OCP Microscaling formats 1.0, E2M1 (sign, 2 bits exponent, 1 bit mantissa), doubled so that 0.5 becomes an integer.
E2M1_DOUBLED = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
E2M1_BETWEEN = (0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0)  # midpoints between neighbours; a midpoint rounds down


def look_up(table: tuple[int, ...], q: Tensor) -> Tensor:
    return torch.tensor(table, dtype=torch.int8, device=q.device)[q.int()]


def decode_iq4_nl(d: Tensor, qs: Tensor) -> Tensor:
    return d * look_up(IQ4, unpack(qs, bits=4, run=16))


def decode_iq4_xs(d: Tensor, scales_h: Tensor, scales_l: Tensor, qs: Tensor) -> Tensor:
    """8 sub-blocks of 32: 6-bit scales minus 32, low four bits and high two bits apart."""
    scale = unpack(scales_l, bits=4, run=1) | unpack(scales_h, bits=2, run=1) << 4
    return scaled(d * (scale - 32), look_up(IQ4, unpack(qs, bits=4, run=16)))


def half_power_of_two(e: Tensor) -> Tensor:
    """2^(e - 128) as float32: half the scale of the exponent byte (E8M0, bias 127), as the table is doubled.

    Built from its bits: e ≥ 2 is the exponent field of a normal number; 2^-128 and 2^-127 are subnormal. e = 255, which the
    OCP text calls NaN, is 2^127 here, as in ggml's `ggml_e8m0_to_fp32_half`.
    """
    e = e.to(torch.int32)
    return torch.where(e < 2, 0x00200000 << e.clamp(max=1), (e - 1) << 23).view(torch.float32)


def decode_mxfp4(e: Tensor, qs: Tensor) -> Tensor:
    return half_power_of_two(e) * look_up(E2M1_DOUBLED, unpack(qs, bits=4, run=16))


def encode_mxfp4(values: Tensor) -> dict[str, Tensor]:
    """The exponent that scales the largest magnitude to 4 … 8, then the nearest table entry (the first of equally near ones).

    log2 is rounded to float32 before the floor: 2^10 - 2^-14 counts as 2^10. Magnitudes below 2^-125 overflow the exponent
    byte and become 0, and an infinite entry is never the nearest. All as in ggml's `quantize_row_mxfp4_ref`.
    """
    largest = values.abs().amax(dim=1, keepdim=True)
    exponent = largest.double().log2().float().floor() - 2 + 127
    e = torch.where(largest > 0, exponent, 0).to(torch.int32).to(torch.uint8)
    q = torch.bucketize(values.abs() / half_power_of_two(e), torch.tensor(E2M1_BETWEEN))  # exact: a power of two
    q = q.minimum(torch.where(e > 252, 5, 7))  # 8 · 2^(253 - 128) is infinite
    return {"e": e, "qs": pack(torch.where((values < 0) & (q > 0), q + 8, q), bits=4, run=16)}


CODEBOOK = (
    Format("IQ4_NL", 20, 32, {"d": SCALE, "qs": NIBBLES}, decode_iq4_nl),
    Format(
        "IQ4_XS",
        23,
        256,
        {"d": SCALE, "scales_h": Field(torch.uint8, 2), "scales_l": Field(torch.uint8, 4), "qs": Field(torch.uint8, 128)},
        decode_iq4_xs,
    ),
    Format("MXFP4", 39, 32, {"e": Field(torch.uint8, 1), "qs": NIBBLES}, decode_mxfp4, encode_mxfp4),
)

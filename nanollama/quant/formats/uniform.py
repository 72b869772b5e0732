"""Blocks of 32 values on evenly spaced levels: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 (`block_q4_0` … in ggml-common.h).

x = d·q with a signed q, or x = d·q + m with q ≥ 0. d and m are float16 and widened first; product and sum are two separate
float32 operations, never one fused, which makes every bit equal to ggml's `dequantize_row_*` and to the `gguf` package.
Byte i holds the low four bits of values i and i + 16; bit i of `qh` is the fifth bit of value i.
Encoding follows `quantize_row_*_ref`: multiply by the float32 reciprocal of the unrounded scale, add one half, truncate.
"""

import torch
from torch import Tensor

from nanollama.quant.formats.bits import finite, inverse, pack, round_half_away, unpack
from nanollama.quant.formats.format import NIBBLES, SCALE, Field, Format

FIFTH_BITS = Field(torch.uint8, 4)


def nibbles(qs: Tensor) -> Tensor:
    """The codes of four bits: bytes [N, 16] → int8 [N, 32], first the low halves of all bytes, then the high ones."""
    return unpack(qs, bits=4, run=16)


def five_bits(qs: Tensor, qh: Tensor) -> Tensor:
    return nibbles(qs) | unpack(qh, bits=1, run=1) << 4


def decode_q4_0(d: Tensor, qs: Tensor) -> Tensor:
    """d float32 [N, 1], bytes [N, 16] → float32 [N, 32]. The middle one of the 16 codes, 8, is 0."""
    return d * (nibbles(qs) - 8)


def decode_q4_1(d: Tensor, m: Tensor, qs: Tensor) -> Tensor:
    return d * nibbles(qs) + m


def decode_q5_0(d: Tensor, qh: Tensor, qs: Tensor) -> Tensor:
    return d * (five_bits(qs, qh) - 16)


def decode_q5_1(d: Tensor, m: Tensor, qh: Tensor, qs: Tensor) -> Tensor:
    return d * five_bits(qs, qh) + m


def decode_q8_0(d: Tensor, qs: Tensor) -> Tensor:
    """d float32 [N, 1], codes int8 [N, 32] → float32 [N, 32]."""
    return d * qs


def around_zero(values: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """d [N, 1], q [N, 32] in 0 … 2·half - 1: the value of largest magnitude (the first of them) becomes exactly -half."""
    largest = values.gather(1, values.abs().argmax(dim=1, keepdim=True))
    d = largest / -half
    return d, finite(values * inverse(d) + (half + 0.5)).to(torch.uint8).clamp(max=2 * half - 1)


def above_minimum(values: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """d, m [N, 1], q [N, 32] in 0 … top: the smallest value becomes 0, the largest top.

    Chosen by position, as amin may return either of -0 and 0: the first gives ggml's bytes.
    """
    m = values.gather(1, values.argmin(dim=1, keepdim=True))
    d = (values.gather(1, values.argmax(dim=1, keepdim=True)) - m) / top
    return d, m, finite((values - m) * inverse(d) + 0.5).to(torch.uint8).clamp(max=top)


def encode_q4_0(values: Tensor) -> dict[str, Tensor]:
    d, q = around_zero(values, 8)
    return {"d": d, "qs": pack(q, bits=4, run=16)}


def encode_q4_1(values: Tensor) -> dict[str, Tensor]:
    d, m, q = above_minimum(values, 15)
    return {"d": d, "m": m, "qs": pack(q, bits=4, run=16)}


def encode_q5_0(values: Tensor) -> dict[str, Tensor]:
    d, q = around_zero(values, 16)
    return {"d": d, "qh": pack(q >> 4, bits=1, run=1), "qs": pack(q & 15, bits=4, run=16)}


def encode_q5_1(values: Tensor) -> dict[str, Tensor]:
    d, m, q = above_minimum(values, 31)
    return {"d": d, "m": m, "qh": pack(q >> 4, bits=1, run=1), "qs": pack(q & 15, bits=4, run=16)}


def encode_q8_0(values: Tensor) -> dict[str, Tensor]:
    """float32 [N, 32] → d [N, 1], the largest magnitude / 127, and codes -127 … 127, halves rounded away from zero."""
    d = values.abs().amax(dim=1, keepdim=True) / 127
    return {"d": d, "qs": round_half_away(finite(values * inverse(d)))}


UNIFORM = (
    Format("Q4_0", 2, 32, {"d": SCALE, "qs": NIBBLES}, decode_q4_0, encode_q4_0),
    Format("Q4_1", 3, 32, {"d": SCALE, "m": SCALE, "qs": NIBBLES}, decode_q4_1, encode_q4_1),
    Format("Q5_0", 6, 32, {"d": SCALE, "qh": FIFTH_BITS, "qs": NIBBLES}, decode_q5_0, encode_q5_0),
    Format("Q5_1", 7, 32, {"d": SCALE, "m": SCALE, "qh": FIFTH_BITS, "qs": NIBBLES}, decode_q5_1, encode_q5_1),
    Format("Q8_0", 8, 32, {"d": SCALE, "qs": Field(torch.int8, 32)}, decode_q8_0, encode_q8_0),
)

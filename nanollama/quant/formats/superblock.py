"""The K formats: super-blocks of 256 values in 8 or 16 sub-blocks, with small integers as scales of the sub-blocks.

x = (d·scale)·q, or (d·scale)·q - (dmin·min). d and dmin are float16 (Q8_K: float32) and widened first; then every product and
difference is one float32 operation in exactly this order, as in ggml's `dequantize_row_q*_K` and the `gguf` package.
Layouts: `block_q2_K` … `block_q8_K` in ggml-common.h. Q4_K, Q5_K and Q6_K are written as
`quantize_row_q*_K_ref` writes them, by the search in fit.py; the others can only be read.
"""

import torch
from torch import Tensor

from nanollama.quant.formats.bits import pack, scaled, unpack
from nanollama.quant.formats.fit import NEGLIGIBLE, codes, divide, fit_above_minimum, fit_around_zero
from nanollama.quant.formats.format import SCALE, Field, Format


def octets(length: int) -> Field:
    return Field(torch.uint8, length)


def decode_q2_k(scales: Tensor, qs: Tensor, d: Tensor, dmin: Tensor) -> Tensor:
    """16 sub-blocks of 16: scale in the low nibble of a byte, min in the high one; 2-bit q."""
    scale, minimum = unpack(scales, bits=4, run=16).chunk(2, dim=1)
    return scaled(d * scale, unpack(qs, bits=2, run=32)) - (dmin * minimum)[:, :, None]


def decode_q3_k(hmask: Tensor, qs: Tensor, scales: Tensor, d: Tensor) -> Tensor:
    """16 sub-blocks of 16: 6-bit scales minus 32 (low four bits in 8 bytes, high two in 4); 3-bit q minus 4."""
    scale = unpack(scales[:, :8], bits=4, run=8) | unpack(scales[:, 8:], bits=2, run=4) << 4
    q = unpack(qs, bits=2, run=32) | unpack(hmask, bits=1, run=32) << 2
    return scaled(d * (scale - 32), q - 4)


def six_bit_pairs(scales: Tensor) -> tuple[Tensor, Tensor]:
    """Twelve bytes → 8 scales and 8 mins of six bits, each [N, 8].

    Scales 0–3 are the low six bits of bytes 0–3, mins 0–3 those of bytes 4–7. Number 4 + i has its low four bits in byte 8 + i
    (scale: low nibble, min: high nibble) and its high two bits in the two bits that byte i, or 4 + i, has left.
    """
    first = unpack(scales[:, 8:], bits=4, run=4)  # low nibbles of scales 4–7, then of mins 4–7
    low, high = scales[:, :8] & 63, (scales[:, :8] >> 6) << 4
    rest = first | high
    return torch.cat([low[:, :4], rest[:, :4]], dim=1), torch.cat([low[:, 4:], rest[:, 4:]], dim=1)


def decode_q4_k(d: Tensor, dmin: Tensor, scales: Tensor, qs: Tensor) -> Tensor:
    """8 sub-blocks of 32: 6-bit scale and min; 4-bit q."""
    scale, minimum = six_bit_pairs(scales)
    return scaled(d * scale, unpack(qs, bits=4, run=32)) - (dmin * minimum)[:, :, None]


def decode_q5_k(d: Tensor, dmin: Tensor, scales: Tensor, qh: Tensor, qs: Tensor) -> Tensor:
    """8 sub-blocks of 32: 6-bit scale and min; 5-bit q, the fifth bit of sub-block i in bit i of 32 bytes."""
    scale, minimum = six_bit_pairs(scales)
    q = unpack(qs, bits=4, run=32) | unpack(qh, bits=1, run=32) << 4
    return scaled(d * scale, q) - (dmin * minimum)[:, :, None]


def decode_q6_k(ql: Tensor, qh: Tensor, scales: Tensor, d: Tensor) -> Tensor:
    """16 sub-blocks of 16: 8-bit scale; 6-bit q minus 32."""
    return scaled(d * scales, (unpack(ql, bits=4, run=64) | unpack(qh, bits=2, run=32) << 4) - 32)


def decode_q8_k(d: Tensor, qs: Tensor, bsums: Tensor) -> Tensor:
    """One float32 scale. `bsums`, the sums of 16 q each, only speed up dot products and are not read here."""
    return d * qs


def groups(values: Tensor, size: int) -> Tensor:
    """[N, 256] → [size, N·256/size]: a sub-block per column."""
    return values.reshape(-1, size).T.contiguous()


def encode_with_minimum(values: Tensor, top: int, first: float, steps: int) -> tuple[dict[str, Tensor], Tensor]:
    """The fields that Q4_K and Q5_K share, and q [N, 256], rounded again for the scales as they are stored."""
    x = groups(values, 32)
    q, scale, minimum = fit_above_minimum(x, top, first, steps)
    (d, scale6), (dmin, minimum6) = to_six_bits(scale.reshape(-1, 8)), to_six_bits(-minimum.reshape(-1, 8))
    stored_scale, stored_minimum = ((s.half().float() * n).reshape(-1) for s, n in ((d, scale6), (dmin, minimum6)))
    q = torch.where(stored_scale == 0, q, codes((x + stored_minimum) / stored_scale, 0, top))
    fields = {"d": d, "dmin": dmin, "scales": join_six_bit_pairs(scale6.to(torch.uint8), minimum6.to(torch.uint8))}
    return fields, q.T.reshape(-1, 256).to(torch.uint8)


def to_six_bits(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """8 numbers per super-block ≈ d·q with q in 0 … 63: d [N, 1], q [N, 8]."""
    largest = numbers.amax(dim=1, keepdim=True).clamp(min=0) + 0.0  # -0 becomes 0
    return largest / 63, codes(torch.where(largest > 0, divide(63, largest), 0) * numbers, 0, 63)


def join_six_bit_pairs(scale: Tensor, minimum: Tensor) -> Tensor:
    """The inverse of `six_bit_pairs`: uint8 [N, 8] and [N, 8] → [N, 12]."""
    first = torch.cat([scale[:, :4] | scale[:, 4:] >> 4 << 6, minimum[:, :4] | minimum[:, 4:] >> 4 << 6], dim=1)
    return torch.cat([first, scale[:, 4:] & 15 | minimum[:, 4:] << 4], dim=1)


def encode_q4_k(values: Tensor) -> dict[str, Tensor]:
    fields, q = encode_with_minimum(values, top=15, first=-1.0, steps=20)
    return fields | {"qs": pack(q, bits=4, run=32)}


def encode_q5_k(values: Tensor) -> dict[str, Tensor]:
    fields, q = encode_with_minimum(values, top=31, first=-0.5, steps=15)
    return fields | {"qh": pack(q >> 4, bits=1, run=32), "qs": pack(q & 15, bits=4, run=32)}


def encode_q6_k(values: Tensor) -> dict[str, Tensor]:
    """The sub-block scale of largest magnitude becomes exactly -128."""
    x = groups(values, 16)
    q, scale = fit_around_zero(x, 32)
    scale = scale.reshape(-1, 16)
    peak = scale.gather(1, scale.abs().argmax(dim=1, keepdim=True))
    empty = peak.abs() < NEGLIGIBLE
    inverse_d = divide(-128, peak)
    d = torch.where(empty, 0, divide(1, inverse_d))
    scales = torch.where(empty, 0, codes(inverse_d * scale, -128, 127))
    stored = (d.half().float() * scales).reshape(-1)
    q = torch.where(stored == 0, q, codes(x / stored, -32, 31)).T.reshape(-1, 256)
    q = torch.where(empty, 0, q + 32).to(torch.uint8)
    return {"ql": pack(q & 15, bits=4, run=64), "qh": pack(q >> 4, bits=2, run=32), "scales": scales, "d": d}


SUPERBLOCK = (
    Format("Q2_K", 10, 256, {"scales": octets(16), "qs": octets(64), "d": SCALE, "dmin": SCALE}, decode_q2_k),
    Format("Q3_K", 11, 256, {"hmask": octets(32), "qs": octets(64), "scales": octets(12), "d": SCALE}, decode_q3_k),
    Format("Q4_K", 12, 256, {"d": SCALE, "dmin": SCALE, "scales": octets(12), "qs": octets(128)}, decode_q4_k, encode_q4_k),
    Format(
        "Q5_K",
        13,
        256,
        {"d": SCALE, "dmin": SCALE, "scales": octets(12), "qh": octets(32), "qs": octets(128)},
        decode_q5_k,
        encode_q5_k,
    ),
    Format(
        "Q6_K",
        14,
        256,
        {"ql": octets(128), "qh": octets(64), "scales": Field(torch.int8, 16), "d": SCALE},
        decode_q6_k,
        encode_q6_k,
    ),
    Format(
        "Q8_K",
        15,
        256,
        {"d": Field(torch.float32, 1), "qs": Field(torch.int8, 256), "bsums": Field(torch.int16, 16)},
        decode_q8_k,
    ),
)

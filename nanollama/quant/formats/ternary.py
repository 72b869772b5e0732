"""Weights that are -1, 0 or 1 times one float16 scale per 256: TQ1_0 (1.69 bits per value) and TQ2_0 (2.06).

x = d·(q - 1) in float32, as in ggml's `dequantize_row_tq*_0` and the `gguf` package.
"""

import torch
from torch import Tensor

from nanollama.quant.formats.bits import finite, inverse, pack, round_half_away, unpack
from nanollama.quant.formats.format import SCALE, Field, Format


def unpack_trits(packed: Tensor, digits: int) -> Tensor:
    """`digits` base-3 digits out of each byte: uint8 [N, n] → int8 [N, digits·n], first the first digit of all bytes.

    A byte is the fraction 0.d1 d2 d3 d4 d5 in base 3, times 256 (rounded up). Multiplied by 3^k modulo 256 it begins with digit
    k + 1, which is the whole part of the product times 3 / 256.
    """
    powers = torch.tensor([3**k for k in range(digits)], dtype=torch.uint8, device=packed.device)[:, None]
    fraction = packed[:, None, :] * powers  # uint8 arithmetic is modulo 256, which drops the digits before
    return (fraction.to(torch.int16) * 3 >> 8).to(torch.int8).reshape(packed.shape[0], -1)


def pack_trits(trits: Tensor, digits: int) -> Tensor:
    """The inverse of `unpack_trits`; unused digits of a byte are 0."""
    powers = torch.tensor([3 ** (4 - k) for k in range(digits)])[:, None]
    number = (trits.reshape(trits.shape[0], digits, -1) * powers).sum(dim=1)
    return (number * 256 + 242) // 243  # 243 = 3^5; adding 242 rounds up


def decode_tq1_0(qs: Tensor, qh: Tensor, d: Tensor) -> Tensor:
    """240 values five to a byte (160 in 32 bytes, then 80 in 16), the last 16 four to a byte."""
    return d * (torch.cat([unpack_trits(qs[:, :32], 5), unpack_trits(qs[:, 32:], 5), unpack_trits(qh, 4)], dim=1) - 1)


def decode_tq2_0(qs: Tensor, d: Tensor) -> Tensor:
    """Two bits each. A fourth value, 2, could be stored; no encoder writes it."""
    return d * (unpack(qs, bits=2, run=32) - 1)


def nearest_trits(values: Tensor) -> tuple[Tensor, Tensor]:
    """d [N, 1] = the largest magnitude, q [N, 256] in 0 … 2: x/d rounded, half away from zero, plus 1."""
    d = values.abs().amax(dim=1, keepdim=True)
    return d, round_half_away(finite(values * inverse(d))).to(torch.int64) + 1


def encode_tq1_0(values: Tensor) -> dict[str, Tensor]:
    d, q = nearest_trits(values)
    qs = torch.cat([pack_trits(q[:, :160], 5), pack_trits(q[:, 160:240], 5)], dim=1)
    return {"qs": qs, "qh": pack_trits(q[:, 240:], 4), "d": d}


def encode_tq2_0(values: Tensor) -> dict[str, Tensor]:
    d, q = nearest_trits(values)
    return {"qs": pack(q, bits=2, run=32), "d": d}


TERNARY = (
    Format(
        "TQ1_0", 34, 256, {"qs": Field(torch.uint8, 48), "qh": Field(torch.uint8, 4), "d": SCALE}, decode_tq1_0, encode_tq1_0
    ),
    Format("TQ2_0", 35, 256, {"qs": Field(torch.uint8, 64), "d": SCALE}, decode_tq2_0, encode_tq2_0),
)

"""Two weight-only formats, in memory only: `q8`, int8 with one scale per row, and `q4`, 4 bits with a scale and a minimum
per 32 weights.

A row of the matrix (one output channel) is one block, so rows may have any length. Scales precede the row's codes. q8 takes
1 byte per weight and 4 per row; q4 takes 5 bits per weight: 4, and twice 16 for each 32.
"""

from functools import cache, partial

import torch
from torch import Tensor

from nanollama.errors import unknown_name
from nanollama.quant.formats.bits import pack, scaled, unpack
from nanollama.quant.formats.format import Field, Format
from nanollama.quant.formats.table import find_format

GROUP = 32  # weights that share a scale and a minimum in q4
NOT_OF_GGML = -1


def encode_q8(values: Tensor) -> dict[str, Tensor]:
    """float32 [N, columns] → scale [N, 1], the largest magnitude / 127, and q [N, columns], values / scale rounded."""
    scale = values.abs().amax(dim=1, keepdim=True) / 127
    return {"scale": scale, "q": torch.where(scale == 0, 0, values / scale).round().clamp(-127, 127)}


def decode_q8(scale: Tensor, q: Tensor) -> Tensor:
    """value = scale · q: float32 [N, 1], int8 [N, columns] → float32 [N, columns]."""
    return scale * q


def encode_q4(values: Tensor) -> dict[str, Tensor]:
    """float32 [N, columns] → scale, minimum float16 [N, groups], q uint8 [N, groups · 16].

    The 32 values of a group lie on 16 even levels from their minimum to their maximum; two neighbours share a byte, the first
    in its low half. The codes are computed with scale and minimum as they are stored. A row that is not whole groups is
    padded with its last value.
    """
    filled = torch.cat([values, values[:, -1:].expand(-1, -values.shape[1] % GROUP)], dim=1)
    groups = filled.reshape(len(values), -1, GROUP)
    minimum, maximum = groups.aminmax(dim=2)
    stored_minimum, stored_scale = minimum.half(), ((maximum - minimum) / 15).half()
    scale = stored_scale[:, :, None].float()
    q = torch.where(scale == 0, 0, (groups - stored_minimum[:, :, None].float()) / scale).round().clamp(0, 15)
    return {"scale": stored_scale, "minimum": stored_minimum, "q": pack(q.flatten(1), bits=4, run=1)}


def decode_q4(scale: Tensor, minimum: Tensor, q: Tensor, columns: int) -> Tensor:
    """value = scale · q + minimum: [N, groups], [N, groups], uint8 [N, groups · 16] → [N, columns]."""
    return (scaled(scale, unpack(q, bits=4, run=1)) + minimum[:, :, None]).flatten(1)[:, :columns]


@cache
def rowwise_format(name: str, columns: int) -> Format:
    """ "q8" or "q4" for rows of `columns` values, one block each. Raises NanollamaError for any other name."""
    if name == "q8":
        layout = {"scale": Field(torch.float32, 1), "q": Field(torch.int8, columns)}
        return Format("q8", NOT_OF_GGML, columns, layout, decode_q8, encode_q8)
    if name == "q4":
        groups = -(-columns // GROUP)
        halves = Field(torch.float16, groups)
        layout = {"scale": halves, "minimum": halves, "q": Field(torch.uint8, groups * GROUP // 2)}
        return Format("q4", NOT_OF_GGML, columns, layout, partial(decode_q4, columns=columns), encode_q4)
    raise unknown_name("quantization", name, ("q8", "q4"), "int8 with one scale per row, or 4 bits")


def format_for(name: str, columns: int) -> Format:
    """The format of this name, q8, q4 or one of GGUF's, for rows of `columns` values."""
    return rowwise_format(name, columns) if name in ("q8", "q4") else find_format(name)

"""Tensors stored as ordinary numbers: blocks of one value."""

import torch
from torch import Tensor

from nanollama.quant.formats.format import Field, Format


def read_value(value: Tensor) -> Tensor:
    return value


def write_value(values: Tensor) -> dict[str, Tensor]:
    return {"value": values}


def plain(name: str, id: int, dtype: torch.dtype) -> Format:
    """Numbers of `dtype`. Floating point rounds to nearest, ties to even, when it is written; integers are only read."""
    return Format(name, id, 1, {"value": Field(dtype, 1)}, read_value, write_value if dtype.is_floating_point else None)


PLAIN = (
    plain("F32", 0, torch.float32),
    plain("F16", 1, torch.float16),
    plain("I8", 24, torch.int8),
    plain("I16", 25, torch.int16),
    plain("I32", 26, torch.int32),
    plain("I64", 27, torch.int64),
    plain("F64", 28, torch.float64),
    plain("BF16", 30, torch.bfloat16),
)

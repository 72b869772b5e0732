"""Whole tensors: bytes → values and back. Sizes are checked before anything is allocated; work is done in bounded tiles."""

from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor

from nanollama.errors import NanollamaError
from nanollama.quant.formats.format import Format
from nanollama.quant.formats.table import FORMATS, find_format

TILE = 1 << 18  # values decoded at a time: 1 MiB of float32. Smaller tiles cost more calls, larger ones leave the cache


def row_bytes(format: Format, columns: int) -> int:
    """Bytes of one row of `columns` values. Raises NanollamaError unless these are whole blocks."""
    if columns < 0 or columns % format.block_size:
        raise NanollamaError(
            f"a row of {columns} values can't be {format.name}, which stores {format.block_size} at a time; "
            f"expected a multiple of {format.block_size}: use another format for this tensor"
        )
    return columns // format.block_size * format.block_bytes


def tensor_rows(data: Tensor, format: Format | str, shape: Sequence[int]) -> Tensor:
    """A tensor's bytes as uint8 [rows, bytes per row], a view; slice or index its rows for `decode_rows`.

    `shape` is in torch's order (the last dimension is the row). Raises NanollamaError if the number of bytes doesn't fit it.
    """
    format = known(format)
    if data.dtype is not torch.uint8:
        raise NanollamaError(f"stored blocks are {data.dtype}; expected bytes: pass tensor.view(torch.uint8)")
    if any(length < 0 for length in shape):
        raise NanollamaError(f"shape {list(shape)} has a negative length; expected lengths of 0 or more")
    columns = shape[-1] if shape else 1
    rows = prod(shape[:-1])
    size = row_bytes(format, columns)
    expected = rows * size
    if data.numel() != expected:
        raise NanollamaError(
            f"{data.numel()} bytes can't be a {format.name} tensor of shape {list(shape)}; expected {expected} bytes "
            f"({format.block_bytes} per {format.block_size} values); the file is cut, or its shape or type is wrong"
        )
    return data.reshape(rows, size)


def decode_rows(rows: Tensor, format: Format | str, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rows of blocks, uint8 [R, bytes per row] → [R, columns] in a floating `dtype`, on the same device, in one step."""
    format = known(format)
    if rows.dtype is not torch.uint8 or rows.ndim != 2 or rows.shape[1] % format.block_bytes:
        raise NanollamaError(
            f"{rows.dtype} of shape {list(rows.shape)} are not rows of {format.name}; "
            f"expected uint8 [rows, a multiple of {format.block_bytes}], as tensor_rows() gives"
        )
    columns = rows.shape[1] // format.block_bytes * format.block_size
    return format.decode(rows.reshape(-1, format.block_bytes)).to(floating(dtype)).reshape(rows.shape[0], columns)


def dequantize(data: Tensor, format: Format | str, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """A whole tensor from its bytes (uint8, any shape): → `shape`, of a floating `dtype`, on the same device.

    Bit-exact to the `gguf` package in float32; float64 widens these values, narrower types round them. (F64 and integers,
    which float32 can't hold, are converted to `dtype` directly.) NaN stays NaN, with any payload.
    """
    format = known(format)
    blocks = tensor_rows(data, format, shape).reshape(-1, format.block_bytes)
    values = torch.empty(blocks.shape[0], format.block_size, dtype=floating(dtype), device=data.device)
    for tile in tiles(blocks.shape[0], format.block_size):
        values[tile] = format.decode(blocks[tile]).to(dtype)
    return values.reshape(tuple(shape))


def quantize(values: Tensor, format: Format | str) -> Tensor:
    """A tensor's bytes in a format: [..., columns] → uint8 [..., bytes per row], on the CPU, bit-exact to the `gguf` package.

    Raises NanollamaError for a format that is only read, partial blocks, and numbers that don't fit or aren't finite.
    """
    format = known(format)
    if format.to_fields is None:
        writable = ", ".join(name for name, each in FORMATS.items() if each.to_fields)
        raise NanollamaError(f"writing {format.name} is not implemented, only reading it; use one of {writable}")
    shape = values.shape if values.ndim else torch.Size([1])
    size = row_bytes(format, shape[-1])
    numbers = values.detach().reshape(-1, format.block_size)
    blocks = torch.empty(numbers.shape[0], format.block_bytes, dtype=torch.uint8)
    for tile in tiles(numbers.shape[0], format.block_size):
        exact = numbers[tile].to("cpu", torch.float64 if format.plain is torch.float64 else torch.float32)
        blocks[tile] = format.encode(exact)
        check_finite(format, exact, blocks[tile])
    return blocks.reshape(*shape[:-1], size)


def check_finite(format: Format, values: Tensor, blocks: Tensor) -> None:
    """Raise NanollamaError if values [N, block_size] are not finite, or a number in their blocks isn't."""
    if not values.isfinite().all():
        raise NanollamaError(f"the tensor holds infinite or NaN values; expected finite weights to write as {format.name}")
    for name, numbers in format.split(blocks).items():
        if not numbers.isfinite().all():
            raise NanollamaError(
                f"magnitude {values.abs().max().item():g} does not fit {format.name}: its {name} would be infinite; "
                f"expected smaller weights; use F32 or BF16 for this tensor"
            )


def tiles(count: int, width: int) -> Iterator[slice]:
    """Slices that cover `count` blocks or rows of `width` values: each of at most TILE values, or one block or row."""
    step = max(1, TILE // max(1, width))
    return (slice(start, start + step) for start in range(0, count, step))


def known(format: Format | str) -> Format:
    return find_format(format) if isinstance(format, str) else format


def floating(dtype: torch.dtype) -> torch.dtype:
    if not dtype.is_floating_point:
        raise NanollamaError(f"decoded weights can't be {dtype}; expected a floating point dtype such as torch.float32")
    return dtype

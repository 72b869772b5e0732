"""A weight matrix as it is stored: rows of blocks, usually a view of the mapped file, decoded a tile at a time."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nanollama.errors import NanollamaError
from nanollama.quant.formats.format import Format
from nanollama.quant.formats.tensor import decode_rows, tiles


@dataclass(frozen=True, eq=False)
class QuantTensor:
    """A matrix [R, columns] before decoding: R rows of whole blocks.

    rows: uint8 [R, bytes per row]. order: int64 [R], row i of the matrix is rows[order[i]]; None: it is rows[i]. llama.cpp
    stores the rows of queries and keys in another order, and a copy would cost the memory that mapping saves.
    """

    rows: Tensor
    format: Format
    order: Tensor | None = None

    def __post_init__(self) -> None:
        rows, order, size = self.rows, self.order, self.format.block_bytes
        if rows.dtype is not torch.uint8 or rows.ndim != 2 or rows.shape[1] % size:
            raise NanollamaError(
                f"{rows.dtype} of shape {list(rows.shape)} are not rows of {self.format.name}; expected uint8 [rows, a "
                f"multiple of {size}], as tensor_rows() gives"
            )
        if order is not None and (order.dtype is not torch.int64 or order.shape != rows.shape[:1]):
            raise NanollamaError(
                f"the order of {len(rows)} rows is {order.dtype} of shape {list(order.shape)}; expected int64 [{len(rows)}]"
            )

    @property
    def shape(self) -> torch.Size:
        """[R, columns] of the decoded matrix."""
        return torch.Size([len(self.rows), self.rows.shape[1] // self.format.block_bytes * self.format.block_size])

    @property
    def ndim(self) -> int:
        """Always 2."""
        return 2

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that holds every decoded value exactly: float32, and float64 for F64."""
        return self.format.decoded_dtype

    @property
    def device(self) -> torch.device:
        """The device of the bytes."""
        return self.rows.device

    @property
    def nbytes(self) -> int:
        """Bytes as stored."""
        return self.rows.numel()

    def to(self, device: torch.device) -> "QuantTensor":
        """The same bytes on another device; itself if it is there already."""
        if device == self.device:
            return self
        return QuantTensor(self.rows.to(device), self.format, None if self.order is None else self.order.to(device))

    def pick(self, rows: Tensor | slice) -> "QuantTensor":
        """Some rows of the matrix: for a slice a view (a copy if there is an order), for indices int64 [n] a copy."""
        return QuantTensor(self.rows[rows if self.order is None else self.order[rows]], self.format)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The matrix [R, columns] in a floating `dtype`; memory beyond the result is bounded by a tile."""
        values = torch.empty(self.shape, dtype=dtype, device=self.device)
        for tile in tiles(*self.shape):
            values[tile] = decode_rows(self.pick(tile).rows, self.format, dtype)
        return values

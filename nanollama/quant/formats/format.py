"""A block format: a fixed number of values in a fixed number of bytes, described by its fields in file order.

The layout is data that decoding, encoding and sizes share. Numbers are little endian, as in every GGUF file that this package
reads and on every machine torch runs on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Field(NamedTuple):
    """One field of a block: `length` numbers of `dtype`."""

    dtype: torch.dtype
    length: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.dtype.itemsize * self.length


SCALE = Field(torch.float16, 1)  # `ggml_half`: scales and minimums of most blocks
NIBBLES = Field(torch.uint8, 16)  # 32 codes of four bits


@dataclass(frozen=True)
class Format:
    """How `block_size` consecutive values of a row are stored.

    name and id are ggml's (`enum ggml_type` in ggml.h). `layout` names the fields in file order. `from_fields` takes them by
    name, each [N, length], and returns the N·block_size values in any shape; `to_fields` is the inverse, from float32
    [N, block_size], or None if this package only reads the format.
    """

    name: str
    id: int
    block_size: int
    layout: Mapping[str, Field]
    from_fields: Callable[..., Tensor]
    to_fields: Callable[[Tensor], dict[str, Tensor]] | None = None

    @property
    def block_bytes(self) -> int:
        """Bytes per block."""
        return sum(field.size for field in self.layout.values())

    @property
    def bits_per_value(self) -> float:
        """Stored bits per value, scales included."""
        return 8 * self.block_bytes / self.block_size

    @property
    def plain(self) -> torch.dtype | None:
        """The torch dtype of a format that stores plain numbers (a block of one value), else None."""
        return next(iter(self.layout.values())).dtype if self.block_size == 1 else None

    @property
    def decoded_dtype(self) -> torch.dtype:
        """The dtype that holds every decoded value exactly: float32, and float64 for F64."""
        return torch.promote_types(self.plain or torch.float32, torch.float32)

    def split(self, blocks: Tensor) -> dict[str, Tensor]:
        """uint8 [N, block_bytes] → its fields, each [N, length]; half precision numbers are widened to float32."""
        parts = blocks.split([field.size for field in self.layout.values()], dim=1)
        return {name: read(part, field.dtype) for part, (name, field) in zip(parts, self.layout.items(), strict=True)}

    def decode(self, blocks: Tensor) -> Tensor:
        """uint8 [N, block_bytes] → [N, block_size], float32 (F64 and integers: the stored dtype, which float32 can't hold)."""
        return self.from_fields(**self.split(blocks)).reshape(blocks.shape[0], self.block_size)

    def encode(self, values: Tensor) -> Tensor:
        """float32 [N, block_size] on the CPU → uint8 [N, block_bytes]. A scale too large for its field becomes infinite."""
        assert self.to_fields is not None
        fields = self.to_fields(values)
        parts = [fields[name].to(field.dtype).contiguous().view(torch.uint8) for name, field in self.layout.items()]
        return torch.cat(parts, dim=1)


def read(part: Tensor, dtype: torch.dtype) -> Tensor:
    """The bytes of one field, uint8 [N, size], as numbers [N, length]."""
    if dtype.itemsize == 1:
        return part.view(dtype)
    numbers = part.clone(memory_format=torch.contiguous_format).view(dtype)  # a copy: the bytes may be at odd addresses
    return numbers.to(torch.promote_types(dtype, torch.float32)) if dtype.is_floating_point else numbers

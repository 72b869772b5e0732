"""The choice of a matrix product: by device, dtype, number of tokens, and format of the weights.

A decode step costs as much as reading every weight once, so the kernel for a single token decides its speed. Kernels for
quantized blocks are chosen here too.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from nanollama.kernels.cpu import opaque_single_row_linear, single_row_linear
from nanollama.quant.formats.format import Format
from nanollama.quant.formats.rowwise import format_for
from nanollama.quant.formats.tensor import decode_rows, tiles


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., in] · weight [out, in] transposed + bias [out] → [..., out], in the dtype of x."""
    if x.device.type == "cpu" and x.dtype is torch.bfloat16 and x.numel() == x.shape[-1]:
        return (opaque_single_row_linear if torch.compiler.is_compiling() else single_row_linear)(x, weight, bias)
    return F.linear(x, weight, bias)


def quantized_linear(
    x: Tensor, rows: Tensor, format: Format, order: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """x [..., in] · the stored weight [out, in] transposed + bias [out] → [..., out], in the dtype of x.

    rows: uint8 [out, bytes per row], blocks of `format`. order: int64 [out], row i of the weight is rows[order[i]]; None: it
    is rows[i]. There is no kernel yet for a format, a device or a single token: `decoded_linear`, the definition, is used.
    """
    if torch.compiler.is_compiling():
        return opaque_decoded_linear(x, rows, format.name, order, bias)
    return decoded_linear(x, rows, format, order, bias)


def decoded_linear(x: Tensor, rows: Tensor, format: Format, order: Tensor | None, bias: Tensor | None) -> Tensor:
    """The definition of `quantized_linear`: decode a tile of rows, multiply all tokens by it, drop it.

    The product is computed in the wider of the dtypes of x and of the decoded weights.
    """
    wide = torch.promote_types(x.dtype, format.decoded_dtype)
    tokens = x.to(wide)
    out = tokens.new_empty(*x.shape[:-1], len(rows))  # not a list of parts: between the tiles they fragment the memory
    for tile in tiles(len(rows), x.shape[-1]):
        out[..., tile] = F.linear(tokens, decode_rows(rows[tile], format, wide))
    if order is not None:  # order the results instead of the rows
        out = out[..., order]
    return (out if bias is None else out + bias).to(x.dtype)


# Opaque to torch.compile, which would unroll the tiles.
@torch.library.custom_op("nanollama::decoded_linear", mutates_args=())
def opaque_decoded_linear(x: Tensor, rows: Tensor, format: str, order: Tensor | None, bias: Tensor | None) -> Tensor:
    return decoded_linear(x, rows, format_for(format, x.shape[-1]), order, bias)


@opaque_decoded_linear.register_fake
def _(x: Tensor, rows: Tensor, format: str, order: Tensor | None, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], rows.shape[0]))

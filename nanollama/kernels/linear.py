"""The one place where speed is bought: the same functions as their readable definitions, by a faster road.

Everything a decode step costs is reading the weights once, so the road of `linear` for a single token is what matters.
Own kernels (quantized blocks, fused attention) plug in here.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
import torch.nn.functional as F
from torch import Tensor

from nanollama.quant.formats.rowwise import format_for
from nanollama.quant.formats.tensor import decode_rows
from nanollama.quant.quant_tensor import QuantTensor

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let the C library keep the memory of freed activations for the next ones, instead of giving it back to the system.

    By default glibc hands back every large block at once, and a prefill spends up to a fifth of its time in page faults to
    get it again (112,000 of them for 256 tokens of a 1.1B model). Blocks above 32 MB, such as converted weights, still go
    back. An option of the whole process, set when a model is loaded on the CPU; other C libraries don't have it.
    """
    with suppress(OSError, AttributeError, TypeError):  # not glibc: macOS, musl, Windows
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., in] · weight [out, in] transposed + bias [out] → [..., out], in the dtype of x."""
    if x.device.type == "cpu" and x.dtype is torch.bfloat16 and x.numel() == x.shape[-1]:
        return (opaque_single_row_linear if torch.compiler.is_compiling() else single_row_linear)(x, weight, bias)
    return F.linear(x, weight, bias)


def single_row_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """One token in bfloat16 on the CPU: ATen's own matrix-vector kernel reads the weights up to twice as fast as oneDNN's
    matrix product, which torch would choose (`nox -s bench` shows by how much here). Sums run in float32 in both."""
    with without_onednn():
        return F.linear(x, weight, bias)


@contextmanager
def without_onednn() -> Iterator[None]:
    """torch's switch for oneDNN is one for the process; it is off for the length of one call. Another thread that computes
    in that moment gets the same result by the other road."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


# torch.compile must not look inside: it would choose a kernel of its own. (Called directly, an operator costs 0.1 ms more.)
opaque_single_row_linear = torch.library.custom_op("nanollama::single_row_linear", single_row_linear, mutates_args=())


@opaque_single_row_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def quantized_linear(x: Tensor, weight: QuantTensor, bias: Tensor | None = None) -> Tensor:
    """x [..., in] · the stored weight [out, in] transposed + bias [out] → [..., out], in the dtype of x.

    The one place where a kernel for a format, a device or a single token is chosen. There is none yet: this is the definition.
    """
    if torch.compiler.is_compiling():
        return opaque_decoded_linear(x, weight.rows, weight.format.name, weight.order, bias)
    return decoded_linear(x, weight, bias)


def decoded_linear(x: Tensor, weight: QuantTensor, bias: Tensor | None = None) -> Tensor:
    """The definition: decode a tile of rows, multiply all tokens by it, forget it. In the wider of both dtypes."""
    wide = torch.promote_types(x.dtype, weight.dtype)
    tokens = x.to(wide)
    out = tokens.new_empty(*x.shape[:-1], weight.shape[0])  # not a list of parts: between the tiles they fragment the memory
    for tile in weight.tiles():
        out[..., tile] = F.linear(tokens, decode_rows(weight.rows[tile], weight.format, wide))
    if weight.order is not None:  # order the results instead of the rows
        out = out[..., weight.order]
    return (out if bias is None else out + bias).to(x.dtype)


# torch.compile must not look inside: it would unroll the tiles.
@torch.library.custom_op("nanollama::decoded_linear", mutates_args=())
def opaque_decoded_linear(x: Tensor, rows: Tensor, format: str, order: Tensor | None, bias: Tensor | None) -> Tensor:
    return decoded_linear(x, QuantTensor(rows, format_for(format, x.shape[-1]), order), bias)


@opaque_decoded_linear.register_fake
def _(x: Tensor, rows: Tensor, format: str, order: Tensor | None, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], rows.shape[0]))

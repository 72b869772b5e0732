"""Matrix products on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor


def single_row_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., in] of one token, weight [out, in], bias [out], all bfloat16 → [..., out]. Sums run in float32.

    ATen's matrix-vector kernel reads the weights up to twice as fast as oneDNN's matrix product, which torch would choose
    (`nox -s bench` measures the ratio).
    """
    with without_onednn():
        return F.linear(x, weight, bias)


@contextmanager
def without_onednn() -> Iterator[None]:
    """Turn oneDNN off for the length of one call.

    torch has one switch for the whole process: another thread that computes meanwhile gets the same result from ATen.
    """
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


# Opaque to torch.compile, which would choose another kernel. (Called directly, an operator costs 0.1 ms more.)
opaque_single_row_linear = torch.library.custom_op("nanollama::single_row_linear", single_row_linear, mutates_args=())


@opaque_single_row_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))

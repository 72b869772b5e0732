"""The cost of quantization: `nanollama verify A B` where B stores A's numbers in formats that round them.

Two losses:

* *Format loss*: both run in float64, B on its decoded weights. The loss of the format is A's
  weights rounded to it by our encoder. B may lose twice that, as encoders differ (importance matrices trade one weight for
  another); rows in a wrong order, a wrong scale or another model's tensor lose far more.
* *Kernel error*: B in its compute dtype against B in float64, on the same decoded weights.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from conformance.truth.compare import norm_error
from nanollama.checkpoint.names import Weight
from nanollama.quant import dequantize, quantize
from nanollama.quant.formats.format import Format
from nanollama.quant.quant_tensor import QuantTensor

ALLOWED = 2.0  # times the format's own loss
EXACT = 1e-6  # a format that loses nothing may be off by float32 rounding: Gemma's norms are stored plus one
HOLDS = {  # the dtypes whose numbers each dtype holds exactly
    torch.float64: {torch.float64, torch.float32, torch.bfloat16, torch.float16},
    torch.float32: {torch.float32, torch.bfloat16, torch.float16},
    torch.bfloat16: {torch.bfloat16},
    torch.float16: {torch.float16},
}


class WeightLoss(NamedTuple):
    """Errors of one tensor, |difference| / |A| in Euclidean norms: of B's, and of A's rounded to B's format."""

    name: str
    stored: str
    error: float
    format_loss: float

    @property
    def is_explained(self) -> bool:
        """Whether the format accounts for it."""
        return self.error <= max(EXACT, ALLOWED * self.format_loss)


def is_lossy(a: Mapping[str, Weight], b: Mapping[str, Weight]) -> bool:
    """Whether B stores any tensor of A in a form that loses numbers."""
    return any(not holds(b[name], a[name]) for name in a.keys() & b.keys())


def holds(b: Weight, a: Weight) -> bool:
    """Whether B's dtype or format holds every number of A."""
    if isinstance(b, QuantTensor):
        return isinstance(a, QuantTensor) and a.format == b.format
    return b.dtype.itemsize >= 4 if isinstance(a, QuantTensor) else a.dtype in HOLDS.get(b.dtype, ())


def weight_losses(a: Mapping[str, Weight], b: Mapping[str, Weight]) -> Iterator[WeightLoss]:
    """The loss of every tensor that both have in the same shape; a tied head is not counted twice."""
    tied = b.get("lm_head.weight") is b.get("embed_tokens.weight")
    for name, theirs in b.items():
        if name in a and a[name].shape == theirs.shape and not (tied and name == "lm_head.weight"):
            ours, found = numbers(a[name]), numbers(theirs)
            yield WeightLoss(name, stored_as(theirs), norm_error(found, ours), format_loss(ours, theirs))


def unmatched(a: Mapping[str, Weight], b: Mapping[str, Weight]) -> list[str]:
    """Names of tensors that only one of them has, or both in different shapes."""
    return [name for name in {**a, **b} if name not in a or name not in b or a[name].shape != b[name].shape]


def numbers(weight: Weight) -> Tensor:
    """The numbers of a weight in float64."""
    return weight.dequantize(torch.float64) if isinstance(weight, QuantTensor) else weight.double()


def stored_as(weight: Weight) -> str:
    """The name of a format or a dtype."""
    return weight.format.name if isinstance(weight, QuantTensor) else str(weight.dtype).removeprefix("torch.")


def format_loss(ours: Tensor, theirs: Weight) -> float:
    """The error of these numbers after rounding to the dtype or format of `theirs`."""
    if isinstance(theirs, Tensor):
        return norm_error(ours.to(theirs.dtype).double(), ours)
    if theirs.format.to_fields is None:
        return nominal_loss(theirs.format)
    rounded = quantize(ours.float(), theirs.format)
    return norm_error(dequantize(rounded, theirs.format, tuple(ours.shape), torch.float64), ours)


def nominal_loss(format: Format) -> float:
    """The loss of formats without an encoder: even levels lose about 1.6 · 2^-bits of normally distributed weights."""
    return 1.6 * 2.0**-format.bits_per_value


def layer_of(name: str) -> str:
    """ "layers.3" of "layers.3.mlp.up_proj.weight"; outside layers the first part of the name."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "layers" else parts[0]


def by_layer(losses: Sequence[WeightLoss]) -> dict[str, WeightLoss]:
    """The tensor of each layer with the largest unexplained loss."""
    worst: dict[str, WeightLoss] = {}
    for loss in losses:
        layer = layer_of(loss.name)
        if layer not in worst or severity(loss) > severity(worst[layer]):
            worst[layer] = loss
    return worst


def severity(loss: WeightLoss) -> tuple[bool, float]:
    """Sort key: unexplained first, then the ratio to the format's loss, then the error."""
    ratio = loss.error / loss.format_loss if loss.format_loss > 0 else loss.error
    return not loss.is_explained, ratio if math.isfinite(ratio) and not loss.is_explained else loss.error

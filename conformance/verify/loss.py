"""What quantization costs: `nanollama verify A B` where B stores the numbers of A in formats that can't hold them.

Two losses that other tools mix:

* *Format loss*: both run in float64, B on its decoded weights. What its formats had to lose anyway is known: A's own weights,
  rounded to the same format by our encoder. B's weights may be off by twice that, for encoders differ (importance matrices
  trade one weight for another); rows in a wrong order, a wrong scale or another model's tensor are off by far more.
* *Kernel error*: B in the dtype it runs in against B in float64, on the same decoded weights.
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
HOLDS = {  # which dtype holds every number of which
    torch.float64: {torch.float64, torch.float32, torch.bfloat16, torch.float16},
    torch.float32: {torch.float32, torch.bfloat16, torch.float16},
    torch.bfloat16: {torch.bfloat16},
    torch.float16: {torch.float16},
}


class WeightLoss(NamedTuple):
    """One matrix: how far B's is from A's, and how far A's rounded to B's format is; |difference| / |A|, Euclidean norms."""

    name: str
    stored: str
    error: float
    format_loss: float

    @property
    def is_explained(self) -> bool:
        """Whether the format accounts for it."""
        return self.error <= max(EXACT, ALLOWED * self.format_loss)


def is_lossy(a: Mapping[str, Weight], b: Mapping[str, Weight]) -> bool:
    """Whether B stores anything of A in a form that can't hold it."""
    return any(not holds(b[name], a[name]) for name in a.keys() & b.keys())


def holds(b: Weight, a: Weight) -> bool:
    """Whether the way B is stored can hold every number of A."""
    if isinstance(b, QuantTensor):
        return isinstance(a, QuantTensor) and a.format == b.format
    return b.dtype.itemsize >= 4 if isinstance(a, QuantTensor) else a.dtype in HOLDS.get(b.dtype, ())


def weight_losses(a: Mapping[str, Weight], b: Mapping[str, Weight]) -> Iterator[WeightLoss]:
    """The loss of every matrix and vector that both have with the same shape; a tied head is not counted twice."""
    tied = b.get("lm_head.weight") is b.get("embed_tokens.weight")
    for name, theirs in b.items():
        if name in a and a[name].shape == theirs.shape and not (tied and name == "lm_head.weight"):
            ours, found = numbers(a[name]), numbers(theirs)
            yield WeightLoss(name, stored_as(theirs), norm_error(found, ours), format_loss(ours, theirs))


def unmatched(a: Mapping[str, Weight], b: Mapping[str, Weight]) -> list[str]:
    """Names that only one of them has, or both with different shapes."""
    return [name for name in {**a, **b} if name not in a or name not in b or a[name].shape != b[name].shape]


def numbers(weight: Weight) -> Tensor:
    """The numbers of a weight in float64."""
    return weight.dequantize(torch.float64) if isinstance(weight, QuantTensor) else weight.double()


def stored_as(weight: Weight) -> str:
    """The name of a format or a dtype."""
    return weight.format.name if isinstance(weight, QuantTensor) else str(weight.dtype).removeprefix("torch.")


def format_loss(ours: Tensor, theirs: Weight) -> float:
    """How far these numbers are from themselves after being stored as `theirs` is."""
    if isinstance(theirs, Tensor):
        return norm_error(ours.to(theirs.dtype).double(), ours)
    if theirs.format.to_fields is None:
        return nominal_loss(theirs.format)
    rounded = quantize(ours.float(), theirs.format)
    return norm_error(dequantize(rounded, theirs.format, tuple(ours.shape), torch.float64), ours)


def nominal_loss(format: Format) -> float:
    """For formats that we only read: even levels for normally distributed weights lose about 1.6 · 2^-bits of them."""
    return 1.6 * 2.0**-format.bits_per_value


def layer_of(name: str) -> str:
    """ "layers.3" of "layers.3.mlp.up_proj.weight"; what is in no layer, itself without the parameter."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "layers" else parts[0]


def by_layer(losses: Sequence[WeightLoss]) -> dict[str, WeightLoss]:
    """The matrix of each layer that its format explains least."""
    worst: dict[str, WeightLoss] = {}
    for loss in losses:
        layer = layer_of(loss.name)
        if layer not in worst or severity(loss) > severity(worst[layer]):
            worst[layer] = loss
    return worst


def severity(loss: WeightLoss) -> tuple[bool, float]:
    """What is not explained first, then by how much more was lost than had to be, then what was lost."""
    ratio = loss.error / loss.format_loss if loss.format_loss > 0 else loss.error
    return not loss.is_explained, ratio if math.isfinite(ratio) and not loss.is_explained else loss.error

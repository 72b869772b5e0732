"""Other right ways to write RMSNorm.forward."""

import torch
import torch.nn.functional as F
from torch import Tensor

from nanollama.model.layers import RMSNorm, at_least_float32


def library(self: RMSNorm, x: Tensor) -> Tensor:
    """torch's function, on wide numbers"""
    wide = x.to(at_least_float32(x.dtype))
    weight = self.weight.to(wide.dtype) + (1 if self.plus_one else 0)
    return F.rms_norm(wide, x.shape[-1:], weight, self.eps).to(x.dtype)


def divide(self: RMSNorm, x: Tensor) -> Tensor:
    """a root and a division instead of a reciprocal root and a product"""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    root = (wide.pow(2).mean(dim=-1, keepdim=True) + self.eps).sqrt()
    scaled = wide / root * self.weight if not self.plus_one else wide / root * (self.weight + 1)
    return scaled.to(x.dtype)


def rounded_first(self: RMSNorm, x: Tensor) -> Tensor:
    """rounded to the model's dtype before the weight, as Llama's code does"""
    wide = x.to(at_least_float32(x.dtype))
    scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
    return scaled.to(x.dtype) * (1 + self.weight if self.plus_one else self.weight)


def dot_product(self: RMSNorm, x: Tensor) -> Tensor:
    """the sum of squares as the product of each row with itself"""
    wide = x.to(at_least_float32(x.dtype))
    squares = torch.einsum("...i,...i->...", wide, wide)[..., None]
    weight = self.weight.to(wide.dtype) + int(self.plus_one)
    return (wide / torch.sqrt(squares / x.shape[-1] + self.eps) * weight).to(x.dtype)

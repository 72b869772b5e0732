"""Other right ways to write LayerNorm.forward."""

import torch
import torch.nn.functional as F
from torch import Tensor

from nanollama.model.layers import LayerNorm, at_least_float32


def library(self: LayerNorm, x: Tensor) -> Tensor:
    """torch's function, on wide numbers"""
    wide = x.to(at_least_float32(x.dtype))
    return F.layer_norm(wide, x.shape[-1:], self.weight.to(wide), self.bias.to(wide), self.eps).to(x.dtype)


def statistics(self: LayerNorm, x: Tensor) -> Tensor:
    """torch's variance (divided by n) and mean in one call, then a division by the root"""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, dim=-1, correction=0, keepdim=True)
    scaled = (wide - mean) / (variance + self.eps).sqrt()
    return torch.addcmul(self.bias.to(wide), scaled, self.weight.to(wide)).to(x.dtype)


def rounded_first(self: LayerNorm, x: Tensor) -> Tensor:
    """rounded to the model's dtype before weight and bias"""
    wide = x.to(at_least_float32(x.dtype))
    centred = wide - wide.sum(-1, keepdim=True) / x.shape[-1]
    root = ((centred * centred).sum(-1, keepdim=True) / x.shape[-1] + self.eps).sqrt()
    return (centred / root).to(x.dtype) * self.weight + self.bias

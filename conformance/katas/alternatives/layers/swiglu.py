"""Other right ways to write MLP.forward."""

import torch
import torch.nn.functional as F
from torch import Tensor

from nanollama.model.layers import MLP


def one_product(self: MLP, x: Tensor) -> Tensor:
    """gate and up as one tall matrix, whose result is cut in two"""
    if not self.gated:
        return self.down_proj(self.activation(self.up_proj(x)))
    both = x @ torch.cat((self.gate_proj.weight, self.up_proj.weight)).mT
    if self.gate_proj.bias is not None and self.up_proj.bias is not None:
        both = both + torch.cat((self.gate_proj.bias, self.up_proj.bias))
    gate, up = both.chunk(2, dim=-1)
    return self.down_proj(up * self.activation(gate))


def inner(self: MLP, x: Tensor) -> Tensor:
    """what goes down is made step by step, and the matrix product is torch's"""
    wide = self.up_proj(x)
    if self.gated:
        wide *= self.activation(self.gate_proj(x))
    else:
        wide = self.activation(wide)
    return F.linear(wide, self.down_proj.weight, self.down_proj.bias)

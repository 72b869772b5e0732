"""Other right ways to put rotary rows in order."""

import torch
from torch import Tensor

from nanollama.checkpoint.gguf.names import is_rotary, neighbours_order, reorder, rotary_heads, stores_plus_one
from nanollama.checkpoint.names import Weight
from nanollama.model.config import ModelConfig
from nanollama.quant.quant_tensor import QuantTensor


def halves_order__by_formula(heads: int, head_dim: int) -> Tensor:
    """row r of a head is half h = r // (D/2) of pair j = r mod D/2, and stands in 2j + h"""
    half = head_dim // 2
    return torch.tensor([h * head_dim + 2 * (r % half) + r // half for h in range(heads) for r in range(head_dim)])


def halves_order__inverse(heads: int, head_dim: int) -> Tensor:
    """sorting the other order says where everything went"""
    return neighbours_order(heads, head_dim).argsort()


def halves_order__slices(heads: int, head_dim: int) -> Tensor:
    """every second one, from the first and from the second on"""
    file = torch.arange(heads * head_dim).unflatten(0, (heads, head_dim))
    return torch.cat([file[:, ::2], file[:, 1::2]], dim=1).flatten()


def neighbours_order__stacked(heads: int, head_dim: int) -> Tensor:
    """the halves of every head side by side"""
    first, second = torch.arange(heads * head_dim).view(heads, head_dim).chunk(2, dim=1)
    return torch.stack([first, second], dim=-1).flatten()


def from_gguf__other_way_round(config: ModelConfig, name: str, tensor: Weight) -> Weight:
    """rows of a plain tensor by a view, without an order"""
    if stores_plus_one(config, name):
        wide = tensor.dequantize(torch.float64) if isinstance(tensor, QuantTensor) else tensor.double()
        return wide - 1
    if not is_rotary(config, name):
        return tensor
    heads = rotary_heads(config, name)
    if isinstance(tensor, QuantTensor):
        return reorder(tensor, neighbours_order(heads, config.head_dim).argsort())
    return tensor.unflatten(0, (heads, config.head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)

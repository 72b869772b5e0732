"""Other right ways to write top_k."""

import math

import torch
from torch import Tensor


def sorted_first(logits: Tensor, k: int) -> Tensor:
    """the k-th of the sorted logits as the floor"""
    if k == 0 or k > logits.shape[-1]:
        return logits.clone()
    floor = logits.sort(dim=-1, descending=True).values[..., k - 1, None]
    return torch.where(logits >= floor, logits, -math.inf)


def counted(logits: Tensor, k: int) -> Tensor:
    """a token goes if k others are larger"""
    if k == 0:
        return logits
    larger = (logits[..., None, :] > logits[..., :, None]).sum(-1)
    return logits.masked_fill(larger >= k, -math.inf)


def kth_value(logits: Tensor, k: int) -> Tensor:
    """torch.kthvalue counts from the small end"""
    size = logits.shape[-1]
    if k == 0 or k >= size:
        return logits
    floor = logits.kthvalue(size - k + 1, dim=-1, keepdim=True).values
    return logits.masked_fill(logits < floor, -math.inf)

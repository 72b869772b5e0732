"""Other right ways to write temperature and greedy."""

import torch
from torch import Tensor


def reciprocal(logits: Tensor, t: float) -> Tensor:
    """multiplied by the inverse of the temperature"""
    return logits * (1 / t)


def divided(logits: Tensor, t: float) -> Tensor:
    """torch's function for it, with a tensor for t"""
    return torch.div(logits, torch.tensor(t, dtype=logits.dtype))

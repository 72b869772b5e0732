"""Other right ways to write repetition_penalty."""

import torch
from torch import Tensor


def by_factor(logits: Tensor, counts: Tensor, penalty: float) -> Tensor:
    """one factor per token: penalty, its inverse, or 1"""
    factor = torch.where(logits < 0, torch.full_like(logits, penalty), torch.full_like(logits, 1 / penalty))
    return logits * torch.where(counts > 0, factor, torch.ones_like(factor))


def by_selection(logits: Tensor, counts: Tensor, penalty: float) -> Tensor:
    """only the columns of seen tokens are touched, in a copy"""
    out = logits.clone()
    seen = counts.nonzero()[:, 0]
    part = out[:, seen]
    out[:, seen] = torch.where(part > 0, part / penalty, part * penalty)
    return out


def by_parts(logits: Tensor, counts: Tensor, penalty: float) -> Tensor:
    """the positive and the negative part of each logit, apart"""
    punished = logits.clamp(min=0) / penalty + logits.clamp(max=0) * penalty
    return torch.where(counts == 0, logits, punished)

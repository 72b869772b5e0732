"""Other right ways to write min_p."""

import math

import torch
from torch import Tensor


def in_logs(logits: Tensor, p: float) -> Tensor:
    """a share of a probability is a distance between logits"""
    if p == 0:
        return logits
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(p), -math.inf)


def by_odds(logits: Tensor, p: float) -> Tensor:
    """each token's odds against the most probable one"""
    odds = (logits - logits.amax(-1, keepdim=True)).exp()
    return torch.where((odds >= p) | (p == 0), logits, -math.inf)


def largest_by_sort(logits: Tensor, p: float) -> Tensor:
    """the largest probability as the first of the sorted ones"""
    if p <= 0:
        return logits.clone()
    probs = torch.softmax(logits, dim=-1)
    floor = probs.sort(dim=-1, descending=True).values[..., :1] * p
    return torch.where(probs < floor, torch.full_like(logits, -math.inf), logits)

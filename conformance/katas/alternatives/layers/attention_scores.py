"""Other right ways to write Scores.forward."""

import torch
from torch import Tensor

from nanollama.model.layers import Scores, at_least_float32, softcap


def summed(self: Scores, q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
    """einsum, the scale on the product, and where instead of masked_fill"""
    wide = at_least_float32(q.dtype)
    scores = torch.einsum("bhtd,bhsd->bhts", q.to(wide), k.to(wide)) * self.scale
    return torch.where(allowed, softcap(scores, self.cap), -torch.inf)


def added_mask(self: Scores, q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
    """a mask of 0 and minus infinity that is added, and the scale on the keys"""
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = torch.matmul(q.to(wide), (k.to(wide) * self.scale).mT)
    if self.cap is not None:
        scores = torch.tanh(scores / self.cap) * self.cap
    return scores + torch.zeros_like(allowed, dtype=wide).masked_fill_(~allowed, float("-inf"))


def in_place(self: Scores, q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
    """one tensor, edited step by step"""
    wide = at_least_float32(q.dtype)
    scores = q.to(wide) @ k.to(wide).mT
    scores *= self.scale
    if self.cap is not None:
        scores.div_(self.cap).tanh_().mul_(self.cap)
    scores[(~allowed).expand_as(scores)] = -torch.inf
    return scores

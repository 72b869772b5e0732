"""Other right ways to write top_p."""

import math

import torch
from torch import Tensor


def inverse_permutation(logits: Tensor, p: float) -> Tensor:
    """what comes before each token, put back by the inverse of the order"""
    if p >= 1:
        return logits
    order = logits.argsort(dim=-1, descending=True, stable=True)
    probs = logits.gather(-1, order).softmax(-1)
    before = torch.cat((torch.zeros_like(probs[..., :1]), probs.cumsum(-1)[..., :-1]), -1)
    cut = before >= p
    cut[..., 0] = False
    return logits.masked_fill(cut.gather(-1, order.argsort(-1)), -math.inf)


def token_by_token(logits: Tensor, p: float) -> Tensor:
    """a loop over the ranked tokens of each row, with a running sum"""
    out = torch.full_like(logits, -math.inf)
    for row, probs in enumerate(logits.softmax(-1)):
        total = 0.0
        for token in probs.argsort(descending=True, stable=True).tolist():
            if total < p or total == 0.0 or p >= 1:
                out[row, token] = logits[row, token]
            total += probs[token].item()
    return out


def counted(logits: Tensor, p: float) -> Tensor:
    """how many tokens are needed, then so many indices of the order"""
    if p >= 1:
        return logits.clone()
    ranked, order = logits.sort(dim=-1, descending=True, stable=True)
    needed = (ranked.softmax(-1).cumsum(-1) < p).sum(-1, keepdim=True) + 1
    ranks = torch.arange(logits.shape[-1]).expand_as(order)
    keep = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, ranks < needed)
    return torch.where(keep, logits, -math.inf)

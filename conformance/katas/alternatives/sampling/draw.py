"""Other right ways to write draw."""

import torch
from torch import Tensor


def token_by_token(logits: Tensor, u: float) -> Tensor:
    """a running sum in a loop, over tokens that can be drawn"""
    chosen = []
    for probs in logits.softmax(-1):
        total, target, last = 0.0, u * float(probs.cumsum(-1)[-1]), -1
        for token, prob in enumerate(probs.tolist()):
            if prob > 0 and total < target:
                last = token
            total += prob
        chosen.append(last)
    return torch.tensor(chosen)


def by_searching(logits: Tensor, u: float) -> Tensor:
    """a binary search in the sums of the tokens that can be drawn"""
    chosen = []
    for row in logits.softmax(-1):
        possible = row.nonzero()[:, 0]
        cdf = row[possible].cumsum(-1)
        place = torch.searchsorted(cdf, (u * cdf[-1:]).to(cdf.dtype))
        chosen.append(possible[place.clamp(max=len(possible) - 1)])
    return torch.cat(chosen)

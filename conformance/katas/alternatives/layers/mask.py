"""Other right ways to write visible."""

import torch
from torch import Tensor


def borders(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """a key lies between the oldest that is seen and the query; a padded query sees its row's first key only"""
    newest = queries[:, None, :, None]
    oldest = newest - window + 1 if window is not None else torch.zeros_like(newest)
    theirs = keys[:, None, None, :]
    allowed = (theirs <= newest) & (theirs >= oldest.clamp(min=0))
    allowed[..., 0] |= newest[..., 0] < 0
    return allowed


def pair_by_pair(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """a loop over every query and key"""
    allowed = torch.zeros(*queries.shape, keys.shape[1], dtype=torch.bool, device=queries.device)
    for b, row in enumerate(queries.tolist()):
        for t, query in enumerate(row):
            for s, key in enumerate(keys[b].tolist()):
                near = window is None or query - key < window
                allowed[b, t, s] = query < 0 or (0 <= key <= query and near)
    return allowed.unsqueeze(1)


def forbidden(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """what is not allowed, struck out of a table in which everything is"""
    q, k = queries.unsqueeze(-1), keys.unsqueeze(-2)
    hidden = (k > q) | (k == -1)
    if window is not None:
        hidden = hidden | (k <= q - window)
    return ((q == -1) | ~hidden).unsqueeze(1)

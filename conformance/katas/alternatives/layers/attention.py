"""Other right ways to write Attend.eager."""

import torch
from torch import Tensor

from nanollama.model.kv_cache import KVView
from nanollama.model.layers import Attend


def expanded(self: Attend, q: Tensor, k: Tensor, v: Tensor, view: KVView) -> Tensor:
    """keys and values expanded to all heads, as transformers' repeat_kv does it"""
    B, K, S, _ = k.shape
    group = q.shape[1] // K
    k = k[:, :, None].expand(B, K, group, S, k.shape[-1]).reshape(B, K * group, S, -1)
    v = v[:, :, None].expand(B, K, group, S, v.shape[-1]).reshape(B, K * group, S, -1)
    weights = torch.softmax(self.scores(q, k, view.allowed), dim=-1)
    return torch.matmul(weights.to(v.dtype), v)


def grouped(self: Attend, q: Tensor, k: Tensor, v: Tensor, view: KVView) -> Tensor:
    """queries grouped by the key that they share, and no key copied"""
    B, H, T, _ = q.shape
    K = k.shape[1]
    queries = q.reshape(B, K, -1, q.shape[-1])  # a head's queries follow on those of its neighbour
    allowed = view.allowed.repeat(1, 1, H // K, 1)
    weights = self.scores(queries, k, allowed).softmax(-1)
    return (weights @ v.to(weights.dtype)).reshape(B, H, T, v.shape[-1]).to(q.dtype)


def head_by_head(self: Attend, q: Tensor, k: Tensor, v: Tensor, view: KVView) -> Tensor:
    """a loop over the heads, and the softmax written out"""
    group, outs = q.shape[1] // k.shape[1], []
    for head in range(q.shape[1]):
        own = head // group
        scores = self.scores(q[:, head, None], k[:, own, None], view.allowed)
        powers = (scores - scores.amax(-1, keepdim=True)).exp()
        weights = powers / powers.sum(-1, keepdim=True)
        outs.append((weights @ v[:, own, None].to(weights.dtype)).to(q.dtype))
    return torch.cat(outs, 1)

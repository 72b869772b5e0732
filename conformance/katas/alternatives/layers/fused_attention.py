"""Other right ways to call the fused kernel."""

import torch
from torch import Tensor
from torch.nn import functional as F

from nanollama.model.kv_cache import KVView
from nanollama.model.layers import Attend


def Attend_sdpa__repeats_keys(self: Attend, q: Tensor, k: Tensor, v: Tensor, view: KVView) -> Tensor:
    """for several queries keys are copied to every head; a single one is grouped by splitting the axis of heads"""
    keys = k.shape[1]
    group = q.shape[1] // keys
    if q.shape[2] == 1:
        grouped = q.squeeze(2).unflatten(1, (keys, group))
        return F.scaled_dot_product_attention(grouped, k, v, attn_mask=view.allowed, scale=self.scores.scale).flatten(1, 2)[
            :, :, None
        ]
    k, v = (each.repeat_interleave(group, dim=1) for each in (k, v))
    if view.causal:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scores.scale)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=view.allowed, scale=self.scores.scale)


def Attend_sdpa__scaled_before(self: Attend, q: Tensor, k: Tensor, v: Tensor, view: KVView) -> Tensor:
    """queries are scaled by hand, and the kernel uses scale 1; -inf is added instead of a boolean mask"""
    group, many = q.shape[1] // k.shape[1], q.shape[2] > 1
    wide = q * self.scores.scale
    if not many:
        wide = torch.cat([head.reshape(len(q), 1, group, -1) for head in wide.split(group, dim=1)], dim=1)
    causal = many and view.causal
    mask = None if causal else torch.zeros(view.allowed.shape, dtype=q.dtype).masked_fill(~view.allowed, -torch.inf)
    out = F.scaled_dot_product_attention(wide, k, v, mask, 0.0, causal, scale=1.0, enable_gqa=many and group > 1)
    return out.reshape(q.shape)

"""Other right ways to write Attention.heads and Attention.forward."""

import torch
from torch import Tensor, nn

from nanollama.model.kv_cache import KVView, LayerCache
from nanollama.model.layers import Attention, Rotation
from nanollama.model.rope import rotate


def Attention_heads__permuted(self: Attention, x: Tensor, norm: nn.Module | None) -> Tensor:
    """the norm over all heads first, then axes exchanged, and the norm of each head last"""
    B, T, width = x.shape
    if norm is not None and not self.norm_heads:
        x = norm(x)
    x = x.view(B, T, width // self.head_dim, self.head_dim).permute(0, 2, 1, 3)
    return norm(x) if norm is not None and self.norm_heads else x


def Attention_heads__cut(self: Attention, x: Tensor, norm: nn.Module | None) -> Tensor:
    """cut into as many pieces as there are heads, which are stacked"""
    whole = norm(x) if norm is not None and not self.norm_heads else x
    pieces = torch.stack(whole.split(self.head_dim, dim=-1), 1)
    return norm(pieces) if self.norm_heads and norm is not None else pieces


def Attention_forward__one_by_one(
    self: Attention, x: Tensor, rotation: Rotation, view: KVView, cache: LayerCache | None
) -> Tensor:
    """values first, each of the three to its end, and heads put together by a reshape"""
    v = self.heads(self.v_proj(x), None)
    q, k = self.q_proj(x), self.k_proj(x)
    q, k = self.heads(q, self.q_norm), self.heads(k, self.k_norm)
    if rotation is not None:
        cos, sin = rotation
        k = rotate(k, cos, sin)
        q = rotate(q, cos, sin)
    if cache is not None:
        k, v = cache.append(k, v, view)
    context = self.attend(q, k, v, view).permute(0, 2, 1, 3)
    return self.o_proj(context.reshape(*x.shape[:2], -1))

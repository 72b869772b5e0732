"""Other right ways to write Transformer.place and Transformer.embed."""

import torch
from torch import Tensor

from nanollama.errors import NanollamaError
from nanollama.model.kv_cache import KVCache
from nanollama.model.transformer import Transformer


def Transformer_place__row_by_row(self: Transformer, ids: Tensor, cache: KVCache | None, positions: Tensor | None) -> Tensor:
    """a range for every row; limits in one loop"""
    if ids.dim() != 2 or ids.numel() == 0 or ids.dtype.is_floating_point:
        raise NanollamaError(f"expected whole numbers [batch, tokens]; these are {ids.dtype}, {list(ids.shape)}")
    rows, tokens = ids.shape
    if cache is not None and rows != cache.batch:
        raise NanollamaError(f"the cache has {cache.batch} rows, the ids have {rows}")
    if positions is None:
        starts = [0] * rows if cache is None else cache.lengths
        positions = torch.stack([torch.arange(start, start + tokens) for start in starts])
    positions = positions.cpu().long().broadcast_to(rows, tokens)
    limits = [cache.max_len] if cache is not None else []
    limits += [self.config.max_position_embeddings] if self.config.learned_positions else []
    for limit in limits:
        if positions.max() >= limit:
            raise NanollamaError(f"there is room for {limit} tokens, not for {int(positions.max()) + 1}")
    return positions


def Transformer_embed__tables(self: Transformer, ids: Tensor, positions: Tensor) -> Tensor:
    """rows of the tables, without their modules, and the scale rounded by a detour"""
    scale = torch.tensor([self.config.embedding_scale]).to(self.dtype)
    x = self.embed_tokens.weight[ids] * scale.to(self.device)
    if self.config.learned_positions:
        places = torch.where(positions < 0, 0, positions).to(self.device)
        x = self.embed_positions.weight[places] + x
    return x


def Transformer_embed__padding_left_out(self: Transformer, ids: Tensor, positions: Tensor) -> Tensor:
    """learned positions are added where there are tokens, and nowhere else"""
    x = self.embed_tokens(ids)
    if self.config.embedding_scale != 1.0:
        x = x * torch.full((), self.config.embedding_scale, dtype=self.dtype, device=self.device)
    if self.config.learned_positions:
        real = (positions >= 0).to(self.device)
        x = x.clone()
        x[real] += self.embed_positions(positions.to(self.device)[real])
    return x

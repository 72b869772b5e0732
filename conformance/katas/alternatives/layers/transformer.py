"""Other right ways to write Transformer.forward and Transformer.hidden_states."""

import torch
from torch import Tensor

from nanollama.model.kv_cache import KVCache
from nanollama.model.layers import softcap
from nanollama.model.transformer import Transformer


def Transformer_hidden_states__zipped(
    self: Transformer, ids: Tensor, positions: Tensor, cache: KVCache | None = None
) -> Tensor:
    """every layer zipped with its rotation, view and cache"""
    stream = self.embed(ids.to(self.device), positions)
    caches = [None] * len(self.layers) if cache is None else cache.layers
    by_layer = zip(self.layers, self.rotations(positions, cache), self.views(positions, cache), caches, strict=True)
    for layer, rotation, view, layer_cache in by_layer:
        stream = layer(stream, rotation, view, layer_cache)
    if cache is not None:
        cache.advance(positions)
    return stream


def Transformer_forward__row_by_row(
    self: Transformer, ids: Tensor, cache: KVCache | None = None, positions: Tensor | None = None, last_only: bool = False
) -> Tensor:
    """the last token found row by row"""
    positions = self.place(ids, cache, positions)
    stream = self.hidden_states(ids, positions, cache)
    if last_only:
        columns = [max((t for t, p in enumerate(row) if p >= 0), default=0) for row in positions.tolist()]
        stream = torch.stack([stream[row, column] for row, column in enumerate(columns)]).unsqueeze(1)
    return softcap(self.lm_head(self.norm(stream)), self.config.logit_softcap)


def Transformer_forward__all_then_last(
    self: Transformer, ids: Tensor, cache: KVCache | None = None, positions: Tensor | None = None, last_only: bool = False
) -> Tensor:
    """logits of every token, of which the last is picked; slower, with the same result"""
    positions = self.place(ids, cache, positions)
    x = self.embed(ids.to(self.device), positions)
    rotations = self.rotations(positions, cache)
    views = self.views(positions, cache)
    for i in range(len(self.layers)):
        x = self.layers[i](x, rotations[i], views[i], cache.layers[i] if cache else None)
    logits = softcap(self.lm_head(self.norm(x)), self.config.logit_softcap)
    if cache:
        cache.advance(positions)
    if not last_only:
        return logits
    last = ((positions >= 0) * torch.arange(1, ids.shape[1] + 1)).argmax(dim=1).to(self.device)
    return logits.take_along_dim(last[:, None, None], dim=1)

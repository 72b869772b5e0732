"""Transformer: token ids in, logits out. The data path is `forward` and `hidden_states`, read top to bottom.

Axis letters: B batch, T tokens of the call, S keys, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nanollama.errors import NanollamaError
from nanollama.model.config import ModelConfig
from nanollama.model.kv_cache import KVCache, KVView
from nanollama.model.layers import Block, Linear, Rotation, at_least_float32, make_embedding, make_norm, softcap
from nanollama.model.rope import RopeConfig, Rotary


class Transformer(nn.Module):
    """A decoder-only language model, built from the parts that its config names.

    embed_positions: the table of learned positions; None in a model with rotary positions.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = make_embedding(config.vocab_size, config.hidden_size)
        self.register_module("embed_positions", None)
        if config.learned_positions:
            self.embed_positions = make_embedding(config.max_position_embeddings, config.hidden_size)
        self.ropes = sorted(set(config.ropes) - {None}, key=config.ropes.index)  # each rotation once
        self.rotary = nn.ModuleList(Rotary(rope) for rope in self.ropes if rope)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = make_norm(config, config.hidden_size)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.norm.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of weights and hidden states."""
        return next(self.norm.parameters()).dtype  # not of the embedding: that may be quantized

    def new_cache(self, batch: int, max_len: int, limits: Sequence[int] | None = None) -> KVCache:
        """An empty cache for `batch` rows of at most `max_len` tokens, or of at most `limits[row]` tokens each."""
        return KVCache(self.config, batch, max_len, self.dtype, self.device, limits)

    def forward(
        self, ids: Tensor, cache: KVCache | None = None, positions: Tensor | None = None, last_only: bool = False
    ) -> Tensor:
        """ids int64 [B, T] → logits [B, T, V] in the model's dtype; with a cache, the ids continue the rows it holds.

        `positions` int64 [B, T] is the position of every token (-1: padding, which is neither stored nor seen; its logits
        mean nothing). Without it each row continues at its own length. `last_only`: the logits of each row's last token
        that is not padding, [B, 1, V].
        """
        positions = self.place(ids, cache, positions)
        x = self.hidden_states(ids, positions, cache)  # [B, T, hidden_size]
        if last_only:
            last = ((positions >= 0) * torch.arange(ids.shape[1])).max(1).values  # [B]
            x = x[torch.arange(len(ids), device=self.device), last.to(self.device)][:, None]  # [B, 1, hidden_size]
        return softcap(self.lm_head(self.norm(x)), self.config.logit_softcap)

    def hidden_states(self, ids: Tensor, positions: Tensor, cache: KVCache | None = None) -> Tensor:
        """The residual stream after the last layer, before the final norm: [B, T, hidden_size] in the model's dtype.

        ids, positions: int64 [B, T], positions on the CPU, as `place` returns them. The cache counts the call's tokens.
        """
        x = self.embed(ids.to(self.device), positions)
        rotations, views = self.rotations(positions, cache), self.views(positions, cache)
        for i, layer in enumerate(self.layers):
            x = layer(x, rotations[i], views[i], cache.layers[i] if cache is not None else None)
        if cache is not None:
            cache.advance(positions)
        return x

    def place(self, ids: Tensor, cache: KVCache | None, positions: Tensor | None) -> Tensor:
        """The position of every token, int64 [B, T] on the CPU; without `positions` each row continues at its own length.

        Raises NanollamaError for ids that aren't integers [B, T] with T > 0, a cache of another batch size, positions beyond
        the cache, and positions beyond the table of a model with learned positions.
        """
        if ids.ndim != 2 or ids.shape[1] == 0 or ids.is_floating_point():
            raise NanollamaError(f"ids are {ids.dtype} of shape {list(ids.shape)}, expected integers [batch, tokens]")
        if cache is not None and cache.batch != len(ids):
            raise NanollamaError(f"{len(ids)} rows of ids for a cache of {cache.batch} rows; they must be equal")
        if positions is None:
            starts = cache.lengths if cache is not None else [0] * len(ids)
            positions = torch.tensor(starts)[:, None] + torch.arange(ids.shape[1])
        positions = positions.to("cpu", torch.int64).expand(ids.shape)
        end = int(positions.max()) + 1
        if cache is not None and end > cache.max_len:
            raise NanollamaError(
                f"{end} tokens do not fit a cache of {cache.max_len}; make it larger: new_cache(max_len={end})"
            )
        if self.config.learned_positions and end > self.config.max_position_embeddings:
            raise NanollamaError(
                f"{end} tokens, but this model has learned {self.config.max_position_embeddings} positions and no more"
            )
        return positions

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """The embeddings of tokens and of learned positions: ids, positions int64 [B, T] → [B, T, hidden_size].

        Gemma's token embeddings are multiplied by sqrt(hidden_size), rounded to the model's dtype first: 55.5 for 55.43 in
        bfloat16. Padding has no position (-1); its vector means nothing.
        """
        x = self.embed_tokens(ids)
        if self.config.embedding_scale != 1:
            x = x * torch.tensor(self.config.embedding_scale, dtype=self.dtype, device=self.device)
        if self.config.learned_positions:
            x = x + self.embed_positions(positions.clamp(min=0).to(self.device))
        return x

    def rotations(self, positions: Tensor, cache: KVCache | None) -> list[Rotation]:
        """cos and sin of every layer, each [B, 1, T, dim/2] in at least float32; layers with the same rotation share them.

        positions: int64 [B, T] on the CPU.
        """
        lengths = cache.limits if cache is not None else (positions.max(1).values + 1).tolist()
        wide = at_least_float32(self.dtype)
        tables: dict[RopeConfig | None, Rotation] = {None: None}
        for rope, rotary in zip(self.ropes, self.rotary, strict=True):
            cos, sin = rotary(positions, lengths)
            tables[rope] = cos.to(self.device, wide), sin.to(self.device, wide)
        return [tables[rope] for rope in self.config.ropes]

    def views(self, positions: Tensor, cache: KVCache | None) -> list[KVView]:
        """The KVView of every layer; layers with the same window share one. positions: int64 [B, T] on the CPU."""
        views = {w: KVView(positions, w, cache, self.device) for w in set(self.config.windows)}
        return [views[window] for window in self.config.windows]

"""The parts of a transformer, in the order of the data path: norm, attention, MLP, experts, block.

Axis letters: B batch, T queries, S keys, H heads, K key/value heads, D head size. Hidden states are [B, T, hidden_size].
Every reduction runs in at least float32: `torch.promote_types(x.dtype, torch.float32)`, never a literal float32, so that a
float64 model is float64 throughout. Norm weights multiply before the result is rounded to the model's dtype, as in Gemma and
OLMo; Llama's code rounds first, which costs a bit more error and changes nothing in float64.

Nearly all time goes into `Linear`, which `kernels/linear.py` speeds up, and into attention, which SDPA speeds up.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanollama.kernels.linear import linear
from nanollama.model.activations import ACTIVATIONS
from nanollama.model.config import ModelConfig
from nanollama.model.kv_cache import KVView, LayerCache
from nanollama.model.rope import rotate

LAYER_NORMS = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
Rotation = tuple[Tensor, Tensor] | None  # cos, sin [B, 1, T, dim/2], or no rotation in this layer


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums in a model of this dtype."""
    return torch.promote_types(dtype, torch.float32)


class Linear(nn.Linear):
    """x · weight transposed + bias, by the kernel that `kernels.linear.linear` chooses."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] → [..., out]."""
        return linear(x, self.weight, self.bias)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · weight over the last axis (arXiv 1910.07467); eps sits inside the root."""

    def __init__(self, size: int, eps: float, plus_one: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps
        self.plus_one = plus_one  # Gemma stores weight - 1

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] → the same shape and dtype."""
        wide = x.to(at_least_float32(x.dtype))
        weight = self.weight.to(wide.dtype)
        if self.plus_one:
            weight = 1 + weight
        return (wide * torch.rsqrt((wide * wide).mean(-1, keepdim=True) + self.eps) * weight).to(x.dtype)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) · weight + bias over the last axis (arXiv 1607.06450), the norm of GPT-2."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.bias = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] → the same shape and dtype."""
        wide = x.to(at_least_float32(x.dtype))
        centred = wide - wide.mean(-1, keepdim=True)
        scaled = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + self.eps)
        return (scaled * self.weight.to(wide.dtype) + self.bias.to(wide.dtype)).to(x.dtype)


def make_norm(config: ModelConfig, size: int) -> nn.Module:
    """The model's kind of norm, for vectors of `size`."""
    if config.norm == "layer":
        return LayerNorm(size, config.norm_eps)
    return RMSNorm(size, config.norm_eps, plus_one=config.norm == "rms_plus_one")


def make_embedding(count: int, size: int) -> nn.Embedding:
    """A table of `count` vectors of `size`, uninitialised.

    nn.Embedding's constructor draws random numbers, and on "meta" imports torch's compiler for that, which takes two seconds.
    """
    return nn.Embedding.from_pretrained(torch.empty(count, size), freeze=False)


def softcap(x: Tensor, cap: float | None) -> Tensor:
    """cap · tanh(x / cap) (Gemma 2): close to x where x is small, never beyond ±cap; without a cap, x. Any shape."""
    return x if cap is None else cap * torch.tanh(x / cap)


class Scores(nn.Module):
    """The attention score of each query and key: q·k · scale, softcapped, -inf where the mask is False."""

    def __init__(self, scale: float, cap: float | None) -> None:
        super().__init__()
        self.scale, self.cap = scale, cap

    def forward(self, q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
        """q [B, H, T, D], k [B, H, S, D], allowed bool [B, 1, T, S] → [B, H, T, S] in at least float32.

        The product is computed in the wide dtype: in float16 a q·k above 65504 is inf, and two of them give NaN in a softmax.
        """
        wide = at_least_float32(q.dtype)
        scores = softcap((q.to(wide) * self.scale) @ k.to(wide).transpose(-1, -2), self.cap)
        return scores.masked_fill(~allowed, -torch.inf)


class Attend(nn.Module):
    """Softmax of the scores, then the weighted sum of values: q, k, v → context [B, H, T, D].

    `eager` is the definition. `sdpa` is a faster implementation of it; it has no softcap.
    """

    def __init__(self, scale: float, cap: float | None) -> None:
        super().__init__()
        self.scores = Scores(scale, cap)
        self.implementation = "sdpa" if cap is None else "eager"

    def forward(self, q: Tensor, k: Tensor, v: Tensor, view: KVView) -> Tensor:
        """q [B, H, T, D]; k, v [B, K, S, D], each key head shared by H/K neighbouring query heads → [B, H, T, D]."""
        if self.implementation == "sdpa":
            return self.sdpa(q, k, v, view)
        return self.eager(q, k, v, view)

    def eager(self, q: Tensor, k: Tensor, v: Tensor, view: KVView) -> Tensor:
        """The definition, term by term: q [B, H, T, D]; k, v [B, K, S, D] → [B, H, T, D] in the dtype of q."""
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)  # [B, H, S, D]
        weights = self.scores(q, k, view.allowed).softmax(-1)  # [B, H, T, S]
        return (weights @ v.to(weights.dtype)).to(q.dtype)

    def sdpa(self, q: Tensor, k: Tensor, v: Tensor, view: KVView) -> Tensor:
        """torch's fused kernel: q [B, H, T, D]; k, v [B, K, S, D] → [B, H, T, D].

        With one query per row, the heads that share a key become the queries of that key, and no key is copied.
        """
        B, H, T, D = q.shape
        if T == 1:
            grouped = q.view(B, k.shape[1], -1, D)  # [B, K, H/K, D]
            out = F.scaled_dot_product_attention(grouped, k, v, view.allowed, scale=self.scores.scale)
            return out.view(B, H, T, D)
        mask = None if view.causal else view.allowed
        gqa = k.shape[1] != H
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=view.causal, scale=self.scores.scale, enable_gqa=gqa)


class Attention(nn.Module):
    """Multi-head attention (arXiv 1706.03762) with grouped key/value heads (arXiv 2305.13245).

    q_norm, k_norm: norms of queries and keys; None in models without them.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        hidden, D, bias = config.hidden_size, config.head_dim, config.qkv_bias
        self.head_dim = D
        self.q_proj = Linear(hidden, config.num_attention_heads * D, bias=bias)
        self.k_proj = Linear(hidden, config.num_key_value_heads * D, bias=bias)
        self.v_proj = Linear(hidden, config.num_key_value_heads * D, bias=bias)
        self.o_proj = Linear(config.num_attention_heads * D, hidden, bias=config.o_bias)
        self.norm_heads = config.qk_norm == "head"
        self.register_module("q_norm", None)
        self.register_module("k_norm", None)
        if config.qk_norm:
            self.q_norm = make_norm(config, D if self.norm_heads else config.num_attention_heads * D)
            self.k_norm = make_norm(config, D if self.norm_heads else config.num_key_value_heads * D)
        self.attend = Attend(config.attention_scales[layer], config.attention_softcap)

    def heads(self, x: Tensor, norm: nn.Module | None) -> Tensor:
        """[B, T, heads·D] → [B, heads, T, D]; `norm` runs over all heads together (OLMo 2) or over each (Qwen 3, Gemma 3)."""
        if norm is not None and not self.norm_heads:
            x = norm(x)
        x = x.unflatten(-1, (-1, self.head_dim))
        if norm is not None and self.norm_heads:
            x = norm(x)
        return x.transpose(1, 2)

    def forward(self, x: Tensor, rotation: Rotation, view: KVView, cache: LayerCache | None) -> Tensor:
        """[B, T, hidden_size] → the same shape; appends this call's keys and values to the cache."""
        q = self.heads(self.q_proj(x), self.q_norm)  # [B, H, T, D]
        k = self.heads(self.k_proj(x), self.k_norm)  # [B, K, T, D]
        v = self.heads(self.v_proj(x), None)
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        if cache is not None:
            k, v = cache.append(k, v, view)  # [B, K, S, D]
        context = self.attend(q, k, v, view)  # [B, H, T, D]
        return self.o_proj(context.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """down(act(up(x))); gated (arXiv 2002.05202: SwiGLU with silu, GeGLU with gelu): down(act(gate(x)) · up(x)).

    gate_proj: None without a gate.
    """

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        hidden, bias = config.hidden_size, config.mlp_bias
        self.gated = config.gated_mlp
        self.register_module("gate_proj", None)
        if self.gated:
            self.gate_proj = Linear(hidden, width, bias=bias)
        self.up_proj = Linear(hidden, width, bias=bias)
        self.down_proj = Linear(width, hidden, bias=bias)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden_size] → the same shape; between the matrices [..., width]."""
        if not self.gated:
            return self.down_proj(self.activation(self.up_proj(x)))
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


class MoE(nn.Module):
    """A router chooses k experts for each token; their outputs are added, weighted by it (arXiv 2101.03961, Mixtral)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Linear(config.hidden_size, config.num_experts, bias=False)
        self.experts = nn.ModuleList(MLP(config, config.moe_intermediate_size) for _ in range(config.num_experts))
        self.top_k, self.renormalise = config.num_experts_per_tok, config.norm_topk_prob

    def route(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Router logits [N, experts] → weights [N, k] in at least float32, and expert numbers int64 [N, k]; N = B·T.

        Softmax over all experts, then the top k, renormalised to sum to 1 if `renormalise` (always in Mixtral, where it
        equals a softmax over the chosen k).
        """
        weights, chosen = logits.to(at_least_float32(logits.dtype)).softmax(-1).topk(self.top_k, -1)
        if self.renormalise:
            weights = weights / weights.sum(-1, keepdim=True)
        return weights, chosen

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, hidden_size] → the same shape; each expert computes only the tokens that chose it."""
        tokens = x.flatten(0, 1)  # [N, hidden_size]
        weights, chosen = self.route(self.gate(tokens))
        out = torch.zeros_like(tokens)
        for index in chosen.unique().tolist():
            token, rank = (chosen == index).nonzero(as_tuple=True)
            answer = self.experts[index](tokens[token]) * weights[token, rank, None].to(x.dtype)
            out.index_add_(0, token, answer)
        return out.view_as(x)


class Block(nn.Module):
    """One layer: attention, then MLP, each added to the residual stream; norms before each, after each, or both.

    Names follow the checkpoints, where `post_attention_layernorm` means "before the MLP" in a pre-norm model (Llama) and
    "after attention" in the others (OLMo 2, Gemma). A norm that the model lacks is None.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        hidden, placement = config.hidden_size, config.placement
        self.self_attn = Attention(config, layer)
        self.mlp = MoE(config) if config.moe_layers[layer] else MLP(config, config.intermediate_size)
        for name in LAYER_NORMS:
            self.register_module(name, None)
        if placement != "post":
            self.input_layernorm = make_norm(config, hidden)
        self.post_attention_layernorm = make_norm(config, hidden)
        if placement == "sandwich":
            self.pre_feedforward_layernorm = make_norm(config, hidden)
        if placement != "pre":
            self.post_feedforward_layernorm = make_norm(config, hidden)
        self.placement = placement

    def forward(self, x: Tensor, rotation: Rotation, view: KVView, cache: LayerCache | None) -> Tensor:
        """The residual stream [B, T, hidden_size] before the layer → after it, the same shape."""
        if self.placement == "pre":
            x = x + self.self_attn(self.input_layernorm(x), rotation, view, cache)
            return x + self.mlp(self.post_attention_layernorm(x))
        if self.placement == "post":
            x = x + self.post_attention_layernorm(self.self_attn(x, rotation, view, cache))
            return x + self.post_feedforward_layernorm(self.mlp(x))
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), rotation, view, cache))
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))

"""Other correct ways to compute the parts of a model: functions by which variants replace the runtime's.

`wide` is at least float32, as in the runtime. In float64 all of them compute in float64, where tests prove them exact.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from nanollama.model.kv_cache import KVView
from nanollama.model.layers import MLP, Attend, Block, LayerNorm, MoE, RMSNorm, Scores, at_least_float32, softcap
from nanollama.model.rope import Rotary, frequencies

# --- norms


def scale_of(norm: RMSNorm | LayerNorm, wide: torch.dtype) -> Tensor:
    """The weight as it multiplies."""
    weight = norm.weight.to(wide)
    return 1 + weight if getattr(norm, "plus_one", False) else weight


def fused_rms(self: RMSNorm, x: Tensor) -> Tensor:
    """torch's fused kernel."""
    wide = at_least_float32(x.dtype)
    return F.rms_norm(x.to(wide), self.weight.shape, scale_of(self, wide), self.eps).to(x.dtype)


def fused_layer(self: LayerNorm, x: Tensor) -> Tensor:
    """torch's fused kernel."""
    return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


def reordered_sum(x: Tensor) -> Tensor:
    """Sum over the last axis in four interleaved lanes from the end, as in a vector unit; keeps the axis."""
    lanes = [x[..., lane::4].flip(-1).cumsum(-1)[..., -1:] for lane in range(4)]
    return (lanes[3] + lanes[1]) + (lanes[2] + lanes[0])


def reordered_rms(self: RMSNorm, x: Tensor) -> Tensor:
    """Weight first, then a division by the root; squares summed in lanes."""
    wide = x.to(at_least_float32(x.dtype))
    root = (reordered_sum(wide * wide) / x.shape[-1] + self.eps).sqrt()
    return (wide * scale_of(self, wide.dtype) / root).to(x.dtype)


def reordered_layer(self: LayerNorm, x: Tensor) -> Tensor:
    """Sums in lanes, and a division by the root."""
    wide = x.to(at_least_float32(x.dtype))
    centred = wide - reordered_sum(wide) / x.shape[-1]
    root = (reordered_sum(centred * centred) / x.shape[-1] + self.eps).sqrt()
    return (centred * scale_of(self, wide.dtype) / root + self.bias.to(wide.dtype)).to(x.dtype)


def llama_order_rms(self: RMSNorm, x: Tensor) -> Tensor:
    """Llama's order: round to the model's dtype, then multiply by the weight and round again (LlamaRMSNorm)."""
    wide = x.to(at_least_float32(x.dtype))
    normed = wide * torch.rsqrt((wide * wide).mean(-1, keepdim=True) + self.eps)
    return scale_of(self, x.dtype) * normed.to(x.dtype)


# --- matrix products


def reversed_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The sum in reverse order."""
    return F.linear(x.flip(-1), weight.flip(-1), bias)


def split_linear(parts: int, round_parts: bool) -> object:
    """Split-K: `parts` partial sums, added in at least float32, or each rounded to the model's dtype first."""

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        wide = x.dtype if round_parts else at_least_float32(x.dtype)
        size = -(-x.shape[-1] // parts)
        total = sum(F.linear(a.to(wide), w.to(wide)) for a, w in zip(x.split(size, -1), weight.split(size, -1), strict=True))
        assert isinstance(total, Tensor)
        return (total if bias is None else total + bias.to(wide)).to(x.dtype)

    return linear


def upcast_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Operands widened first, one rounding at the end."""
    wide = at_least_float32(x.dtype)
    return F.linear(x.to(wide), weight.to(wide), None if bias is None else bias.to(wide)).to(x.dtype)


def transposed_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The weight stored as [in, out], as in GPT-2 and many kernels."""
    kept = weight.t().contiguous()
    flat = x.flatten(0, -2)
    out = flat @ kept if bias is None else torch.addmm(bias, flat, kept)
    return out.view(*x.shape[:-1], -1)


def row_by_row_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """One token at a time: the kernel for a vector instead of that for a matrix."""
    rows = [F.linear(row[None], weight, bias) for row in x.flatten(0, -2)]
    return torch.cat(rows).view(*x.shape[:-1], -1) if rows else F.linear(x, weight, bias)


def tiled_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Outputs in tiles of 16, as in tensor parallelism by columns."""
    biases = [None] * -(-len(weight) // 16) if bias is None else bias.split(16)
    return torch.cat([F.linear(x, w, b) for w, b in zip(weight.split(16), biases, strict=True)], -1)


def late_bias_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The bias added to the rounded product."""
    return F.linear(x, weight) if bias is None else F.linear(x, weight) + bias


# --- attention


def eager(self: Attend, q: Tensor, k: Tensor, v: Tensor, view: KVView) -> Tensor:
    """The runtime's definition, term by term."""
    return self.eager(q, k, v, view)


def expanded(self: Attend, q: Tensor, k: Tensor, v: Tensor, view: KVView) -> Tensor:
    """SDPA with every key and value head copied to its queries."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    return F.scaled_dot_product_attention(q, k, v, view.allowed, scale=self.scores.scale)


def wide_scores(self: Attend, q: Tensor, k: Tensor, view: KVView) -> Tensor:
    """Scores with queries grouped by their key head, no key copied: [B, K, G, T, S]; scaled after the product."""
    wide = at_least_float32(q.dtype)
    grouped = q.to(wide).unflatten(1, (k.shape[1], -1))
    scores = torch.einsum("bkgtd,bksd->bkgts", grouped, k.to(wide)) * self.scores.scale
    return softcap(scores, self.scores.cap).masked_fill(~view.allowed[:, None], -torch.inf)


def grouped(self: Attend, q: Tensor, k: Tensor, v: Tensor, view: KVView) -> Tensor:
    """The definition in grouped layout, its softmax through the logarithm of the sum."""
    scores = wide_scores(self, q, k, view)
    weights = (scores - scores.logsumexp(-1, keepdim=True)).exp()
    return torch.einsum("bkgts,bksd->bkgtd", weights, v.to(weights.dtype)).flatten(1, 2).to(q.dtype)


def online(self: Attend, q: Tensor, k: Tensor, v: Tensor, view: KVView) -> Tensor:
    """Softmax over blocks of three keys with a running maximum and sum (arXiv 1805.02867), as FlashAttention does."""
    scores = wide_scores(self, q, k, view)
    high, total, mix = scores.new_full((*scores.shape[:-1], 1), -torch.inf), torch.zeros(()), torch.zeros(())
    for block, values in zip(scores.split(3, -1), v.to(scores.dtype).split(3, -2), strict=True):
        new = torch.maximum(high, block.amax(-1, keepdim=True))
        safe = new.masked_fill(new == -torch.inf, 0)  # nothing seen yet
        grown, weights = (high - safe).exp(), (block - safe).exp()
        total = total * grown + weights.sum(-1, keepdim=True)
        mix = mix * grown + torch.einsum("bkgts,bksd->bkgtd", weights, values)
        high = new
    return (mix / total).flatten(1, 2).to(q.dtype)


def rounded_weights(self: Attend, q: Tensor, k: Tensor, v: Tensor, view: KVView) -> Tensor:
    """Probabilities rounded to the model's dtype before they multiply the values, as in transformers' eager attention."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    return self.scores(q, k, view.allowed).softmax(-1).to(v.dtype) @ v


def late_scale(self: Scores, q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
    """The scale after the product instead of on the queries."""
    wide = at_least_float32(q.dtype)
    scores = (q.to(wide) @ k.to(wide).transpose(-1, -2)) * self.scale
    return softcap(scores, self.cap).masked_fill(~allowed, -torch.inf)


def rounded_scores(self: Scores, q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
    """q·k, scale and cap each rounded to the model's dtype, as in transformers' eager attention; only the softmax is wide."""
    scores = softcap((q @ k.transpose(-1, -2)) * self.scale, self.cap)
    return scores.to(at_least_float32(q.dtype)).masked_fill(~allowed, -torch.inf)


# --- rotation


def complex_rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs as complex numbers times e^(i·angle), as in Meta's code."""
    dim = 2 * cos.shape[-1]
    a, b = x[..., :dim].to(cos.dtype).chunk(2, -1)
    turned = torch.complex(a, b) * torch.complex(cos, sin)
    return torch.cat((turned.real.to(x.dtype), turned.imag.to(x.dtype), x[..., dim:]), -1)


def rounded_rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """cos and sin, both products and their sum rounded to the model's dtype, as in transformers' apply_rotary_pos_emb."""
    dim = 2 * cos.shape[-1]
    a, b = x[..., :dim].chunk(2, -1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((a * cos + -b * sin, b * cos + a * sin, x[..., dim:]), -1)


def narrow_angles(wide: torch.dtype, by_exponent: bool) -> object:
    """Frequencies and angles in the dtype of the model, at least float32: 2e-4 radians off at position 4096; the frequencies
    rounded, or computed there too, as e to the power of a rounded exponent."""

    def forward(self: Rotary, positions: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
        if self.rope.depends_on_length:
            freq = torch.stack([frequencies(self.rope, length) for length in lengths])[:, None]
        else:
            freq = frequencies(self.rope, 0)
        freq = freq.log().to(wide).exp() if by_exponent else freq.to(wide)
        angles = (positions[..., None].to(wide) * freq)[:, None]
        return angles.cos() * self.rope.attention_factor, angles.sin() * self.rope.attention_factor

    return forward


# --- MLP, experts, residual stream


def wide_activation(self: MLP, x: Tensor) -> Tensor:
    """Activation and gate in one kernel: rounded once, after the product."""
    wide = at_least_float32(x.dtype)
    if not self.gated:
        return self.down_proj(self.activation(self.up_proj(x).to(wide)).to(x.dtype))
    return self.down_proj((self.activation(self.gate_proj(x).to(wide)) * self.up_proj(x).to(wide)).to(x.dtype))


def dense_experts(wide_sum: bool) -> object:
    """Every expert computes every token; outputs of experts that were not chosen have weight 0."""

    def forward(self: MoE, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        weights, chosen = self.route(self.gate(tokens))
        full = weights.new_zeros(len(tokens), len(self.experts)).scatter(1, chosen, weights)
        sums = at_least_float32(x.dtype) if wide_sum else x.dtype
        out = torch.zeros_like(tokens, dtype=sums)
        for index in reversed(range(len(self.experts))):
            out = out + self.experts[index](tokens).to(sums) * full[:, index, None].to(sums)
        return out.to(x.dtype).view_as(x)

    return forward


def fused_add_norm(self: Block, x: Tensor, *rest: object) -> Tensor:
    """Residual sum and norm in one kernel: the norm sees the sum before it is rounded (as vLLM's fused_add_rms_norm)."""
    wide = at_least_float32(x.dtype)
    total = x.to(wide) + self.self_attn(self.input_layernorm(x), *rest).to(wide)
    return total.to(x.dtype) + self.mlp(self.post_attention_layernorm(total).to(x.dtype))

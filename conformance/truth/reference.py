"""A second model in float64, written from the papers without the runtime: the truth for every module of every fixture, on any
prompt. One row at a time, no cache, every value kept. Proven against the goldens (that is, transformers) by
 `conformance/tests/suite/checks/test_checks.py`.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from conformance.truth.rotation import cos_sin, rotate
from conformance.truth.spec import Spec

Tensors = Mapping[str, Tensor]
Trace = dict[str, Tensor]


def norm(spec: Spec, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """RMSNorm (arXiv 1910.07467), or with a bias LayerNorm (1607.06450), over the last axis."""
    if bias is not None:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + spec.eps).sqrt() * weight + bias
    scaled = x / (x.pow(2).mean(-1, keepdim=True) + spec.eps).sqrt()
    return scaled * (1 + weight if spec.norm == "rms_plus_one" else weight)


def activate(name: str, x: Tensor) -> Tensor:
    """The activations by their definitions."""
    if name == "silu":
        return x / (1 + (-x).exp())
    if name == "relu":
        return x.clamp(min=0)
    if name == "gelu":
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))  # gelu_new, gelu_pytorch_tanh


def cap(x: Tensor, limit: float | None) -> Tensor:
    """Softcap: limit · tanh(x / limit)."""
    return x if limit is None else limit * torch.tanh(x / limit)


def seen(positions: Tensor, window: int | None) -> Tensor:
    """The keys that each query sees, bool [T, T]: not later ones, and at most `window` ones, the query's own included."""
    distance = positions[:, None] - positions[None, :]
    return (distance >= 0) & (distance < (math.inf if window is None else window))


class Reference:
    """A model: its spec, its tensors by the runtime's module names, float64.

    `given`: values of another engine, by their names in the trace. The model stores its value and goes on with the engine's, so
    that every value follows from the engine's previous one, and no error adds up.
    """

    def __init__(self, spec: Spec, tensors: Tensors, given: Tensors | None = None) -> None:
        self.spec, self.tensors = spec, {name: tensor.double() for name, tensor in tensors.items()}
        self.given = given or {}

    def put(self, trace: Trace, name: str, value: Tensor) -> Tensor:
        """Store a value under its name; returns the value to continue with: the engine's, if it has one of this shape."""
        trace[name], given = value, self.given.get(name, value)
        return given if given.shape == value.shape else value

    def linear(self, name: str, x: Tensor) -> Tensor:
        """x · weight transposed + bias."""
        out = x @ self.tensors[f"{name}.weight"].T
        return out + self.tensors[f"{name}.bias"] if f"{name}.bias" in self.tensors else out

    def norm(self, name: str, x: Tensor) -> Tensor:
        """The norm of this name."""
        return norm(self.spec, x, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"))

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """[T] → [T, hidden]."""
        x = self.tensors["embed_tokens.weight"][ids] * self.spec.embedding_scale
        return x + self.tensors["embed_positions.weight"][positions] if self.spec.learned_positions else x

    def heads(self, name: str, flat: Tensor, normed: str | None) -> Tensor:
        """[T, heads · D] → [heads, T, D], with the family's q/k norm."""
        if normed and self.spec.qk_norm == "full":
            flat = self.norm(normed, flat)
        split = flat.reshape(len(flat), -1, self.spec.head_dim).transpose(0, 1)
        return self.norm(normed, split) if normed and self.spec.qk_norm == "head" else split

    def turned(self, i: int, part: str, heads: Tensor, positions: Tensor, length: int) -> Tensor:
        """Queries and keys rotated by their positions, if layer i rotates; values unchanged."""
        rope = self.spec.ropes[i]
        return rotate(heads, *cos_sin(rope, positions, length)) if rope and part != "v" else heads

    def owner(self, part: str) -> Tensor:
        """The key or value head of each query head, [heads]."""
        return torch.arange(self.spec.heads) // (self.spec.heads // self.spec.kv_heads)

    def visible(self, i: int, positions: Tensor) -> Tensor:
        """Which keys each query sees in layer i."""
        return seen(positions, self.spec.windows[i])

    def scores(self, i: int, q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
        """Attention scores [heads, T, T], -inf at masked keys."""
        scores = cap(q @ k.transpose(1, 2) * self.spec.scales[i], self.spec.attention_cap)
        return scores.masked_fill(~allowed, -math.inf)

    def mix(self, weights: Tensor, v: Tensor) -> Tensor:
        """The weighted sum of values for each query, [heads, T, D]."""
        return weights @ v

    def merge(self, mixed: Tensor) -> Tensor:
        """[heads, T, D] → [T, heads · D]."""
        return mixed.transpose(0, 1).reshape(mixed.shape[1], -1)

    def attention(self, i: int, x: Tensor, positions: Tensor, length: int, trace: Trace) -> Tensor:
        """Attention of layer i on its normed input [T, hidden]; every step goes into the trace."""
        at = f"layers.{i}.self_attn"
        for part in "qkv":
            trace[f"{at}.{part}_proj"] = flat = self.linear(f"{at}.{part}_proj", x)
            normed = f"{at}.{part}_norm" if self.spec.qk_norm and part != "v" else None
            trace[f"{at}.{part}"] = heads = self.heads(f"{at}.{part}_proj", flat, normed)
            trace[f"{at}.{part}.turned"] = self.turned(i, part, heads, positions, length)
        q, k, v = (trace[f"{at}.{part}.turned"] for part in "qkv")
        trace[f"{at}.repeated"] = repeated = k[self.owner("k")]
        trace[f"{at}.attend.scores"] = scores = self.scores(i, q, repeated, self.visible(i, positions))
        weights = (scores - scores.max(-1, keepdim=True).values).exp()
        weights = self.put(trace, f"{at}.attend", weights / weights.sum(-1, keepdim=True))
        trace[f"{at}.mixed"] = mixed = self.mix(weights, v[self.owner("v")])
        context = self.put(trace, f"{at}.context", self.merge(mixed))
        return self.put(trace, at, self.linear(f"{at}.o_proj", self.put(trace, f"{at}.o_proj.in", context)))

    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        """The inner values of a gated MLP."""
        return activate(self.spec.activation, gate) * up

    def mlp(self, name: str, x: Tensor, trace: Trace | None = None) -> Tensor:
        """Gated or plain."""
        trace = {} if trace is None else trace
        trace[f"{name}.up_proj"] = inner = self.linear(f"{name}.up_proj", x)
        if self.spec.gated:
            trace[f"{name}.gate_proj"] = gate = self.linear(f"{name}.gate_proj", x)
            inner = self.gated(gate, inner)
        else:
            inner = activate(self.spec.activation, inner)
        trace[f"{name}.inner"] = inner
        trace[f"{name}.down_proj"] = out = self.linear(f"{name}.down_proj", inner)
        return out

    def routing(self, logits: Tensor) -> Tensor:
        """Router logits [T, experts] → the weight of every expert, 0 if not chosen."""
        weights = torch.zeros_like(logits)
        for row, out in zip(logits.softmax(-1), weights, strict=True):
            best = row.argsort(descending=True)[: self.spec.chosen]
            out[best] = row[best] / row[best].sum() if self.spec.renormalise else row[best]
        return weights

    def experts(self, i: int, x: Tensor, trace: Trace) -> Tensor:
        """The weighted sum of all experts by the router's weights."""
        at = f"layers.{i}.mlp"
        trace[f"{at}.gate"] = self.linear(f"{at}.gate", x)
        trace[f"{at}.weights"] = weights = self.routing(trace[f"{at}.gate"])
        answers = torch.stack([self.mlp(f"{at}.experts.{e}", x, trace) for e in range(self.spec.experts)], 1)
        return (weights[..., None] * answers).sum(1)

    def feed_forward(self, i: int, x: Tensor, trace: Trace) -> Tensor:
        """The MLP or the experts of layer i."""
        name = f"layers.{i}.mlp"
        return self.put(trace, name, self.experts(i, x, trace) if self.spec.sparse[i] else self.mlp(name, x, trace))

    def normed(self, name: str, x: Tensor, trace: Trace) -> Tensor:
        """The norm of this name; its input is stored too."""
        x = self.put(trace, f"{name}.in", x)
        return self.put(trace, name, self.norm(name, x))

    def block(self, i: int, x: Tensor, positions: Tensor, length: int, trace: Trace) -> Tensor:
        """The residual stream through layer i. `….in` is the input of each norm, attention and MLP."""
        placement, at = self.spec.placement, f"layers.{i}"
        x = self.put(trace, f"{at}.in", x)
        inner = x if placement == "post" else self.normed(f"{at}.input_layernorm", x, trace)
        out = self.attention(i, self.put(trace, f"{at}.self_attn.in", inner), positions, length, trace)
        trace[f"{at}.middle"] = x = x + (
            out if placement == "pre" else self.normed(f"{at}.post_attention_layernorm", out, trace)
        )
        before = {"pre": "post_attention_layernorm", "sandwich": "pre_feedforward_layernorm"}.get(placement)
        inner = self.normed(f"{at}.{before}", x, trace) if before else x
        out = self.feed_forward(i, self.put(trace, f"{at}.mlp.in", inner), trace)
        out = out if placement == "pre" else self.normed(f"{at}.post_feedforward_layernorm", out, trace)
        return self.put(trace, at, x + out)

    def run(self, ids: Tensor, positions: Tensor | None = None, length: int | None = None) -> Trace:
        """ids [T] → every value by name; "logits" are raw. `length`: the length for length-dependent frequencies."""
        positions = torch.arange(len(ids)) if positions is None else positions
        length = int(positions.max()) + 1 if length is None else length
        trace: Trace = {}
        x = self.put(trace, "embeddings", self.embed(ids, positions))
        for i in range(self.spec.layers):
            x = self.block(i, x, positions, length, trace)
        trace["lm_head"] = self.linear("lm_head", self.put(trace, "lm_head.in", self.normed("norm", x, trace)))
        trace["logits"] = cap(trace["lm_head"], self.spec.logit_cap)
        return trace

"""Other right ways to write Block.forward."""

from torch import Tensor, nn

from nanollama.model.kv_cache import KVView, LayerCache
from nanollama.model.layers import Block, Rotation


def one_road(self: Block, x: Tensor, rotation: Rotation, view: KVView, cache: LayerCache | None) -> Tensor:
    """one path for all three placements, with a norm or an identity at each place"""
    same = nn.Identity()
    pre, post = self.placement == "pre", self.placement == "post"
    before = same if post else self.input_layernorm
    behind = same if pre else self.post_attention_layernorm
    between = self.post_attention_layernorm if pre else same if post else self.pre_feedforward_layernorm
    after = same if pre else self.post_feedforward_layernorm
    x = x + behind(self.self_attn(before(x), rotation, view, cache))
    return x + after(self.mlp(between(x)))


def residual(self: Block, x: Tensor, rotation: Rotation, view: KVView, cache: LayerCache | None) -> Tensor:
    """as transformers writes it: keep the stream, compute, add"""
    stream = x
    if self.placement in ("pre", "sandwich"):
        x = self.input_layernorm(x)
    x = self.self_attn(x, rotation, view, cache)
    if self.placement != "pre":
        x = self.post_attention_layernorm(x)
    stream = x = stream + x
    if self.placement == "pre":
        x = self.post_attention_layernorm(x)
    elif self.placement == "sandwich":
        x = self.pre_feedforward_layernorm(x)
    x = self.mlp(x)
    if self.placement != "pre":
        x = self.post_feedforward_layernorm(x)
    return stream.add(x)


def in_place(self: Block, x: Tensor, rotation: Rotation, view: KVView, cache: LayerCache | None) -> Tensor:
    """a copy of the stream to which everything is added in place"""
    stream = x.clone()
    match self.placement:
        case "pre":
            stream += self.self_attn(self.input_layernorm(stream), rotation, view, cache)
            stream += self.mlp(self.post_attention_layernorm(stream))
        case "post":
            stream += self.post_attention_layernorm(self.self_attn(stream, rotation, view, cache))
            stream += self.post_feedforward_layernorm(self.mlp(stream))
        case _:
            attended = self.self_attn(self.input_layernorm(stream), rotation, view, cache)
            stream += self.post_attention_layernorm(attended)
            stream += self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(stream)))
    return stream

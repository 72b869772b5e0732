"""Slips in the residual stream: what goes into each part of a layer, and what is added."""

from torch import Tensor

from conformance.diagnosis.causes.hypotheses.hypothesis import Wrong, slip
from conformance.truth.reference import Reference, Trace
from conformance.truth.spec import Spec


def pre(spec: Spec) -> bool:
    """Norms before each part alone."""
    return spec.placement == "pre"


def behind(spec: Spec) -> bool:
    """Norms behind each part."""
    return spec.placement != "pre"


@slip("residual", when=pre)
class Parallel(Wrong):
    """attention and MLP both start from the layer's input and are added together"""

    def block(self, i: int, x: Tensor, positions: Tensor, length: int, trace: Trace) -> Tensor:
        """In parallel."""
        at = f"layers.{i}"
        out = self.attention(i, self.normed(f"{at}.input_layernorm", x, trace), positions, length, trace)
        inner = self.normed(f"{at}.post_attention_layernorm", x, trace)
        return self.put(trace, at, x + out + self.feed_forward(i, inner, trace))


@slip("residual", when=pre)
class FromNormed(Wrong):
    """the stream itself is replaced by its norm, to which attention is added"""

    def block(self, i: int, x: Tensor, positions: Tensor, length: int, trace: Trace) -> Tensor:
        """Normed for good."""
        at = f"layers.{i}"
        x = self.normed(f"{at}.input_layernorm", x, trace)
        x = x + self.attention(i, x, positions, length, trace)
        out = self.feed_forward(i, self.normed(f"{at}.post_attention_layernorm", x, trace), trace)
        return self.put(trace, at, x + out)


class Losing(Wrong):
    """A layer that loses what comes in, what attention adds, or what the MLP starts from."""

    keeps_input, keeps_attention, keeps_middle = True, True, True

    def block(self, i: int, x: Tensor, positions: Tensor, length: int, trace: Trace) -> Tensor:
        """Sums without one of their parts."""
        at, placement = f"layers.{i}", self.spec.placement
        inner = x if placement == "post" else self.normed(f"{at}.input_layernorm", x, trace)
        out = self.attention(i, inner, positions, length, trace)
        out = out if placement == "pre" else self.normed(f"{at}.post_attention_layernorm", out, trace)
        x = self.keeps_input * x + self.keeps_attention * out
        before = {"pre": "post_attention_layernorm", "sandwich": "pre_feedforward_layernorm"}.get(placement)
        out = self.feed_forward(i, self.normed(f"{at}.{before}", x, trace) if before else x, trace)
        out = out if placement == "pre" else self.normed(f"{at}.post_feedforward_layernorm", out, trace)
        return self.put(trace, at, self.keeps_middle * x + out)


@slip("residual")
class AttentionAlone(Losing):
    """the stream before attention is not added to what attention gives"""

    keeps_input = False


@slip("residual")
class AttentionLost(Losing):
    """what attention gives is not added to the stream"""

    keeps_attention = False


@slip("residual")
class MiddleLost(Losing):
    """the stream before the MLP is not added to what the MLP gives"""

    keeps_middle = False


@slip("residual", when=behind)
class SumNormed(Wrong):
    """the norm behind attention and MLP takes the sum with the stream, not what the part gives alone"""

    def block(self, i: int, x: Tensor, positions: Tensor, length: int, trace: Trace) -> Tensor:
        """As the first transformers had it."""
        at, sandwich = f"layers.{i}", self.spec.placement == "sandwich"
        inner = self.normed(f"{at}.input_layernorm", x, trace) if sandwich else x
        out = self.attention(i, inner, positions, length, trace)
        x = self.normed(f"{at}.post_attention_layernorm", x + out, trace)
        inner = self.normed(f"{at}.pre_feedforward_layernorm", x, trace) if sandwich else x
        return self.put(
            trace, at, self.normed(f"{at}.post_feedforward_layernorm", x + self.feed_forward(i, inner, trace), trace)
        )


class Unnormed(Wrong):
    """A layer that leaves out one of its norms."""

    left_out = ""

    def normed(self, name: str, x: Tensor, trace: Trace) -> Tensor:
        """As it is, or not at all."""
        return self.put(trace, name, x) if name.endswith(self.left_out) else Reference.normed(self, name, x, trace)


@slip("residual")
class FirstNormLost(Unnormed):
    """what attention gives (before it, in a pre-norm layer its input) is not normed"""

    left_out = ".post_attention_layernorm"


@slip("residual", when=behind)
class LastNormLost(Unnormed):
    """what the MLP gives is added without its norm"""

    left_out = ".post_feedforward_layernorm"

"""Slips in norms."""

from torch import Tensor

from conformance.diagnosis.causes.hypotheses.hypothesis import Wrong, slip
from conformance.truth.reference import Reference, Trace, cap
from conformance.truth.spec import Spec


def rms(spec: Spec) -> bool:
    """An RMSNorm."""
    return spec.norm != "layer"


def layer(spec: Spec) -> bool:
    """A LayerNorm."""
    return spec.norm == "layer"


def divided(self: Reference, name: str, x: Tensor, divisor: Tensor) -> Tensor:
    """x over something else than the root of mean square plus epsilon, all else right."""
    weight, bias = self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias")
    out = x / divisor * (1 + weight if self.spec.norm == "rms_plus_one" else weight)
    return out if bias is None else out + bias


def centred(self: Reference, name: str, x: Tensor) -> Tensor:
    """What a norm takes the mean square of."""
    return x - x.mean(-1, keepdim=True) if f"{name}.bias" in self.tensors else x


def square(x: Tensor) -> Tensor:
    """Mean square of each row."""
    return x.pow(2).mean(-1, keepdim=True)


@slip("norm", "norm")
def outside(self: Reference, name: str, x: Tensor) -> Tensor:
    """epsilon {s.eps:g} is added to the root of a norm, not under it"""
    x = centred(self, name, x)
    return divided(self, name, x, square(x).sqrt() + self.spec.eps)


@slip("norm", "norm")
def bound(self: Reference, name: str, x: Tensor) -> Tensor:
    """epsilon {s.eps:g} is a lower bound of a norm's mean square, not added to it"""
    x = centred(self, name, x)
    return divided(self, name, x, square(x).clamp(min=self.spec.eps).sqrt())


@slip("norm", "norm")
def squared(self: Reference, name: str, x: Tensor) -> Tensor:
    """a norm adds the square of epsilon {s.eps:g}"""
    x = centred(self, name, x)
    return divided(self, name, x, (square(x) + self.spec.eps**2).sqrt())


@slip("norm", "norm")
def summed(self: Reference, name: str, x: Tensor) -> Tensor:
    """a norm takes the sum of squares for their mean"""
    x = centred(self, name, x)
    return divided(self, name, x, (x.pow(2).sum(-1, keepdim=True) + self.spec.eps).sqrt())


@slip("norm", "norm")
def without_root(self: Reference, name: str, x: Tensor) -> Tensor:
    """a norm divides by the mean square, not by its root"""
    x = centred(self, name, x)
    return divided(self, name, x, square(x) + self.spec.eps)


@slip("norm", "norm", rms)
def deviation(self: Reference, name: str, x: Tensor) -> Tensor:
    """an RMSNorm divides by the standard deviation: the mean is taken off before squaring"""
    return divided(self, name, x, (square(x - x.mean(-1, keepdim=True)) + self.spec.eps).sqrt())


@slip("norm", "norm", rms)
def as_layer_norm(self: Reference, name: str, x: Tensor) -> Tensor:
    """an RMSNorm takes the mean off its rows, as a LayerNorm does"""
    return Reference.norm(self, name, x - x.mean(-1, keepdim=True))


@slip("norm", "norm", layer)
def as_rms_norm(self: Reference, name: str, x: Tensor) -> Tensor:
    """a LayerNorm leaves the mean in its rows, as an RMSNorm does"""
    return divided(self, name, x, (square(x) + self.spec.eps).sqrt())


@slip("norm", "norm")
def unbiased(self: Reference, name: str, x: Tensor) -> Tensor:
    """a norm's variance divides by n - 1, not by n"""
    x = centred(self, name, x)
    return divided(self, name, x, (x.pow(2).sum(-1, keepdim=True) / (x.shape[-1] - 1) + self.spec.eps).sqrt())


@slip("norm", "norm", rms)
def unweighted(self: Reference, name: str, x: Tensor) -> Tensor:
    """a norm's weight is not applied"""
    return x / (square(x) + self.spec.eps).sqrt()


@slip("norm", "norm")
def skipped(self: Reference, name: str, x: Tensor) -> Tensor:
    """a norm is skipped"""
    return x


@slip("norm", "heads", lambda spec: spec.qk_norm)
def other_rows(self: Reference, name: str, flat: Tensor, normed: str | None) -> Tensor:
    """the norm of queries and keys takes its mean over other rows: all heads together for one head, or the other way round"""
    split = flat.reshape(len(flat), -1, self.spec.head_dim)
    if normed:
        weight, each = self.tensors[f"{normed}.weight"], self.spec.qk_norm == "head"
        weight = 1 + weight if self.spec.norm == "rms_plus_one" else weight
        split = split / (split.pow(2).mean((1, 2) if each else (2,), keepdim=True) + self.spec.eps).sqrt()
        split = split * (weight if each else weight.reshape(split.shape[1:]))
    return split.transpose(0, 1)


@slip("norm", when=lambda spec: spec.qk_norm == "head")
class AfterTurning(Wrong):
    """queries and keys are rotated first and normed then"""

    def heads(self, name: str, flat: Tensor, normed: str | None) -> Tensor:
        """Without the norm."""
        return Reference.heads(self, name, flat, None)

    def turned(self, i: int, part: str, heads: Tensor, positions: Tensor, length: int) -> Tensor:
        """With the norm."""
        out = Reference.turned(self, i, part, heads, positions, length)
        return out if part == "v" else self.norm(f"layers.{i}.self_attn.{part}_norm", out)


@slip("norm", "run")
def last_norm_skipped(self: Reference, ids: Tensor, positions: Tensor | None = None, length: int | None = None) -> Trace:
    """logits are made of the last hidden state without its norm"""
    trace = Reference.run(self, ids, positions, length)
    return trace | {"logits": cap(self.linear("lm_head", trace["norm.in"]), self.spec.logit_cap)}

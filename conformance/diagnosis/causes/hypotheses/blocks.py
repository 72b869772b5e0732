"""Slips in MLPs, experts and the head."""

import torch
from torch import Tensor

from conformance.diagnosis.causes.hypotheses.hypothesis import Wrong, slip
from conformance.truth.reference import Reference, Trace, activate
from conformance.truth.spec import Spec


def gated(spec: Spec) -> bool:
    """MLPs have a gate."""
    return spec.gated


def expert(spec: Spec) -> bool:
    """Some layer has experts."""
    return any(spec.sparse)


def limited(spec: Spec) -> bool:
    """Logits have a cap."""
    return spec.logit_cap is not None


# --- MLP


@slip("activation", "gated", gated)
def on_up(self: Reference, gate: Tensor, up: Tensor) -> Tensor:
    """the nonlinearity is applied to the product of up_proj, not to that of gate_proj"""
    return gate * activate(self.spec.activation, up)


@slip("activation", "gated", gated)
def on_both(self: Reference, gate: Tensor, up: Tensor) -> Tensor:
    """the nonlinearity is applied to the product of gate and up"""
    return activate(self.spec.activation, gate * up)


@slip("activation", "gated", gated)
def ungated(self: Reference, gate: Tensor, up: Tensor) -> Tensor:
    """the product of up_proj is not multiplied in: the MLP is not gated"""
    return activate(self.spec.activation, gate)


@slip("activation", "gated", gated)
def linear(self: Reference, gate: Tensor, up: Tensor) -> Tensor:
    """the gate has no nonlinearity"""
    return gate * up


@slip("activation", "gated", gated)
def quick_gated(self: Reference, gate: Tensor, up: Tensor) -> Tensor:
    """the nonlinearity is x · sigmoid(1.702 x) where the model asks for {s.activation}"""
    return gate * torch.sigmoid(1.702 * gate) * up


@slip("activation", when=lambda spec: not spec.gated)
class Quick(Wrong):
    """the nonlinearity is x · sigmoid(1.702 x) where the model asks for {s.activation}"""

    def mlp(self, name: str, x: Tensor, trace: Trace | None = None) -> Tensor:
        """Plain."""
        inner = self.linear(f"{name}.up_proj", x)
        return self.linear(f"{name}.down_proj", inner * torch.sigmoid(1.702 * inner))


# --- experts


@slip("routing", "routing", expert)
def sigmoid(self: Reference, logits: Tensor) -> Tensor:
    """router logits go through a sigmoid instead of a softmax"""
    return chosen(self, logits.sigmoid(), self.spec.renormalise)


def chosen(self: Reference, shares: Tensor, renormalise: bool) -> Tensor:
    """The best of each row, all others 0."""
    best = torch.zeros_like(shares).scatter(1, shares.topk(self.spec.chosen, -1).indices, 1.0)
    out = shares * best
    return out / out.sum(-1, keepdim=True) if renormalise else out


@slip("routing", "routing", expert)
def equal(self: Reference, logits: Tensor) -> Tensor:
    """the answers of the {s.chosen} chosen experts are averaged, their weights are not used"""
    return (chosen(self, logits.softmax(-1), False) > 0).double() / self.spec.chosen


@slip("routing", "routing", expert)
def worst(self: Reference, logits: Tensor) -> Tensor:
    """the {s.chosen} experts with the lowest scores are chosen, not those with the highest"""
    return chosen(self, (-logits).softmax(-1), self.spec.renormalise)


@slip("routing", "routing", expert)
def everyone(self: Reference, logits: Tensor) -> Tensor:
    """all {s.experts} experts answer, not the best {s.chosen} alone"""
    return logits.softmax(-1)


@slip("routing", "routing", expert)
def ranks(self: Reference, logits: Tensor) -> Tensor:
    """the weights of chosen experts go by rank, the experts by number: each gets another's weight"""
    right = Reference.routing(self, logits)
    weights, numbers = right.topk(self.spec.chosen, -1)
    return torch.zeros_like(right).scatter(1, numbers.sort(-1).values, weights)


class OtherSum(Wrong):
    """Experts whose outputs are combined in another way."""

    def experts(self, i: int, x: Tensor, trace: Trace) -> Tensor:
        """Every expert on the tokens that chose it."""
        at = f"layers.{i}.mlp"
        trace[f"{at}.gate"] = logits = self.linear(f"{at}.gate", x)
        weights, out = self.routing(logits), torch.zeros_like(x)
        for e in range(self.spec.experts):
            takes = weights[:, e] > 0
            out[takes] = self.combined(out[takes], f"{at}.experts.{e}", x[takes], weights[takes, e, None])
        return out

    def combined(self, before: Tensor, expert: str, x: Tensor, weight: Tensor) -> Tensor:
        """The output so far, and that of one more expert."""
        raise NotImplementedError


@slip("routing", when=expert)
class WeightsInside(OtherSum):
    """an expert's input is multiplied by its weight, not its output"""

    def combined(self, before: Tensor, expert: str, x: Tensor, weight: Tensor) -> Tensor:
        """The weight goes in."""
        return before + self.mlp(expert, x * weight)


@slip("routing", when=expert)
class LastWins(OtherSum):
    """an expert's answer replaces what experts before it gave for the same token"""

    def combined(self, before: Tensor, expert: str, x: Tensor, weight: Tensor) -> Tensor:
        """Only the last expert counts."""
        return self.mlp(expert, x) * weight


# --- the head


@slip("cap", "run", limited)
def cut(self: Reference, ids: Tensor, positions: Tensor | None = None, length: int | None = None) -> Trace:
    """the cap {s.logit_cap} of the logits cuts values off instead of bending them"""
    trace, limit = Reference.run(self, ids, positions, length), self.spec.logit_cap or 0.0
    return trace | {"logits": trace["lm_head"].clamp(-limit, limit)}


@slip("cap", "run", limited)
def cap_by_itself(self: Reference, ids: Tensor, positions: Tensor | None = None, length: int | None = None) -> Trace:
    """the cap {s.logit_cap} of the logits is x · tanh(x / cap)"""
    trace, limit = Reference.run(self, ids, positions, length), self.spec.logit_cap or 0.0
    return trace | {"logits": trace["lm_head"] * (trace["lm_head"] / limit).tanh()}

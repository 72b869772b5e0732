"""Hypotheses on fields: read wrongly, by default, or for the wrong layers."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from conformance.diagnosis.causes.hypotheses.hypothesis import Hypothesis
from conformance.truth.rotation import Rope
from conformance.truth.spec import Spec

Raw = Mapping[str, Any]
Ropes = tuple[Rope | None, ...]
THETAS = (10000.0, 500000.0, 1000000.0)
EPSILONS = (1e-5, 1e-6, 1e-8, 1e-12, 0.0, 1e-3)
ACTIVATIONS = {"silu": "SiLU", "gelu": "the exact GELU", "gelu_pytorch_tanh": "the tanh form of GELU", "relu": "ReLU"}


def field_hypotheses(raw: Raw, spec: Spec) -> Iterator[Hypothesis]:
    """Every field with its defaults and neighbours."""
    for make in (norms, scales, caps, windows, thetas, scalings, rotated_layers, parts, activations, routing, embeddings):
        for hypothesis in make(raw, spec):
            changed = {name: value for name, value in hypothesis.fields.items() if value != getattr(spec, name)}
            if changed:
                yield hypothesis


def norms(raw: Raw, spec: Spec) -> Iterator[Hypothesis]:
    """Epsilon, and whether a weight is stored less one."""
    for eps in EPSILONS:
        yield Hypothesis("norm", f"epsilon of a norm is {eps:g}, and the model says {spec.eps:g}", {"eps": eps})
    if spec.norm == "rms_plus_one":
        yield Hypothesis("norm", "norm weights multiply as they are stored, which is less one", {"norm": "rms"})
    if spec.norm == "rms":
        yield Hypothesis("norm", "one is added to norm weights, which are stored whole", {"norm": "rms_plus_one"})
    if spec.qk_norm:
        yield Hypothesis("norm", "queries and keys are not normed", {"qk_norm": None})


def scales(raw: Raw, spec: Spec) -> Iterator[Hypothesis]:
    """What q·k is multiplied by."""
    own = spec.scales
    choices = {
        f"1/√{spec.head_dim}, the root of the head size": spec.head_dim**-0.5,
        f"1/√{spec.hidden // spec.heads}, the root of hidden size / heads": (spec.hidden // spec.heads) ** -0.5,
        f"1/√{spec.hidden}, the root of the hidden size": spec.hidden**-0.5,
        f"1/{spec.head_dim}, the head size without its root": 1 / spec.head_dim,
        "1: it is not scaled": 1.0,
    }
    for what, scale in choices.items():
        sentence = f"q·k is multiplied by {what}; it should be {own[0]:.4g}"
        yield Hypothesis("scale", sentence, {"scales": (scale,) * spec.layers})
    if len(set(own)) > 1:
        yield Hypothesis("scale", "q·k is not divided by the number of the layer", {"scales": own[:1] * spec.layers})
        late = tuple(own[0] / max(i, 1) for i in range(spec.layers))
        yield Hypothesis("scale", "q·k is divided by the number of the layer before", {"scales": late})
        early = tuple(own[0] / (i + 2) for i in range(spec.layers))
        yield Hypothesis("scale", "q·k is divided by the number of the layer behind", {"scales": early})


def caps(raw: Raw, spec: Spec) -> Iterator[Hypothesis]:
    """Limits left out, or exchanged."""
    for name, what in (("attention_cap", "attention scores"), ("logit_cap", "logits")):
        if own := getattr(spec, name):
            yield Hypothesis("cap", f"the cap {own:g} of {what} is not applied", {name: None})
            yield Hypothesis("cap", f"the cap of {what} is 50 (a default), and the model says {own:g}", {name: 50.0})
            yield Hypothesis("cap", f"the cap of {what} is 30 (a default), and the model says {own:g}", {name: 30.0})
    if spec.attention_cap and spec.logit_cap:
        crossed = {"attention_cap": spec.logit_cap, "logit_cap": spec.attention_cap}
        yield Hypothesis("cap", "the caps of attention scores and of logits are exchanged", crossed)


def windows(raw: Raw, spec: Spec) -> Iterator[Hypothesis]:
    """Wider, narrower, none, everywhere, in the other layers."""
    width = next(filter(None, spec.windows), raw.get("sliding_window"))
    if not width:
        return

    def with_windows(sentence: str, change: Callable[[int | None], int | None]) -> Hypothesis:
        return Hypothesis("mask", sentence, {"windows": tuple(map(change, spec.windows))})

    yield with_windows(f"a window of {width} lets a query see {width + 1} keys", lambda w: w and w + 1)
    yield with_windows(f"a window of {width} lets a query see {width - 1} keys", lambda w: w and w - 1)
    yield with_windows(f"the window of {width} is not applied", lambda w: None)
    yield with_windows(f"the window of {width} is applied in every layer, also in those that see everything", lambda w: width)
    yield with_windows(f"the window of {width} is applied in the other layers", lambda w: None if w else width)
    turned = (*spec.windows[1:], spec.windows[0]), (spec.windows[-1], *spec.windows[:-1])
    for sentence, order in zip(("behind", "before"), turned, strict=True):
        yield Hypothesis("mask", f"each layer has the window of the layer {sentence} it", {"windows": order})


def thetas(raw: Raw, spec: Spec) -> Iterator[Hypothesis]:
    """The base of frequencies."""
    own = sorted({rope.theta for rope in spec.ropes if rope})
    stated = " and ".join(f"{theta:g}" for theta in own)
    for theta in (*THETAS, *own):
        changed = {"ropes": tuple(rope and replace(rope, theta=theta) for rope in spec.ropes)}
        yield Hypothesis("frequencies", f"theta is {theta:g}, and the model says {stated}", changed)
    sentence = "the exponent of theta has the wrong sign: frequencies rise with the dimension"
    yield rescaled(spec, sentence, theta=lambda rope: 1 / rope.theta)


def scalings(raw: Raw, spec: Spec) -> Iterator[Hypothesis]:
    """Scaling and sharpening left out, or taken twice, or by another length."""
    kinds = " and ".join(sorted({rope.kind for rope in spec.ropes if rope} - {"default"}))
    yield rescaled(spec, "the attention factor of the rotation is not applied", sharpness=lambda r: 1.0)
    yield rescaled(spec, "the attention factor of the rotation is applied twice", sharpness=lambda r: r.sharpness**2)
    if kinds:
        sentence, length = f"the frequencies are not scaled ({kinds})", spec.max_length
        yield rescaled(spec, sentence, kind=lambda r: "default", sharpness=lambda r: 1.0)
        yield rescaled(spec, f"{sentence}, the sharpening is right", kind=lambda r: "default")
        yield rescaled(spec, f"the trained length is {length}, which is the stretched one", original=lambda r: length)
        yield rescaled(spec, "the trained length is 8192, whatever the model says", original=lambda r: 8192)
    if "yarn" in kinds:
        yield from of_yarn(spec)
    if "llama3" in kinds:
        yield from of_llama3(spec)


def rescaled(spec: Spec, sentence: str, **change: Callable[[Rope], Any]) -> Hypothesis:
    """Every rotation with some of its fields changed."""
    ropes = (rope and replace(rope, **{name: of(rope) for name, of in change.items()}) for rope in spec.ropes)
    return Hypothesis("frequencies", sentence, {"ropes": tuple(ropes)})


def with_scaling(spec: Spec, sentence: str, **values: Any) -> Hypothesis:
    """Every rotation with some parameters of its scaling changed."""
    return rescaled(spec, sentence, scaling=lambda rope: {**rope.scaling, **values})


def of_yarn(spec: Spec) -> Iterator[Hypothesis]:
    """YaRN's own parameters by their defaults."""
    sentence = "YaRN's attention factor is 0.1 · ln(factor) + 1, whatever the model says"
    yield rescaled(spec, sentence, sharpness=lambda r: 0.1 * math.log(float(r.scaling["factor"])) + 1)
    yield with_scaling(spec, "YaRN's limits are 32 and 1 turns, whatever the model says", beta_fast=32.0, beta_slow=1.0)
    yield with_scaling(spec, "YaRN's upper limit is 32 turns, whatever the model says", beta_fast=32.0)
    yield with_scaling(spec, "YaRN's lower limit is 1 turn, whatever the model says", beta_slow=1.0)
    yield with_scaling(spec, "the ends of YaRN's ramp are rounded although the model says they are not", truncate=True)
    yield with_scaling(spec, "the ends of YaRN's ramp are not rounded to whole dimensions", truncate=False)


def of_llama3(spec: Spec) -> Iterator[Hypothesis]:
    """Llama 3's own parameters by their defaults."""
    low, high = "low_freq_factor", "high_freq_factor"
    yield with_scaling(spec, "Llama 3's limits are 1 and 4 turns, whatever the model says", **{low: 1.0, high: 4.0})
    yield with_scaling(spec, "Llama 3's lower limit is 1 turn, whatever the model says", **{low: 1.0})
    yield with_scaling(spec, "Llama 3's upper limit is 4 turns, whatever the model says", **{high: 4.0})
    yield with_scaling(spec, "the factor of frequencies is 8, whatever the model says", factor=8.0)


def rotated_layers(raw: Raw, spec: Spec) -> Iterator[Hypothesis]:
    """Rotations of the wrong layers."""
    ropes = list({repr(rope): rope for rope in spec.ropes if rope}.values())  # their scaling is a dict: not to be hashed

    def with_ropes(sentence: str, *changed: Rope | None) -> Hypothesis:
        return Hypothesis("turning" if len(ropes) < 2 else "frequencies", sentence, {"ropes": changed})

    if ropes:
        yield with_ropes("nothing is rotated", *([None] * spec.layers))
    if ropes and None in spec.ropes:
        yield with_ropes("layers without rotation are rotated like the others", *(rope or ropes[0] for rope in spec.ropes))
        yield with_ropes("each layer is rotated as the layer behind it should be", *spec.ropes[1:], spec.ropes[0])
        yield with_ropes("each layer is rotated as the layer before it should be", spec.ropes[-1], *spec.ropes[:-1])
        yield with_ropes("the other layers are rotated", *(None if rope else ropes[0] for rope in spec.ropes))
    if len(ropes) == 2:
        one, other = ropes
        yield with_ropes("two kinds of layers have each other's frequencies", *(other if r == one else one for r in spec.ropes))
        for kept, lost in ((one, other), (other, one)):
            shared = f"all layers have the frequencies of theta {kept.theta:g}, {kept.kind}"
            yield with_ropes(shared, *([kept] * spec.layers))
            spread = replace(lost, kind=kept.kind, scaling=kept.scaling, sharpness=kept.sharpness)
            sentence = f"scaling ({kept.kind}) is that of the layers with theta {kept.theta:g} in all layers"
            yield with_ropes(sentence, *(spread if rope == lost else rope for rope in spec.ropes))


def parts(raw: Raw, spec: Spec) -> Iterator[Hypothesis]:
    """How much of each head turns."""
    dims = {rope.dim for rope in spec.ropes if rope}
    listed = any(rope and rope.kind == "longrope" for rope in spec.ropes)  # its lists have one number a pair
    if dims and dims != {spec.head_dim} and not listed:
        share, whole = max(dims) / spec.head_dim, spec.head_dim
        twice = int(max(dims) * share)
        yield replace(rescaled(spec, "whole heads are rotated, not a part", dim=lambda r: whole), label="turning")
        sentence = f"{twice} dimensions of each head are rotated, not {max(dims)}: the part {share:g} is taken twice"
        yield replace(rescaled(spec, sentence, dim=lambda r: twice), label="turning")


def activations(raw: Raw, spec: Spec) -> Iterator[Hypothesis]:
    """Other nonlinearities."""
    own = "gelu_pytorch_tanh" if spec.activation == "gelu_new" else spec.activation
    for name, what in ACTIVATIONS.items():
        if name != own:
            yield Hypothesis(
                "activation", f"the nonlinearity is {what}, and the model says {spec.activation}", {"activation": name}
            )


def routing(raw: Raw, spec: Spec) -> Iterator[Hypothesis]:
    """How many experts, and whether their weights are brought to a sum of 1."""
    if spec.experts:
        verb = "are not" if spec.renormalise else "are"
        sentence = f"the weights of the {spec.chosen} chosen experts {verb} brought to a sum of 1"
        yield Hypothesis("routing", sentence, {"renormalise": not spec.renormalise})
        for count in {spec.chosen - 1, spec.chosen + 1, 1, 2} - {0, spec.chosen}:
            yield Hypothesis("routing", f"{count} experts are chosen, not {spec.chosen}", {"chosen": count})


def embeddings(raw: Raw, spec: Spec) -> Iterator[Hypothesis]:
    """What embeddings are multiplied by."""
    roots = {1.0: "not scaled", spec.hidden**0.5: "scaled by √hidden", spec.head_dim**0.5: "scaled by √head_dim"}
    roots |= {
        (spec.heads * spec.head_dim) ** 0.5: "scaled by √(heads · head_dim)",
        float(spec.hidden): "scaled by the hidden size",
    }
    for scale, what in roots.items():
        sentence = f"embeddings are {what}: by {scale:.4g}, not {spec.embedding_scale:.4g}"
        yield Hypothesis("embedding", sentence, {"embedding_scale": scale})
    if spec.learned_positions:
        yield Hypothesis("embedding", "learned positions are not added", {"learned_positions": False})

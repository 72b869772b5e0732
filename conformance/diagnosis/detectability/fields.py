"""The numbers of a model's config, each with the changed model."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from conformance.truth.rotation import Rope
from conformance.truth.spec import Spec

Change = Callable[[float], Mapping[str, Any]]  # relative change → fields of the spec
SCALING = {  # the numbers that each kind of scaling reads
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor", "beta_fast", "beta_slow"),
    "longrope": (),
}


@dataclass(frozen=True)
class Field:
    """One number. `step`: the smallest change of a whole number. `needs`: what it takes to detect a change."""

    name: str
    value: float
    change: Change
    needs: str
    step: float | None = None


def times(name: str, value: float) -> Change:
    """A field of this name that is this value times a little more."""
    return lambda r: {name: value * (1 + r)}


def fields_of(spec: Spec) -> Iterator[Field]:
    """Every number that this model's function depends on."""
    name = "layer_norm_epsilon" if spec.norm == "layer" else "rms_norm_eps"
    yield Field(name, spec.eps, times("eps", spec.eps), "rows of tiny norm, put into the norms")
    scaled = lambda r: {"scales": tuple(s * (1 + r) for s in spec.scales)}  # noqa: E731
    yield Field("attention scale", spec.scales[0], scaled, "queries that want some keys more than others")
    for ours, theirs in (("attention_cap", "attn_logit_softcapping"), ("logit_cap", "final_logit_softcapping")):
        if cap := getattr(spec, ours):
            yield Field(theirs, cap, times(ours, cap), "values near the cap")
    if spec.embedding_scale != 1:
        own = spec.embedding_scale
        yield Field("embedding scale", own, times("embedding_scale", own), "the embeddings, or a first norm")
    yield from whole_numbers(spec)
    yield from rotations(spec)


def whole_numbers(spec: Spec) -> Iterator[Field]:
    """Those that are off by one at least."""
    if width := next(filter(None, spec.windows), None):
        more = {"windows": tuple(w and w + 1 for w in spec.windows)}
        yield Field("sliding_window", width, lambda r: more, "a prompt longer than the window", 1)
    if spec.experts:
        flipped, fewer = {"renormalise": not spec.renormalise}, {"chosen": spec.chosen - 1 or 2}
        yield Field("num_experts_per_tok", spec.chosen, lambda r: fewer, "a layer with experts", 1)
        yield Field("norm_topk_prob", float(spec.renormalise), lambda r: flipped, "a layer with experts", 1)
    if spec.qk_norm != "head" and all(rope is None or rope.dim == spec.head_dim for rope in spec.ropes):
        half = spec.head_dim // 2  # twice as many heads of half the size fit the same matrices
        halves: dict[str, Any] = {"head_dim": half, "heads": spec.heads * 2, "kv_heads": spec.kv_heads * 2}
        halves |= {"ropes": tuple(rope and replace(rope, dim=half) for rope in spec.ropes)}
        yield Field("head_dim", spec.head_dim, lambda r: halves, "more than one token", half)


def rotations(spec: Spec) -> Iterator[Field]:
    """The numbers of each kind of rotation."""
    kinds = list({repr(rope): rope for rope in spec.ropes if rope}.values())
    for rope in kinds:
        layers = ", ".join(str(i) for i, own in enumerate(spec.ropes) if own == rope)
        where = f" (layers {layers})" if len(kinds) > 1 else ""
        for field in numbers_of(rope, spec.head_dim):
            yield replace(field, name=field.name + where, change=of_layers(spec, rope, field.change))


def of_layers(spec: Spec, rope: Rope, change: Change) -> Change:
    """A change of one rotation, in the layers that have it."""
    return lambda r: {"ropes": tuple(replace(rope, **change(r)) if own == rope else own for own in spec.ropes)}


def numbers_of(rope: Rope, head_dim: int) -> Iterator[Field]:
    """Every number that this rotation depends on; changes are of its own fields."""
    far, long = "positions far from each other", f"positions beyond {rope.original}"
    yield Field("rope_theta", rope.theta, times("theta", rope.theta), far)
    if rope.sharpness != 1:
        needs = "queries that want some keys more than others"
        yield Field("attention_factor", rope.sharpness, times("sharpness", rope.sharpness), needs)
    for key in SCALING.get(rope.kind, ()):
        if (own := rope.scaling.get(key)) is not None:
            scaled = lambda r, key=key, own=own: {"scaling": {**rope.scaling, key: own * (1 + r)}}  # noqa: E731
            yield Field(key, float(own), scaled, far)
    if rope.kind in ("llama3", "yarn", "longrope"):
        length = lambda r: {"original": round(rope.original / (1 + r))}  # noqa: E731  # smaller: it sets in too early
        yield Field("original_max_position_embeddings", rope.original, length, long)
    for name in ("short_factor", "long_factor") if rope.kind == "longrope" else ():
        own = rope.scaling[name]
        listed = lambda r, name=name, own=own: {"scaling": {**rope.scaling, name: [x * (1 + r) for x in own]}}  # noqa: E731
        yield Field(name, own[0], listed, f"prompts of up to {rope.original} tokens" if name[0] == "s" else long)
    if rope.dim != head_dim:
        part = rope.dim / head_dim
        lists = {name: rope.scaling[name][:-1] for name in ("short_factor", "long_factor") if name in rope.scaling}
        fewer = {"dim": rope.dim - 2, "scaling": {**rope.scaling, **lists}}
        yield Field("partial_rotary_factor", part, lambda r: fewer, "more than one token", 2 / head_dim)

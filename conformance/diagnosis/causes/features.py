"""Errors that no hypothesis reproduces: ranked classes by the features of the error, with a sentence each.

Features: the wrong tokens, heads, columns, layers and ways of calling; whether the value is the true one times a number, plus a
constant, or with columns or rows exchanged.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from conformance.diagnosis.causes.naming import Named, Naming, Scene, Tap, layer_of, module_of
from conformance.diagnosis.causes.observed import of_trace

USUAL = {  # the classes of a kind of tap, the likeliest first
    "embeddings": ("embedding",),
    "norm": ("norm", "residual"),
    "weights": ("mask", "frequencies", "turning", "scale"),
    "context": ("heads", "grouping", "matrices"),
    "values": ("heads", "grouping", "softmax", "matrices"),  # the context of weights that are right
    "self_attn": ("matrices", "frequencies", "mask"),
    "gate": ("matrices", "routing"),
    "experts": ("routing", "activation", "matrices"),
    "mlp": ("activation", "matrices"),
    "layer": ("residual",),
    "logits": ("head", "cap"),
}
ATTENTION = ("weights", "context", "self_attn")


def described(naming: Naming) -> list[Named]:
    """One group of ranked causes for each kind of tap that nothing explains, in the order of the data path."""
    groups: dict[str, list[Tap]] = {}
    for tap in naming.left:
        groups.setdefault(kind_of(naming, tap), []).append(tap)
    if "weights" in groups:  # the context has the same fault
        groups.pop("context", None)
    return [found for kind, taps in groups.items() for found in ranked(naming, kind, taps)]


def kind_of(naming: Naming, tap: Tap) -> str:
    """What kind of value a tap is."""
    last = module_of(tap.name).rpartition(".")[2]
    if last.endswith("norm"):
        return "norm"
    if last == "context" and naming.scenes[tap.run].truth.get(tap.name.replace("context", "weights"), 2.0) <= 1:
        return "values"
    sparse = last == "mlp" and naming.case.spec.sparse[int(layer_of(tap.name))]
    return "experts" if sparse else last


def ranked(naming: Naming, kind: str, taps: Sequence[Tap]) -> Iterator[Named]:
    """The classes that the features of these taps suggest, then the usual ones of their kind."""
    scene = naming.scenes[taps[0].run]
    facts = [*phases(naming, kind, taps), *values(scene, kind, taps[0].name)]
    where = places(naming, taps)
    labels = dict.fromkeys(label for labels, _ in facts for label in labels) | dict.fromkeys(USUAL.get(kind, ("matrices",)))
    features = "; ".join(fact for _, fact in facts)
    for rank, label in enumerate(labels, 1):
        yield Named(label, f"{where}: {features or 'nothing known reproduces it'}", tuple(taps), False, rank)


def places(naming: Naming, taps: Sequence[Tap]) -> str:
    """Which modules of which layers."""
    layers = sorted({layer_of(tap.name) for tap in taps} - {""}, key=int)
    every = len(layers) == naming.case.spec.layers
    return module_of(taps[0].name) + (" of every layer" if every else f" of layer {', '.join(layers)}" if layers else "")


def phases(naming: Naming, kind: str, taps: Sequence[Tap]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The ways of calling in which it is wrong, if not all."""
    names, wrong = {tap.name for tap in taps}, {naming.scenes[tap.run].seen.phase for tap in taps}
    right = {scene.seen.phase for scene in naming.scenes if names & scene.truth.keys()} - wrong
    if not right:
        return
    labels: tuple[str, ...] = ()
    if kind in (*ATTENTION, "embeddings"):
        cached = all(naming.scenes[tap.run].seen.prompt.chunks for tap in taps)
        labels = ("cache", "mask") if cached else ("mask", "cache")
    yield labels, f"wrong only {' and '.join(sorted(wrong))}"


def values(scene: Scene, kind: str, name: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Features of the wrong value."""
    got, want = scene.seen.shown[name], of_trace(scene.trace, name)
    if got.shape != want.shape:
        yield ("matrices",), f"its shape is {list(got.shape)}, not {list(want.shape)}"
        return
    if not got.isfinite().all():
        rows = (~got.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        yield ("mask",), f"not a number for tokens {rows}"
        return
    bad = torch.tensor([not scene.excess(name, got[t : t + 1], want[t : t + 1]) <= 1 for t in range(len(got))])
    yield from tokens(scene, kind, bad)
    gain = float((got * want).sum() / want.square().sum())
    offset = (got - want)[:1]
    if scene.excess(name, got, gain * want) <= 1:
        yield gains(kind), f"it is {gain:.6g} times what it should be"
    elif got.ndim == 2 and scene.excess(name, got, want + offset) <= 1:
        yield (
            ("norm",) if kind == "norm" else ("matrices", "embedding"),
            "the same vector is added for every token, as a bias that is lost or taken twice would be",
        )
    elif kind in ("context", "values"):
        yield from heads(scene, name, got, want)
    elif kind == "weights":
        yield from seen_keys(got, want)
    elif kind == "norm":
        yield from inputs(scene, name, got)


def gains(kind: str) -> tuple[str, ...]:
    """The classes that multiply this kind of value by a number."""
    return {"embeddings": ("embedding",), "logits": ("cap", "head"), "norm": ("norm",), "experts": ("routing",)}.get(
        kind, ("scale",)
    )


def tokens(scene: Scene, kind: str, bad: Tensor) -> Iterator[tuple[tuple[str, ...], str]]:
    """The wrong tokens, if not all."""
    wrong, positions = bad.nonzero().flatten().tolist(), scene.seen.positions.tolist()
    if len(wrong) in (0, len(positions)):
        return
    attention = kind in ATTENTION
    tail = wrong == list(range(wrong[0], len(positions)))
    if wrong == [len(positions) - 1]:
        yield ("mask", "cache") if attention else ("head",), "only the last token"
    elif tail and wrong[0] == 1 and kind == "values":
        yield ("softmax", "turning"), "every token but the first, whose only key has all the weight"
    elif tail and wrong[0] == 1:
        yield ("frequencies", "turning", "mask") if attention else (), "every token but the first, which sees itself alone"
    elif tail:
        yield ("mask", "frequencies") if attention else (), f"tokens from position {positions[wrong[0]]} on"
    else:
        yield ("mask",) if attention else (), f"tokens {wrong}"


def heads(scene: Scene, name: str, got: Tensor, want: Tensor) -> Iterator[tuple[tuple[str, ...], str]]:
    """The wrong heads, and whether they have other heads' values."""
    count = scene.case.spec.heads
    mine, theirs = got.unflatten(1, (count, -1)), want.unflatten(1, (count, -1))
    wrong = [h for h in range(count) if not scene.excess(name, mine[:, h], theirs[:, h]) <= 1]
    if len(wrong) < count:
        yield ("grouping", "heads"), f"heads {wrong} of {count}"
    swapped = {h: o for h in wrong for o in range(count) if scene.excess(name, mine[:, h], theirs[:, o]) <= 1}
    if swapped:
        yield ("heads", "grouping"), f"heads have the values of others: {swapped}"


def seen_keys(got: Tensor, want: Tensor) -> Iterator[tuple[tuple[str, ...], str]]:
    """Whether other keys are seen, or the same keys with other scores; weights [T, H, S]."""
    if not torch.equal(got > 1e-30, want > 1e-30):
        more = int((got > 1e-30).sum() - (want > 1e-30).sum()) // got.shape[1]
        yield (
            ("mask",),
            f"queries see other keys: {more:+d} in all" if more else "queries see other keys, as many as they should",
        )
        return
    both = want > 1e-30
    mine, theirs = (x.log().masked_fill(~both, 0) for x in (got, want))
    spread = lambda x: (x - x.sum(-1, keepdim=True) / both.sum(-1, keepdim=True)).masked_fill(~both, 0)  # noqa: E731
    a, b = spread(mine), spread(theirs)
    gain = float((a * b).sum() / b.square().sum())
    if (a - gain * b).abs().max() <= 1e-6 * b.abs().max():
        yield ("scale",), f"scores are {gain:.6g} times what they should be"
    elif a.abs().max() < 0.8 * b.abs().max():
        yield ("cap", "scale", "frequencies"), "scores are flatter than they should be"
    else:
        yield ("frequencies", "turning", "norm"), "the same keys are seen, with other scores"


def inputs(scene: Scene, name: str, got: Tensor) -> Iterator[tuple[tuple[str, ...], str]]:
    """A wrong norm whose rows have the right size had another input."""
    spec, weight = scene.case.spec, scene.case.truth.tensors[f"{name}.weight"]
    size = (got / (1 + weight if spec.norm == "rms_plus_one" else weight)).square().mean(-1)
    if spec.norm != "layer" and float((size - 1).abs().max()) < 0.05:
        yield ("residual", "norm"), "its rows are normed, of another input"

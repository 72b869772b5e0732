"""Which requirement a comparison covers: at which kind of tap, in which models, on which prompts.

Kinds are those of the noise floor (`conformance.numerics.floor.kind_of`), and three more: "mask", the keys without attention
weight; "stream", the residual stream of the whole model; "whole", its logits. If an engine does not show a tap, the effect
shows at the next kind that it does show (`NEXT_KIND`), at last in the logits. Requirements that are not listed here need more
than a model's values: text, files, or the code itself.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from conformance.engines.subject import Subject
from conformance.models.fixtures import NEAR
from conformance.truth.cases import VARIATIONS
from conformance.truth.spec import THETA, Spec

When = Callable[[Subject, int], bool]
NEXT_KIND = {
    "mask": "weights",
    "weights": "context",
    "context": "self_attn",
    "gate": "experts",
    "experts": "block",
    "self_attn": "block",
    "mlp": "block",
    "norm": "block",
    "embeddings": "block",
    "block": "stream",
    "logits": "whole",
    "stream": "whole",
}
DEFAULT_THETA = {10000.0, *THETA.values()}
WHOLE_PROMPTS = ("near", "far", "short")
PIECES = {"near in fives": ("near", (5, 5, 5, 1)), "near one by one": ("near", (1,) * 16), "far in sevens": ("far", (7, 7, 4))}


@dataclass(frozen=True)
class Coverage:
    """One requirement at some kinds of taps. `when` takes a subject and a layer (-1: outside of the layers)."""

    requirement: str
    kinds: tuple[str, ...]
    when: When
    prompts: tuple[str, ...] = WHOLE_PROMPTS
    narrow: bool = False  # shows in a lower precision only
    aspect: Callable[[Spec, int], str] = lambda spec, layer: ""  # parts of a requirement, none of which vouches for another


def shown_kind(kind: str, shown: Collection[str]) -> str:
    """Where a kind shows, of those that an engine shows."""
    while kind not in shown:
        kind = NEXT_KIND[kind]
    return kind


def spec(test: Callable[[Spec], bool]) -> When:
    """A condition on the model."""
    return lambda subject, layer: test(subject.spec)


def layer(test: Callable[[Spec, int], bool]) -> When:
    """A condition on one of its layers."""
    return lambda subject, i: i >= 0 and test(subject.spec, i)


def rope(kind: str) -> When:
    """A layer that is rotated, its frequencies scaled in this way."""
    return layer(lambda s, i: (turn := s.ropes[i]) is not None and turn.kind == kind)


def scaling(s: Spec, i: int) -> str:
    """All that a layer's scaling states: what is right with some numbers need not be with others."""
    return "" if (turn := s.ropes[i]) is None else f"{turn.kind} {turn.original} {sorted(turn.scaling.items())}"


def narrow(window: int | None) -> bool:
    """A window that prompts are longer than."""
    return window is not None and window < NEAR


def always(subject: Subject, i: int) -> bool:
    """Every model."""
    return True


rotated = layer(lambda s, i: s.ropes[i] is not None)
windowed = layer(lambda s, i: narrow(s.windows[i]))
sparse = layer(lambda s, i: s.sparse[i])
own_theta = layer(lambda s, i: (turn := s.ropes[i]) is not None and turn.theta not in DEFAULT_THETA)
query_scale = spec(lambda s: s.architecture.startswith("Gemma") and s.scales[0] != s.head_dim**-0.5)
has_window = spec(lambda s: any(map(narrow, s.windows)))
grouped = spec(lambda s: s.kv_heads < s.heads)


def relative(subject: Subject, i: int) -> bool:
    """Positions count by their differences only."""
    return any(subject.spec.ropes) and not subject.length_dependent


def silent(subject: Subject, i: int) -> bool:
    """A config.json that leaves out what its family's fixture states."""
    return any(value is None for value in VARIATIONS.get(subject.name, ("", {}))[1].values())


COVERAGE = (
    Coverage("EMBD-001", ("embeddings",), always),
    Coverage("EMBD-002", ("embeddings",), spec(lambda s: s.embedding_scale != 1)),
    Coverage("EMBD-003", ("embeddings",), spec(lambda s: s.learned_positions)),
    Coverage("NORM-001", ("norm",), spec(lambda s: s.norm != "layer")),
    Coverage("NORM-002", ("norm",), spec(lambda s: s.norm == "layer")),
    Coverage("NORM-003", ("norm",), spec(lambda s: s.norm == "rms_plus_one")),
    Coverage("NORM-004", ("weights",), spec(lambda s: s.qk_norm == "head")),
    Coverage("NORM-005", ("weights",), spec(lambda s: s.qk_norm == "full")),
    Coverage("NORM-006", ("norm",), spec(lambda s: s.eps not in (1e-5, 1e-6))),
    Coverage("NORM-007", ("norm",), always, narrow=True),
    Coverage("ROPE-001", ("weights",), rotated),
    Coverage("ROPE-002", ("whole",), relative, ("shifted",)),
    Coverage("ROPE-003", ("weights",), rope("linear"), aspect=scaling),
    Coverage("ROPE-004", ("weights",), rope("dynamic"), aspect=scaling),
    Coverage("ROPE-005", ("weights",), rope("llama3"), aspect=scaling),
    Coverage("ROPE-006", ("weights",), rope("yarn"), aspect=scaling),
    Coverage("ROPE-007", ("weights",), rope("yarn"), aspect=scaling),
    Coverage("ROPE-008", ("weights",), rope("longrope"), aspect=scaling),
    Coverage("ROPE-009", ("weights",), layer(lambda s, i: (turn := s.ropes[i]) is not None and turn.dim < s.head_dim)),
    Coverage("ROPE-010", ("whole",), lambda s, i: s.length_dependent, tuple(PIECES)),
    Coverage("ROPE-011", ("weights",), rotated, ("far",)),
    Coverage("ROPE-012", ("weights",), layer(lambda s, i: s.ropes[i] is None and any(s.ropes))),
    Coverage("ROPE-020", ("weights",), own_theta),
    Coverage("ROPE-022", ("weights",), layer(lambda s, i: len(set(map(repr, s.ropes))) > 1)),
    Coverage("ATTN-001", ("weights", "context"), always),
    Coverage("ATTN-002", ("weights", "context"), grouped),
    Coverage("ATTN-003", ("weights",), spec(lambda s: s.heads * s.head_dim != s.hidden and s.scales[0] == s.head_dim**-0.5)),
    Coverage("ATTN-004", ("weights",), query_scale),
    Coverage("ATTN-005", ("weights",), spec(lambda s: s.attention_cap is not None)),
    Coverage("ATTN-006", ("weights", "context"), spec(lambda s: s.qkv_bias)),
    Coverage("ATTN-007", ("weights",), spec(lambda s: s.learned_positions), aspect=lambda s, i: str(s.scales)),
    Coverage("ATTN-008", ("weights", "context"), always, narrow=True),
    Coverage("MASK-001", ("mask",), always),
    Coverage("WIND-001", ("mask",), windowed),
    Coverage("WIND-002", ("mask",), layer(lambda s, i: len(set(s.windows)) > 1 and any(map(narrow, s.windows)))),
    Coverage("WIND-003", ("whole",), has_window, tuple(PIECES)),
    Coverage("CACHE-001", ("whole",), always, tuple(PIECES)),
    Coverage("CACHE-003", ("whole",), always, tuple(PIECES)),
    Coverage("CACHE-008", ("whole",), always, ("again",)),
    Coverage("CACHE-009", ("whole",), always, ("far in sevens",)),
    Coverage("MLP-001", ("mlp", "experts"), spec(lambda s: s.gated)),
    Coverage("MLP-002", ("mlp", "experts"), always, aspect=lambda s, i: s.activation),
    Coverage("MLP-003", ("mlp",), spec(lambda s: not s.gated)),
    Coverage("MLP-004", ("mlp",), spec(lambda s: s.mlp_bias)),
    Coverage("MOE-001", ("experts", "gate"), sparse),
    Coverage("MOE-002", ("experts",), layer(lambda s, i: s.sparse[i] and s.architecture == "MixtralForCausalLM")),
    Coverage("MOE-003", ("experts",), layer(lambda s, i: s.sparse[i] and not s.renormalise)),
    Coverage("MOE-004", ("mlp",), layer(lambda s, i: not s.sparse[i] and any(s.sparse))),
    Coverage("MOE-005", ("experts",), sparse),
    Coverage("RESI-001", ("block",), always, aspect=lambda s, i: s.placement),
    Coverage("RESI-002", ("stream",), always),
    Coverage("RESI-003", ("stream",), always, aspect=lambda s, i: s.placement),
    Coverage("HEAD-001", ("logits",), always),
    Coverage("HEAD-002", ("logits",), spec(lambda s: s.logit_cap is not None)),
    Coverage("HEAD-003", ("logits",), always, aspect=lambda s, i: "tied" if s.tied else "untied"),
    Coverage("HEAD-004", ("logits",), always),
    Coverage("CONF-001", ("whole",), always),
    Coverage("CONF-002", ("whole",), silent),
    Coverage("CONF-003", ("whole",), always),
    Coverage("WGHT-001", ("whole",), always),
    Coverage("WGHT-003", ("whole",), always),
    Coverage("WGHT-004", ("whole",), lambda s, i: s.spec.architecture in ("Phi3ForCausalLM", "GPT2LMHeadModel")),
    Coverage("WGHT-005", ("whole",), spec(lambda s: s.tied)),
    Coverage("WGHT-012", ("whole",), always),
    Coverage("GENR-004", ("tokens",), always),
    Coverage("NUMR-003", ("whole",), always, ("again",)),
)


def covered(subject: Subject, prompt: str, kind: str, i: int, shown: Collection[str]) -> frozenset[tuple[str, str]]:
    """What a tap of this kind in layer i speaks of: requirements, each with the kind at which it shows by itself, and its
    aspect."""
    before = [*range(-1, subject.spec.layers)] if i < 0 else [*range(-1, i + 1)]
    layers = before if kind in ("stream", "whole", "logits") else [i]
    return frozenset(
        (entry.requirement, f"{own} {entry.aspect(subject.spec, j)}".strip())
        for entry in COVERAGE
        if prompt in entry.prompts and not (entry.narrow and subject.dtype == "float64")
        for own in entry.kinds
        if own in (kind, *NEXT_KIND) and shown_kind(own, shown) == kind
        for j in layers
        if entry.when(subject, j)
    )

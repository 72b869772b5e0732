"""One subject under every rule: a bug of the zoo seeded into the live runtime, or an honest variant of it."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from conformance.numerics.acceptance.engines import DTYPE, prompts, reference, subject_outputs
from conformance.numerics.acceptance.published import RULES, Outputs
from conformance.numerics.check import CHECKED_VARIANTS, judge_variant, place_of, unseen
from conformance.numerics.floor import load_floors, views_of
from conformance.numerics.recording import fixture_model, record
from conformance.numerics.variants import AS_IS, ORDER, Variant
from conformance.truth.compare import SEMANTIC_BAR, relative_error
from nanollama.model.transformer import Transformer

SEMANTICS, REPLAY, OURS = "ours: float64 semantics", "ours: bfloat16 replay, measured floor", "ours: either"
NAMES = (*RULES, SEMANTICS, REPLAY, OURS)
SEMANTIC_VARIANTS = (*CHECKED_VARIANTS, *(v for v in ORDER if v.name in ("chunked prefill", "left padding", "right padding")))
Load = Callable[[str], Transformer]


@dataclass(frozen=True)
class Trial:
    """A bug or a variant on one family: which rules flag it, and the first place that the suite's rules name."""

    name: str
    kind: str  # semantic, precision, decoy; order, policy
    architecture: str
    flagged: dict[str, bool]
    place: str
    exercised: bool = True  # False: no bit of any output changes, and no tap is off


def semantics(load: Load, architecture: str, variants: Sequence[Variant]) -> str:
    """The first module that is another function in float64, in any of these variants; "" if there is none."""
    model, truth = load("float64"), record(architecture, "float64")
    for variant in variants:
        if variant.reason(model.config) is not None:
            continue
        for _, seen, want in views_of(model, truth, variant):
            if missing := unseen(seen, want):
                return place_of(missing[0])
            for tap, found in seen.items():
                if not relative_error(found.values, want[tap][found.token]) <= SEMANTIC_BAR:
                    return place_of(tap)
    return ""


def replayed(load: Load, architecture: str, variants: Sequence[Variant]) -> str:
    """The first module beyond its floor in bfloat16; "" if there is none."""
    model, recording = load(DTYPE), record(architecture, DTYPE)
    floors = load_floors(DTYPE, model.device.type)
    for variant in variants:
        if variant.reason(model.config) is None and (
            first := judge_variant(model, recording, floors, variant, second=False).first
        ):
            return first.place
    return ""


@lru_cache
def clean_outputs(architecture: str, device: str) -> Outputs:
    """The outputs of the clean runtime."""
    with fixture_model(architecture, DTYPE, device=device) as load:
        return subject_outputs(load(DTYPE), prompts(architecture))


def equal(one: Outputs, other: Outputs) -> bool:
    """Whether two engines' outputs are equal to the bit."""
    return one.tokens == other.tokens and all(map(torch.equal, one.logits, other.logits))


def published(load: Load, architecture: str, variant: Variant) -> tuple[dict[str, bool], bool]:
    """Which published rules flag the subject, and whether its outputs differ from the clean runtime's."""
    model = load(DTYPE)
    outputs = subject_outputs(model, prompts(architecture), variant)
    flagged = {rule: flags(outputs, reference(architecture)) for rule, flags in RULES.items()}
    return flagged, not equal(outputs, clean_outputs(architecture, str(model.device)))


def broken(run: Callable[[], Any], otherwise: Callable[[str], Any]) -> Any:
    """The result of `run`; if the engine raises, every rule that runs it flags it."""
    try:
        return run()
    except Exception as error:
        return otherwise(type(error).__name__)


def prepare(architecture: str, device: str) -> None:
    """Record everything that needs the clean runtime."""
    record(architecture, "float64"), record(architecture, DTYPE), reference(architecture)
    with fixture_model(architecture, DTYPE, device=device) as load:
        clean_outputs(architecture, str(load(DTYPE).device))


def try_subject(
    name: str, kind: str, architecture: str, seeding: AbstractContextManager[Any], variant: Variant = AS_IS, device: str = "cpu"
) -> Trial:
    """All rules on one subject."""
    prepare(architecture, device)
    alone = variant is AS_IS  # a bug is run every way, a variant is a way
    with (
        fixture_model(architecture, DTYPE, device=device) as narrow,
        fixture_model(architecture, "float64", device=device) as wide,
        seeding,
    ):
        flagged, differs = broken(
            lambda: published(narrow, architecture, variant), lambda _: (dict.fromkeys(RULES, True), True)
        )
        replay = broken(lambda: replayed(narrow, architecture, CHECKED_VARIANTS if alone else [variant]), str)
        exact = broken(lambda: semantics(wide, architecture, SEMANTIC_VARIANTS if alone else [variant]), str)
    ours = {SEMANTICS: bool(exact), REPLAY: bool(replay), OURS: bool(exact or replay)}
    exercised = differs or ours[OURS] or not alone
    return Trial(name, kind, architecture, {k: bool(v) for k, v in flagged.items()} | ours, exact or replay, exercised)

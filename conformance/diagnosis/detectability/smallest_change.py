"""Detectability: the smallest change of every number in a model's config that a run would have detected.

    detectability(case("Gemma2ForCausalLM"), designed(case("Gemma2ForCausalLM")), float64_excess())

A passing run shows nothing about errors that it can't detect. So the independent model is changed by less and less, in one
number at a time, until the run (with its prompts and inputs, the taps that the engine shows, its bar or noise floor) can't
distinguish it from the correct one.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from conformance.diagnosis.causes.hypotheses.hypothesis import Hypothesis
from conformance.diagnosis.causes.naming import Scene
from conformance.diagnosis.causes.observed import Observation
from conformance.diagnosis.causes.tolerances import Excess
from conformance.diagnosis.detectability.fields import Field, fields_of
from conformance.diagnosis.detectability.probes import Probe
from conformance.requirements.results import Detectable
from conformance.truth.cases import Case
from conformance.truth.reference import Reference

SMALLEST, LARGEST, STEPS = 1e-16, 9.0, 8  # from rounding to ten times the value, to a fifth
SHARED = ("embeddings", "norm", "logits")
OF_LAYERS = ("self_attn.context", "self_attn", "mlp", "mlp.gate")


def every_tap(name: str) -> bool:
    """Every tap: an engine with L3."""
    return True


def detectability(
    case: Case, probes: Sequence[Probe], excess: Excess, shows: Callable[[str], bool] = every_tap
) -> list[Detectable]:
    """One entry a field. `excess`: `float64_excess()` in float64, else `floor_excess(dtype)`; `shows`: which taps the engine
    shows, such as `{"logits"}.__contains__` for L2."""
    scenes = [scene_of(case, probe, excess, shows) for probe in probes]
    return [smallest(case.name, field, scenes) for field in fields_of(case.spec)]


def scene_of(case: Case, probe: Probe, excess: Excess, shows: Callable[[str], bool]) -> Scene:
    """The values of a correct engine on a probe."""
    given = {f"{name}.in": value for name, value in probe.inputs.items()}
    model = Reference(case.spec, case.truth.tensors, given)
    trace = model.run(torch.tensor(probe.prompt.ids), torch.tensor(probe.prompt.positions))
    taps = {}
    for name, value in trace.items():
        layer = name.partition(".")[2].partition(".")[2]
        if name == "logits" or name.endswith(".gate"):
            taps[name] = value.log_softmax(-1)
        elif name in SHARED or layer in OF_LAYERS or layer.endswith("layernorm") or name.partition("layers.")[2].isdigit():
            taps[name] = value
        elif name.endswith(".attend"):
            taps[name.removesuffix("attend") + "weights"] = value.log().transpose(0, 1)
    return Scene(case, Observation(probe.prompt, {k: v for k, v in taps.items() if shows(k)}, probe.inputs), excess)


def smallest(case: str, field: Field, scenes: Sequence[Scene]) -> Detectable:
    """By bisection of the logarithm; a whole number is off by its step or not at all."""
    if field.step is not None:
        place = caught(field, 0.0, scenes)
        share = field.step / (abs(field.value) or 1.0)
        return Detectable(case, field.name, field.value, share if place else None, place, "" if place else field.needs)
    if not caught(field, LARGEST, scenes):
        return Detectable(case, field.name, field.value, None, needs=field.needs)
    low, high = SMALLEST, LARGEST
    for _ in range(STEPS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if caught(field, middle, scenes) else (middle, high)
    return Detectable(case, field.name, field.value, high, caught(field, high, scenes))


def caught(field: Field, by: float, scenes: Iterable[Scene]) -> str:
    """The first tap that a change moves beyond its tolerance; empty if none."""
    wrong = Hypothesis(field.name, field.name, field.change(by))
    return next((name for scene in scenes for name in beyond(scene.errors(wrong))), "")


def beyond(errors: dict[str, float]) -> Iterator[str]:
    """Taps that are off."""
    return (name for name, excess in errors.items() if not excess <= 1)

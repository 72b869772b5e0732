"""Name the causes of an engine's errors: by hypotheses that reproduce them, else by their features.

A hypothesis explains a wrong tap if the model with that fault has the engine's value, to rounding, when it continues from the
engine's values before it. The one that explains most comes first; what it does not explain is explained by the next, so
that several independent bugs are all named. Where a hypothesis would make taps wrong that are right, it can hold in some
layers, in some places of a layer, or in some ways of calling only; the sentence then states this, and if none of these
separates them, the hypothesis is dropped.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from conformance.diagnosis.causes.hypotheses.hypothesis import Hypothesis, model_of
from conformance.diagnosis.causes.library import library
from conformance.diagnosis.causes.observed import Observation, of_trace
from conformance.diagnosis.causes.tolerances import Excess
from conformance.truth.cases import Case
from conformance.truth.reference import Reference, Trace
from nanollama.errors import NanollamaError

PAIRS = 3000  # combinations of two hypotheses that are tried at most


class Tap(NamedTuple):
    """A tap of one of the observations."""

    run: int
    name: str


@dataclass(frozen=True)
class Named:
    """A cause, its class, and what it explains. `rank` counts from 1 among those that explain the same taps."""

    label: str
    sentence: str
    explains: tuple[Tap, ...]
    certain: bool = True
    rank: int = 1


class Scene:
    """One observation and the truth: the error of every tap under any hypotheses."""

    def __init__(self, case: Case, seen: Observation, excess: Excess) -> None:
        self.case, self.seen, self.excess = case, seen, excess
        self.given = seen.given()
        self.trace = self.model().run(seen.ids, seen.positions)
        if unknown := [name for name in seen.shown if name not in self.trace and not name.endswith(".weights")]:
            raise NanollamaError(
                f"no value of this model is called {unknown[0]}; taps are named as conformance/truth/taps.py has them"
            )
        self.truth = seen.errors(self.trace, excess)

    def model(self, *several: Hypothesis) -> Reference:
        """The reference with these faults, continuing from the engine's values."""
        return model_of(self.case.spec, self.case.truth.tensors, several, self.given, self.seen.calls)

    def errors(self, *several: Hypothesis) -> dict[str, float]:
        """Of every tap; infinite everywhere where such a model can't run."""
        try:
            return self.seen.errors(self.model(*several).run(self.seen.ids, self.seen.positions), self.excess)
        except (RuntimeError, IndexError, ValueError):  # sizes that don't go together
            return dict.fromkeys(self.truth, float("inf"))

    def error(self, name: str, *several: Hypothesis) -> float:
        """Of one tap, by its own layer alone where it is in one."""
        layer, seen = layer_of(name), self.seen
        if not layer:
            return self.errors(*several)[name]
        trace, x = Trace(), self.trace[f"layers.{layer}.in"]
        try:
            self.model(*several).block(int(layer), x, seen.positions, int(seen.positions.max()) + 1, trace)
            return self.excess(name, seen.shown[name], of_trace(trace, name))
        except (RuntimeError, IndexError, ValueError, KeyError):
            return float("inf")


class Naming:
    """The search for the causes of one engine's errors on one model."""

    def __init__(self, case: Case, runs: Sequence[Observation], excess: Excess) -> None:
        self.case, self.excess = case, excess
        self.scenes = [Scene(case, run, excess) for run in runs]
        self.wrong = [Tap(i, name) for i, s in enumerate(self.scenes) for name, error in s.truth.items() if not error <= 1]

    def named(self, pairs: bool = True) -> Iterator[Named]:
        """The reproduced causes, in the order of how much they explain; then `left` is what none explains."""
        self.left, candidates = list(self.wrong), [(h,) for h in library(self.case)] if self.wrong else []
        while self.left and (found := self.best(candidates)):
            yield from found
            self.left = [tap for tap in self.left if tap not in found[0].explains]
        while pairs and self.left and (found := self.best([*self.pairs(candidates)])):
            yield from found
            self.left = [tap for tap in self.left if tap not in found[0].explains]

    def pairs(self, singles: Sequence[tuple[Hypothesis]]) -> Iterator[tuple[Hypothesis, ...]]:
        """The first two that together explain the first tap, of those that make it another one."""
        run, name = self.left[0]
        scene = self.scenes[run]
        own = [h for (h,) in singles if not abs(scene.error(name, h) - scene.truth[name]) <= 1]
        several = itertools.islice(itertools.combinations(own, 2), PAIRS)
        return itertools.islice((two for two in several if scene.error(name, *two) <= 1), 1)

    def best(self, candidates: Sequence[tuple[Hypothesis, ...]]) -> list[Named]:
        """Those that explain most of what is left, if anything, the likeliest first."""
        start = self.left[0].run
        names = {tap.name for tap in self.left if tap.run == start}
        able = []
        for several in candidates:
            errors = self.scenes[start].errors(*several)
            if any(errors[name] <= 1 for name in names):
                able.append(several)
        ranked = [found for several in able if (found := self.explained(several))]
        ranked.sort(key=lambda pair: (-len(pair[1].explains), *pair[0]))
        most = set(ranked[0][1].explains) if ranked else set()
        equal = [found for _, found in ranked if set(found.explains) == most]
        return [Named(f.label, f.sentence, f.explains, True, rank) for rank, f in enumerate(equal, 1)]

    def explained(self, several: tuple[Hypothesis, ...]) -> tuple[tuple[int, float], Named] | None:
        """The taps that these explain of those left; the number of places where they do not apply, and their largest error."""
        explains, against, off = [], [], 0.01
        for i, scene in enumerate(self.scenes):
            for name, error in scene.errors(*several).items():
                tap = Tap(i, name)
                if error <= 1 and tap in self.left:
                    explains.append(tap)
                    off = max(off, error)
                elif not error <= 1 and scene.truth[name] <= 1:
                    against.append(tap)
        scope = self.scope(explains, against)
        if not explains or scope is None:
            return None
        sentence = "; and ".join(h.sentence for h in several)
        return (len(against), off), Named(several[0].label, sentence[0].upper() + sentence[1:] + scope, tuple(explains))

    def scope(self, explains: Sequence[Tap], against: Sequence[Tap]) -> str | None:
        """The condition that separates the places where it applies from those where it does not; None: there is none."""
        if not against:
            return ""
        ways = (
            ("in layer {}", lambda tap: layer_of(tap.name)),
            ("{}", lambda tap: self.scenes[tap.run].seen.phase),
            ("in {}", lambda tap: module_of(tap.name)),
        )
        for condition, way in ways:
            mine, others = {way(tap) for tap in explains}, {way(tap) for tap in against}
            if not mine & others and "" not in mine:
                return f" (only {condition.format(' and '.join(sorted(mine)))})"
        return None


def layer_of(name: str) -> str:
    """ "layers.2.mlp" → "2"; nothing outside of layers."""
    parts = name.split(".")
    return parts[1] if parts[0] == "layers" else ""


def module_of(name: str) -> str:
    """ "layers.2.mlp" → "mlp"; a layer itself is "layer"."""
    parts = name.split(".")
    return (".".join(parts[2:]) or "layer") if parts[0] == "layers" else name

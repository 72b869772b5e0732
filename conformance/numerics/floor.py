"""The noise floor: the errors of honest implementations against the float64 truth, per kind of tap, dtype and device.

Measured, not chosen: every variant runs on every family, every tap's statistics are pooled over layers and families by kind of
module, and the floor is the largest. There are two floors: of the *order* variants, and of *all*, which also round elsewhere.
An error beyond the second is a fault; an error beyond the first only is a precision policy.

The margin comes from leave-one-out: each variant, on each seed's weights and prompts, is judged by a floor made of the other
variants on the other seeds. The largest excess, per statistic, is the factor by which a floor is multiplied when it judges.

Local replay decides. Accumulated taps have floors as well, as a second opinion: how much a model amplifies rounding depends on
its weights, which the ensemble does not vary. They have no floor in models with experts: rounding can send a token to another
expert, after which its error is meaningless. Local replay excuses and counts tokens whose router is tied within the router's
floor.
"""

import json
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from conformance import GOLDEN
from conformance.models.fixtures import FIXTURES
from conformance.numerics.observe import Observed, observe
from conformance.numerics.recording import Recording, Want, fixture_model, record
from conformance.numerics.statistics import NOTHING, Statistics, as_list, from_list, measure
from conformance.numerics.variants import Variant, applicable
from nanollama.model.transformer import Transformer

FLOOR = GOLDEN / "floor.json"
VIEWS, TIERS = ("local", "accumulated"), ("order", "all")
SEEDS = (20250, 1, 2, 3)  # weights and prompts; leave-one-out needs at least two


@dataclass(frozen=True)
class Sample:
    """One tap of one run of one variant."""

    view: str
    variant: Variant
    architecture: str
    seed: int
    tap: str
    kind: str
    statistics: Statistics


@dataclass
class Floors:
    """The allowed errors of one dtype on one device: floors[view][tier][kind], factors[view][tier], and the router's floor."""

    floors: dict[str, dict[str, dict[str, Statistics]]]
    factors: dict[str, dict[str, Statistics]]
    router_nats: float
    provenance: dict[str, Any] = field(default_factory=dict)

    def excess(self, sample: Statistics, view: str, tier: str, kind: str) -> tuple[str, float]:
        """The statistic with the largest excess, as a multiple of the allowed value."""
        return sample.over(self.floors[view][tier][kind]).over(self.factors[view][tier]).worst()


def kind_of(tap: str, names: Want) -> str:
    """The kind of module that a tap belongs to."""
    last = tap.rpartition(".")[2]
    if last.isdigit():
        return "block"
    if last.endswith("norm"):
        return "norm"
    return "experts" if f"{tap}.gate" in names else last


def gate_of(tap: str, want: Want) -> Tensor | None:
    """The router's truth if a tap depends on its choice."""
    return want.get(f"{tap}.gate" if tap.endswith(".mlp") else f"{tap}.mlp.gate")


def decided(gate: Tensor, chosen: int, nats: float) -> Tensor:
    """Which tokens' choice of experts cannot flip within the router's floor; gate log-probabilities [tokens, experts, 1]."""
    best = gate[:, :, 0].sort(-1, descending=True).values
    if chosen == best.shape[1]:
        return torch.ones(len(best), dtype=torch.bool)
    return best[:, chosen - 1] - best[:, chosen] > 2 * nats  # both sides of the margin may move


def tap_statistics(seen: Observed, want: Want, chosen: int, nats: float | None) -> Iterator[tuple[str, Statistics, int]]:
    """Every tap's statistics and how many tokens were excused, in the order of the data path; `nats` None: excuse none."""
    for tap, found in seen.items():
        got, expected, excused = found.values, want[tap][found.token], 0
        gate = gate_of(tap, want)
        if gate is not None and nats is not None:
            sure = decided(gate, chosen, nats)
            got, expected, excused = got[sure[found.token]], expected[sure[found.token]], int((~sure).sum())
        yield tap, measure(got, expected), excused


def views_of(model: Transformer, recording: Recording, variant: Variant) -> Generator[tuple[str, Observed, Want], None, None]:
    """A variant of a model, run with the recorded inputs in every module, and without them if the model has no experts."""
    with torch.inference_mode(), variant.patch(model) as changed:
        yield "local", observe(changed, variant.way, recording.prompts, recording.inputs)[0], recording.local
        if not any(model.config.moe_layers):
            yield "accumulated", observe(changed, variant.way, recording.prompts)[0], recording.accumulated


def router_floor(dtype: str, device: str, families: Sequence[str], seeds: Sequence[int]) -> float:
    """The largest error of a router's log-probabilities over the ensemble, in nats, on recorded inputs."""
    largest = 0.0
    for _, _, model, recording in subjects(dtype, device, families, seeds):
        if not any(model.config.moe_layers):
            continue
        for variant in ensemble(model):
            _, seen, want = next(views_of(model, recording, variant))
            errors = [(s.values - want[t][s.token]).abs().max() for t, s in seen.items() if t.endswith(".gate")]
            largest = max(largest, *map(float, errors))
    return largest


def subjects(
    dtype: str, device: str, families: Sequence[str], seeds: Sequence[int]
) -> Iterator[tuple[str, int, Transformer, Recording]]:
    """Every family's fixture with every seed's weights."""
    for seed in seeds:
        for architecture in families:
            recording = record(architecture, dtype, seed)
            with fixture_model(architecture, dtype, seed, device) as load:
                yield architecture, seed, load(dtype), recording


def ensemble(model: Transformer, compile: bool = False) -> list[Variant]:
    """The variants that floors are made from."""
    return [v for v in applicable(model.config, compile) if not v.held_out]


def gather(dtype: str, device: str, families: Sequence[str], seeds: Sequence[int], nats: float) -> list[Sample]:
    """Every tap of every run of the ensemble."""
    samples = []
    for architecture, seed, model, recording in subjects(dtype, device, families, seeds):
        chosen = model.config.num_experts_per_tok
        for variant in ensemble(model):
            for view, seen, want in views_of(model, recording, variant):
                for tap, statistics, _ in tap_statistics(seen, want, chosen, nats if view == "local" else None):
                    samples.append(Sample(view, variant, architecture, seed, tap, kind_of(tap, want), statistics))
    return samples


def pooled(samples: Sequence[Sample]) -> dict[str, Statistics]:
    """The largest of every statistic, by kind."""
    out: dict[str, Statistics] = defaultdict(lambda: NOTHING)
    for sample in samples:
        out[sample.kind] = out[sample.kind].largest(sample.statistics)
    return dict(out)


def leave_one_out(samples: Sequence[Sample]) -> Statistics:
    """The largest excess of any variant on one seed over the floor of the others on the other seeds; at least 1."""
    runs: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for sample in samples:
        runs[sample.variant.name, sample.seed].append(sample)
    tops = {run: pooled(of_run) for run, of_run in runs.items()}
    worst = Statistics(1.0, 1.0, 1.0, 1.0)
    for (name, seed), mine in tops.items():
        floor: dict[str, Statistics] = defaultdict(lambda: NOTHING)
        for (other, elsewhere), theirs in tops.items():
            if other != name and elsewhere != seed:
                for kind, statistics in theirs.items():
                    floor[kind] = floor[kind].largest(statistics)
        for kind, statistics in mine.items():
            worst = worst.largest(statistics.over(floor[kind]))
    return worst


def make_floors(
    dtype: str, device: str = "cpu", families: Sequence[str] = tuple(FIXTURES), seeds: Sequence[int] = SEEDS
) -> Floors:
    """Measure the ensemble on this machine."""
    nats = router_floor(dtype, device, families, seeds)
    samples = gather(dtype, device, families, seeds, nats)
    floors: dict[str, dict[str, dict[str, Statistics]]] = {view: {} for view in VIEWS}
    factors: dict[str, dict[str, Statistics]] = {view: {} for view in VIEWS}
    for view in VIEWS:
        for tier in TIERS:
            of_tier = [s for s in samples if s.view == view and (tier == "all" or not s.variant.policy)]
            floors[view][tier], factors[view][tier] = pooled(of_tier), leave_one_out(of_tier)
    runs = {(s.variant.name, s.architecture, s.seed) for s in samples}
    who = {"variants": sorted({s.variant.name for s in samples}), "families": list(families), "seeds": list(seeds)}
    return Floors(floors, factors, nats, {**who, "runs": len(runs), "taps": len(samples)})


def to_json(floors: Floors) -> dict[str, Any]:
    """As it is stored: statistics as [row, column, gain, offset]."""
    return {
        "floors": {
            view: {tier: {kind: as_list(s) for kind, s in kinds.items()} for tier, kinds in tiers.items()}
            for view, tiers in floors.floors.items()
        },
        "factors": {view: {tier: as_list(s) for tier, s in tiers.items()} for view, tiers in floors.factors.items()},
        "router_nats": float(f"{floors.router_nats:.3g}"),
        "provenance": floors.provenance,
    }


@lru_cache
def load_floors(dtype: str, device: str = "cpu", path: Path = FLOOR) -> Floors:
    """The stored floors of a dtype on a kind of device."""
    stored = json.loads(path.read_text())
    try:
        mine = stored[device.partition(":")[0]][dtype]
    except KeyError:
        raise RuntimeError(
            f"{path.name}: no {dtype} floor on {device}; measure it: python -m conformance.numerics floor --device {device}"
        ) from None
    floors = {
        view: {tier: {kind: from_list(s) for kind, s in kinds.items()} for tier, kinds in tiers.items()}
        for view, tiers in mine["floors"].items()
    }
    factors = {view: {tier: from_list(s) for tier, s in tiers.items()} for view, tiers in mine["factors"].items()}
    return Floors(floors, factors, mine["router_nats"], mine["provenance"])

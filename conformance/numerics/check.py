"""Judge a low-precision engine by the noise floor: find the first module with a larger error than any honest variant."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

from conformance.models.fixtures import FIXTURES, SEED
from conformance.numerics.floor import TIERS, Floors, kind_of, load_floors, subjects, tap_statistics, views_of
from conformance.numerics.observe import Observed
from conformance.numerics.recording import Recording, Want, fixture_model, record
from conformance.numerics.statistics import interval
from conformance.numerics.variants import AS_IS, ORDER, Variant, applicable
from nanollama.model.transformer import Transformer

EAGER = next(v for v in ORDER if v.name == "eager attention")
BATCHED, SINGLE = (next(v for v in ORDER if v.name == name) for name in ("ragged decoding", "token by token"))
CHECKED_VARIANTS = (AS_IS, EAGER, BATCHED, SINGLE)  # as it is, eager attention, and from the cache in both ways
HELD_OUT_SEEDS = (11, 12)  # weights and prompts that the floor was not made from


@dataclass(frozen=True)
class Finding:
    """One tap beyond its floor; `excess` is a multiple of the allowed error. `tier`: beyond "all" honest variants, or only
    beyond those with the same roundings ("order"), which is a precision policy."""

    place: str
    view: str
    tier: str
    statistic: str
    excess: float


@dataclass
class Judgement:
    """The findings of a check, in data-path order. Local replay decides; accumulated findings are a second opinion."""

    findings: list[Finding] = field(default_factory=list)
    taps: int = 0
    excused: int = 0

    def beyond(self, tier: str, view: str = "local") -> list[Finding]:
        """Findings of a tier and view."""
        return [f for f in self.findings if f.tier == tier and f.view == view]

    @property
    def first(self) -> Finding | None:
        """The first wrong module: beyond every honest variant."""
        return next(iter(self.beyond("all")), None)

    @property
    def verdict(self) -> str:
        """FAIL, NOTE (a precision policy), PASS, or ERROR where nothing was compared."""
        if self.taps == 0:
            return "ERROR"
        return "FAIL" if self.first else "NOTE" if self.beyond("order") else "PASS"


def place_of(tap: str) -> str:
    """The module that a tap belongs to."""
    ends = {".weights": ".attend.scores", ".context": ".attend", ".self_attn": ".self_attn.o_proj"}
    for end, place in ends.items():
        if tap.endswith(end):
            return tap.removesuffix(end) + place
    return {"embeddings": "embed_tokens", "logits": "lm_head"}.get(tap, tap)


def unseen(seen: Observed, want: Want) -> list[str]:
    """Taps that some token never passed; attention weights are not required, as fused kernels have none."""
    needed = {tap for tap in want if not tap.endswith(".weights")}
    return [t for t in want if t in needed and (t not in seen or len(seen[t].token.unique()) < len(want[t]))]


def judge_variant(
    model: Transformer, recording: Recording, floors: Floors, variant: Variant = AS_IS, second: bool = True
) -> Judgement:
    """Run one variant of a model and compare every tap with its floor; `second`: also without local replay."""
    judgement, chosen = Judgement(), model.config.num_experts_per_tok
    with closing(views_of(model, recording, variant)) as views:
        several = list(islice(views, 2 if second else 1))
    for view, seen, want in several:
        for tap in unseen(seen, want):
            judgement.findings.append(Finding(place_of(tap), view, "all", "never seen", float("inf")))
        nats = floors.router_nats if view == "local" else None
        for tap, statistics, excused in tap_statistics(seen, want, chosen, nats):
            judgement.taps += 1
            judgement.excused += excused
            for tier in reversed(TIERS):
                statistic, excess = floors.excess(statistics, view, tier, kind_of(tap, want))
                if not excess <= 1:
                    judgement.findings.append(Finding(place_of(tap), view, tier, statistic, excess))
                    break
    return judgement


def check(architecture: str, dtype: str, device: str = "cpu", seed: int = SEED, floors: Floors | None = None) -> Judgement:
    """The live runtime on one family's fixture, run once for each of CHECKED_VARIANTS. The truth must be recorded
    while the runtime is clean: by the first call for a family and seed, or by `record`."""
    recording, floors = record(architecture, dtype, seed), floors or load_floors(dtype, device)
    total = Judgement()
    with fixture_model(architecture, dtype, seed, device) as load:
        model = load(dtype)
        for variant in CHECKED_VARIANTS:
            if variant.reason(model.config) is None:
                found = judge_variant(model, recording, floors, variant, second=variant is AS_IS)
                total.findings += found.findings
                total.taps, total.excused = total.taps + found.taps, total.excused + found.excused
    return total


@dataclass
class Alarms:
    """Honest runs, and those that were flagged: (variant, family, dtype, seed, first finding)."""

    runs: int = 0
    policy_runs: int = 0
    flagged: list[tuple[str, str, str, int, Finding]] = field(default_factory=list)
    policy_flags: list[tuple[str, str, str, int, Finding]] = field(default_factory=list)
    noted: int = 0  # runs of precision policies that were noted, as they should be
    accumulated: int = 0  # runs whose accumulated taps were beyond their floor; not an alarm
    accumulated_runs: int = 0

    def count(self, variant: Variant, judgement: Judgement, key: tuple[str, str, str, int]) -> None:
        """Add a run."""
        self.runs += 1
        self.policy_runs += variant.policy
        self.noted += variant.policy and judgement.verdict == "NOTE"
        self.accumulated += bool(judgement.beyond("all", "accumulated"))
        if judgement.verdict in ("FAIL", "ERROR"):
            self.flagged.append((*key, judgement.first or Finding("nothing", "local", "all", "compared", 0.0)))
        elif judgement.verdict == "NOTE" and not variant.policy:
            self.policy_flags.append((*key, judgement.beyond("order")[0]))

    def lines(self) -> Iterator[str]:
        """The report: rates with their 95 % intervals, and every flag."""
        for name, flags, runs in (
            ("honest runs called faulty", self.flagged, self.runs),
            ("same roundings called a precision policy", self.policy_flags, self.runs - self.policy_runs),
        ):
            low, high = interval(len(flags), runs)
            yield f"{name}: {len(flags)} of {runs} ({len(flags) / max(runs, 1):.2%}, 95 % interval {low:.2%} to {high:.2%})"
            models = {flag[1:4] for flag in flags}
            yield f"  in {len(models)} models (family, dtype, seed)"
            for variant, family, dtype, seed, f in flags:
                yield f"  {variant}, {family} {dtype} seed {seed}: {f.place} {f.view} {f.statistic} {f.excess:.2f}x"
        yield f"precision policies noted: {self.noted} of {self.policy_runs}"
        yield f"second opinion, accumulated taps beyond every honest variant's: {self.accumulated} of {self.accumulated_runs}"


def false_alarms(
    dtypes: Sequence[str],
    device: str = "cpu",
    families: Sequence[str] = tuple(FIXTURES),
    seeds: Sequence[int] = HELD_OUT_SEEDS,
    compile: bool = False,
    floors_of: Callable[[str, str], Floors] = load_floors,
) -> Alarms:
    """Judge every variant, held-out ones too, on weights and prompts that the floor was not made from."""
    alarms = Alarms()
    for dtype in dtypes:
        floors = floors_of(dtype, device)
        for architecture, seed, model, recording in subjects(dtype, device, families, seeds):
            for variant in applicable(model.config, compile):
                judgement = judge_variant(model, recording, floors, variant)
                alarms.count(variant, judgement, (variant.name, architecture, dtype, seed))
                alarms.accumulated_runs += not any(model.config.moe_layers)
    return alarms

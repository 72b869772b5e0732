"""The tests of a model, for any engine: every family and variation, every value that the engine shows, filed by requirement.

`judge(engine)` runs them all and returns a `conformance.requirements.results.Run`.
"""

import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import torch

from conformance.engines.adapters.nanollama import Nanollama
from conformance.engines.engine import Engine, Unsupported
from conformance.engines.subject import subject
from conformance.judging.bars import Bars
from conformance.judging.controls import controls
from conformance.judging.diagnosis import detectable, likely
from conformance.judging.evidence.case_comparison import Look
from conformance.judging.evidence.feature_ablation import ladder
from conformance.judging.evidence.observations import Observation, State
from conformance.judging.runtime_checks import open_ends, white_box
from conformance.judging.verdicts import undecided, verdicts
from conformance.models.cases import CASES, VARIATIONS
from conformance.models.fixtures import FIXTURES
from conformance.requirements.results import About, Run
from nanollama.errors import NanollamaError
from nanollama.lm import DTYPES

DEEPEST = 4  # layers of the models that noise floors were measured on; how rounding grows beyond, they do not say
Tell = Callable[[str], None]


def cases_of(families: Sequence[str]) -> tuple[str, ...]:
    """The families' fixtures and their variations; all of them where none is named."""
    if unknown := [family for family in families if family not in FIXTURES]:
        raise NanollamaError(f"no family {unknown[0]!r}; there are {', '.join(FIXTURES)}")
    return tuple(c for c in CASES if not families or VARIATIONS.get(c, (c,))[0] in families)


def judge(engine: Engine, families: Sequence[str] = (), tell: Tell = lambda line: None) -> Run:
    """Everything about one engine. `tell` is told what is going on, a line at a time."""
    started, clock, cases, about = datetime.now(UTC), time.perf_counter(), cases_of(families), engine.about()
    if about.dtype not in DTYPES:
        raise NanollamaError(f"{about.name} computes in {about.dtype!r}; engines are judged in {', '.join(DTYPES)}")
    bars = Bars(about.dtype, about.device)
    run = Run(about, started.isoformat(timespec="seconds"), versions=versions())
    looks = [looked(engine, case, bars, tell) for case in cases]
    run.engine = engine.about()
    run.growth = {look.subject.name: points for look in looks if (points := list(look.growth()))}
    run.results = verdicts(*evidence(engine, looks, bars, tell), about.dtype == "float64")
    run.controls = {name: flagged(made, cases[0], bars) for name, made in controls(about.dtype, bars).items()}
    tell("what is likely wrong, and what could not have been seen")
    run.causes, run.detectable = list(likely(looks)), list(detectable(looks))
    inside = isinstance(engine, Nanollama) and about.dtype == "float64" and not families
    if inside:
        tell("checks of the runtime's own functions")
        run.results += white_box()
    run.results += open_ends(about, {result.requirement for result in run.results}, inside)
    run.seconds = time.perf_counter() - clock
    return run


def evidence(engine: Engine, looks: Sequence[Look], bars: Bars, tell: Tell) -> tuple[list[Observation], list[Observation]]:
    """All comparisons; and where they leave several requirements to blame, what fits with features switched off."""
    found, vouchers = [o for look in looks for o in look.found], list[Observation]()
    for look in looks:
        if any(o.case == look.subject.name for o in undecided(found, vouchers)):
            tell(f"{look.subject.name}: switching features off, one by one")
            vouchers += ladder(engine, look.subject, bars)
    return found, vouchers


def looked(engine: Engine, case: str, bars: Bars, tell: Tell = lambda line: None) -> Look:
    """One case; an engine that can't load it says why, and one that breaks down has broken down in this case only."""
    look = Look(engine, subject(case, bars.dtype), bars)
    if bars.floors is not None and look.subject.spec.layers > DEEPEST:
        reason = f"noise floors are of models of up to {DEEPEST} layers; this has {look.subject.spec.layers}"
        look.lost("near", State.UNSUPPORTED, reason)
        return look
    try:
        engine.load(look.subject.case.folder)
    except Unsupported as reason:
        look.lost("near", State.UNSUPPORTED, str(reason))
    except Exception as error:
        look.lost("near", State.BROKEN, f"{type(error).__name__}: {str(error)[:300]}")
    else:
        look.everything()
    tell(f"{case}: {outcome(look)}")
    return look


def outcome(look: Look) -> str:
    """How a case went, in a few words."""
    made = [o for o in look.found if o.made]
    off = next((o for o in look.found if o.state is State.OFF), None)
    if not made:
        return f"{look.found[0].state}: {look.found[0].detail}"
    return f"{len(made)} comparisons, " + (f"first off at {off.place}" if off else "nothing off")


def flagged(engine: Engine, case: str, bars: Bars) -> bool:
    """Whether an engine that is wrong on purpose is found out."""
    found = looked(engine, case, bars).found
    return not Run(About("control", "", ()), results=verdicts(found, [], bars.floors is None)).passed


def versions() -> dict[str, str]:
    """What took part."""
    known = {"python": platform.python_version(), "platform": sys.platform, "torch": torch.__version__}
    for name in ("nanollama", "transformers"):
        try:
            known[name] = version(name)
        except PackageNotFoundError:
            continue
    return known

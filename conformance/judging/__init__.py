"""The tests of a model, for any engine: every family and variation, every value that the engine shows, filed by requirement.

`judge(engine)` runs them all and returns a `conformance.results.Run`.
"""

import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import torch

from conformance.checks.cases import CASES, VARIATIONS
from conformance.engines import Engine, Unsupported
from conformance.fixtures import FIXTURES
from conformance.judging.ablation import ladder
from conformance.judging.bars import Bars
from conformance.judging.controls import controls
from conformance.judging.look import Look
from conformance.judging.observations import Observation, State
from conformance.judging.subject import subject
from conformance.judging.verdicts import undecided, verdicts
from conformance.judging.whitebox import open_ends, white_box
from conformance.results import About, Point, Run
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
    found = [o for case in cases for o in looked(engine, case, bars, run.growth, tell)]
    run.engine = engine.about()
    vouchers: list[Observation] = []
    for case in dict.fromkeys(o.case for o in found):
        if any(o.case == case for o in undecided(found, vouchers)):
            tell(f"{case}: switching features off, one by one")
            vouchers += ladder(engine, subject(case, about.dtype), bars)
    run.results = verdicts(found, about.dtype == "float64", vouchers)
    run.controls = {name: flagged(made, cases[0], bars) for name, made in controls(about.dtype, bars).items()}
    inside = about.name == "nanollama" and not families
    if inside:
        tell("checks of the runtime's own functions")
        run.results += white_box()
    run.results += open_ends(about, {result.requirement for result in run.results}, inside)
    run.seconds = time.perf_counter() - clock
    return run


def looked(
    engine: Engine, case: str, bars: Bars, growth: dict[str, list[Point]], tell: Tell = lambda line: None
) -> list[Observation]:
    """One case; an engine that can't load it says why, and one that breaks down has broken down in this case only."""
    this = subject(case, bars.dtype)
    look = Look(engine, this, bars)
    if bars.floors is not None and this.spec.layers > DEEPEST:
        look.lost(
            "near", State.UNSUPPORTED, f"noise floors are of models of up to {DEEPEST} layers, this has {this.spec.layers}"
        )
        return look.found
    try:
        engine.load(this.folder)
    except Unsupported as reason:
        look.lost("near", State.UNSUPPORTED, str(reason))
    except Exception as error:
        look.lost("near", State.BROKEN, f"{type(error).__name__}: {str(error)[:300]}")
    else:
        look.everything()
        growth[case] = list(look.growth())
    tell(f"{case}: {outcome(look)}")
    return look.found


def outcome(look: Look) -> str:
    """How a case went, in a few words."""
    made = [o for o in look.found if o.made]
    off = next((o for o in look.found if o.state is State.OFF), None)
    if not made:
        return f"{look.found[0].state}: {look.found[0].detail}"
    return f"{len(made)} comparisons, " + (f"first off at {off.place}" if off else "nothing off")


def flagged(engine: Engine, case: str, bars: Bars) -> bool:
    """Whether an engine that is wrong on purpose is found out."""
    found = looked(engine, case, bars, {})
    return not Run(About("control", "", ()), results=verdicts(found, bars.floors is None)).passed


def versions() -> dict[str, str]:
    """What took part."""
    known = {"python": platform.python_version(), "platform": sys.platform, "torch": torch.__version__}
    for name in ("nanollama", "transformers"):
        try:
            known[name] = version(name)
        except PackageNotFoundError:
            continue
    return known

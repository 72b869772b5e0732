"""Judge any engine: every family and variation, every value that it shows, filed by requirement."""

import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from conformance.engines.adapters.nanollama import Nanollama
from conformance.engines.engine import Engine, Unsupported
from conformance.engines.subject import subject
from conformance.judging.bars import Bars
from conformance.judging.controls import controls
from conformance.judging.diagnosis import detectable, likely
from conformance.judging.evidence.case_comparison import CaseComparison
from conformance.judging.evidence.feature_ablation import ablate
from conformance.judging.evidence.observations import Observation, State
from conformance.judging.families import Outputs, family_errors, family_results, low_precision_outputs
from conformance.judging.runtime_checks import check_results, not_judged
from conformance.judging.verdicts import undecided, verdicts
from conformance.models.fixtures import FIXTURES
from conformance.requirements.results import About, FamilyErrors, Run
from conformance.truth.cases import CASES, VARIATIONS
from conformance.truth.golden import load_golden
from nanollama.errors import NanollamaError, unknown_name
from nanollama.model.dtypes import DTYPES

DEEPEST = 4  # layers of the models that noise floors were measured on; deeper models have none
Progress = Callable[[str], None]


def cases_of(families: Sequence[str]) -> tuple[str, ...]:
    """The fixtures of the families and their variations; without families, all."""
    for family in families:
        if family not in FIXTURES:
            raise unknown_name("family", family, FIXTURES)
    return tuple(c for c in CASES if not families or VARIATIONS.get(c, (c,))[0] in families)


def judge_engine(
    engine: Engine, families: Sequence[str] = (), progress: Progress = lambda line: None, live: bool = True
) -> Run:
    """Judge one engine on all cases of the families. `progress` takes one line a step; `live`: run transformers, too."""
    started, clock, cases, about = datetime.now(UTC), time.perf_counter(), cases_of(families), engine.about()
    if about.dtype not in DTYPES:
        raise NanollamaError(f"{about.name} computes in {about.dtype!r}; engines are judged in {', '.join(DTYPES)}")
    bars = Bars(about.dtype, about.device)
    run = Run(about, started.isoformat(timespec="seconds"), versions=versions())
    with_checks = isinstance(engine, Nanollama) and about.dtype == "float64" and not families
    with check_results(with_checks) as results_of_checks:
        compared = [compare_case(engine, case, bars, progress) for case in cases]
        run.engine = engine.about()
        run.growth = {each.subject.name: points for each in compared if (points := list(each.growth()))}
        run.results = verdicts(*evidence(engine, compared, bars, progress), about.dtype == "float64")
        run.families = list(families_of(engine, compared, live))
        run.results += [result for each in run.families for result in family_results(each, about.dtype)]
        run.controls = {name: flagged(made, cases[0], bars) for name, made in controls(about.dtype, bars).items()}
        progress("likely causes, and what could not have been detected")
        run.causes, run.detectable = list(likely(compared)), list(detectable(compared))
        if with_checks:
            progress("checks of the runtime's functions")
        run.results += results_of_checks()
    run.results += not_judged(about, {result.requirement for result in run.results}, with_checks)
    run.seconds = time.perf_counter() - clock
    return run


def families_of(engine: Engine, compared: Sequence[CaseComparison], live: bool) -> Iterator[FamilyErrors]:
    """The table of families, from what was run already, and from a float64 engine in lower precisions."""
    for each in compared:
        if each.subject.name in FIXTURES and each.whole:
            golden, folder = load_golden(each.subject.name), each.subject.case.folder
            outputs: dict[str, Outputs] = {each.subject.dtype: each.whole}
            if each.subject.dtype == "float64":
                with tempfile.TemporaryDirectory() as scratch:
                    outputs |= low_precision_outputs(engine, golden, Path(scratch))
            found = family_errors(golden, outputs, folder if live else None)
            if found.taps or found.ratios:
                yield found


def evidence(
    engine: Engine, compared: Sequence[CaseComparison], bars: Bars, progress: Progress
) -> tuple[list[Observation], list[Observation]]:
    """All comparisons; and if several requirements remain to blame, the comparisons that fit with features switched off."""
    found, vouchers = [o for each in compared for o in each.found], list[Observation]()
    for each in compared:
        if any(o.case == each.subject.name for o in undecided(found, vouchers)):
            progress(f"{each.subject.name}: switching features off, one by one")
            vouchers += ablate(engine, each.subject, bars)
    return found, vouchers


def compare_case(engine: Engine, case: str, bars: Bars, progress: Progress = lambda line: None) -> CaseComparison:
    """Compare one case. If the engine refuses or crashes, only this case is lost."""
    comparison = CaseComparison(engine, subject(case, bars.dtype), bars)
    if bars.floors is not None and comparison.subject.spec.layers > DEEPEST:
        reason = f"noise floors are of models of up to {DEEPEST} layers; this has {comparison.subject.spec.layers}"
        comparison.lost("near", State.UNSUPPORTED, reason)
        return comparison
    try:
        engine.load(comparison.subject.case.folder)
    except Unsupported as reason:
        comparison.lost("near", State.UNSUPPORTED, str(reason))
    except Exception as error:
        comparison.lost("near", State.BROKEN, f"{type(error).__name__}: {str(error)[:300]}")
    else:
        comparison.everything()
    progress(f"{case}: {outcome(comparison)}")
    return comparison


def outcome(comparison: CaseComparison) -> str:
    """The outcome of a case in a few words."""
    made = [o for o in comparison.found if o.made]
    off = next((o for o in comparison.found if o.state is State.OFF), None)
    if not made:
        return f"{comparison.found[0].state}: {comparison.found[0].detail}"
    return f"{len(made)} comparisons, " + (f"first off at {off.place}" if off else "nothing off")


def flagged(engine: Engine, case: str, bars: Bars) -> bool:
    """Whether an engine that is wrong on purpose fails."""
    found = compare_case(engine, case, bars).found
    return not Run(About("control", "", ()), results=verdicts(found, [], bars.floors is None)).passed


def versions() -> dict[str, str]:
    """The versions of Python, torch, and the packages compared."""
    known = {"python": platform.python_version(), "platform": sys.platform, "torch": torch.__version__}
    for name in ("nanollama", "transformers"):
        try:
            known[name] = version(name)
        except PackageNotFoundError:
            continue
    return known

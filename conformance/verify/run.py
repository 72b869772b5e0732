"""`python -m conformance run`: prove the runtime on this machine, family by family, then generate text.

Two regimes. *Semantics*: in float64 every tap must equal the golden and live transformers to 1e-10. *Numerics*: in a lower
precision the error may be at most NUMERIC_FACTOR times that of transformers in the same precision.
"""

import json
import math
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch

from conformance.models.fixtures import FIXTURES
from conformance.truth.compare import SEMANTIC_BAR, TapError, compare_taps, first_beyond, rms_error, worst
from conformance.truth.golden import LOW_PRECISIONS, Golden, load_golden
from conformance.truth.taps import Taps, runtime_taps
from nanollama.errors import unknown_name
from nanollama.lm import load_model

NUMERIC_FACTOR = 2.0  # FlashAttention's published rule: at most twice the error of a plain implementation of the same precision


@dataclass
class FamilyResult:
    """The errors of one family's run: relative in float64, ratios to transformers' error in lower precisions."""

    architecture: str
    golden: TapError | None = None
    live: TapError | None = None
    taps: int = 0
    first_divergence: str | None = None
    ratios: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether something was compared and every error is within its bar."""
        compared = [e for e in (self.golden, self.live) if e is not None]
        exact = self.first_divergence is None and all(e.error <= SEMANTIC_BAR for e in compared)
        return (self.taps > 0 or bool(self.ratios)) and exact and all(r <= NUMERIC_FACTOR for r in self.ratios.values())


def run_family(
    architecture: str, device: str = "cpu", dtypes: Sequence[str] = ("float64", *LOW_PRECISIONS), live: bool = True
) -> FamilyResult:
    """Run one family: float64 against the golden (and live transformers), other dtypes against transformers' error."""
    started, golden = time.perf_counter(), load_golden(architecture)
    result = FamilyResult(architecture)
    with tempfile.TemporaryDirectory() as folder:
        path = golden.write_model(Path(folder))
        if "float64" in dtypes:
            compare_semantics(result, golden, path, device, live)
        ids, _ = golden.prompt("near")
        for dtype in (d for d in dtypes if d != "float64"):
            logits = load_model(path, dtype, device)(ids).double().log_softmax(-1)
            allowed = golden.recipe["transformers_rms_error_nats"][dtype]
            result.ratios[dtype] = rms_error(logits, golden.taps["near/logits"]) / allowed
    result.seconds = time.perf_counter() - started
    return result


def compare_semantics(result: FamilyResult, golden: Golden, path: Path, device: str, live: bool) -> None:
    """Float64 at every tap of both prompts."""
    model = load_model(path, "float64", device)
    ours: dict[str, Taps] = {}
    for name in ("near", "far"):
        ids, positions = golden.prompt(name)
        ours[name] = runtime_taps(model, partial(model, ids, positions=positions))
    errors = []
    for name in ours:
        stored = golden.part(name)  # sorted by name; want is in the order of the data path
        want = {tap: stored[tap] for tap in [*ours[name], *stored] if tap in stored}
        got = {tap: ours[name][tap] for tap in want if tap in ours[name]} if name == "far" else ours[name]
        errors += [TapError(f"{name}/{e.name}", e.error) for e in compare_taps(got, want)]
    result.taps, result.golden = len(errors), worst(errors)
    beyond = first_beyond(errors, SEMANTIC_BAR)
    if live:
        against = compare_live(golden, path, ours)
        result.taps, result.live = result.taps + len(against), worst(against)
        beyond = beyond or first_beyond(against, SEMANTIC_BAR)
    result.first_divergence = beyond.name if beyond else None


def compare_live(golden: Golden, path: Path, ours: dict[str, Taps]) -> list[TapError]:
    """The same prompts through transformers as it is installed here."""
    from conformance.truth.oracle import load_oracle, oracle_logits
    from conformance.truth.taps import oracle_taps

    oracle, errors = load_oracle(path), []
    for name, taps in ours.items():
        ids, positions = golden.prompt(name)
        want = oracle_taps(oracle, partial(oracle_logits, oracle, ids, positions))
        errors += [TapError(f"{name}/{e.name}", e.error) for e in compare_taps(taps, want)]
    return errors


def result_lines(done: Iterable[FamilyResult], live: bool, dtypes: Sequence[str]) -> Iterable[str]:
    """The lines of the report: a header, then one per family."""
    low = [d for d in dtypes if d != "float64"]
    live_head = f"{'transformers':>13}" if live else ""
    exact = f"{'golden':>9}{live_head}  {'worst tap':40}" if "float64" in dtypes else ""
    yield f"{'family':22}{exact}" + "".join(f"{d:>10}" for d in low)
    for v in done:
        line = f"{v.architecture:22}"
        if v.golden:
            off = max((e for e in (v.golden, v.live) if e), key=lambda e: e.error)
            line += f"{v.golden.error:9.1e}" + (f"{v.live.error:13.1e}" if v.live else "") + f"  {off.name:40}"
        line += "".join(f"{v.ratios[d]:9.2f}x" for d in low)
        yield line + ("" if v.passed else f"  FAIL {v.first_divergence or 'precision'}")


def run_command(families: Sequence[str], model: str | None, as_json: bool, live: bool = True) -> int:
    """The whole run; the exit status."""
    started = time.perf_counter()
    dtypes = ("float64", "float32", "bfloat16")
    chosen = list(families) or list(FIXTURES)
    unknown = [f for f in chosen if f not in FIXTURES]
    if unknown:
        raise unknown_name("family", unknown[0], FIXTURES)
    done: list[FamilyResult] = []

    def results() -> Iterable[FamilyResult]:
        for architecture in chosen:
            done.append(run_family(architecture, dtypes=dtypes, live=live))
            yield done[-1]

    lines = result_lines(results(), live, dtypes)
    if as_json:
        list(lines)
        print(json.dumps([asdict(v) | {"passed": v.passed} for v in done], indent=1))
    else:
        explain(live)
        for line in lines:
            print(line, flush=True)
    failed = [v for v in done if not v.passed]
    if not as_json:
        taps = sum(v.taps for v in done)
        print(
            f"{'FAIL' if failed else 'PASS'}: {len(done) - len(failed)} of {len(done)} families, {taps} taps compared, "
            f"{time.perf_counter() - started:.0f} s"
        )
        generate_sample(model)
    return 1 if failed or not done else 0


def explain(live: bool) -> None:
    """Print how to read the table."""
    others = "the golden and live transformers" if live else "the golden"
    print(f"float64: worst relative error over all taps, against {others} (bar {SEMANTIC_BAR:.0e})")
    print(f"lower precisions: our error over transformers' own, both to the float64 truth (bar {NUMERIC_FACTOR:g}x)\n")


def generate_sample(source: str | None) -> None:
    """Generate text with a real checkpoint: --model, NANOLLAMA_MODEL or the data folder's; without one, print how."""
    data = os.environ.get("NANOLLAMA_DATA")
    source = source or os.environ.get("NANOLLAMA_MODEL") or (f"{data}/weights/stories260K-hf" if data else None)
    if source is None:
        print("\nno text: no model was given. Name a checkpoint folder: nox -s conformance -- --model FOLDER")
        return
    import nanollama

    lm = nanollama.load(source, device="cpu")
    prompt = "Once upon a time"
    print(f"\n{Path(source).name}, greedy:\n{prompt}{''.join(lm.generate(prompt, max_tokens=60, temperature=0.0))}")


def doctor_command(device: str) -> int:
    """The goldens on this device, per dtype, and one verdict; the exit status."""
    from nanollama.model.dtypes import pick_device

    place = pick_device(device)
    dtypes = LOW_PRECISIONS if place.type == "mps" else ("float64", *LOW_PRECISIONS)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else place.type
    print(f"torch {torch.__version__} on {name}; goldens in {', '.join(dtypes)}\n")
    done: list[FamilyResult] = []

    def results() -> Iterable[FamilyResult]:
        for architecture in FIXTURES:
            done.append(run_family(architecture, str(place), dtypes, live=False))
            yield done[-1]

    for line in result_lines(results(), live=False, dtypes=dtypes):
        print(line, flush=True)
    sick = [v.architecture for v in done if not v.passed]
    worst_ratio = max((r for v in done for r in v.ratios.values()), default=math.nan)
    print(
        f"\n{'NOT HEALTHY: ' + ', '.join(sick) if sick else 'HEALTHY'}: "
        f"{len(done) - len(sick)} of {len(done)} families, at most {worst_ratio:.2f}x transformers' own error"
    )
    return 1 if sick else 0

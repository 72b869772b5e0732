"""The table of families: an engine beside the goldens, live transformers and transformers' own rounding errors.

*Semantics*: in float64 every tap must equal the golden and live transformers to SEMANTIC_BAR. *Numerics*: in a lower precision
an engine may be as wrong as transformers is in that precision, times NUMERIC_FACTOR.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import torch

from conformance.engines.engine import Engine, Prompt, Taps, row_per_token
from conformance.numerics.floor import kind_of
from conformance.requirements.results import FamilyErrors, Result, Verdict
from conformance.truth.compare import SEMANTIC_BAR, TapError, compare_taps, first_beyond, rms_error, worst
from conformance.truth.golden import LOW_PRECISIONS, NUMERIC_FACTOR, Golden

PROMPTS = ("near", "far")
Outputs = Mapping[str, Taps]  # by prompt: every tap [T, …] that was shown, log-probabilities as "logits"


def run_golden(engine: Engine, golden: Golden, folder: Path, prompts: tuple[str, ...] = PROMPTS) -> Outputs:
    """Load the golden's model and run its prompts; with taps where the engine offers them."""
    engine.load(golden.write_model(folder))
    found: dict[str, Taps] = {}
    for name in prompts:
        answer = engine.run(prompt_of(golden, name), taps="L3" in engine.about().levels)
        found[name] = {**answer.taps, "logits": answer.logits.double().log_softmax(-1)}
    return found


def prompt_of(golden: Golden, name: str) -> Prompt:
    """A prompt of the golden, as engines take it."""
    ids, positions = golden.prompt(name)
    return Prompt(tuple(ids[0].tolist()), tuple(positions[0].tolist()))


def family_errors(golden: Golden, outputs: Mapping[str, Outputs], oracle_folder: Path | None = None) -> FamilyErrors:
    """Compare the outputs of one family, by dtype. `oracle_folder`: the checkpoint that transformers runs live; None: it does
    not."""
    found = FamilyErrors(golden.architecture)
    if "float64" in outputs:
        compare_float64(found, golden, outputs["float64"], oracle_folder)
    for dtype in LOW_PRECISIONS:
        if "logits" in outputs.get(dtype, {}).get("near", {}):
            error = rms_error(outputs[dtype]["near"]["logits"], row_per_token(golden.taps["near/logits"]))
            found.ratios[dtype] = error / golden.recipe["transformers_rms_error_nats"][dtype]
    found.good = within_bars(found)
    return found


def compare_float64(found: FamilyErrors, golden: Golden, outputs: Outputs, oracle_folder: Path | None) -> None:
    """Every tap of every prompt, against the stored values and against transformers."""
    stored = [e for name, taps in outputs.items() if name in PROMPTS for e in prompt_errors(name, taps, golden.part(name))]
    live = [] if oracle_folder is None else list(live_errors(golden, outputs, oracle_folder))
    if not stored:
        return
    beyond = first_beyond(stored, SEMANTIC_BAR) or first_beyond(live, SEMANTIC_BAR)
    off = worst([*stored, *live])
    found.golden, found.transformers = worst(stored).error, worst(live).error if live else None
    found.taps, found.worst_tap, found.first_beyond = len(stored) + len(live), off.name, beyond.name if beyond else ""


def prompt_errors(prompt: str, got: Taps, want: Taps) -> list[TapError]:
    """One error a tap, in the order of the data path. A kind of tap that is shown in one layer must be shown in all; the taps
    of the far prompt that no golden stores are left out."""
    expected = {name: row_per_token(want[name]) for name in [*got, *want] if name in want}
    kinds = {kind_of(name, expected) for name in got}
    expected = {name: value for name, value in expected.items() if kind_of(name, expected) in kinds}
    shown = {name: value for name, value in got.items() if name in expected or not (prompt == "far" or name.endswith(".mask"))}
    return [TapError(f"{prompt}/{error.name}", error.error) for error in compare_taps(shown, expected)]


def live_errors(golden: Golden, outputs: Outputs, folder: Path) -> Iterator[TapError]:
    """The same prompts through transformers as it is installed here."""
    from conformance.truth.oracle import load_oracle, oracle_logits
    from conformance.truth.taps import oracle_taps

    oracle = load_oracle(folder)
    for name, taps in outputs.items():
        if name in PROMPTS:
            ids, positions = golden.prompt(name)
            want = oracle_taps(oracle, partial(oracle_logits, oracle, ids, positions))
            yield from prompt_errors(name, {tap: value for tap, value in taps.items() if not tap.endswith(".mask")}, want)


def within_bars(errors: FamilyErrors) -> bool:
    """Whether something was compared, and nothing is beyond its bar."""
    exact = [error for error in (errors.golden, errors.transformers) if error is not None]
    compared = errors.taps > 0 or bool(errors.ratios)
    good = not errors.first_beyond and all(error <= SEMANTIC_BAR for error in exact)
    return compared and good and all(ratio <= NUMERIC_FACTOR for ratio in errors.ratios.values())


def family_results(errors: FamilyErrors, dtype: str) -> Iterator[Result]:
    """The verdicts on one family of an engine that computes in `dtype`: NUMR-001 for float64, NUMR-002 for each other dtype.
    If `dtype` itself is a lower precision, the noise floor judges it."""
    case = errors.architecture
    if errors.golden is not None:
        worst_error = max((e for e in (errors.golden, errors.transformers) if e is not None), key=lambda e: (e != e, e))
        good = not errors.first_beyond and worst_error <= SEMANTIC_BAR
        place = errors.first_beyond.partition("/")[2] or errors.worst_tap.partition("/")[2]
        detail = "" if good else f"{errors.first_beyond.partition('/')[0]}: beside the golden and transformers"
        verdict = Verdict.PASS if good else Verdict.FAIL
        yield Result("NUMR-001", case, "golden", verdict, detail, place, worst_error, SEMANTIC_BAR, errors.taps)
    for low, ratio in errors.ratios.items():
        if low != dtype:
            verdict = Verdict.PASS if ratio <= NUMERIC_FACTOR else Verdict.FAIL
            detail = "" if verdict is Verdict.PASS else f"in {low}, as a multiple of transformers' own error"
            yield Result("NUMR-002", case, f"golden in {low}", verdict, detail, "logits", ratio, NUMERIC_FACTOR, compared=1)


def low_precision_outputs(engine: Engine, golden: Golden, folder: Path) -> dict[str, Outputs]:
    """The near prompt in float32 and bfloat16, where the engine has them."""
    found: dict[str, Outputs] = {}
    for dtype in ("float32", "bfloat16"):
        other = engine.in_dtype(dtype)
        if other is not None:
            with torch.inference_mode():
                found[dtype] = run_golden(other, golden, folder, ("near",))
            other.close()
    return found

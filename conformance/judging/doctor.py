"""`python -m conformance doctor`: the goldens on this device, per dtype, and one verdict."""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from conformance.engines.adapters.nanollama import Nanollama
from conformance.judging.families import PROMPTS, Outputs, family_errors, run_golden, within_bars
from conformance.models.fixtures import FIXTURES
from conformance.report.terminal import family_rows
from conformance.requirements.results import FamilyErrors
from conformance.truth.golden import LOW_PRECISIONS, load_golden
from nanollama.model.dtypes import pick_device


def measure_family(architecture: str, device: str, dtypes: Sequence[str]) -> FamilyErrors:
    """The runtime on one family: float64 at every tap, the other dtypes by their logits."""
    golden, outputs = load_golden(architecture), dict[str, Outputs]()
    with tempfile.TemporaryDirectory() as folder:
        for dtype in dtypes:
            engine = Nanollama(dtype)
            engine.device = device
            outputs[dtype] = run_golden(engine, golden, Path(folder), PROMPTS if dtype == "float64" else ("near",))
    return family_errors(golden, outputs)


def doctor_command(device: str) -> int:
    """Print one line a family and the verdict; the exit status is 1 if a family is beyond a bar."""
    place = pick_device(device)
    dtypes = LOW_PRECISIONS if place.type == "mps" else ("float64", *LOW_PRECISIONS)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else place.type
    print(f"torch {torch.__version__} on {name}; goldens in {', '.join(dtypes)}\n")
    found: list[FamilyErrors] = []
    for architecture in FIXTURES:
        found.append(measure_family(architecture, str(place), dtypes))
        rows = family_rows(found)
        print(*(rows if len(found) == 1 else rows[-1:]), sep="\n", flush=True)
    sick = [errors.architecture for errors in found if not within_bars(errors)]
    worst_ratio = max((ratio for errors in found for ratio in errors.ratios.values()), default=math.nan)
    print(
        f"\n{'NOT HEALTHY: ' + ', '.join(sick) if sick else 'HEALTHY'}: "
        f"{len(found) - len(sick)} of {len(found)} families, at most {worst_ratio:.2f}x transformers' own error"
    )
    return 1 if sick else 0

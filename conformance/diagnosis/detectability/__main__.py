"""`python -m conformance.diagnosis.detectability`: the smallest change of each number of a config that a run would detect."""

import argparse
import sys
import time

import torch

from conformance.diagnosis.causes.tolerances import float64_excess, floor_excess
from conformance.diagnosis.detectability.probes import designed, prompts
from conformance.diagnosis.detectability.smallest_change import detectability
from conformance.engines.subject import subject
from conformance.models.fixtures import FIXTURES
from conformance.report.parts.sections import smallest as smallest_text
from conformance.requirements.results import Detectable
from conformance.truth.cases import CASES
from conformance.truth.golden import LOW_PRECISIONS
from nanollama.errors import NanollamaError


def lines(family: str, dtype: str) -> list[str]:
    """One line a field: by the prompts alone (logits; all taps), and with inputs made for it."""
    this = subject(family, dtype).case
    excess, whole = (
        (float64_excess(), float64_excess())
        if dtype == "float64"
        else (floor_excess(dtype), floor_excess(dtype, view="accumulated"))
    )
    kinds: list[list[Detectable]] = [
        detectability(this, prompts(this), whole, {"logits"}.__contains__),
        detectability(this, prompts(this), excess),
        detectability(this, designed(this), excess),
    ]
    rows = []
    for found in zip(*kinds, strict=True):
        best = found[-1]
        cells = "".join(f"{smallest_text(each):>12}" for each in found)
        rows.append(f"{best.field:34}{best.value:>12.6g}{cells}  {best.place or 'needs ' + best.needs}")
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Print the table of each family; the exit status is 1 if nothing would be detected."""
    parser = argparse.ArgumentParser(prog="python -m conformance.diagnosis.detectability", description=__doc__)
    parser.add_argument("--family", action="append", choices=CASES, metavar="CASE", help="only these (all families)")
    parser.add_argument("--dtype", default="float64", choices=["float64", *LOW_PRECISIONS], help="of the engine (float64)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    started, seen = time.perf_counter(), 0
    try:
        for family in options.family or FIXTURES:
            print(f"{family}, {options.dtype}")
            print(f"{'':34}{'value':>12}{'logits':>12}{'all taps':>12}{'+ inputs':>12}  seen first at")
            for line in lines(family, options.dtype):
                seen += "  needs " not in line
                print(line, flush=True)
    except NanollamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{time.perf_counter() - started:.0f} s")
    return 0 if seen else 1


if __name__ == "__main__":
    sys.exit(main())

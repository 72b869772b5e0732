"""`python -m conformance.diagnosis.causes`: how often the cause of a zoo bug is named correctly, and the confusion matrix."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from conformance.diagnosis.causes.confusion import Trial, measure, report
from conformance.diagnosis.causes.likely_causes import STORED
from conformance.numerics.statistics import interval


def rate(hits: int, total: int) -> dict[str, object]:
    """A rate with its interval, for JSON."""
    return {"right": hits, "of": total, "interval": [round(each, 4) for each in interval(hits, total)]}


def as_json(trials: Sequence[Trial]) -> dict[str, object]:
    """The stored numbers: rates, and the share of correct causes by way of naming."""
    shown = [trial for trial in trials if trial.case]
    parts = {"all": shown, "held out": [t for t in shown if t.held_out], "not held out": [t for t in shown if not t.held_out]}
    shares = {}
    for how, certain in (("reproduced", True), ("by features", False)):
        several = [trial for trial in shown if trial.certain is certain]
        if several:
            shares[how] = round(sum(t.within(1) for t in several) / len(several), 3)
            shares[f"{how}, not first"] = round(sum(t.within(3) and not t.within(1) for t in several) / len(several), 3)
    rates = {
        name: {f"first {count}": rate(sum(t.within(count) for t in part), len(part)) for count in (1, 3)}
        for name, part in parts.items()
    }
    return {"command": "python -m conformance.diagnosis.causes --write", "rates": rates, "shares": shares}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; the exit status is 1 if no cause was named."""
    parser = argparse.ArgumentParser(prog="python -m conformance.diagnosis.causes", description=__doc__)
    parser.add_argument("--resume", type=Path, metavar="FILE", help="keep finished bugs in FILE, and go on from there")
    parser.add_argument("--bugs", type=int, default=0, help="only the first so many bugs (0: all)")
    parser.add_argument("--write", action="store_true", help=f"store the rates in {STORED.parent.name}/{STORED.name}")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    started = time.perf_counter()
    trials = measure(options.resume, options.bugs)
    for line in report(trials):
        print(line)
    print(f"{len(trials)} bugs, {time.perf_counter() - started:.0f} s")
    if options.write:
        STORED.write_text(json.dumps(as_json(trials), indent=1) + "\n", encoding="utf-8")
    return 0 if any(trial.named for trial in trials) else 1


if __name__ == "__main__":
    sys.exit(main())

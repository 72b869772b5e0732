"""Compare an engine with transformers on the fixtures, with config keys changed: which field does the engine get wrong?

    python -m conformance.engines.compare_with_transformers ENGINE [FAMILY …] [--set KEY=JSON …] [--chunks 3,1,…] [--known]

For every family: the root mean square error of the log-probabilities, as a multiple of transformers' float32 error on the same
model, and the worst position. The near prompt is run in one call and in pieces; half the positions of the far one are beyond
4096. If a change of a field removes the difference, the engine gets that field wrong. With --known every family is run with
the changes of `known_deviations.py`, with which those engines must agree.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from conformance.engines.engine import Broken, Engine, Prompt, Unsupported
from conformance.engines.known_deviations import BEYOND, KNOWN
from conformance.engines.registry import find_engine
from conformance.models.fixtures import FIXTURES, far_prompt, fixture_config, near_prompt, write_fixture
from conformance.truth.compare import rms_error
from conformance.truth.golden import NUMERIC_FACTOR
from conformance.truth.oracle import load_oracle, oracle_logits
from nanollama.errors import NanollamaError, unknown_name

ConfigChanges = dict[str, Any]
PROGRAM = "python -m conformance.engines.compare_with_transformers"
CHUNKS = (4, 1, 1, 7, 3)  # of the near prompt's 16 tokens


class Row(NamedTuple):
    """One prompt of one family: errors in nats, and how many positions prefer another token."""

    architecture: str
    prompt: str
    error: float = 0.0
    allowed: float = 0.0
    worst: int = 0
    flipped: int = 0
    unsupported: str = ""
    broken: str = ""

    @property
    def good(self) -> bool:
        """Whether the error is within rounding, or the engine can't be compared."""
        return bool(self.unsupported) or (not self.broken and self.error <= NUMERIC_FACTOR * self.allowed)

    def __str__(self) -> str:
        head = f"{self.architecture:22} {self.prompt:7}"
        if self.unsupported or self.broken:
            what = "UNSUPPORTED" if self.unsupported else "BROKEN"
            return f"{head} {what} {' '.join((self.unsupported or self.broken).split())[:220]}"
        times, verdict = self.error / self.allowed, "ok" if self.good else "BEYOND"
        errors = f"{self.error:8.1e} nats, {times:9.1f} × float32, worst at {self.worst:2}, {self.flipped:2} flipped"
        return f"{head} {errors}  {verdict}"


def compare_family(
    engine: Engine, architecture: str, changes: ConfigChanges, chunks: tuple[int, ...] = CHUNKS
) -> Iterator[Row]:
    """Every prompt of one family."""
    config = fixture_config(architecture, **changes)
    near, (far, positions) = near_prompt(config), far_prompt(config)
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_fixture(Path(scratch), config)
        try:
            engine.load(folder)
        except Unsupported as error:
            yield Row(architecture, "all", unsupported=str(error))
            return
        for name, ids, at, sizes in (("near", near, None, ()), ("pieces", near, None, chunks), ("far", far, positions, ())):
            truth = [oracle_logits(load_oracle(folder, dtype), ids, at)[0] for dtype in (torch.float64, torch.float32)]
            places = range(ids.shape[1]) if at is None else at[0].tolist()
            yield compare_prompt(engine, architecture, name, Prompt(tuple(ids[0].tolist()), tuple(places), sizes), *truth)
        engine.close()


def compare_prompt(engine: Engine, architecture: str, name: str, prompt: Prompt, exact: Tensor, rounded: Tensor) -> Row:
    """One prompt, against transformers' logits [T, V] in float64 and in float32."""
    try:
        got = engine.run(prompt).logits.double().log_softmax(-1)
    except Unsupported as error:
        return Row(architecture, name, unsupported=str(error))
    except Broken as error:
        return Row(architecture, name, broken=str(error))
    want, allowed = exact.log_softmax(-1), rms_error(rounded.double().log_softmax(-1), exact.log_softmax(-1))
    if got.shape != want.shape:
        return Row(architecture, name, torch.inf, allowed, 0, len(want))
    worst = int((got - want).abs().amax(-1).argmax())
    return Row(architecture, name, rms_error(got, want), allowed, worst, int((got.argmax(-1) != want.argmax(-1)).sum()))


def setting(text: str) -> tuple[str, Any]:
    """KEY=JSON."""
    key, _, value = text.partition("=")
    try:
        return key, json.loads(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: want KEY=JSON, such as sliding_window=null") from None


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__.partition("\n")[0])
    parser.add_argument("engine", help="NAME[:OPTIONS], as `python -m conformance run --engine` has it")
    parser.add_argument("architecture", nargs="*", help=f"families (default: all): {', '.join(FIXTURES)}")
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="KEY=JSON", help="change a config key")
    parser.add_argument("--known", action="store_true", help="with the changes with which this engine is known to agree")
    parser.add_argument("--chunks", type=lambda text: tuple(map(int, text.split(","))), default=CHUNKS, help="of the pieces")
    return parser.parse_args()


def main() -> int:
    """Print every row; the exit status is 1 if an error is beyond rounding, 2 for bad input."""
    options = arguments()
    wrong, name = 0, options.engine.partition(":")[0]
    try:
        for architecture in options.architecture:
            if architecture not in FIXTURES:
                raise unknown_name("family", architecture, FIXTURES)
        engine = find_engine(options.engine)
        print(f"{engine.about().name} {engine.about().version}, {engine.about().dtype}", flush=True)
        for architecture in options.architecture or FIXTURES:
            changes = (KNOWN.get(name, {}).get(architecture, {}) if options.known else {}) | dict(options.set)
            excused = options.known and architecture in BEYOND.get(name, ())
            for row in compare_family(engine, architecture, changes, options.chunks):
                wrong += not row.good and not excused
                print(row, flush=True)
    except NanollamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

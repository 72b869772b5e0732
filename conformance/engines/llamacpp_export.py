"""llama.cpp as a peer: the runtime's GGUF exports in llama.cpp, and the files of llama.cpp's converter in the runtime.

    python -m conformance.engines.llamacpp_export [--architecture NAME …] [--converter FOLDER]

Needs llama-cpp-python (`nox -s llamacpp` installs it). Three checks per architecture, at every position:

* *ours → llama.cpp*: a checkpoint folder, exported by us as F32, run by llama.cpp with an F32 cache, against our float64
  logits of the folder.
* *theirs → ours*: the same folder through llama.cpp's converter (of its source package, --converter), against the same.
* *unpermuted*: our export with the rows of q and k left in the checkpoint's order, which must fail where rows are permuted.

The bar: |Δ logit| at most 5e-3 of the logits' standard deviation, and the same top token everywhere. llama.cpp computes in
float32 with a float16 table for GELU and with fast exponentials; the bar allows for these.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from conformance.models.fixtures import FIXTURES, near_prompt
from conformance.models.gguf_fixtures import CONVERTER_CHANGES, unpermuted, write_folder
from conformance.models.readable_copy import write_vocabulary
from nanollama.checkpoint.export import export_gguf
from nanollama.checkpoint.gguf import names as gguf_names
from nanollama.checkpoint.source import open_source
from nanollama.lm import load_model

BAR = 5e-3  # of the standard deviation of the logits


class Row(NamedTuple):
    """One comparison: the largest difference in standard deviations of the logits, and positions whose top token differs."""

    architecture: str
    check: str
    worst: float
    flipped: int
    positions: int

    @property
    def agrees(self) -> bool:
        """Whether it is within the bar."""
        return self.worst <= BAR and self.flipped == 0


def llamacpp_logits(path: Path, ids: list[int]) -> Tensor:
    """The logits of llama.cpp at every position, float64 [T, V], for one sequence in a context of CONTEXT."""
    from conformance.engines.adapters import llamacpp

    model = llamacpp.load_file(path)
    with llamacpp.sequence(model, CONTEXT) as run:
        return llamacpp.decoded(run, model, ids, 0)


def compared_logits(architecture: str, check: str, truth: Tensor, found: Tensor) -> Row:
    """One row, from logits [T, V]."""
    worst = float((found - truth).abs().max() / truth.std())
    flipped = int((found.argmax(-1) != truth.argmax(-1)).sum())
    return Row(architecture, check, worst, flipped, len(truth))


CONTEXT = 256  # tokens; llama.cpp's granularity, on which length-dependent rotations depend


def our_logits(path: Path, ids: Tensor) -> Tensor:
    """Our float64 logits [T, V], in a context as long as llama.cpp's."""
    model = load_model(path, "float64", "cpu")
    return model(ids, cache=model.new_cache(1, CONTEXT))[0]


def check_architecture(architecture: str, folder: Path, converter: Path | None) -> Iterator[Row]:
    """Every comparison of one architecture; if its rows are permuted, the last one is the bug."""
    ids = near_prompt(write_folder(folder, architecture))
    truth, tokens = our_logits(folder, ids), ids[0].tolist()
    export_gguf(open_source(folder), folder / "ours.gguf", "f32")
    yield compared_logits(architecture, "ours → llama.cpp", truth, llamacpp_logits(folder / "ours.gguf", tokens))
    yield compared_logits(architecture, "ours → ours", truth, our_logits(folder / "ours.gguf", ids))
    if converter is not None:
        yield through_their_converter(architecture, folder.with_name("known"), converter, ids)
    if gguf_names.ARCHITECTURES[architecture].rotates_neighbours:
        with unpermuted():
            export_gguf(open_source(folder), folder / "wrong.gguf", "f32")
        yield compared_logits(architecture, UNPERMUTED, truth, llamacpp_logits(folder / "wrong.gguf", tokens))


def through_their_converter(architecture: str, folder: Path, converter: Path, ids: Tensor) -> Row:
    """A folder converted by llama.cpp's converter and run by the runtime."""
    from conformance.engines.adapters.llamacpp import converted

    raw = write_folder(folder, architecture, **CONVERTER_CHANGES.get(architecture, {}))
    truth = our_logits(folder, ids)
    write_vocabulary(folder, raw["vocab_size"])
    found = our_logits(converted(converter, folder, folder / "theirs.gguf"), ids)
    return compared_logits(architecture, "theirs → ours", truth, found)


UNPERMUTED = "unpermuted → llama.cpp"


def main() -> int:
    """Print every comparison; returns 1 if one that must agree does not, or one that must not does."""
    parser = argparse.ArgumentParser(
        prog="python -m conformance.engines.llamacpp_export", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--architecture", action="append", choices=list(FIXTURES), help="only this one (may be repeated)")
    parser.add_argument("--converter", type=Path, help="llama.cpp's source, where convert_hf_to_gguf.py is")
    options = parser.parse_args()
    wrong = 0
    for architecture in options.architecture or FIXTURES:
        with tempfile.TemporaryDirectory() as folder:
            for row in check_architecture(architecture, Path(folder, "model"), options.converter):
                good = row.agrees != (row.check == UNPERMUTED)
                wrong += not good
                verdict = "ok" if good else "WRONG"
                flipped = f"{row.flipped:2}/{row.positions} flipped"
                print(f"{row.architecture:22} {row.check:24} {row.worst:9.2e} std, {flipped}  {verdict}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

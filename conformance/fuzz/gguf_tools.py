"""The hostile-GGUF fuzz for the tools: `nanollama show` and `nanollama quantize` give correct output, or a NanollamaError.

    python -m conformance.fuzz.gguf_tools --cases 10000

Files, damage, runner and options are those of `gguf.py`.
"""

import argparse
import contextlib
import io
import random
import sys
from pathlib import Path

from conformance.fuzz import checkpoint as fuzz_checkpoint
from conformance.fuzz.gguf import write_model

TARGET = "conformance.fuzz.gguf_tools:use_tools"
SET = ("general.file_type", "general.quantization_version")
DROPPED = ("split.no", "split.count", "split.tensors.count")
fuzz_checkpoint.KINDS[TARGET] = ["gguf"] * 12 + ["folder"]


def use_tools(folder: Path) -> None:
    """Show every GGUF file of the folder, quantize it to some type, and check the output and the new file."""
    from nanollama.checkpoint.gguf.reader import read_gguf
    from nanollama.errors import NanollamaError

    if folder.name == "sound":  # it holds a safetensors checkpoint
        write_model(folder, random.Random(0), damage=0)
    refused, written = None, folder.parent / "written"
    for path in sorted(folder.glob("*.gguf")) or [folder / "model.gguf"]:
        try:
            shown = show_and_quantize(path, written)
        except NanollamaError as error:
            refused = error
            assert str(error).isprintable() and len(str(error)) < 1000, f"{path}: {error!r}"
            continue
        assert all(letter.isprintable() or letter == "\n" for letter in shown), f"{path} shows {shown!r}"
        before, after = read_gguf(path), read_gguf(written)
        assert {name: x.shape for name, x in after.tensors.items()} == {name: x.shape for name, x in before.tensors.items()}
        kept = {key: type_ for key, type_ in before.types.items() if key not in (*SET, *DROPPED)}
        assert {key: type_ for key, type_ in after.types.items() if key not in SET} == kept
        assert [repr(after.metadata[key]) for key in kept] == [repr(before.metadata[key]) for key in kept]  # NaN != NaN
    if refused:
        raise refused


def show_and_quantize(path: Path, written: Path) -> str:
    """The output of both commands."""
    from nanollama.checkpoint.gguf.reader import read_gguf
    from nanollama.cli.quantize import quantize_command
    from nanollama.cli.show import gguf_lines
    from nanollama.quant.file_types import FILE_TYPES

    size = path.stat().st_size if path.is_file() else 0
    file_type = list(FILE_TYPES)[size // 32 % len(FILE_TYPES)]
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.redirect_stderr(shown):
        print(*gguf_lines(read_gguf(path), tensors=True), sep="\n")
        quantize_command(argparse.Namespace(source=str(path), to=str(written), type=file_type, allow_requantize=True))
    return shown.getvalue()


if __name__ == "__main__":
    raise SystemExit(fuzz_checkpoint.main(["--target", TARGET, *sys.argv[1:]]))

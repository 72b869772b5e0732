"""`nanollama quantize`: a GGUF file written again in another file type."""

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from math import prod
from pathlib import Path

from torch import Tensor

from nanollama.checkpoint.gguf.quantize import plan_quantized, refuse_input_as_target
from nanollama.checkpoint.gguf.reader import GGUFTensor, read_gguf
from nanollama.checkpoint.gguf.writer import GgufPlan, NewTensor, write_gguf
from nanollama.cli.output import file_path, notice, write
from nanollama.errors import NanollamaError, quote
from nanollama.quant.file_types import find_file_type


def quantize_command(options: Namespace) -> int:
    """Write a GGUF file in another file type."""
    source, target, file_type = file_path(options.source), file_path(options.to), options.type.lower()
    find_file_type(file_type)
    if source.is_dir():
        raise NanollamaError(f"{source} is a folder: expected a GGUF file; `nanollama export` makes one of a folder")
    model = read_gguf(source)
    refuse_input_as_target(target, model.paths)
    plan = plan_quantized(model, file_type, options.allow_requantize)
    write_plan(plan, target)
    write(summary(str(target), list(model.tensors.values()), plan.tensors))
    return 0


def write_plan(plan: GgufPlan, target: Path) -> None:
    """Print the warnings, then write the file and show the progress."""
    for warning in plan.warnings:
        notice(warning)
    with progress(plan.tensors) as watched:
        write_gguf(target, plan.metadata, watched, plan.types)


@contextmanager
def progress(tensors: Sequence[NewTensor]) -> Iterator[Sequence[NewTensor]]:
    """The same tensors; if stderr is a terminal, a line on it shows how much of their data has been taken."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield tensors
        return
    total, done = max(1, sum(tensor.size for tensor in tensors)), 0

    def watched(tensor: NewTensor) -> Iterator[Tensor]:
        nonlocal done
        for piece in tensor.data():
            show_progress(f"{100 * done // total:3} %  {quote(tensor.name)[1:-1]}")
            yield piece
            done += piece.numel()

    try:
        yield [tensor._replace(data=partial(watched, tensor)) for tensor in tensors]
    finally:
        show_progress("")


def show_progress(text: str) -> None:
    """Replace the current line of stderr."""
    with suppress(OSError):
        print(f"\r{text[:78]:78}" if text else f"\r{'':78}\r", end="", file=sys.stderr, flush=True)


def summary(name: str, before: Sequence[GGUFTensor], after: Sequence[NewTensor]) -> str:
    """Sizes before and after, and a line for each format."""
    sizes = Counter[str]()
    counts = Counter(tensor.format.name for tensor in after)
    for tensor in after:
        sizes[tensor.format.name] += tensor.size
    values = max(1, sum(prod(tensor.shape) for tensor in after))
    old, new = sum(tensor.blocks.numel() for tensor in before), sum(sizes.values())
    bits = f"{8 * old / values:.2f} → {8 * new / values:.2f} bits per weight"
    lines = [f"{name}: {len(after)} tensors, {old:,} → {new:,} bytes ({bits})"]
    lines += [f"  {format:8} {counts[format]:5} tensors {size:16,} bytes" for format, size in sizes.most_common()]
    return "".join(f"{line}\n" for line in lines)

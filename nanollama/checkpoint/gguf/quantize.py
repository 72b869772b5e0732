"""`nanollama quantize`: one GGUF file written again in another file type, tensor by tensor.

It needs no model: any architecture will do, for only names and shapes decide (quant/mixes.py). The metadata stay as they are,
except for those that say how the tensors are stored.
"""

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor

from nanollama.checkpoint.gguf.reader import GGUF, GGUFTensor, read_gguf
from nanollama.checkpoint.gguf.values import UINT32, ValueType
from nanollama.checkpoint.gguf.writer import NewTensor, encoded, stored, write_gguf
from nanollama.cli.output import file_path, notice, write
from nanollama.errors import NanollamaError, quote
from nanollama.quant import dequantize, tensor_rows
from nanollama.quant.file_types import FILE_TYPES, find_file_type
from nanollama.quant.formats.format import Format
from nanollama.quant.mixes import choose_formats

QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION in ggml.h: of the block formats
NEW_TYPES = dict.fromkeys(("general.file_type", "general.quantization_version"), ValueType(UINT32))


def quantize_command(options: Namespace) -> int:
    """Write a GGUF file in another file type."""
    source, target, file_type = file_path(options.source), file_path(options.to), options.type.lower()
    find_file_type(file_type)
    if source.is_dir():
        raise NanollamaError(f"{source} is a folder: expected a GGUF file; `nanollama export` makes one of a folder")
    model = read_gguf(source)
    refuse_own_input(target, model.paths)
    tensors = plan_tensors(model, file_type, options.allow_requantize)
    with progress(tensors) as watched:
        write_gguf(target, new_metadata(model, file_type), watched, model.types | NEW_TYPES)
    write(summary(str(target), list(model.tensors.values()), tensors))
    return 0


def new_metadata(model: GGUF, file_type: str) -> dict[str, Any]:
    """The model's metadata, with what they say about types set, and about parts left out."""
    kept = {
        key: value for key, value in model.metadata.items() if key not in ("split.no", "split.count", "split.tensors.count")
    }
    numbers = FILE_TYPES[file_type].number, QUANTIZATION_VERSION
    return kept | dict(zip(NEW_TYPES, numbers, strict=True))


def refuse_own_input(target: Path, sources: Iterable[Path]) -> None:
    """Raise if the file to write is one of those that are read."""
    try:
        own = target.exists() and any(target.samefile(source) for source in sources)
    except OSError as error:
        raise NanollamaError(f"{quote(str(target))} can't be written: {error.strerror or error}") from error
    if own:
        raise NanollamaError(f"{target} is the file that is read: expected another name to write to")


def plan_tensors(model: GGUF, file_type: str, allow_requantize: bool) -> list[NewTensor]:
    """Each tensor of the model as it will be written."""
    chosen = choose_formats(file_type, {name: tensor.shape for name, tensor in model.tensors.items()}, model.metadata)
    plans, requantized = [], []
    for name, tensor in model.tensors.items():
        format = chosen[name] or tensor.format
        if format == tensor.format or is_integer(tensor.format):
            plans.append(stored(tensor))
            continue
        if tensor.format.block_size > 1:
            requantized.append(tensor)
        plans.append(recoded(tensor, format))
    if requantized:
        say_requantized(requantized, allow_requantize)
    return plans


def is_integer(format: Format) -> bool:
    """Whether these are whole numbers, which are indices and never weights."""
    return format.plain is not None and not format.plain.is_floating_point


def say_requantized(tensors: Sequence[GGUFTensor], allowed: bool) -> None:
    """Refuse to round a second time what is rounded already, or say that it will be done."""
    formats = ", ".join(sorted({tensor.format.name for tensor in tensors}))
    what = f"{len(tensors)} tensors are quantized already ({formats})"
    if not allowed:
        raise NanollamaError(
            f"{what}, {quote(tensors[0].name)} among them: to round them a second time loses more than to quantize the F32 or "
            "F16 file; start from that one, or give --allow-requantize"
        )
    notice(f"{what}: they are decoded to float32 and rounded a second time")


def recoded(tensor: GGUFTensor, format: Format) -> NewTensor:
    """A tensor in another format, by way of float32, a slab of rows at a time."""
    blocks = tensor_rows(tensor.blocks, tensor.format, tensor.shape)
    columns = tensor.shape[-1] if tensor.shape else 1

    def rows(part: slice) -> Tensor:
        some = blocks[part]
        return dequantize(some, tensor.format, (some.shape[0], columns))

    return encoded(tensor.name, tensor.shape, format, rows)


@contextmanager
def progress(tensors: Sequence[NewTensor]) -> Iterator[Sequence[NewTensor]]:
    """The same tensors; while they are written in the block, a line on stderr, if it is a terminal, says how far it is."""
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
    """Replace the line that stands there."""
    with suppress(OSError):
        print(f"\r{text[:78]:78}" if text else f"\r{'':78}\r", end="", file=sys.stderr, flush=True)


def summary(name: str, before: Sequence[GGUFTensor], after: Sequence[NewTensor]) -> str:
    """What was written, in a few lines."""
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

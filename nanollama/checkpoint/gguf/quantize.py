"""Plans a GGUF file in another file type, tensor by tensor.

Names and shapes decide the formats (quant/mixes.py), so any architecture will do. The metadata stay as they are, except for
the keys that state how the tensors are stored.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from nanollama.checkpoint.gguf.reader import GGUF, GGUFTensor
from nanollama.checkpoint.gguf.values import UINT32, ValueType
from nanollama.checkpoint.gguf.writer import GgufPlan, NewTensor, encoded, stored
from nanollama.errors import NanollamaError, quote
from nanollama.quant import dequantize, tensor_rows
from nanollama.quant.file_types import FILE_TYPES
from nanollama.quant.formats.format import Format
from nanollama.quant.mixes import choose_formats

QUANTIZATION_VERSION = 2  # of the block formats: GGML_QNT_VERSION in ggml.h
NEW_TYPES = dict.fromkeys(("general.file_type", "general.quantization_version"), ValueType(UINT32))


def plan_quantized(model: GGUF, file_type: str, allow_requantize: bool = False) -> GgufPlan:
    """The model in another file type. NanollamaError if blocks would be rounded a second time and that is not allowed."""
    chosen = choose_formats(file_type, {name: tensor.shape for name, tensor in model.tensors.items()}, model.metadata)
    tensors, requantized = [], []
    for name, tensor in model.tensors.items():
        format = chosen[name] or tensor.format
        if format == tensor.format or is_integer(tensor.format):
            tensors.append(stored(tensor))
            continue
        if tensor.format.block_size > 1:
            requantized.append((name, tensor.format))
        tensors.append(recoded(tensor, format))
    warnings = check_requantized(requantized, allow_requantize)
    return GgufPlan(new_metadata(model, file_type), tensors, model.types | NEW_TYPES, warnings)


def new_metadata(model: GGUF, file_type: str) -> dict[str, Any]:
    """The metadata with the new file type and without the keys of split files."""
    split = ("split.no", "split.count", "split.tensors.count")
    kept = {key: value for key, value in model.metadata.items() if key not in split}
    numbers = FILE_TYPES[file_type].number, QUANTIZATION_VERSION
    return kept | dict(zip(NEW_TYPES, numbers, strict=True))


def refuse_input_as_target(target: Path, inputs: Iterable[Path]) -> None:
    """Raise if the file to write is one of the files that are read."""
    try:
        same = target.exists() and any(target.samefile(path) for path in inputs)
    except OSError as error:
        raise NanollamaError(f"{quote(str(target))} can't be written: {error.strerror or error}") from error
    if same:
        raise NanollamaError(f"{target} is the file that is read: expected another name to write to")


def is_integer(format: Format) -> bool:
    """Whether the values are integers, which are indices and never weights."""
    return format.plain is not None and not format.plain.is_floating_point


def check_requantized(tensors: Sequence[tuple[str, Format]], allowed: bool) -> tuple[str, ...]:
    """The warning for tensors, (name, stored format), that are rounded a second time; NanollamaError if not allowed."""
    if not tensors:
        return ()
    formats = ", ".join(sorted({format.name for _, format in tensors}))
    already = f"{len(tensors)} tensors are quantized already ({formats})"
    if not allowed:
        raise NanollamaError(
            f"{already}, {quote(tensors[0][0])} among them: rounding twice loses more than rounding the original once; start "
            "from the original, or give --allow-requantize"
        )
    return (f"{already}: they are decoded to float32 and rounded a second time",)


def recoded(tensor: GGUFTensor, format: Format) -> NewTensor:
    """A tensor in another format, by way of float32, a slab of rows at a time."""
    blocks = tensor_rows(tensor.blocks, tensor.format, tensor.shape)
    columns = tensor.shape[-1] if tensor.shape else 1

    def rows(part: slice) -> Tensor:
        some = blocks[part]
        return dequantize(some, tensor.format, (some.shape[0], columns))

    return encoded(tensor.name, tensor.shape, format, rows)

"""`nanollama show`: what a checkpoint holds, read from its headers; of a GGUF file the metadata, whatever its architecture.

A file may hold whatever its maker liked, so nothing of it goes to the terminal raw: control characters, bytes that are not
UTF-8 and characters that can't be seen are escaped, long strings and arrays are cut, with their length.
"""

from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from math import prod
from pathlib import Path
from typing import Any

from nanollama.checkpoint.gguf.reader import GGUF, GGUFTensor, read_gguf
from nanollama.checkpoint.gguf.values import FLOAT32, ValueType
from nanollama.checkpoint.hub import resolve
from nanollama.checkpoint.safetensors import read_folder
from nanollama.checkpoint.source import open_source
from nanollama.cli.output import write
from nanollama.lm import load_model
from nanollama.model.config import ModelConfig
from nanollama.quant.weight_only import quantize_model

LONGEST = 100  # characters shown of a string, and of an array's first elements
FIRST = 8  # elements shown of an array


def show_command(options: Namespace) -> int:
    """Config, number of parameters, and tensors of a checkpoint; of a GGUF file its metadata."""
    path = resolve(options.model, offline=True)
    if options.quantize:
        lines = quantization_lines(path, options.quantize)
    elif path.is_file():
        lines = gguf_lines(read_gguf(path), options.tensors)
    else:
        lines = folder_lines(path, options.tensors)
    for line in lines:
        write(f"{line}\n")
    return 0


def folder_lines(folder: Path, tensors: bool) -> Iterator[str]:
    """Config, parameters, bytes per dtype and, if asked for, every stored tensor."""
    source, stored = open_source(folder), read_folder(folder)
    yield f"{folder}\n"
    for name, value in config_lines(source.config):
        yield f"{name:24} {value}"
    yield f"{'bos_token_id':24} {source.bos_token_id}"
    yield f"{'eos_token_ids':24} {source.eos_token_ids}"
    parameters = sum(prod(tensor.shape) for tensor in {id(tensor): tensor for tensor in source.tensors.values()}.values())
    yield f"\nparameters               {parameters:,}\n"
    sizes, counts = Counter[str](), Counter(dtype_name(tensor.dtype) for tensor in stored.values())
    for tensor in stored.values():
        sizes[dtype_name(tensor.dtype)] += tensor.numel() * tensor.element_size()
    for dtype, size in sizes.items():
        yield f"{dtype:24} {counts[dtype]} tensors, {size:,} bytes"
    if tensors:
        yield ""
        for name, tensor in stored.items():
            yield f"{name:48} {dtype_name(tensor.dtype):9} {list(tensor.shape)}"


def quantization_lines(path: Path, quantize: str) -> Iterator[str]:
    """The error that `--quantize` makes in every matrix of a model, and the bytes before and after."""
    model = load_model(path, "float32", "cpu")
    kept = sum(parameter.nbytes for parameter in model.parameters())
    changes = quantize_model(model, quantize)
    yield f"{'matrix':44} {'shape':>14}  stored  error    float32 bytes → bytes"
    for change in changes:
        shape = " x ".join(map(str, change.shape))
        sizes = f"{change.bytes_before:13,} → {change.bytes_after:,}"
        yield f"{change.name:44} {shape:>14}  {change.format:6}  {change.error:.4f}  {sizes}"
    before, after = (sum(getattr(change, name) for change in changes) for name in ("bytes_before", "bytes_after"))
    yield f"{'all weights':44} {'':14}  {'':6}  {'':6}  {kept:13,} → {kept - before + after:,}"


def config_lines(config: ModelConfig) -> list[tuple[str, str]]:
    """The fields of a config as text; a field with one entry per layer is shown once if all layers have the same."""
    lines = []
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, tuple) and len(value) == config.num_hidden_layers and len(set(value)) == 1:
            value = f"{value[0]}, in every layer"
        lines.append((field.name, str(value)))
    return lines


def dtype_name(dtype: object) -> str:
    """A dtype's name without "torch."."""
    return str(dtype).removeprefix("torch.")


def gguf_lines(model: GGUF, tensors: bool) -> Iterator[str]:
    """The metadata of a GGUF file and its tensors, counted or listed; of a split model, of all its parts."""
    yield from (str(path) for path in model.paths)
    yield ""
    width = min(60, max([24, *map(len, model.metadata)]))
    for key, value in model.metadata.items():
        type_ = model.types[key]
        yield f"{visible(key):{width}}  {type_!s:16}  {brief(value, type_)}"
    yield ""
    yield from gguf_totals(list(model.tensors.values()))
    if tensors:
        yield ""
        for tensor in model.tensors.values():
            yield f"{visible(tensor.name):40} {tensor.format.name:7} {tensor.blocks.numel():15,}  {list(tensor.shape)}"


def gguf_totals(tensors: list[GGUFTensor]) -> Iterator[str]:
    """Tensors, parameters, bits per weight, and bytes per format."""
    values = sum(prod(tensor.shape) for tensor in tensors)
    sizes, counts = Counter[str](), Counter(tensor.format.name for tensor in tensors)
    for tensor in tensors:
        sizes[tensor.format.name] += tensor.blocks.numel()
    yield f"tensors                   {len(tensors):,}"
    if tensors:
        yield f"parameters                {values:,}"
        yield f"bits per weight           {8 * sum(sizes.values()) / values:.2f}"
    for name, size in sizes.most_common():
        yield f"{name:24}  {counts[name]} tensors, {size:,} bytes"


def brief(value: Any, type_: ValueType) -> str:
    """A value on one line: an array as its length and its first elements."""
    if isinstance(value, list):
        return f"{len(value):,}: {shortened(value, type_)}"
    return visible(value) if isinstance(value, str) else number_text(value, type_.kind)


def shortened(values: list[Any], type_: ValueType) -> str:
    """The first elements of an array, in brackets."""
    shown, length = [], 0
    for place, item in enumerate(values[:FIRST]):
        if isinstance(item, list):
            shown.append(shortened(item, type_.inner[place]))
        else:
            shown.append(f'"{visible(item, 32)}"' if isinstance(item, str) else number_text(item, type_.elements))
        length += len(shown[-1])
        if length > LONGEST:
            break
    return f"[{', '.join([*shown, '…'] if len(shown) < len(values) else shown)}]"


def number_text(value: Any, kind: int | None) -> str:
    """A number or a boolean; a float32 with 7 digits, which is its precision."""
    return f"{value:.7g}" if kind == FLOAT32 else str(value)


def visible(text: str, longest: int = LONGEST) -> str:
    """A text with everything escaped that is not visible; if it is too long, its beginning and its length.

    Lone surrogates stand for bytes that are not UTF-8 (checkpoint/gguf/values.py) and are shown as bytes.
    """
    shown = "".join(letter if letter.isprintable() and letter != "\\" else escaped(letter) for letter in text[:longest])
    return shown if len(text) <= longest else f"{shown}… ({len(text):,} characters)"


def escaped(letter: str) -> str:
    """A character as an escape: \\n, \\x1b, \\u2028; a byte that was not UTF-8 as \\xff."""
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")

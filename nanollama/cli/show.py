"""`nanollama show FILE.gguf`: the metadata, and how the tensors are stored. It needs no model: any GGUF file will do.

A file may hold whatever its maker liked, so nothing of it goes to the terminal raw: control characters, bytes that are not
UTF-8 and characters that can't be seen are escaped, long strings and arrays are cut, with their length.
"""

from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

from nanollama.checkpoint.gguf.reader import GGUF, GGUFTensor, read_gguf
from nanollama.checkpoint.gguf.values import FLOAT32, ValueType
from nanollama.cli.output import write

LONGEST = 100  # characters shown of a string, and of an array's first elements
FIRST = 8  # elements shown of an array


def show_gguf(path: Path, tensors: bool = False) -> None:
    """Write what is in a GGUF file to stdout; of a split model, what is in all its parts."""
    model = read_gguf(path)
    for line in lines(model, tensors):
        write(f"{line}\n")


def lines(model: GGUF, tensors: bool) -> Iterator[str]:
    yield from (str(path) for path in model.paths)
    yield ""
    width = min(60, max([24, *map(len, model.metadata)]))
    for key, value in model.metadata.items():
        type_ = model.types[key]
        yield f"{visible(key):{width}}  {type_!s:16}  {brief(value, type_)}"
    yield ""
    yield from totals(list(model.tensors.values()))
    if tensors:
        yield ""
        for tensor in model.tensors.values():
            yield f"{visible(tensor.name):40} {tensor.format.name:7} {tensor.blocks.numel():15,}  {list(tensor.shape)}"


def totals(tensors: list[GGUFTensor]) -> Iterator[str]:
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
    return visible(value) if isinstance(value, str) else number(value, type_.kind)


def shortened(values: list[Any], type_: ValueType) -> str:
    """The first elements of an array, in brackets."""
    shown, length = [], 0
    for place, item in enumerate(values[:FIRST]):
        if isinstance(item, list):
            shown.append(shortened(item, type_.inner[place]))
        else:
            shown.append(f'"{visible(item, 32)}"' if isinstance(item, str) else number(item, type_.elements))
        length += len(shown[-1])
        if length > LONGEST:
            break
    return f"[{', '.join([*shown, '…'] if len(shown) < len(values) else shown)}]"


def number(value: Any, kind: int | None) -> str:
    """A number or a boolean; a float32 with the digits that it has."""
    return f"{value:.7g}" if kind == FLOAT32 else str(value)


def visible(text: str, longest: int = LONGEST) -> str:
    """A text with everything escaped that is not plainly visible; where it is too long, its beginning and its length.

    Lone surrogates stand for bytes that are not UTF-8, see gguf_values.py: they are shown as such.
    """
    shown = "".join(letter if letter.isprintable() and letter != "\\" else escaped(letter) for letter in text[:longest])
    return shown if len(text) <= longest else f"{shown}… ({len(text):,} characters)"


def escaped(letter: str) -> str:
    """A character as an escape: \\n, \\x1b, \\u2028; a byte that was not UTF-8 as \\xff."""
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")

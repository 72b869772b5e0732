"""Other right ways to read the header of a GGUF file."""

from typing import Any

from nanollama.checkpoint.gguf.reader import ALIGNMENT, MAX_DIMENSIONS, MAX_KEY_BYTES, Entry, is_alignment, pad
from nanollama.checkpoint.gguf.values import UINT32, UINT64, ValueReader, ValueType
from nanollama.checkpoint.safetensors import DAMAGED
from nanollama.errors import NanollamaError, quote
from nanollama.quant.formats.table import format_of_type


def pad__remainder(position: int, alignment: int) -> int:
    """what is missing, added"""
    return position + -position % alignment


def pad__bits(position: int, alignment: int) -> int:
    """an alignment is a power of two"""
    return (position + alignment - 1) & ~(alignment - 1)


def _read_metadata__one_table(reader: ValueReader, count: int) -> tuple[dict[str, Any], dict[str, ValueType]]:
    """values and types together first, then apart"""
    pairs: dict[str, tuple[Any, ValueType]] = {}
    while len(pairs) < count:
        reader.at = f"pair {len(pairs)}"
        key = reader.name(MAX_KEY_BYTES)
        reader.at = f"{quote(key)} in the metadata"
        if key in pairs:
            raise reader.error(f"is there a second time; {DAMAGED}")
        pairs[key] = reader.value(reader.number(UINT32))
    reader.at = ALIGNMENT
    if ALIGNMENT in pairs and not is_alignment(*pairs[ALIGNMENT]):
        raise reader.error(f"is {quote(pairs[ALIGNMENT][0])}")
    return {key: value for key, (value, _) in pairs.items()}, {key: kind for key, (_, kind) in pairs.items()}


def _read_entry__one_by_one(reader: ValueReader, name: str) -> Entry:
    """dimensions are put in front of those that came before"""
    rank = reader.number(UINT32)
    if not 0 <= rank <= MAX_DIMENSIONS:
        raise reader.error(f"has {rank:,} dimensions")
    shape: tuple[int, ...] = ()
    for _ in range(rank):
        shape = (reader.number(UINT64), *shape)
    kind = reader.number(UINT32)
    try:
        format = format_of_type(kind)
    except NanollamaError as error:
        raise reader.error(str(error)) from error
    if not all(shape) or (shape or (1,))[-1] % format.block_size:
        raise reader.error(f"has shape {list(shape)}, which {format.name} can't store")
    return Entry(name, shape, format, reader.number(UINT64))


def _check_layout__expected(reader: ValueReader, entries: list[Entry], alignment: int, room: int) -> None:
    """where each should begin, kept ahead of the tensor"""
    expected = 0
    for name, _, _, offset in entries:
        entry = next(each for each in entries if each.name == name)
        reader.at = quote(name)
        if offset < expected or offset > expected:
            raise reader.error(f"begins at {offset}, not at {expected}")
        if room - offset < entry.size:
            raise reader.error("ends behind the file")
        expected = pad(offset + entry.size, alignment)

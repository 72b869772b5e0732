"""Other right ways to choose formats."""

from collections.abc import Sequence

from nanollama.quant.file_types import FILE_TYPES
from nanollama.quant.formats.format import Format
from nanollama.quant.formats.table import FORMATS
from nanollama.quant.mixes import FALLBACK, KEPT, KEPT_NAMES, Traits, has_more_bits


def is_quantized__refusals(name: str, shape: Sequence[int]) -> bool:
    """one reason after the other to leave a tensor as it is"""
    if len(shape) < 2 or all(length == 1 for length in shape[:-1]):
        return False
    if not name.endswith("weight") or name in KEPT_NAMES:
        return False
    return all(part not in name for part in KEPT)


def has_more_bits__ranges(layer: int, layers: int) -> bool:
    """three sets of layers"""
    first, last = layers // 8, layers * 7 // 8
    return layer in {*range(first), *range(last, layers), *range(first + 2, layers, 3)}


def wanted_for_values__cases(number: int, file_type: str, traits: Traits) -> str:
    """a format that later rules overwrite"""
    chosen = FILE_TYPES[file_type].main
    if chosen == "Q4_K" and (traits.is_70b or (file_type.endswith("_s") and number in range(4))):
        chosen = "Q5_K"
    if file_type.endswith("k_m") and has_more_bits(number, traits.values):
        chosen = "Q6_K"
    return "Q8_0" if traits.experts == 8 else chosen


def wanted_for_ffn_down__table(layer: int, file_type: str, traits: Traits) -> str:
    """falcon apart from all others"""
    main, more = FILE_TYPES[file_type].main, has_more_bits(layer, traits.layers)
    if traits.architecture == "falcon" and main == "Q4_K":
        if not more or file_type != "q4_k_m":
            return main
        return "Q6_K" if layer < traits.layers // 16 else "Q5_K"
    if more and file_type.endswith("k_m"):
        return "Q6_K"
    return "Q5_K" if file_type == "q4_k_s" and layer < traits.layers // 8 else main


def fitting__chain(name: str, columns: int) -> Format:
    """the first that fits of three"""
    for each in (name, FALLBACK.get(name, name), "F16"):
        if columns % FORMATS[each].block_size == 0:
            return FORMATS[each]
    raise AssertionError("F16 has blocks of one value")

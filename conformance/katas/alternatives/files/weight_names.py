"""Other right ways to rename and take apart."""

import re

from torch import Tensor

from nanollama.checkpoint.names import part_rows
from nanollama.errors import NanollamaError
from nanollama.model.config import ModelConfig
from nanollama.model.families import Family


def rename__patterns(family: Family, name: str) -> str:
    """every rule as a regular expression"""
    for old, new in family.renames:
        anchor = "" if old[0] == "." else "^"
        name = re.sub(anchor + re.escape(old), new, name)
    return name


def split__slices(config: ModelConfig, name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """where each part begins, and a slice of the rows"""
    family = config.family
    if family.transposed and tensor.dim() == 2 and name.startswith("layers."):
        tensor = tensor.t()
    whole = next((each for each in family.fused or {} if f".{each}." in name), None)
    if whole is None:
        return [(name, tensor)]
    assert family.fused is not None
    begin, pieces = 0, []
    total = [part_rows(config, part) for part in family.fused[whole]]
    if not tensor.shape or tensor.shape[0] != sum(total):
        raise NanollamaError(f"{name} has shape {list(tensor.shape)}, not {' + '.join(str(each) for each in total)} rows")
    for part, count in zip(family.fused[whole], total, strict=True):
        pieces.append((name.replace(whole, part), tensor[begin : begin + count]))
        begin += count
    return pieces


def split__narrow(config: ModelConfig, name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """the parts are taken from the front, one by one"""
    turned = config.family.transposed and name.startswith("layers.") and tensor.ndim == 2
    rest = tensor.transpose(0, 1) if turned else tensor
    for fused, parts in dict(config.family.fused or {}).items():
        head, found, tail = name.partition(f".{fused}.")
        if not found:
            continue
        counts = [part_rows(config, part) for part in parts]
        if rest.ndim < 1 or rest.size(0) != sum(counts):
            raise NanollamaError(f"{name} is {list(tensor.shape)}; expected {' + '.join(map(str, counts))} rows")
        made = []
        for part, count in zip(parts, counts, strict=True):
            made.append((f"{head}.{part}.{tail}", rest.narrow(0, 0, count)))
            rest = rest.narrow(0, count, rest.size(0) - count)
        return made
    return [(name, rest)]

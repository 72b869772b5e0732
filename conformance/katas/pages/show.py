"""Values as text on a page: exact if short, else their shape and dtype."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def number(value: Any) -> str:
    """A number with up to six digits; a dtype without "torch."."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).removeprefix("torch.")


def shown(value: Any) -> str:
    """A value as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} = {shown(each)}" for name, each in value.items())
    if isinstance(value, Tensor):
        if value.numel() > 64:
            return f"a tensor {list(value.shape)} of {number(value.dtype)}"
        kind = "" if value.dtype in (torch.float32, torch.int64, torch.bool) else f" ({number(value.dtype)})"
        return shown(value.tolist()) + kind
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))})"
    return number(value) if isinstance(value, float) else repr(value)

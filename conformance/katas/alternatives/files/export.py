"""Other right ways to express a model in GGUF's keys, and to check the result."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch

from nanollama.checkpoint.gguf.config import config_from_gguf
from nanollama.checkpoint.gguf.metadata import CLOSE, NOT_COMPARED, close, rope_tensors, same_rotation
from nanollama.errors import NanollamaError
from nanollama.model.config import ModelConfig, read_config


def window_keys__by_architecture(config: ModelConfig) -> dict[str, Any]:
    """the size first, 0 for none; then what each architecture does with it"""
    sizes = sorted({window or 0 for window in config.windows} - {0})
    if sizes[1:]:
        raise NanollamaError(f"one GGUF file can't hold windows of {sizes}")
    keys: dict[str, Any] = {"attention.sliding_window": sizes[0] if sizes else 0}
    if config.architecture in ("Gemma2ForCausalLM", "Gemma3ForCausalLM"):
        return keys | ({"attention.sliding_window_pattern": [bool(window) for window in config.windows]} if sizes else {})
    return keys if config.architecture == "Phi3ForCausalLM" else {}


def close__cases(ours: Any, theirs: Any) -> bool:
    """one type after the other"""
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, tuple):
        return len(ours) == len(theirs) and all(map(close, ours, theirs))
    return abs(ours - theirs) <= CLOSE * max(abs(ours), abs(theirs)) if isinstance(ours, float) else ours == theirs


def check_expressible__differences(
    config: ModelConfig, metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """all differences first; the first of them is reported"""
    stored = dict(metadata)
    for key, value in metadata.items():
        if isinstance(value, float):
            stored[key] = torch.tensor(value).float().item()
    read = read_config(config_from_gguf(stored, shapes, rope_tensors(config)))
    names = [each.name for each in fields(config) if each.name not in (*NOT_COMPARED, "ropes")]
    lost = [name for name in names if not close(getattr(config, name), getattr(read, name))]
    lost += [] if same_rotation(config, read) else ["ropes"]
    if lost:
        raise NanollamaError(f"a GGUF file can't say {lost[0]} = {getattr(config, lost[0])}")

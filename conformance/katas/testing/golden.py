"""Real numbers for the last tests of a kata: transformers' float64 results in golden/, and the weights they were made with."""

import json
from typing import Any

from safetensors import safe_open
from torch import Tensor

from conformance import ROOT
from conformance.models.weights import derived_tensors

AGREES = 1e-10  # two correct float64 programs differ by about 1e-14 here


def tap(architecture: str, name: str) -> Tensor:
    """A value inside that family's model, "near/layers.0.input_layernorm": float64."""
    with safe_open(ROOT / "golden" / architecture / "taps.safetensors", "pt") as file:
        return file.get_tensor(name)


def weight(architecture: str, name: str, *shape: int) -> Tensor:
    """A weight of that model by its name in a checkpoint: float64, derived from the recipe's seed."""
    return derived_tensors({name: shape}, recipe(architecture)["seed"])[name]


def recipe(architecture: str) -> dict[str, Any]:
    """The recipe of that model: its config and its seed."""
    read: dict[str, Any] = json.loads((ROOT / "golden" / architecture / "recipe.json").read_text(encoding="utf-8"))
    return read

"""Every function of the runtime that a check names as a place must exist, or its bugs are never localised."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance import ROOT

CHECKS = sorted((ROOT / "conformance" / "checks").rglob("*.py"))
ROOMS = ("checkpoint", "quant", "kernels", "text", "generation", "cli", "model")
NO_PLACE = re.compile(r"model\.(layers\.\d|embed_tokens\b|norm\b|safetensors\b|gguf$)")  # names of tensors and of files


def dotted_names(path: Path) -> Iterator[tuple[str, bool]]:
    """Every dotted name of a room in a string literal, and whether an f-string goes on from there."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    inner = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if id(node) in inner:
            continue
        head = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else node
        if isinstance(head, ast.Constant) and isinstance(head.value, str):
            found = re.match(r"[a-z_]+\.[\w.]+", head.value)
            if found and found[0].split(".")[0] in ROOMS and not NO_PLACE.match(head.value):
                yield found[0], found[0].endswith((".", "_")) or (head is not node and found.end() == len(head.value))


def resolves(name: str, goes_on: bool) -> bool:
    """Whether the runtime has this function, class or module; of an unfinished name, one that begins so."""
    *parts, last = name.split(".")
    target: Any = importlib.import_module("nanollama")
    for part in parts:
        try:
            target = getattr(target, part) if hasattr(target, part) else importlib.import_module(f"{target.__name__}.{part}")
        except (ImportError, AttributeError):
            return False
    if goes_on:
        return any(each.startswith(last) for each in dir(target))
    try:
        return hasattr(target, last) or bool(importlib.import_module(f"{target.__name__}.{last}"))
    except (ImportError, AttributeError):
        return False


@pytest.mark.parametrize("path", CHECKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_place_of_the_runtime_exists(path: Path) -> None:
    assert [name for name, goes_on in dotted_names(path) if not resolves(name, goes_on)] == []


def test_the_test_itself_sees_a_name_that_is_gone() -> None:
    assert resolves("model.layers.RMSNorm.forward", False)
    assert resolves("quant.formats.superblock.encode_", True)
    assert not resolves("quant.formats.superblock.encode_", False)
    assert not resolves("checkpoint.gguf_names.to_gguf", False)
    assert not resolves("quant.superblock.encode_", True)
    assert sum(len(list(dotted_names(path))) for path in CHECKS) > 500

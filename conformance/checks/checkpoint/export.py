"""`export` writes the files that llama.cpp's converter would write, or a checkpoint folder; peers read both."""

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import load_file
from torch import Tensor

from conformance.checks import check
from conformance.checks.assertions import expect, expect_equal
from conformance.checks.checkpoint.loading import without_layer
from conformance.checks.gguf.files import ARCHITECTURES, factors, gathered, metadata
from conformance.checks.gguf.whole_models import CASES, made
from conformance.models.fixtures import fixture_config, fixture_tensors, write_fixture
from conformance.truth.cases import scratch, workplace
from conformance.truth.compare import row_error
from conformance.truth.spec import Spec, read_spec
from conformance.truth.stored import module_tensors
from nanollama.checkpoint.export import export_folder, export_gguf
from nanollama.checkpoint.source import open_source


@functools.cache
def folder(name: str) -> tuple[Path, Spec, dict[str, Tensor]]:
    """A checkpoint folder that GGUF can express, its spec, and its stored tensors."""
    architecture, changes = CASES[name]
    raw = {key: value for key, value in fixture_config(architecture, **changes).items() if value is not None}
    path = write_fixture(scratch() / f"to-export-{name.replace(', ', '-').replace(' ', '-')}", raw)
    return path, read_spec(raw), fixture_tensors(raw)


def tensors_of(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file as the `gguf` package reads them."""
    reader = gguf.GGUFReader(path)
    tensors = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in reader.tensors}
    return tensors, {key: field.contents() for key, field in reader.fields.items()}


@check("GGUF-043", area="weights", each=tuple(CASES))
def a_gguf_file_is_written_as_llama_cpp_expects_it(name: str) -> None:
    path, spec, stored = folder(name)
    target = workplace() / "exported.gguf"
    target.unlink(missing_ok=True)
    export_gguf(open_source(path), target, "f32")
    tensors, keys = tensors_of(target)
    want = {**{key: tensor.float() for key, tensor in gathered(spec, module_tensors(spec, stored)).items()}, **factors(spec)}
    extra = sorted(tensors.keys() ^ want.keys())
    expect_equal("checkpoint.gguf.names.stored_name", extra, [], f"tensors that only one of {name} and its truth has")
    for key, tensor in want.items():
        near = tensor.shape == tensors[key].shape and row_error(tensors[key], tensor) <= (1e-6 if "rope" in key else 0)
        place = "checkpoint.gguf.metadata.rope_tensors" if "rope" in key else f"checkpoint.gguf.names.to_gguf: {part_of(key)}"
        expect(place, near, f"{key} has other numbers than llama.cpp's converter gives it")
    prefix = ARCHITECTURES[spec.architecture]
    expect_equal("checkpoint.gguf.metadata.metadata_of", keys.get("general.architecture"), prefix, "general.architecture")
    for key, value in metadata(spec).items():
        found = keys.get(f"{prefix}.{key}")
        fits = found == value
        if isinstance(value, float) and isinstance(found, float):
            fits = abs(found - value) <= 1e-6 * abs(value)
        expect(f"checkpoint.gguf.metadata.{writer_of(key)}", fits, f"{prefix}.{key} is {found!r}, expected {value!r}")


def part_of(stored: str) -> str:
    """A stored name without its layer and kind."""
    return stored.split(".")[-2]


def writer_of(key: str) -> str:
    """The function that writes a key."""
    if key.startswith("rope."):
        return "rope_keys"
    if "sliding_window" in key:
        return "window_keys"
    return "epsilon_key" if "epsilon" in key else "metadata_of"


@check("WGHT-040", "WGHT-030", area="weights", each=tuple(CASES))
def a_folder_is_written_under_the_checkpoints_own_names(name: str) -> None:
    _, spec, stored = folder(name)
    path, truth = made(name)
    target = workplace() / "exported-folder"
    shutil.rmtree(target, ignore_errors=True)
    export_folder(open_source(path), target, "f32")
    written = load_file(target / "model.safetensors")
    expect_equal("checkpoint.names.original_name", sorted(written), sorted(stored), "the names that a folder stores")
    ours = module_tensors(spec, written)
    for part, want in truth.tensors.items():
        place = f"checkpoint.names.checkpoint_tensor: {without_layer(part)}"
        right = ours[part].shape == want.shape and row_error(ours[part], want.float()) == 0
        expect(place, right, f"{part} is written with other numbers")
    meaning = read_spec(json.loads((target / "config.json").read_text()))
    expect_equal(
        "checkpoint.export.export_folder",
        (meaning.heads, meaning.eps, meaning.tied),
        (spec.heads, spec.eps, spec.tied),
        "config.json",
    )

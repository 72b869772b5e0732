"""The numbers of an export: blocks copied, decoded or rounded again, and folders cut into shards."""

import functools
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import load_file
from torch import Tensor

import nanollama.checkpoint.export
from conformance.checks import check
from conformance.checks.assertions import at, expect, expect_equal, expect_equal_tensor, expect_refused
from conformance.checks.checkpoint.export import folder, tensors_of
from conformance.checks.tokenizer.folder_keys import byte_level
from conformance.models.fixtures import fixture_config, write_fixture
from conformance.truth.cases import scratch, workplace
from nanollama.checkpoint.export import export_folder, export_gguf
from nanollama.checkpoint.source import open_source
from nanollama.cli.export import folder_summary
from nanollama.lm import load


@check("GGUF-043", "QUNT-061", area="weights")
def blocks_come_along_or_are_decoded() -> None:
    """A Q8_0 file made from a folder: exported to GGUF its blocks are copied, to a folder they are decoded."""
    path, first, again = wide_folder(), workplace() / "first.gguf", workplace() / "again.gguf"
    for target in (first, again):
        target.unlink(missing_ok=True)
    expect_equal(
        "checkpoint.gguf.quantize.check_requantized",
        export(path, first, "q8_0") + export(first, again, "q8_0"),
        "",
        "the notices about a copy",
    )
    blocks, keys = tensors_of(first)
    for name, tensor in tensors_of(again)[0].items():
        expect_equal_tensor("checkpoint.export.stored_bytes", tensor, blocks[name], f"{name}, copied")
    expect_equal(
        "checkpoint.export.general_keys", (keys["general.file_type"], keys["general.name"]), (7, path.name), "type and name"
    )
    twice, own = (partial(export_gguf, open_source(first), *to) for to in ((again, "q4_0"), (first, "q8_0")))
    expect_refused("checkpoint.gguf.quantize.check_requantized", twice, "are quantized already", "rounding twice")
    expect_refused("checkpoint.gguf.quantize.refuse_input_as_target", own, "is the file that is read", "its own input")
    warnings = export(first, again, "q4_0", allow_requantize=True)
    expect(
        "checkpoint.gguf.quantize.check_requantized",
        "second time" in warnings,
        f"no warning about rounding twice: {warnings!r}",
    )
    expect_equal("checkpoint.gguf.quantize.check_requantized", export(first, again, "f32"), "", "the warnings about decoding")
    widened, _ = tensors_of(again)
    for stored in gguf.GGUFReader(first).tensors:
        expect_equal_tensor("checkpoint.export.some_rows", widened[stored.name], values_of(stored), f"{stored.name}, decoded")
    shutil.rmtree(workplace() / "decoded", ignore_errors=True)
    with at("checkpoint.export.export_folder"):
        export_folder(open_source(first), workplace() / "decoded", "f32")
    written = load_file(workplace() / "decoded" / "model.safetensors")
    up = next(each for each in gguf.GGUFReader(first).tensors if each.name == "blk.0.ffn_up.weight")
    expect_equal("checkpoint.export.stored_bytes", up.tensor_type.name, "Q8_0", "the type of a matrix")
    expect_equal_tensor(
        "checkpoint.export.folder_tensor", written["model.layers.0.mlp.up_proj.weight"], values_of(up), "blocks in a folder"
    )


@functools.cache
def wide_folder() -> Path:
    """A model whose rows are whole blocks."""
    return write_fixture(scratch() / "wide", fixture_config("LlamaForCausalLM", hidden_size=96, intermediate_size=64))


def values_of(tensor: Any) -> Tensor:
    """The numbers of a tensor, decoded by the `gguf` package."""
    return torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())


def export(source: Path, target: Path, file_type: str, **options: Any) -> str:
    """Write a GGUF file. Returns the warnings about numbers, one a line."""
    with at("checkpoint.export.export_gguf"):
        plan = export_gguf(open_source(source), target, file_type, **options)
    return "\n".join(plan.warnings)


@check("WGHT-040", "SAFE-001", area="weights")
def a_folder_is_cut_into_shards_with_an_index() -> None:
    path, _, stored = folder("llama")
    target, limit = workplace() / "shards", 40_000
    shutil.rmtree(target, ignore_errors=True)
    before, nanollama.checkpoint.export.SHARD_BYTES = nanollama.checkpoint.export.SHARD_BYTES, limit
    try:
        with at("checkpoint.export.write_shards"):
            reported = export_folder(open_source(path), target, "f16")
    finally:
        nanollama.checkpoint.export.SHARD_BYTES = before
    files = sorted(file.name for file in target.glob("*.safetensors"))
    expect_equal(
        "checkpoint.export.write_shards",
        files,
        [f"model-{i:05}-of-{len(files):05}.safetensors" for i in range(1, len(files) + 1)],
        "files",
    )
    parts = {file: load_file(target / file) for file in files}
    index = json.loads((target / "model.safetensors.index.json").read_text())
    where = {name: file for file, tensors in parts.items() for name in tensors}
    expect_equal("checkpoint.export.write_shards", index["weight_map"], where, "the index")
    sizes = {file: sum(tensor.nbytes for tensor in tensors.values()) for file, tensors in parts.items()}
    expect_equal(
        "checkpoint.export.write_shards", index["metadata"]["total_size"], sum(sizes.values()), "the size that the index gives"
    )
    largest = max(tensor.numel() * 2 for tensor in stored.values())
    expect(
        "checkpoint.export.plan_shards", all(size <= max(limit, largest) for size in sizes.values()), f"shards of {sizes} bytes"
    )
    pairs = list(zip(sizes.values(), list(sizes.values())[1:], strict=False))
    expect("checkpoint.export.plan_shards", all(a + b > limit for a, b in pairs), f"two shards would fit one: {sizes}")
    for name, tensor in stored.items():
        expect_equal_tensor("checkpoint.export.folder_tensor", parts[where[name]][name], tensor.half(), name)
    expect_equal(
        "checkpoint.export.export_folder",
        json.loads((target / "config.json").read_text())["torch_dtype"],
        "float16",
        "torch_dtype",
    )
    expect_equal("checkpoint.export.export_folder", reported, sizes, "the sizes that are returned")
    line = folder_summary(target, "f16", reported)
    expect(
        "cli.export.folder_summary",
        f"{len(files)} files of safetensors, {sum(sizes.values()):,} bytes of f16" in line,
        line,
    )
    expect_refused(
        "checkpoint.export.export_folder",
        lambda: export_folder(open_source(path), target, "f16"),
        "exists already",
        "a folder twice",
    )
    expect_refused(
        "checkpoint.export.export_folder",
        lambda: export_folder(open_source(path), target, "q8_0"),
        "q8_0",
        "blocks in safetensors",
    )
    left = [path.name for path in target.parent.glob(".*.part")]
    expect_equal("checkpoint.export.export_folder", left, [], "unfinished folders")


@check("EOSX-010", "TOKN-058", area="eos")
def every_end_id_comes_along() -> None:
    """A folder whose config names two ids, exported to GGUF and back: a loaded model ends at both; a GGUF file
    also at the tokens that llama.cpp knows by their text."""
    source, middle, back = (workplace() / name for name in ("ends", "ends.gguf", "ends-again"))
    write_fixture(source, fixture_config("LlamaForCausalLM", vocab_size=100, eos_token_id=[97, 5]))
    content = byte_level()
    content["added_tokens"].append({**content["added_tokens"][0], "id": 99, "content": "<|im_end|>"})
    (source / "tokenizer.json").write_text(json.dumps(content))
    (source / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    middle.unlink(missing_ok=True)
    shutil.rmtree(back, ignore_errors=True)
    with at("lm.load"):
        export_gguf(open_source(source), middle, "f32")
        export_folder(open_source(middle), back, "f32")
        for path, want in ((source, [5, 97]), (middle, [5, 97, 99]), (back, [5, 97, 99])):
            expect_equal(
                "lm.generation_defaults",
                sorted(load(path, "float32", "cpu").defaults.eos_token_ids),
                want,
                f"the end ids of {path.name}",
            )

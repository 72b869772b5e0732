"""Writes a checkpoint, folder or GGUF file, as a GGUF file or as a folder of safetensors.

Every tensor goes through the runtime's name (names.py, gguf/names.py). One stored tensor at a time is in memory, whatever the
size of the model. Tokenizer and chat template are converted too (text/convert).
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from nanollama.checkpoint.atomic import sync_folder
from nanollama.checkpoint.gguf.metadata import check_expressible, metadata_of, rope_tensors
from nanollama.checkpoint.gguf.names import gguf_names, to_gguf
from nanollama.checkpoint.gguf.quantize import QUANTIZATION_VERSION, check_requantized, refuse_input_as_target
from nanollama.checkpoint.gguf.writer import GgufPlan, NewTensor, encoded, write_gguf
from nanollama.checkpoint.names import Weight, checkpoint_names, checkpoint_tensor
from nanollama.checkpoint.source import Source
from nanollama.errors import NanollamaError
from nanollama.quant.file_types import FILE_TYPES
from nanollama.quant.formats.format import Format
from nanollama.quant.formats.table import FORMATS
from nanollama.quant.mixes import choose_formats
from nanollama.quant.quant_tensor import QuantTensor
from nanollama.text.convert.text_files import folder_text, gguf_text

FOLDER_DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
SHARD_BYTES = 2 << 30  # of a folder's safetensors files, which are built in memory


def export_gguf(source: Source, target: Path, file_type: str, allow_requantize: bool = False) -> GgufPlan:
    """Write a GGUF file that llama.cpp reads. Returns the plan with its warnings; raises as `plan_gguf` does."""
    plan = plan_gguf(source, target, file_type, allow_requantize)
    write_gguf(target, plan.metadata, plan.tensors, plan.types)
    return plan


def plan_gguf(source: Source, target: Path, file_type: str, allow_requantize: bool = False) -> GgufPlan:
    """The GGUF file of a checkpoint. NanollamaError for a config or tokenizer that such a file can't express, for a target
    that is the source, and for blocks that would be rounded a second time without `allow_requantize`."""
    if source.gguf is not None:
        refuse_input_as_target(target, source.gguf.paths)
    config, names, rotary = source.config, gguf_names(source.config, source.tensors), rope_tensors(source.config)
    shapes = {name: stored_shape(name, [source.tensors[part] for part in parts]) for name, parts in names.items()}
    text = gguf_text(source.gguf or source.path, config, source.eos_token_ids)
    metadata = {**general_keys(source, file_type), **metadata_of(config), **text.metadata}
    check_expressible(config, metadata, {**shapes, **{name: tuple(tensor.shape) for name, tensor in rotary.items()}})
    chosen = choose_formats(file_type, shapes, metadata)
    formats = {name: chosen[name] or FORMATS["F32"] for name in names}
    warnings = check_requantized(requantized(source, names, formats), allow_requantize)
    tensors = [NewTensor(n, tuple(t.shape), FORMATS["F32"], partial(raw_bytes, t)) for n, t in rotary.items()] + [
        NewTensor(name, shapes[name], formats[name], partial(stored_bytes, source, parts, formats[name]))
        for name, parts in names.items()
    ]
    return GgufPlan(metadata, tensors, text.types, text.warnings + warnings)


def general_keys(source: Source, file_type: str) -> dict[str, Any]:
    """The keys that describe the file to people and to programs that list files."""
    name = (source.gguf.metadata if source.gguf else {}).get("general.name") or source.path.resolve().stem
    return {
        "general.architecture": "",  # first, as programs expect it; metadata_of fills it in
        "general.type": "model",
        "general.name": name,
        "general.file_type": FILE_TYPES[file_type].number,
        "general.quantization_version": QUANTIZATION_VERSION,
    }


def stored_shape(name: str, parts: Sequence[Weight]) -> tuple[int, ...]:
    """The shape of a stored tensor: the rows of its parts joined, or experts stacked to [experts, out, in]."""
    first = tuple(parts[0].shape)
    return (len(parts), *first) if "_exps." in name else (sum(part.shape[0] for part in parts), *first[1:])


def stored_bytes(source: Source, parts: Sequence[str], format: Format) -> Iterator[Tensor]:
    """Yields the bytes of a stored tensor, uint8, a slab of rows at a time. Blocks of the right format are copied."""
    for part in parts:
        tensor = to_gguf(source.config, part, source.tensors[part])
        if isinstance(tensor, QuantTensor) and tensor.format == format:
            yield tensor.pick(slice(None)).rows
            continue
        matrix = tensor if isinstance(tensor, QuantTensor) or tensor.ndim > 1 else tensor[None]
        yield from encoded(part, matrix.shape, format, partial(some_rows, matrix)).data()


def some_rows(matrix: Weight, rows: slice) -> Tensor:
    """Rows of a matrix, decoded to floating point."""
    return matrix.pick(rows).dequantize() if isinstance(matrix, QuantTensor) else matrix[rows]


def raw_bytes(tensor: Tensor) -> list[Tensor]:
    """A tensor's bytes, uint8."""
    return [tensor.contiguous().view(torch.uint8)]


def requantized(source: Source, names: Mapping[str, Sequence[str]], formats: Mapping[str, Format]) -> list[tuple[str, Format]]:
    """The tensors, with the format of their blocks, that are rounded a second time."""
    return [
        (name, tensor.format)
        for name, parts in names.items()
        if isinstance(tensor := source.tensors[parts[0]], QuantTensor)
        and formats[name] != tensor.format
        and formats[name].plain is None
    ]


def export_folder(source: Source, target: Path, file_type: str) -> dict[str, int]:
    """Write a folder of config.json, safetensors and tokenizer that transformers reads, all or nothing.

    Returns the bytes of tensors by file. NanollamaError for a target that exists and for a type of blocks.
    """
    if file_type not in FOLDER_DTYPES:
        raise NanollamaError(
            f"type {file_type!r} can't be stored in safetensors; use {', '.join(FOLDER_DTYPES)}, or a target that ends in .gguf"
        )
    if target.exists():
        raise NanollamaError(f"{target} exists already; give the name of a new folder")
    part = target.with_name(f".{target.name[:50]}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir(parents=True)
        kept = {key: value for key, value in source.raw.items() if key not in ("dtype", "torch_dtype")}
        config = {**kept, "torch_dtype": str(FOLDER_DTYPES[file_type]).removeprefix("torch.")}
        (part / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        sizes = write_shards(source, part, FOLDER_DTYPES[file_type])
        for name, content in folder_text(source.gguf or source.path).items():
            (part / name).parent.mkdir(exist_ok=True)
            (part / name).write_bytes(content)
        sync_folder(part)
        part.rename(target)
    except OSError as error:
        raise NanollamaError(f"{target} can't be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return sizes


def write_shards(source: Source, folder: Path, dtype: torch.dtype) -> dict[str, int]:
    """Write the tensors under the checkpoint's names, in files of about SHARD_BYTES. Returns bytes of tensors by file."""
    shards = list(plan_shards(source, dtype))
    index: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for number, names in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {name: folder_tensor(source, parts, dtype) for name, parts in names.items()}
        save_file(tensors, folder / file, {"format": "pt"})
        shutil.copymode(folder / "config.json", folder / file)  # save_file lets only the owner read it
        with (folder / file).open("rb") as written:
            os.fsync(written.fileno())
        index |= dict.fromkeys(names, file)
        sizes[file] = sum(tensor.nbytes for tensor in tensors.values())
    if len(shards) > 1:
        content = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": index}
        (folder / "model.safetensors.index.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return sizes


def plan_shards(source: Source, dtype: torch.dtype) -> Iterable[dict[str, list[str]]]:
    """Yields for each file its tensors: stored name → the runtime's tensors that it joins."""
    shard: dict[str, list[str]] = {}
    size = 0
    for name, parts in checkpoint_names(source.config, source.tensors).items():
        needed = sum(prod(source.tensors[part].shape) for part in parts) * dtype.itemsize
        if shard and size + needed > SHARD_BYTES:
            yield shard
            shard, size = {}, 0
        shard[name], size = parts, size + needed
    yield shard


def folder_tensor(source: Source, parts: Sequence[str], dtype: torch.dtype) -> Tensor:
    """One stored tensor of a folder, decoded and copied."""
    pieces = [source.tensors[part] for part in parts]
    numbers = [piece.dequantize() if isinstance(piece, QuantTensor) else piece for piece in pieces]
    return checkpoint_tensor(source.config, parts, numbers).to(dtype).contiguous().clone()

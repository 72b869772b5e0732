"""A checkpoint of either kind, a folder or a GGUF file: its config, and its weights under our names, memory-mapped."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nanollama.checkpoint.files import read_json
from nanollama.checkpoint.gguf.config import config_from_gguf
from nanollama.checkpoint.gguf.names import ROPE_TENSORS, tensors_from_gguf
from nanollama.checkpoint.gguf.reader import GGUF, GGUFTensor, read_gguf
from nanollama.checkpoint.names import Weight, check_counts, check_tensors, runtime_tensors, share_tied_head
from nanollama.checkpoint.safetensors import read_folder
from nanollama.errors import NanollamaError
from nanollama.model.config import ModelConfig, read_config
from nanollama.model.transformer import Transformer
from nanollama.quant.formats.tensor import dequantize, tensor_rows
from nanollama.quant.quant_tensor import QuantTensor

CONFIG_BYTES = 2_000_000  # real config.json files have a few kilobytes
MAGIC = b"GGUF"


@dataclass(frozen=True)
class Source:
    """An opened checkpoint.

    raw: its config.json, or what its metadata stands for. gguf: the file, None for a folder. tensors: by our names, as they
    are stored; a tied head is the embedding itself.
    """

    path: Path
    raw: Mapping[str, Any]
    config: ModelConfig
    gguf: GGUF | None
    tensors: Mapping[str, Weight]

    def skeleton(self) -> Transformer:
        """The model without its weights, on "meta"."""
        with torch.device("meta"):
            return Transformer(self.config).requires_grad_(False)

    @property
    def is_quantized(self) -> bool:
        """Whether any tensor is stored as blocks."""
        return any(isinstance(tensor, QuantTensor) for tensor in self.tensors.values())


def open_source(path: Path) -> Source:
    """Open a checkpoint. NanollamaError for whatever is missing, left over, damaged or not supported, by name."""
    source = open_gguf(path) if is_gguf(path) else open_folder(path)
    check_tensors(source.skeleton().state_dict(), source.tensors)
    return source


def is_gguf(path: Path) -> bool:
    """Whether a path is a file; a folder is a checkpoint of safetensors."""
    return not path.is_dir()


def open_folder(folder: Path) -> Source:
    """A folder with config.json and safetensors."""
    raw, config = read_folder_config(folder)
    tensors: dict[str, Weight] = {**runtime_tensors(config, read_folder(folder))}
    share_tied_head(config, tensors)
    return Source(folder, raw, config, None, tensors)


def read_folder_config(folder: Path) -> tuple[dict[str, Any], ModelConfig]:
    """config.json, and what it means together with generation_config.json."""
    path = folder / "config.json"
    if not path.is_file():
        raise NanollamaError(f"{folder} has no config.json; expected a folder with config.json and *.safetensors")
    generation = folder / "generation_config.json"
    read = functools.partial(read_json, max_bytes=CONFIG_BYTES)
    raw = read(path)
    return raw, read_config(raw, read(generation) if generation.is_file() else None)


def open_gguf(path: Path) -> Source:
    """A GGUF file. Its metadata becomes a config.json, which is then read and checked like any other."""
    gguf = read_gguf(path)
    try:
        raw, config = read_gguf_config(gguf)
        stored = {name: as_stored(tensor) for name, tensor in gguf.tensors.items()}
        tensors = tensors_from_gguf(config, stored)
        check_counts(config, tensors)
    except NanollamaError as error:
        raise NanollamaError(f"{path}: {error}") from error
    share_tied_head(config, tensors)
    return Source(path, raw, config, gguf, tensors)


def read_gguf_config(gguf: GGUF) -> tuple[dict[str, Any], ModelConfig]:
    """The config.json that the metadata stands for, and what it means."""
    shapes = {name: tensor.shape for name, tensor in gguf.tensors.items()}
    rotary = {name: gguf.tensors[name] for name in ROPE_TENSORS if name in gguf.tensors}
    for name, tensor in rotary.items():
        if len(tensor.shape) != 1 or tensor.shape[0] > 1 << 16:
            raise NanollamaError(f"{name} has shape {list(tensor.shape)}; expected one number for each pair of a head")
    factors = {name: dequantize(tensor.blocks, tensor.format, tensor.shape) for name, tensor in rotary.items()}
    raw = config_from_gguf(gguf.metadata, shapes, factors)
    try:
        return raw, read_config(raw)
    except NanollamaError as error:
        raise NanollamaError(f"the metadata, read as a {error}") from error


def as_stored(tensor: GGUFTensor) -> Weight:
    """The tensor as torch sees it, or as rows of blocks; of stacked experts [experts, out, in], the rows of all."""
    shape = (-1, tensor.shape[-1]) if len(tensor.shape) > 2 else tensor.shape
    if tensor.format.plain is not None:
        return tensor.blocks.view(tensor.format.plain).reshape(shape)
    return QuantTensor(tensor_rows(tensor.blocks, tensor.format, tensor.shape), tensor.format)


def load_config(path: Path) -> ModelConfig:
    """The config of a checkpoint, without its tensors where it is a folder."""
    return read_gguf_config(read_gguf(path))[1] if is_gguf(path) else read_folder_config(path)[1]

"""Opens a checkpoint, a folder or a GGUF file: its config, and its memory-mapped weights under the runtime's names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nanollama.checkpoint.files import read_json, read_json_if_present
from nanollama.checkpoint.gguf.config import config_from_gguf
from nanollama.checkpoint.gguf.names import ROPE_TENSORS, tensors_from_gguf
from nanollama.checkpoint.gguf.reader import GGUF, GGUFTensor, read_gguf
from nanollama.checkpoint.names import Weight, check_counts, check_tensors, runtime_tensors, share_tied_head
from nanollama.checkpoint.safetensors import read_folder
from nanollama.errors import NanollamaError
from nanollama.model.config import ModelConfig, read_config, read_token_ids
from nanollama.model.transformer import Transformer
from nanollama.quant.formats.tensor import dequantize, tensor_rows
from nanollama.quant.quant_tensor import QuantTensor

CONFIG_BYTES = 2_000_000  # real config.json files have a few kilobytes
MAGIC = b"GGUF"


@dataclass(frozen=True)
class Source:
    """An opened checkpoint.

    raw: config.json, or the config.json that the metadata stand for. gguf: the file, None for a folder. tensors: by the
    runtime's names, as they are stored; a tied head is the embedding. bos_token_id, eos_token_ids: from its config files.
    """

    path: Path
    raw: Mapping[str, Any]
    config: ModelConfig
    gguf: GGUF | None
    tensors: Mapping[str, Weight]
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    @property
    def is_quantized(self) -> bool:
        """Whether any tensor is stored as blocks."""
        return any(isinstance(tensor, QuantTensor) for tensor in self.tensors.values())


def open_source(path: Path) -> Source:
    """Open a checkpoint. NanollamaError names what is missing, left over, damaged or not supported."""
    source = open_gguf(path) if is_gguf(path) else open_folder(path)
    check_tensors(skeleton(source.config).state_dict(), source.tensors)
    return source


def skeleton(config: ModelConfig) -> Transformer:
    """A model without weights: its parameters are on "meta"."""
    with torch.device("meta"):
        return Transformer(config).requires_grad_(False)


def is_gguf(path: Path) -> bool:
    """Whether a path is a file; a folder is a checkpoint of safetensors."""
    return not path.is_dir()


def open_folder(folder: Path) -> Source:
    """A folder with config.json and safetensors."""
    raw, config = read_folder_config(folder)
    ids = read_token_ids(raw, read_generation_config(folder))
    tensors: dict[str, Weight] = {**runtime_tensors(config, read_folder(folder))}
    share_tied_head(config, tensors)
    return Source(folder, raw, config, None, tensors, **ids)


def read_folder_config(folder: Path) -> tuple[dict[str, Any], ModelConfig]:
    """config.json, raw and as the config that it describes."""
    path = folder / "config.json"
    if not path.is_file():
        raise NanollamaError(f"{folder} has no config.json; expected a folder with config.json and *.safetensors")
    raw = read_json(path, CONFIG_BYTES)
    return raw, read_config(raw)


def read_generation_config(folder: Path) -> dict[str, Any]:
    """generation_config.json, {} if there is none."""
    return read_json_if_present(folder / "generation_config.json", CONFIG_BYTES)


def open_gguf(path: Path) -> Source:
    """A GGUF file. Its metadata become a config.json, which is then read and checked like any other."""
    gguf = read_gguf(path)
    try:
        raw, config = read_gguf_config(gguf)
        stored = {name: as_stored(tensor) for name, tensor in gguf.tensors.items()}
        tensors = tensors_from_gguf(config, stored)
        check_counts(config, tensors)
        ids = read_token_ids(raw, {})
    except NanollamaError as error:
        raise NanollamaError(f"{path}: {error}") from error
    share_tied_head(config, tensors)
    return Source(path, raw, config, gguf, tensors, **ids)


def read_gguf_config(gguf: GGUF) -> tuple[dict[str, Any], ModelConfig]:
    """The config.json that the metadata stand for, raw and read."""
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
    """A plain tensor as a torch view, others as rows of blocks; stacked experts [experts, out, in] as rows of all."""
    shape = (-1, tensor.shape[-1]) if len(tensor.shape) > 2 else tensor.shape
    if tensor.format.plain is not None:
        return tensor.blocks.view(tensor.format.plain).reshape(shape)
    return QuantTensor(tensor_rows(tensor.blocks, tensor.format, tensor.shape), tensor.format)


def load_config(path: Path) -> ModelConfig:
    """The config of a checkpoint; the tensors of a folder are not opened."""
    return read_gguf_config(read_gguf(path))[1] if is_gguf(path) else read_folder_config(path)[1]

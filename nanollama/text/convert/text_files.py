"""Tokenizer and chat template of an exported checkpoint: from a folder or a GGUF file, to either.

The same form is copied. The other form is converted: to_gguf.py, to_folder.py. A folder and a GGUF file are read by different
rules (those of the libraries that define the files, and those of llama.cpp). A rule that can't be expressed is an error if it
changes most texts, else a warning; both modules list such rules.
"""

from collections.abc import Sequence
from pathlib import Path

from nanollama.checkpoint.files import read_bytes
from nanollama.checkpoint.gguf.reader import GGUF
from nanollama.checkpoint.hub import WANTED
from nanollama.model.config import ModelConfig
from nanollama.text.convert.to_folder import folder_files
from nanollama.text.convert.to_gguf import GgufText, folder_metadata

TEXT_FILES = [name for name in WANTED if "safetensors" not in name and name != "config.json"]
"""Patterns of the files of a folder that are neither config nor weights; generation_config.json is one."""


def gguf_text(source: Path | GGUF, config: ModelConfig, eos_token_ids: Sequence[int]) -> GgufText:
    """The `tokenizer.*` keys of a checkpoint's folder or GGUF file, for a new GGUF file. Raises as `folder_metadata` does."""
    if isinstance(source, Path):
        return folder_metadata(source, config, eos_token_ids)
    values = {key: value for key, value in source.metadata.items() if key.startswith("tokenizer.")}
    return GgufText(values, {key: type_ for key, type_ in source.types.items() if key in values})


def folder_text(source: Path | GGUF) -> dict[str, bytes]:
    """The text files of a checkpoint's folder or GGUF file, for a new folder, by their names in it."""
    if not isinstance(source, Path):
        return folder_files(source.metadata)
    found = sorted(path for pattern in TEXT_FILES for path in source.glob(pattern))
    return {path.relative_to(source).as_posix(): read_bytes(path) for path in found}

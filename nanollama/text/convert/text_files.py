"""Tokenizer and chat template of an exported checkpoint, whichever of the two forms it has and gets.

From a form to the same form, everything is copied. From one to the other: to_gguf.py and to_folder.py. A folder and a GGUF
file are read by different rules (those of the libraries that define the files, and llama.cpp's), and what the rules can't
express of each other is an error where it would change most texts, else a line of notice; both files list what they know.
"""

from typing import Any

from nanollama.checkpoint.files import open_plain
from nanollama.checkpoint.gguf.values import ValueType
from nanollama.checkpoint.hub import WANTED
from nanollama.checkpoint.source import Source
from nanollama.text.chat.template import MAX_FILE
from nanollama.text.convert.to_folder import folder_files
from nanollama.text.convert.to_gguf import folder_metadata

TEXT_FILES = [name for name in WANTED if "safetensors" not in name and name != "config.json"]
"""The files of a folder beside config and weights, as patterns; generation_config.json is one."""


def gguf_text(source: Source) -> tuple[dict[str, Any], dict[str, ValueType]]:
    """The `tokenizer.*` keys of a GGUF file, and the types of those that would else get the wrong one."""
    if source.gguf is None:
        return folder_metadata(source.path, source.config, source.eos_token_ids)
    values = {key: value for key, value in source.gguf.metadata.items() if key.startswith("tokenizer.")}
    return values, {key: type_ for key, type_ in source.gguf.types.items() if key in values}


def folder_text(source: Source) -> dict[str, bytes]:
    """The text files of a checkpoint folder, by their name in it."""
    if source.gguf is not None:
        return folder_files(source.gguf.metadata)
    found = sorted(path for pattern in TEXT_FILES for path in source.path.glob(pattern))
    files: dict[str, bytes] = {}
    for path in found:
        with open_plain(path) as file:
            files[path.relative_to(source.path).as_posix()] = file.read(MAX_FILE)
    return files

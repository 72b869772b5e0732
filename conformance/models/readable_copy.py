"""A copy of a checkpoint that other engines can read: in a dtype that they know, with a vocabulary, which most insist on."""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from nanollama.model.dtypes import DTYPES

VOCABULARY = ("tokenizer.json", "tokenizer.model", "vocab.json")


def readable_copy(folder: Path, target: Path, dtype: str = "float32") -> Path:
    """The checkpoint in a dtype that engines read (not float64), with a vocabulary, which most require."""
    shutil.copytree(folder, target)
    for path in target.glob("*.safetensors"):
        tensors = {name: tensor.to(DTYPES[dtype]).contiguous() for name, tensor in load_file(path).items()}
        save_file(tensors, path, {"format": "pt"})
    path = target / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "dtype": dtype}, indent=1), encoding="utf-8")
    if not has_vocabulary(folder):
        write_vocabulary(target, config["vocab_size"])
    return target


def has_vocabulary(folder: Path) -> bool:
    """Whether a checkpoint comes with a tokenizer."""
    return any((folder / name).exists() for name in VOCABULARY)


def write_vocabulary(folder: Path, size: int) -> None:
    """A tokenizer of so many words: t0, t1, …, where t0 is for unknown words, t1 begins a text and t2 ends it."""
    words = {f"t{i}": i for i in range(size)}
    model: dict[str, Any] = {"type": "WordLevel", "vocab": words, "unk_token": "t0"}
    parts: dict[str, Any] = {
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "post_processor": None,
    }
    tokenizer = {"version": "1.0", **parts, "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": None, "model": model}
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "t0", "bos_token": "t1", "eos_token": "t2"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(names))

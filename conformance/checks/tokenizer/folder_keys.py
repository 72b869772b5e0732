"""Folders of tokenizers and the GGUF keys made from them, for the checks of `exported.py`."""

import contextlib
import io
import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from conformance.checks.assertions import at, expect_equal
from conformance.fuzz.valid_vocabulary import KEY
from conformance.models.fixtures import fixture_config
from nanollama.checkpoint.gguf.reader import GGUF
from nanollama.checkpoint.source import Source
from nanollama.model.config import read_config
from nanollama.text.convert.text_files import folder_text, gguf_text

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
LETTERS = [*map(chr, range(0x21, 0x7F)), "Ġ"]  # ids 0 to 94
SIDES = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
WRITERS = {  # the function that gives each key of the metadata
    **dict.fromkeys(("model", "pre", "merges", "add_space_prefix", "remove_extra_whitespaces"), "text.convert.to_gguf_model"),
    **dict.fromkeys(("tokens", "token_type"), "text.convert.to_gguf.token_keys"),
    **dict.fromkeys(("add_bos_token", "add_eos_token"), "text.convert.to_gguf.around_keys"),
    "scores": "text.convert.to_gguf_model.merge_scores",
}


def source_of(folder: Path, rows: int, ends: list[int] | None = None) -> Source:
    """A checkpoint folder that holds only the vocabulary."""
    raw = {**fixture_config("LlamaForCausalLM"), "vocab_size": rows, "bos_token_id": None, "eos_token_id": ends}
    return Source(folder, raw, read_config(raw), None, {})


def byte_level(**changes: Any) -> dict[str, Any]:
    """A tokenizer.json of ASCII: ids 0 to 94 letters, `ab` 95, `Ġab` 96, `<end>` 97, `<think>` 98."""
    vocab = {token: id for id, token in enumerate([*LETTERS, "ab", "Ġab"])}
    model = {"type": "BPE", "vocab": vocab, "merges": [["a", "b"], ["Ġ", "ab"]], "ignore_merges": False}
    added = [{"id": 97, "content": "<end>", "special": True}, {"id": 98, "content": "<think>", "special": False}]
    whole: dict[str, Any] = {"version": "1.0", "added_tokens": [SIDES | token for token in added], "normalizer": None}
    model |= changes.pop("model", {})
    return {**whole, "pre_tokenizer": BYTE_LEVEL, "post_processor": None, "decoder": BYTE_LEVEL, "model": model, **changes}


@contextlib.contextmanager
def folder_of(files: Mapping[str, Any]) -> Any:
    """A folder with these files: bytes unchanged, the others as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        yield Path(folder)


def keys_of(files: Mapping[str, Any], rows: int, ends: list[int] | None = None) -> tuple[dict[str, Any], str]:
    """The keys of a folder without their prefix, and the notices."""
    with (
        folder_of(files) as folder,
        contextlib.redirect_stderr(io.StringIO()) as notices,
        at("text.convert.to_gguf.folder_metadata"),
    ):
        values, _ = gguf_text(source_of(folder, rows, ends))
        return {key.removeprefix(KEY): value for key, value in values.items()}, notices.getvalue()


def same_keys(got: Mapping[str, Any], want: Mapping[str, Any]) -> None:
    """Every key must be equal; a fault is at the function that gives it."""
    for key in [*want, *(key for key in got if key not in want)]:
        place = WRITERS.get(key, "text.convert.to_gguf.template_keys" if "template" in key else "text.convert.to_gguf.role_ids")
        expect_equal(place, got.get(key), want.get(key), key)


def files_of(metadata: Mapping[str, Any]) -> dict[str, bytes]:
    """The files made from the vocabulary of a GGUF file."""
    with at("text.convert.to_folder.folder_files"), contextlib.redirect_stderr(io.StringIO()):
        return folder_text(replace(source_of(Path("model.gguf"), 512), gguf=GGUF(dict(metadata), {}, {})))


def base64_line(token: bytes, rank: int) -> bytes:
    """A line of a tiktoken file."""
    import base64

    return base64.b64encode(token) + f" {rank}\n".encode()


def there_and_back(place: str, files: Mapping[str, Any], rows: int, ends: list[int]) -> None:
    """Folder → keys → folder → keys: both sets of keys must be equal."""
    first, _ = keys_of(files, rows, ends)
    second, _ = keys_of(files_of({KEY + key if "chat" not in key else key: value for key, value in first.items()}), rows, ends)
    expect_equal(place, second, first, "keys of the folder that keys became")


def parse(model: Any, data: bytes) -> None:
    """Read a SentencePiece model with the library's definition of the format."""
    model.Clear()
    model.ParseFromString(data)

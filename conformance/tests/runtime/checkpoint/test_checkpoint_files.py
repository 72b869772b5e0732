"""A checkpoint folder: which files are read, what an index may say, and how JSON from strangers is refused."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from nanollama.checkpoint.files import MAX_JSON_ITEMS, parse_object, read_json
from nanollama.checkpoint.safetensors import read_folder
from nanollama.errors import NanollamaError

A, B = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"


def save(path: Path, **values: float) -> None:
    safetensors.torch.save_file({name: torch.tensor([value]) for name, value in values.items()}, path)


def index(folder: Path, weight_map: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 8}, "weight_map": weight_map}))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Two shards: x = 1 in the first, y = 2 in the second."""
    save(tmp_path / A, x=1)
    save(tmp_path / B, y=2)
    index(tmp_path, {"x": A, "y": B})
    return tmp_path


def values(folder: Path) -> dict[str, float]:
    return {name: tensor.item() for name, tensor in read_folder(folder).items()}


def test_a_single_file_is_read_whatever_else_lies_there(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", x=1)
    save(tmp_path / "adapter_model.safetensors", x=2)
    (tmp_path / "pytorch_model.bin").write_bytes(b"never opened")
    assert values(tmp_path) == {"x": 1.0}


def test_the_only_safetensors_file_is_read_under_any_name(tmp_path: Path) -> None:
    save(tmp_path / "weights.safetensors", x=1)
    assert values(tmp_path) == {"x": 1.0}


def test_all_shards_of_an_index_are_read_and_no_other_file(sharded: Path) -> None:
    save(sharded / "consolidated.safetensors", z=3)
    assert values(sharded) == {"x": 1.0, "y": 2.0}


def test_an_index_may_list_the_single_file(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", x=1)
    index(tmp_path, {"x": "model.safetensors"})
    assert values(tmp_path) == {"x": 1.0}


def test_shards_may_be_links_as_in_the_hub_cache(sharded: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    blob = tmp_path_factory.mktemp("blobs") / "0123"
    (sharded / B).rename(blob)
    (sharded / B).symlink_to(blob)
    assert values(sharded) == {"x": 1.0, "y": 2.0}


ESCAPES = ["../b.safetensors", "/etc/passwd", "sub/b.safetensors", "..", ".", "", "a\\b", "C:b", "\\\\host\\b", "b\0"]


@pytest.mark.parametrize("name", ESCAPES)
def test_an_index_cannot_name_a_file_outside_its_folder(name: str, sharded: Path) -> None:
    save(sharded.parent / "b.safetensors", y=2)
    index(sharded, {"x": A, "y": name})
    with pytest.raises(NanollamaError, match="leads out of"):
        read_folder(sharded)


WRONG_INDEXES: dict[str, tuple[Any, str]] = {
    "missing shard": ({"x": A, "y": "c.safetensors"}, "lacks 'c.safetensors', 1 of the 2 shards"),
    "tensor not in its shard": ({"x": A, "y": B, "z": B}, "lacks tensor 'z'"),
    "tensor not listed": ({"x": A}, "holds tensor 'unlisted'"),
    "shards exchanged": ({"x": B, "y": A}, "lacks tensor 'y'"),
    "no map": (None, "weight_map is None"),
    "empty map": ({}, "weight_map is {}"),
    "map of numbers": ({"x": 1}, "weight_map is {'x': 1}"),
    "list": ([A, B], r"weight_map is \["),
}


@pytest.mark.parametrize(("weight_map", "message"), WRONG_INDEXES.values(), ids=WRONG_INDEXES)
def test_an_index_that_does_not_fit_its_files_is_refused(weight_map: Any, message: str, sharded: Path) -> None:
    index(sharded, weight_map)
    if weight_map == {"x": A}:
        save(sharded / A, x=1, unlisted=3)
    with pytest.raises(NanollamaError, match=message):
        read_folder(sharded)


def test_a_tensor_in_two_shards_is_refused(sharded: Path) -> None:
    save(sharded / B, x=1, y=2)
    with pytest.raises(NanollamaError, match=f"{B} holds tensor 'x', which {INDEX} does not list there"):
        read_folder(sharded)


def test_an_index_beside_a_single_file_that_it_does_not_list_is_refused(sharded: Path) -> None:
    save(sharded / "model.safetensors", x=1, y=2)
    with pytest.raises(NanollamaError, match="delete the one that is stale"):
        read_folder(sharded)


def remove_the_index(folder: Path) -> None:
    (folder / INDEX).unlink()


def leave_one_shard(folder: Path) -> None:
    remove_the_index(folder)
    (folder / A).unlink()


def leave_two_unrelated_files(folder: Path) -> None:
    remove_the_index(folder)
    (folder / A).rename(folder / "a.safetensors")
    (folder / B).rename(folder / "b.safetensors")


def leave_nothing(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def leave_a_pickle(folder: Path) -> None:
    leave_nothing(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")


def leave_gguf(folder: Path) -> None:
    leave_nothing(folder)
    (folder / "model-Q4_0.gguf").write_bytes(b"")


def make_a_shard_a_folder(folder: Path) -> None:
    (folder / B).unlink()
    (folder / B).mkdir()


def make_a_shard_a_pipe(folder: Path) -> None:
    (folder / B).unlink()
    os.mkfifo(folder / B)


def make_a_shard_a_loop(folder: Path) -> None:
    (folder / B).unlink()
    (folder / B).symlink_to(folder / B)


def make_a_shard_a_pointer(folder: Path) -> None:
    (folder / B).write_bytes(POINTER)


def make_the_index_a_pointer(folder: Path) -> None:
    (folder / INDEX).write_bytes(POINTER)


DAMAGES: dict[Callable[[Path], None], str] = {
    remove_the_index: f"one of 2 shards, but no {INDEX}",
    leave_one_shard: f"one of 2 shards, but no {INDEX}",
    leave_two_unrelated_files: r"holds \['a.safetensors', 'b.safetensors'\]",
    leave_nothing: "holds no model.safetensors: download",
    leave_a_pickle: "never unpickled here; on a machine where you trust",
    leave_gguf: "only GGUF, which this version cannot read",
    make_a_shard_a_folder: "is not a plain file",
    make_a_shard_a_pipe: "is not a plain file",
    make_a_shard_a_loop: "cannot be read",
    make_a_shard_a_pointer: "git lfs pull",
    make_the_index_a_pointer: "git lfs pull",
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.items(), ids=[damage.__name__ for damage in DAMAGES])
def test_a_damaged_folder_is_refused(damage: Callable[[Path], None], message: str, sharded: Path) -> None:
    damage(sharded)
    with pytest.raises(NanollamaError, match=message):
        read_folder(sharded)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", x=1)
    for name in ("nowhere", "model.safetensors", "n" * 300, "zero\0"):
        with pytest.raises(NanollamaError, match="no folder to read"):
            read_folder(tmp_path / name)


BAD_JSON: dict[str, tuple[bytes, str]] = {
    "list": (b"[1]", "holds a JSON list: expected an object"),
    "empty": (b"", "not acceptable JSON"),
    "cut": (b'{"a": 1', "not acceptable JSON"),
    "two values": (b"{} {}", "Extra data"),
    "duplicate key": (b'{"rope": {"theta": 1, "theta": 2}}', "'theta' occurs twice"),
    "NaN": (b'{"a": NaN}', "NaN is not a JSON number"),
    "infinity by exponent": (b'{"a": -1e999}', "-1e999 is too large"),
    "5,000 digits": (b'{"a": ' + b"1" * 5000 + b"}", "5000 characters"),
    "nesting of lists": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    "nesting of objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "utf-8"),
    "unpaired surrogate": (b'{"\\ud800": 1}', "unpaired surrogate"),
    "too many items": (b'{"a":[' + b"0," * MAX_JSON_ITEMS + b"0]}", "items: expected at most 2,500,000"),
}


@pytest.mark.parametrize(("raw", "message"), BAD_JSON.values(), ids=BAD_JSON)
def test_json_beyond_the_strict_rules_is_refused(raw: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(raw)
    with pytest.raises(NanollamaError, match=message) as caught:
        read_json(tmp_path / "config.json")
    assert "config.json" in str(caught.value)


def test_ordinary_json_is_read_as_the_standard_library_reads_it() -> None:
    raw = '{"a": [1, -2.5e-3, true, null, "é\\ud83d\\ude00\\n"], "18446744073709551615": 18446744073709551615}'
    assert parse_object(raw.encode(), "text") == json.loads(raw)


def test_a_json_file_larger_than_its_limit_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": "' + "x" * 100 + '"}')
    assert read_json(tmp_path / "config.json", max_bytes=109)
    with pytest.raises(NanollamaError, match="larger than 108 bytes"):
        read_json(tmp_path / "config.json", max_bytes=108)


def test_real_configs_are_read(data_dir: Path) -> None:
    for path in data_dir.glob("weights/*/config.json"):
        assert read_json(path) == json.loads(path.read_text())


def test_the_hub_client_is_imported_only_to_download() -> None:
    program = "import sys, nanollama.checkpoint.hub; sys.exit('huggingface_hub' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_huge_model_max_length_of_tokenizer_configs_is_a_number_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')  # int(1e30)
    assert read_json(tmp_path / "tokenizer_config.json") == {"model_max_length": int(1e30)}

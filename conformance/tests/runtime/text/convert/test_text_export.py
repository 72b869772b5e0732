"""Tokenizer and template of an export, by hand: what a folder becomes in a GGUF file, and a GGUF file in a folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from conformance.fuzz.valid_vocabulary import KEY, C, N, paired
from conformance.models.fixtures import fixture_config
from nanollama.checkpoint.gguf.reader import GGUF
from nanollama.checkpoint.gguf.values import ARRAY, FLOAT32, STRING, UINT32, ValueType
from nanollama.checkpoint.gguf.values_writer import type_of
from nanollama.errors import NanollamaError
from nanollama.model.config import ModelConfig, read_config
from nanollama.text.chat.template import load_template
from nanollama.text.convert.text_files import folder_text, gguf_text
from nanollama.text.llamacpp.vocabulary import gguf_end_ids, load_gguf_template, load_gguf_tokenizer
from nanollama.text.tokenizer import Tokenizer, load_tokenizer

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BYTES = [*map(chr, range(0x21, 0x7F)), "Ġ"]


def config_of(rows: int) -> ModelConfig:
    raw = {**fixture_config("LlamaForCausalLM"), "vocab_size": rows}
    return read_config(raw)


def gguf_of(metadata: dict[str, Any], types: dict[str, ValueType] | None = None) -> GGUF:
    return GGUF(metadata, {}, types or {})


def tokenizer_json(**changes: Any) -> dict[str, Any]:
    """A byte-level BPE of ASCII: ids 0 to 94, then `ab` 95, `Ġab` 96 and `<end>` 97."""
    model = {"type": "BPE", "vocab": {token: id for id, token in enumerate([*BYTES, "ab", "Ġab"])}}
    model |= {"merges": [["a", "b"], ["Ġ", "ab"]], "ignore_merges": False} | changes.pop("model", {})
    added = [{"id": 97, "content": "<end>", "special": True}, {"id": 98, "content": "<think>", "special": False}]
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    whole = {"version": "1.0", "added_tokens": [flags | token for token in added], "normalizer": None, "model": model}
    return {**whole, "pre_tokenizer": BYTE_LEVEL, "post_processor": None, "decoder": BYTE_LEVEL, **changes}


def write(folder: Path, **files: Any) -> Path:
    """Files by their names without ending: `model` is a tokenizer.model, the others are JSON."""
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / f"{name}.model").write_bytes(content)
        else:
            (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def exported(folder: Path, rows: int, ends: list[int] | None = None) -> tuple[dict[str, Any], Tokenizer]:
    """The keys of a folder without their prefix, and the tokenizer that they make."""
    metadata = gguf_text(folder, config_of(rows), ends or ()).metadata
    tokenizer = load_gguf_tokenizer(metadata)
    assert tokenizer is not None
    return {key.removeprefix(KEY): value for key, value in metadata.items()}, tokenizer


def warnings_of(folder: Path, rows: int, ends: list[int] | None = None) -> str:
    """The warnings about a folder, one a line."""
    return "\n".join(gguf_text(folder, config_of(rows), ends or ()).warnings)


def unpacked(folder: Path, metadata: dict[str, Any]) -> Tokenizer:
    """The tokenizer of the folder that a GGUF file becomes."""
    folder.mkdir(exist_ok=True)
    for name, content in folder_text(gguf_of(metadata)).items():
        (folder / name).write_bytes(content)
    return load_tokenizer(folder)


def test_a_byte_level_tokenizer_json_becomes_tokens_types_and_merges(tmp_path: Path) -> None:
    folder = write(tmp_path, tokenizer=tokenizer_json(), tokenizer_config={"eos_token": "<end>", "pad_token": "<end>"})
    keys, tokenizer = exported(folder, 101)
    assert keys == {
        "model": "gpt2",
        "pre": "gpt-2",
        "merges": ["a b", "Ġ ab"],
        "tokens": [*BYTES, "ab", "Ġab", "<end>", "<think>", "[PAD99]", "[PAD100]"],
        "token_type": [1] * 97 + [3, 4, 5, 5],
        "add_bos_token": False,
        "add_eos_token": False,
        "eos_token_id": 97,
        "padding_token_id": 97,
    }
    assert tokenizer.encode("ab ab<end><think>", parse_special=True) == [95, 96, 97, 98]


def test_there_and_back_again_the_keys_are_the_same(tmp_path: Path) -> None:
    config = {"eos_token": "<end>", "pad_token": "<end>", "chat_template": "{{ 1 }}"}
    folder = write(tmp_path, tokenizer=tokenizer_json(), tokenizer_config=config)
    metadata = gguf_text(folder, config_of(101), ()).metadata
    unpacked(tmp_path / "back", metadata)
    assert gguf_text(tmp_path / "back", config_of(101), ()).metadata == metadata


def test_merges_are_strings_even_where_there_are_none(tmp_path: Path) -> None:
    write(tmp_path, tokenizer=tokenizer_json(model={"merges": []}), tokenizer_config={"eos_token": "<end>"})
    metadata, types, _ = gguf_text(tmp_path, config_of(99), ())
    assert metadata[KEY + "merges"] == [] and types[KEY + "merges"] == ValueType(ARRAY, STRING)


def test_a_folder_without_tokenizer_says_none(tmp_path: Path) -> None:
    assert gguf_text(tmp_path, config_of(8), ()) == ({KEY + "model": "none"}, {}, ())
    assert folder_text(gguf_of({KEY + "model": "none"})) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "expected one that ends in ByteLevel"),
        ({"pre_tokenizer": BYTE_LEVEL | {"add_prefix_space": True}}, "without add_prefix_space"),
        ({"model": {"ignore_merges": True}}, "with ignore_merges True, is none that llama.cpp has a name for"),
        ({"normalizer": {"type": "Lowercase"}}, "has the normalizer .*Lowercase"),
        ({"model": {"dropout": 0.1}}, "'dropout': 0.1"),
        ({"model": {"byte_fallback": True}}, "expected spaces that become ▁"),
        ({"model": {"type": "WordLevel", "unk_token": "a"}}, "a model of type WordLevel"),
    ],
)
def test_what_a_gguf_file_cant_say_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = write(tmp_path, tokenizer=tokenizer_json(**changes))
    with pytest.raises(NanollamaError, match=message):
        exported(folder, 99)


def test_a_tokenizer_with_more_ids_than_the_embedding_has_rows_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, tokenizer=tokenizer_json())
    with pytest.raises(NanollamaError, match="ids up to 98, but the embedding has 98 rows"):
        exported(folder, 98)


def test_composing_is_lost_with_a_warning(tmp_path: Path) -> None:
    folder = write(tmp_path, tokenizer=tokenizer_json(normalizer={"type": "NFC"}))
    assert "composes text (NFC)" in warnings_of(folder, 99, [97])


def test_white_space_that_a_token_takes_is_lost_with_a_warning(tmp_path: Path) -> None:
    mask = {"content": "<mask>", "lstrip": True, "special": True}
    write(tmp_path, tokenizer=tokenizer_json(), tokenizer_config={"added_tokens_decoder": {"99": mask}})
    assert "1 special tokens, '<mask>' among them" in warnings_of(tmp_path, 100, [97])


def test_further_ids_that_end_an_answer_are_named_and_a_fourth_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, tokenizer=tokenizer_json(), tokenizer_config={"eos_token": "<end>"})
    keys, _ = exported(folder, 99, [97, 5, 98])
    assert (keys["eos_token_id"], keys["eot_token_id"], keys["eom_token_id"]) == (97, 5, 98)
    assert gguf_end_ids({KEY + key: value for key, value in keys.items()}) == (5, 97, 98)
    with pytest.raises(NanollamaError, match=r"the ids \[5, 98, 6\] end an answer besides"):
        exported(folder, 99, [97, 5, 98, 6])


def test_bos_is_added_where_the_post_processor_adds_it_and_nothing_else_can_be(tmp_path: Path) -> None:
    around: dict[str, Any] = {"type": "BertProcessing", "sep": ["<end>", 97], "cls": ["<think>", 98]}
    folder = write(tmp_path, tokenizer=tokenizer_json(post_processor=around))
    keys, tokenizer = exported(folder, 99)
    assert (keys["bos_token_id"], keys["eos_token_id"], tokenizer.encode("a")) == (98, 97, [98, BYTES.index("a"), 97])
    write(folder, tokenizer_config={"bos_token": "<end>"})
    with pytest.raises(NanollamaError, match=r"puts the ids \[98\] at an end of every text"):
        exported(folder, 99)


def test_templates_keep_every_byte_both_ways(tmp_path: Path) -> None:
    texts = {"default": "{{ 'é' }}\r\n\t{%- if x %}\n{% endif %}\n", "tool_use": " {{ messages }}", "my-rag": ""}
    config = {"eos_token": "<end>", "chat_template": [{"name": n, "template": t} for n, t in texts.items()]}
    folder = write(tmp_path, tokenizer=tokenizer_json(), tokenizer_config=config)
    metadata = gguf_text(folder, config_of(99), ()).metadata
    assert metadata["tokenizer.chat_templates"] == ["tool_use", "my-rag"]
    there, back = load_gguf_template(metadata), tmp_path / "back"
    unpacked(back, metadata)
    again = load_template(back)
    assert there is not None and there.sources == texts
    assert again is not None and again.sources == texts


def test_one_template_stays_one(tmp_path: Path) -> None:
    metadata = {KEY + "model": "no_vocab", "tokenizer.chat_template": "{{ 1 }}\n"}
    assert json.loads(folder_text(gguf_of(metadata))["tokenizer_config.json"]) == {"chat_template": "{{ 1 }}\n"}


def test_from_gguf_to_gguf_keys_and_types_stay() -> None:
    metadata = {
        "general.name": "x",
        "tokenizer.ggml.scores": [1.0],
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.huggingface.json": "{",
    }
    types = {key: type_of(value) for key, value in metadata.items()}
    assert types["tokenizer.ggml.scores"] == ValueType(ARRAY, FLOAT32) and types["tokenizer.ggml.eos_token_id"] == ValueType(
        UINT32
    )
    values, kept, warnings = gguf_text(gguf_of(metadata, types), config_of(512), ())
    assert values == {key: value for key, value in metadata.items() if key != "general.name"}
    assert kept == {key: type_ for key, type_ in types.items() if key != "general.name"} and not warnings


def test_from_folder_to_folder_files_are_copied(tmp_path: Path) -> None:
    (tmp_path / "additional_chat_templates").mkdir()
    texts = {
        "merges.txt": b"#\r\n\xff",
        "tokenizer.model": b"\0",
        "additional_chat_templates/rag.jinja": b"{{",
        "generation_config.json": b"{",
    }
    for name, content in texts.items() | {"config.json": b"{}", "README.md": b"?", "a.safetensors": b""}.items():
        (tmp_path / name).write_bytes(content)
    assert folder_text(tmp_path) == texts


def test_an_ordinary_word_that_pads_stays_a_word(tmp_path: Path) -> None:
    tokens = dict.fromkeys([*BYTES, "ab"], N) | {"<end>": C}
    metadata = paired(tokens, ["a b"], eos_token_id=96, padding_token_id=0, add_bos_token=False)
    tokenizer = unpacked(tmp_path / "folder", metadata)
    assert tokenizer.special_ids == {96}
    assert tokenizer.decode([0, 95, 96]) == "!ab"
    assert tokenizer.encode("ab!<end>", parse_special=True) == [95, 0, 96]


def test_merges_that_never_happen_are_left_out(tmp_path: Path) -> None:
    metadata = paired(dict.fromkeys(["a", "b", "ab", "abc"], N), ["a b", "ab c"])
    assert unpacked(tmp_path / "folder", metadata).encode("ab") == [2]
    assert json.loads((tmp_path / "folder" / "tokenizer.json").read_text())["model"]["merges"] == [["a", "b"]]


@pytest.mark.parametrize("kind", ["gemma4", "bert"])
def test_other_vocabularies_are_refused_by_name(kind: str) -> None:
    metadata = paired(dict.fromkeys(["a", "<bos>"], N), [], model=kind, bos_token_id=1)
    with pytest.raises(NanollamaError, match=f"'{kind}'"):
        folder_text(gguf_of(metadata))

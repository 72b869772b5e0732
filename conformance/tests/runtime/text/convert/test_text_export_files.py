"""Tokenizers of exports: SentencePiece's by hand and at random, then every real file, each way and back.

Oracles: the libraries sentencepiece, transformers and, where it is installed, llama.cpp. NANOLLAMA_FUZZ_CASES sets how many
texts each file gets.
"""

import json
import re
import shutil
import struct
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import transformers

from conformance.fuzz.tokenizer import LlamaCpp
from conformance.fuzz.tokenizer_strings import Strings
from conformance.fuzz.valid_vocabulary import KEY, C, D, U, scored
from conformance.tests.runtime.text.convert.test_text_export import config_of, exported, gguf_of, unpacked, write
from conformance.tests.runtime.text.tokenizer.texts import CASES
from conformance.truth.peers.llamacpp_quantize import peer_python
from nanollama.checkpoint.gguf.reader import read_gguf
from nanollama.checkpoint.gguf.writer import write_gguf
from nanollama.text.bpe.byte_level import BYTE_TO_LETTER
from nanollama.text.chat.template import load_template
from nanollama.text.convert.text_files import folder_text, gguf_text
from nanollama.text.llamacpp.codepoints import LATER, NOT_ASCII_WHITE
from nanollama.text.llamacpp.vocabulary import load_gguf_template, load_gguf_tokenizer
from nanollama.text.sentencepiece.reader import read_sentencepiece
from nanollama.text.sentencepiece.writer import sentencepiece_bytes
from nanollama.text.tokenizer import Tokenizer, load_tokenizer

CORPUS = [Path(__file__).read_text(encoding="utf-8")]
LATER_CODES = {
    code
    for first, _, last in (part.partition("-") for part in LATER.split())
    for code in range(int(first, 16), int(last or first, 16) + 1)
}
VOCABULARIES = ("deepseek-llm", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2", "starcoder", "stories260K")
END = {"eos_token": "<|endoftext|>"}
FOLDERS: dict[str, tuple[dict[str, str], dict[str, Any], str, int]] = {  # files, tokenizer_config, model_type, rows
    "gpt2 json": ({"tokenizer.json": "gpt2.tokenizer.json"}, END, "gpt2", 50257),
    "gpt2 merges": ({"vocab.json": "gpt2.vocab.json", "merges.txt": "gpt2.merges.txt"}, {}, "gpt2", 50257),
    "qwen2": ({"vocab.json": "qwen2.vocab.json", "merges.txt": "qwen2.merges.txt"}, END, "qwen2", 151936),
    "neox": ({"tokenizer.json": "gpt-neox-olmo.tokenizer.json"}, END, "olmo2", 50304),
    "llama2": ({"tokenizer.model": "llama2.tokenizer.model"}, {}, "llama", 32000),
    "mistral v1": ({"tokenizer.model": "mistral.tokenizer.model.v1"}, {}, "mistral", 32000),
    "mistral v3": ({"tokenizer.model": "mistral.tokenizer.model.v3"}, {}, "mistral", 32768),
    "tok512": ({"tokenizer.model": "tok512.model"}, {}, "llama", 512),
    "llama3": ({"tokenizer.model": "llama3.tokenizer.model"}, {}, "llama", 128256),
}


def some(tokenizer: Tokenizer, count: int = CASES) -> Iterator[str]:
    """Strings for a vocabulary, without the characters of which llama.cpp's and the libraries' Unicode differ."""
    tokens = [tokenizer.id_to_token(id) for id in range(0, tokenizer.vocab_size, 7) if tokenizer.id_to_token(id)]
    strings = Strings(0, tokens, [tokenizer.id_to_token(id) for id in sorted(tokenizer.special_ids)], CORPUS)
    while count:
        if LATER_CODES.isdisjoint(map(ord, text := strings.next())):
            count -= 1
            yield text


def test_scores_and_spaces_of_a_sentencepiece_model_are_written(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    unpacked(folder, scored(add_space_prefix=False))
    (folder / "tokenizer.json").unlink()
    keys, tokenizer = exported(folder, 270, [2])
    assert (keys["model"], keys["pre"], keys["add_space_prefix"], keys["unknown_token_id"]) == ("llama", "default", False, 0)
    assert keys["tokens"][:4] == ["<unk>", "<s>", "</s>", "<0x00>"] and keys["tokens"][-1] == "[PAD269]"
    assert keys["token_type"][:4] == [2, 3, 3, 6] and keys["token_type"][-1] == 5
    assert keys["scores"][263:] == [-2.0, -1.0, -3.0, -4.0, -5.0, -10000.0, -10000.0]
    assert (keys["add_bos_token"], keys["add_eos_token"], keys["bos_token_id"], keys["eos_token_id"]) == (True, False, 1, 2)
    assert tokenizer.encode("abc") == [1, 266]


def test_a_tokenizer_model_is_read_by_the_library_as_it_was_written(tmp_path: Path) -> None:
    unpacked(tmp_path, scored())
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert [library.bos_id(), library.eos_id(), library.unk_id(), library.pad_id()] == [1, 2, 0, -1]
    assert [library.id_to_piece(id) for id in (0, 3, 266)] == ["<unk>", "<0x00>", "abc"]
    assert library.encode("a  bc é") == load_tokenizer(tmp_path).encode("a  bc é", add_special=False)


def test_every_field_of_a_sentencepiece_model_comes_back() -> None:
    metadata = scored()
    plain = read_sentencepiece(folder_text(gguf_of(metadata))["tokenizer.model"])
    for changes in ({}, {"kind": "unigram"}, {"add_dummy_prefix": False, "unk_surface": " ? ", "whitespace_as_suffix": True}):
        model = replace(plain, **changes)
        assert read_sentencepiece(sentencepiece_bytes(model, {"bos": 1, "eos": 2})) == model


def test_user_defined_tokens_are_found_and_followed_by_a_space(tmp_path: Path) -> None:
    metadata = scored()
    metadata[KEY + "tokens"] = [*metadata[KEY + "tokens"], "<x>", "  ", "<y>"]
    metadata[KEY + "token_type"] = [*metadata[KEY + "token_type"], int(D), int(D), int(C)]
    metadata[KEY + "scores"] = [*metadata[KEY + "scores"], 0.0, 0.0, 0.0]
    original, tokenizer = load_gguf_tokenizer(metadata), unpacked(tmp_path, metadata)
    assert original is not None
    for text in ("a<x>a", "<y>b  c", "<x><x> ", "  ", "<s>a</s>", ""):
        for parse in (False, True):
            assert tokenizer.encode(text, parse_special=parse) == original.encode(text, parse_special=parse)
    (tmp_path / "tokenizer.json").unlink()
    keys, _ = exported(tmp_path, 271, [2])
    assert keys["token_type"][-3:] == [4, 4, 3] and keys["tokens"][-2] == "  "


@pytest.mark.parametrize("name", VOCABULARIES)
def test_the_folder_of_a_real_gguf_vocabulary_gives_its_ids(name: str, data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / ("weights/stories260K.gguf" if name == "stories260K" else f"tokenizers/ggml-vocab/ggml-vocab-{name}.gguf")
    metadata = read_gguf(path).metadata
    original, folder = load_gguf_tokenizer(metadata), unpacked(tmp_path, metadata)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    library = sentencepiece.SentencePieceProcessor()
    spaced = library.Load(str(tmp_path / "tokenizer.model")) if (tmp_path / "tokenizer.model").exists() else False
    assert original is not None
    lacking = {b for b, letter in BYTE_TO_LETTER.items() if original.token_to_id(letter) is None and not spaced}
    assert bool(lacking) is (name == "starcoder")
    for text in some(original):
        if (name == "phi-3" and NOT_ASCII_WHITE.search(text)) or lacking.intersection(text.encode("utf-8")):
            continue  # Phi-3's special tokens take white space: of Unicode here, of ASCII there
        ids = original.encode(text, parse_special=True)
        assert folder.encode(text, parse_special=True) == ids == peer(text)["input_ids"]
        assert folder.encode(text) == original.encode(text)
        assert not spaced or library.encode(text.replace("\0", "")) == original.encode(
            text.replace("\0", ""), add_special=False
        )
        assert name == "deepseek-llm" or folder.decode(ids) == original.decode(ids)
    here, there = load_template(tmp_path), load_gguf_template(metadata)
    assert (here and here.sources) == (there and there.sources)


def real_folder(name: str, data_dir: Path, folder: Path) -> tuple[Path, int]:
    files, config, model_type, rows = FOLDERS[name]
    for target, file in files.items():
        shutil.copy(data_dir / "tokenizers" / file, folder / target)
    return write(folder, tokenizer_config=config, config={"model_type": model_type}), rows


@pytest.mark.parametrize("name", FOLDERS)
def test_the_gguf_file_of_a_real_folder_gives_its_ids(name: str, data_dir: Path, tmp_path: Path) -> None:
    folder, rows = real_folder(name, data_dir, tmp_path)
    keys, tokenizer = exported(folder, rows)
    original = load_tokenizer(folder)
    special = [token for token, type in zip(keys["tokens"], keys["token_type"], strict=True) if type in (U, C, D)]
    user = [token for token, type in zip(keys["tokens"], keys["token_type"], strict=True) if type == D and "scores" in keys]
    apart = {"qwen2": ["</s>"]}.get(name, special if "scores" in keys else [])  # what to_gguf.py says of special tokens
    for text in some(original):
        if name in ("qwen2", "neox"):
            text = unicodedata.normalize("NFC", text)
        if name == "tok512":
            text = re.sub(" +", " ", text).strip(" ")  # other spaces are removed
        if not any(token in text for token in user):
            assert tokenizer.encode(text) == original.encode(text)
        if not any(token in text for token in apart):
            assert tokenizer.encode(text, parse_special=True) == original.encode(text, parse_special=True)


@pytest.mark.parametrize("name", FOLDERS)
def test_llama_cpp_reads_our_file_as_we_do(name: str, data_dir: Path, tmp_path: Path) -> None:
    python = peer_python()
    if not python:
        pytest.skip("llama-cpp-python is not installed, and NANOLLAMA_LLAMACPP is not set: llama.cpp read nothing here")
    folder, rows = real_folder(name, data_dir, tmp_path)
    metadata, types, _ = gguf_text(folder, config_of(rows), ())
    counts = ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count")
    model: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.attention.layer_norm_rms_epsilon": struct.unpack("f", b"\0\0\0<")[0],
    }
    write_gguf(tmp_path / "a.gguf", {**model, **{f"llama.{key}": 32 for key in counts}, **metadata}, [], types)
    tokenizer, llama = load_gguf_tokenizer(metadata), LlamaCpp(python, tmp_path / "a.gguf")
    assert tokenizer is not None
    for text in some(tokenizer, CASES // 3):
        assert llama.ids(text)[1:] == [tokenizer.encode(text, add_special=add, parse_special=True) for add in (False, True)]
    llama.close()

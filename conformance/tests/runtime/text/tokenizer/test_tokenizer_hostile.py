"""Damaged tokenizer folders: each ends in a tokenizer that works or in one NanollamaError, and costs no memory.

NANOLLAMA_FUZZ_CASES sets how many damaged folders every kind of vocabulary gets.
"""

import copy
import json
import random
import tracemalloc
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from conformance.fuzz.json_damage import MARK, edit
from conformance.tests.runtime.text.tokenizer.test_tokenizer import (
    MERGES,
    TIKTOKEN,
    VOCAB,
    library_file,
    load,
    sentencepiece_file,
)
from conformance.tests.runtime.text.tokenizer.test_tokenizer_sentencepiece import SMALL, build, trained
from conformance.tests.runtime.text.tokenizer.texts import CASES
from nanollama.errors import NanollamaError
from nanollama.text.sentencepiece.model import SentencePiece
from nanollama.text.sentencepiece.reader import read_sentencepiece
from nanollama.text.tokenizer import load_tokenizer

CONFIG: dict[str, Any] = {
    "tokenizer_class": "LlamaTokenizer",
    "bos_token": "<s>",
    "eos_token": {"content": "</s>", "lstrip": False},
    "add_bos_token": True,
    "legacy": False,
    "additional_special_tokens": ["<|x|>"],
    "added_tokens_decoder": {
        "0": {"content": "<unk>", "special": True},
        "500": {"content": "<|x|>", "special": True, "lstrip": True, "rstrip": True},
    },
}
QWEN = {
    "tokenizer_class": "Qwen2Tokenizer",
    "eos_token": "<|im_end|>",
    "added_tokens_decoder": {"260": {"content": "<|im_end|>"}},
}
KINDS = ["unigram", "bpe", "small", "tiktoken", "merges", "library"]


@cache
def sound(kind: str) -> dict[str, Any]:
    """The files of an undamaged folder."""
    folders: dict[str, dict[str, Any]] = {
        "unigram": {
            "tokenizer.model": trained("unigram nmt_nfkc False", "symbols"),
            "tokenizer_config.json": CONFIG,
            "config.json": {"model_type": "llama", "bos_token_id": 1, "eos_token_id": [2]},
        },
        "bpe": {
            "tokenizer.model": trained("bpe identity True", "all spaces kept"),
            "special_tokens_map.json": {"bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": ["<s>"]},
            "added_tokens.json": {"<|y|>": 3000},
            "generation_config.json": {"eos_token_id": [2, 1]},
        },
        "small": {"tokenizer.model": sentencepiece_file()},
        "tiktoken": {"tokenizer.model": TIKTOKEN},
        "merges": {"vocab.json": VOCAB, "merges.txt": MERGES, "tokenizer_config.json": QWEN},
        "library": {
            "tokenizer.json": json.loads(library_file("<s> $A </s>")),
            "tokenizer_config.json": {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True},
        },
    }
    return folders[kind]


TEXTS = ["hello the world", "  a  b <x>foo<s></s><|x|> y\n\ne\u0301ﬁ 日本 😀\0", ""]
INSERTS = [b"\xff\xff\xff\xff\x0f", b"\x80" * 12, b"\x0a\xff\xff\xff\x7f", b"\x0a\x00", b"\0", b"\n", b" ", b"\0\0\xc0\x7f"]


def damage(raw: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, removed, repeated, inserted or cut off."""
    data = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at, size, other = rng.randrange(len(data) + 1), rng.choice([1, 1, 2, 4, 20]), rng.randrange(len(data) + 1)
        action = rng.randrange(7)
        if action == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif action == 1:
            data[at : at + size] = rng.randbytes(size)
        elif action == 2:
            del data[at : at + size]
        elif action == 3:
            data[at:at] = data[other : other + size * 20]
        elif action == 4:
            data[at : at + rng.choice([0, 4])] = rng.choice(INSERTS)
        elif action == 5 and rng.random() < 0.3:
            del data[at:]
        else:
            data[at : at + 1] = b"\xff"
        data = data or bytearray(1)
    return bytes(data)


def damaged(content: Any, rng: random.Random) -> bytes:
    if isinstance(content, bytes) or rng.random() < 0.25:
        return damage(content if isinstance(content, bytes) else json.dumps(content).encode(), rng)
    tree, raw = copy.deepcopy(content), ""
    for _ in range(rng.choice([1, 1, 2])):
        raw += edit(tree, rng)
        tree = copy.deepcopy(tree)  # what was put in may be shared between cases
    return json.dumps(tree).replace(json.dumps(MARK), raw or "0").encode()


def write_case(folder: Path, files: dict[str, Any], rng: random.Random | None) -> None:
    victim = rng.choice(list(files)) if rng else None
    for name, content in files.items():
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / name).write_bytes(damaged(content, rng) if rng and name == victim else raw)


def use(folder: Path) -> None:
    """Load the tokenizer and call everything it has."""
    ours = load_tokenizer(folder)
    for text in TEXTS:
        for parse_special in (False, True):
            ids = ours.encode(text, parse_special=parse_special)
            assert all(0 <= id < ours.vocab_size for id in ids)
            for skip_special in (False, True):
                ours.decode(ids, skip_special=skip_special).encode("utf-8")
    ours.decode([0, 3, 200, ours.vocab_size - 1, ours.vocab_size, 10**7])
    assert ours.id_to_token(ours.encode("the a", add_special=False)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_folder_works_or_is_refused(tmp_path: Path, kind: str) -> None:
    write_case(tmp_path, sound(kind), None)
    use(tmp_path)
    refused = 0
    for case in range(CASES):
        write_case(tmp_path, sound(kind), random.Random(f"{kind}:{case}"))
        try:
            use(tmp_path)
        except NanollamaError as error:
            refused += 1
            assert 10 < len(str(error)) < 1000
        except BaseException as error:
            error.add_note(f"case {kind}:{case}")
            raise
    assert CASES // 10 < refused < CASES, "most damage is noticed, and not everything is refused"


@pytest.mark.parametrize("kind", ["unigram", "bpe", "small"])
def test_a_damaged_model_that_sentencepiece_reads_too_gives_its_ids(kind: str) -> None:
    model, both = sound(kind)["tokenizer.model"], 0
    for case in range(2 * CASES):
        data = damage(model, random.Random(f"{kind}:{case}"))
        peer = sentencepiece.SentencePieceProcessor()
        try:
            peer.LoadFromSerializedProto(data)
            ours = SentencePiece(read_sentencepiece(data))
        except (ValueError, RuntimeError):
            continue
        both += 1
        for text in TEXTS:
            assert ours.encode(text) == peer.encode(text), f"case {kind}:{case}"
    assert both


def peak(folder: Path, **files: Any) -> int:
    """The most memory in bytes that Python had while the folder was refused."""
    tracemalloc.start()
    try:
        with pytest.raises(NanollamaError):
            load(folder, **files)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_model": b"\x0a\xff\xff\xff\x2f"},
        {"tokenizer_model": b"\x0a" + b"\xff" * 9 + b"\x01"},
        {"tokenizer_model": b"\x1a\x06\x12\x04\0\0\xe0\x05"},
        {"tokenizer_model": b"YQ== " + b"9" * 10**6},
        {"tokenizer_json": b'{"model": ' + b"[" * 10**6},
    ],
    ids=["piece", "2**64", "charsmap", "rank", "nesting"],
)
def test_a_claim_of_much_costs_nothing(tmp_path: Path, files: dict[str, Any]) -> None:
    assert peak(tmp_path, **files) < 20_000_000


def test_rules_that_go_round_in_circles_are_refused() -> None:
    units = [0] * 256
    units[ord("a")] = ord("a") << 10 | ord("a")  # reached by "a", and by another "a" reaches itself
    charsmap = (1024).to_bytes(4, "little") + b"".join(unit.to_bytes(4, "little") for unit in units) + b"\0"
    ours = SentencePiece(read_sentencepiece(build(SMALL, precompiled_charsmap=charsmap)))
    assert ours.encode("ba") == ours.encode("b") + ours.encode("a")[-1:]
    with pytest.raises(NanollamaError, match="a rule for more than 64 characters"):
        ours.encode("a" * 10**6)


def test_a_file_that_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").mkdir()
    with pytest.raises(NanollamaError, match="is not a plain file"):
        load_tokenizer(tmp_path)


def test_a_file_of_65_megabytes_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.model").open("wb") as file:
        file.truncate(65_000_000)
    with pytest.raises(NanollamaError, match="larger than 64,000,000 bytes: expected a vocabulary"):
        load_tokenizer(tmp_path)

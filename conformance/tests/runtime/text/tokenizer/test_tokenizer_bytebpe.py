"""Byte-level BPE against its definitions: tiktoken for Llama 3's ranks, transformers for vocab.json and merges.txt.

What llama.cpp and Hugging Face's JavaScript tokenizers expect of the same vocabularies is compared too.
"""

import base64
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Tokenizer, Qwen2Tokenizer

from conformance.tests.runtime.text.tokenizer.texts import CASES, cases, texts
from nanollama.errors import NanollamaError
from nanollama.text.bpe.byte_level import BYTE_TO_LETTER, PRE_TOKENIZERS, ByteBpe, merge_ranks, spell
from nanollama.text.bpe.files import read_merges, read_tiktoken
from nanollama.text.tokenizer import Tokenizer, load_tokenizer

LETTERS = {letter: id for id, letter in enumerate(BYTE_TO_LETTER.values())}


def small(merges: Sequence[tuple[str, str]], pre_tokenizer: str = "gpt2", **options: bool) -> ByteBpe:
    """All bytes (id = place in BYTE_TO_LETTER), and what the merges make of them (from 256 on)."""
    vocab = LETTERS | {left + right: 256 + place for place, (left, right) in enumerate(merges)}
    return ByteBpe(vocab, merge_ranks(merges, vocab), pre_tokenizer, **options)


def cut(model: ByteBpe, text: str) -> list[str]:
    return [model.id_to_token(id) or "" for id in model.encode(text)]


def test_bytes_are_spelled_by_printable_characters() -> None:
    assert spell(b"a b\n\xe9") == "aĠbĊé"
    assert len(set(BYTE_TO_LETTER.values())) == 256


def test_the_first_merge_of_the_list_goes_first_and_words_never_merge() -> None:
    model = small([("a", "b"), ("b", "c"), ("Ġ", "ab"), ("c", "Ġ")])
    assert cut(model, "abc abc") == ["ab", "c", "Ġab", "c"]


def test_text_decodes_to_itself_and_half_a_character_to_a_replacement() -> None:
    model = small([])
    assert model.decode(model.encode("é\n😀")) == "é\n😀"
    assert model.decode(model.encode("é")[:1]) == "\ufffd"


def test_text_between_ids_is_taken_as_it_is() -> None:
    assert small([]).decode([LETTERS["a"], "<é>", LETTERS["b"]]) == "a<é>b"


def test_digits_are_cut_as_each_family_cuts_them() -> None:
    digits = [(a, b) for a in "1234" for b in "1234"]
    assert cut(small([("1", "2"), ("3", "4"), ("12", "34")], "gpt2"), "1234") == ["1234"]
    assert cut(small(digits, "llama3"), "12341") == ["12", "3", "41"]
    assert cut(small(digits, "qwen2"), "1234") == ["1", "2", "3", "4"]


def test_qwen_composes_characters_first() -> None:
    assert small([], "qwen2").encode("e\u0301") == small([], "qwen2").encode("é") != small([], "gpt2").encode("e\u0301")


def test_a_space_is_put_in_front_only_if_asked_and_missing() -> None:
    model = small([("Ġ", "a")], prefix_space=True)
    assert cut(model, "a") == cut(model, " a") == ["Ġa"]
    assert cut(model, "") == []


def test_a_whole_word_is_taken_without_merging_only_if_asked() -> None:
    vocab = LETTERS | {"abc": 256}
    ranks: dict[tuple[str, str], float] = {}
    for whole, expected in ((True, ["abc"]), (False, ["a", "b", "c"])):
        model = ByteBpe(vocab, lambda left, right: ranks.get((left, right)), "gpt2", whole_words=whole)
        assert cut(model, "abc") == expected


def test_a_byte_that_the_vocabulary_lacks_is_an_error() -> None:
    with pytest.raises(NanollamaError, match="no token for 'b' in the word 'ab'"):
        ByteBpe({"a": 0}, merge_ranks([], {"a": 0}), "gpt2").encode("ab")


def test_an_unknown_pre_tokenizer_is_named() -> None:
    with pytest.raises(
        NanollamaError, match=r"there is no pre-tokenizer 'gpt9'; did you mean 'gpt2'\? There are gpt2, llama3, qwen2"
    ):
        small([], "gpt9")


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        ([("a", "z")], "merge 0 joins 'a' and 'z', but 'z' is not in the vocabulary"),
        ([("a", "a")], "but 'aa' is not in the vocabulary"),
        ([("a", "b"), ("a", "b")], "merge 1, 'a' and 'b', occurs twice"),
    ],
)
def test_a_merge_must_join_two_tokens_into_a_third_and_only_once(merges: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(NanollamaError, match=message):
        merge_ranks(merges, {"a": 0, "b": 1, "ab": 2})


def test_merges_are_read_with_either_line_end_and_without_the_version_line() -> None:
    assert (
        read_merges("#version: 0.2\nĠ t\nh e\n".encode()) == read_merges("Ġ t\r\nh e\r\n".encode()) == [("Ġ", "t"), ("h", "e")]
    )
    assert read_merges(b"#version: 0.2\n") == read_merges(b"") == []


@pytest.mark.parametrize("line", ["a", "a b c", " a", "a ", ""])
def test_a_line_that_is_no_merge_is_named(line: str) -> None:
    with pytest.raises(NanollamaError, match=r"merges.txt, line 2 is"):
        read_merges(f"a b\n{line}\nc d".encode())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"YQ== 0\nYQ= 1\n", "line 2: b'YQ=' is not base64"),
        (b"Y Q 0\n", "is not base64"),
        (b"YQ== x\n", "expected base64, a space and a rank"),
        (b"YQ== -1\n", "expected base64, a space and a rank"),
        (b"YQ==\n", "expected base64, a space and a rank"),
        (b"YQ== " + b"9" * 5000, "expected base64, a space and a rank"),
        (b"YQ== 0\nYQ== 1\n", "the token 'a' occurs twice"),
        (b"YQ== 0\nYg== 0\n", "gives the id 0 to 'a' and to 'b'"),
        (b"\n\n", "no tokens"),
    ],
)
def test_a_damaged_file_of_ranks_is_refused_with_its_line(data: bytes, message: str) -> None:
    with pytest.raises(NanollamaError, match=message):
        read_tiktoken(data)


@dataclass(frozen=True)
class Peer:
    """The definition of one vocabulary. special: with special tokens parsed."""

    encode: Callable[[str], list[int]]
    special: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]


CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"tokenizer_class": "GPT2Tokenizer"},
    "qwen2": {
        "tokenizer_class": "Qwen2TokenizerFast",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "added_tokens_decoder": {
            "151643": {"content": "<|endoftext|>", "special": True},
            "151644": {"content": "<|im_start|>", "special": True},
            "151645": {"content": "<|im_end|>", "special": True},
        },
    },
}


@pytest.fixture(scope="module", params=["gpt2", "qwen2", "llama3"])
def both(request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Peer]:
    """Our tokenizer of a folder, and the definition of the same folder."""
    name, folder = request.param, tmp_path_factory.mktemp("vocabulary")
    if name == "llama3":
        shutil.copyfile(data_dir / "tokenizers/llama3.tokenizer.model", folder / "tokenizer.model")
        return load_tokenizer(folder), llama3(folder / "tokenizer.model")
    for file in ("vocab.json", "merges.txt"):
        shutil.copyfile(data_dir / f"tokenizers/{name}.{file}", folder / file)
    (folder / "tokenizer_config.json").write_text(json.dumps(CONFIGS[name]))
    peer: Any = (GPT2Tokenizer if name == "gpt2" else Qwen2Tokenizer).from_pretrained(folder)
    return load_tokenizer(folder), Peer(
        lambda text: list(peer.encode(text, add_special_tokens=False, split_special_tokens=True)),
        lambda text: list(peer.encode(text, add_special_tokens=False)),
        lambda ids: str(peer.decode(ids, skip_special_tokens=True)),
    )


def llama3(path: Path) -> Peer:
    """tiktoken with the pattern and the special tokens of Meta's llama-models, models/llama3/tokenizer.py."""
    lines = [line.split() for line in path.read_bytes().splitlines()]
    names = ["begin_of_text", "end_of_text", "reserved_special_token_0", "reserved_special_token_1", "finetune_right_pad_id"]
    names += ["step_id", "start_header_id", "end_header_id", "eom_id", "eot_id", "python_tag", "image"]
    names += [f"reserved_special_token_{2 + place}" for place in range(256 - len(names))]
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    peer = tiktoken.Encoding(
        "llama3",
        pat_str=pattern,
        mergeable_ranks={base64.b64decode(token): int(rank) for token, rank in lines},
        special_tokens={f"<|{name}|>": len(lines) + place for place, name in enumerate(names)},
    )
    return Peer(
        lambda text: peer.encode(text, disallowed_special=()),
        lambda text: peer.encode(text, allowed_special="all"),
        lambda ids: peer.decode([id for id in ids if id < len(lines)]),
    )


@cases
@given(text=texts)
def test_a_real_vocabulary_gives_the_ids_and_texts_of_its_definition(both: tuple[Tokenizer, Peer], text: str) -> None:
    ours, peer = both
    assert ours.encode(text, add_special=False) == peer.encode(text)
    assert ours.encode(text, add_special=False, parse_special=True) == peer.special(text)
    assert ours.decode(peer.special(text)) == peer.decode(peer.special(text))


@cases
@given(data=st.data())
def test_any_ids_of_a_real_vocabulary_decode_as_in_its_definition(both: tuple[Tokenizer, Peer], data: st.DataObject) -> None:
    ours, peer = both
    ids = data.draw(st.lists(st.integers(0, ours.vocab_size - 1) | st.integers(0, 300), max_size=12))
    assert ours.decode(ids) == peer.decode(ids)


def test_a_corpus_and_long_runs_give_the_same_ids(both: tuple[Tokenizer, Peer], data_dir: Path) -> None:
    ours, peer = both
    corpus = (data_dir / "corpora/wikitext-2.test.txt").read_text(encoding="utf-8")[: 10_000 * max(1, CASES // 100)]
    for text in (corpus, "a" * 3000, " " * 20_000 + "x", "\n" * 20_000, "ab" * 3000, "é" * 2000):
        assert ours.encode(text, add_special=False) == peer.encode(text)


def test_the_ids_are_those_that_llama_cpp_expects(
    both: tuple[Tokenizer, Peer], request: pytest.FixtureRequest, data_dir: Path
) -> None:
    file = {"gpt2": "gpt-2", "llama3": "llama-bpe"}.get(name_of(request), "qwen2")
    folder = data_dir / "tokenizers/ggml-vocab"
    inputs = (folder / f"ggml-vocab-{file}.gguf.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    outputs = (folder / f"ggml-vocab-{file}.gguf.out").read_text().split("\n")
    assert len(inputs) == len(outputs) == 47
    for text, expected in zip(inputs, outputs, strict=True):
        assert both[0].encode(text, add_special=False) == [int(id) for id in expected.split()]


def test_the_ids_are_those_that_hugging_face_expects(
    both: tuple[Tokenizer, Peer], request: pytest.FixtureRequest, data_dir: Path
) -> None:
    goldens = json.loads((data_dir / "tokenizers/hf_tokenizer_goldens.json").read_text(encoding="utf-8"))
    cases = goldens[GOLDENS[name_of(request)]]["cases"]
    assert len(cases) >= 25
    for case in cases:
        assert both[0].encode(case["text"], parse_special=True) == case["ids"], case["name"]
        decoded = both[0].decode(case["ids"], skip_special=False)
        assert decoded == case["decoded"] or cleaned(decoded) == case["decoded"], case["name"]


GOLDENS = {
    "gpt2": "openai-community/gpt2",
    "qwen2": "Xenova/Qwen1.5-0.5B-Chat",
    "llama3": "Xenova/llama3-tokenizer-new",
}


def name_of(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["both"])


def cleaned(text: str) -> str:
    """What transformers 4 did to decoded text, and some of these goldens show."""
    return re.sub(r" (\.|\?|!|,|'(?:m|s|ve|re)?|n't)", r"\1", text)


def test_every_pattern_cuts_text_without_losing_any() -> None:
    text = "I'll\n\n  go 12345,  ok?\t😀 don't 'S \u3000x\u200b  "
    for name in PRE_TOKENIZERS:
        model = small([], name)
        assert model.decode(model.encode(text)) == text

"""Files beside a vocabulary that contradict it or each other, and damaged ones: each is refused with its reason."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from conformance.tests.runtime.text.tokenizer.test_tokenizer import A, library_file, load, sentencepiece_file
from nanollama.errors import NanollamaError

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown bos": ({"bos_token": "<x>"}, "bos_token is '<x>', which has no id"),
    "bos asked for but not named": ({"add_bos_token": True, "bos_token": None}, "no bos_token is named"),
    "eos asked for but not named": ({"add_eos_token": True, "eos_token": None}, "no eos_token is named"),
    "a flag that is no flag": ({"add_bos_token": "yes"}, "add_bos_token is 'yes'; expected a bool or null"),
    "a token that is a number": ({"eos_token": 2}, "eos_token is 2; expected a token"),
    "a token without content": ({"eos_token": {"lstrip": True}}, "expected a token"),
    "half a surrogate pair": ({"eos_token": "\ud800"}, "expected a token"),
    "special tokens that are no list": ({"additional_special_tokens": "<x>"}, "expected a list of tokens"),
    "a special token without id": ({"additional_special_tokens": ["<x>"]}, "'<x>' has no id"),
    "added tokens that are a list": ({"added_tokens_decoder": ["<x>"]}, "expected a dict or null"),
    "an id that is no number": ({"added_tokens_decoder": {"x": {"content": "<x>"}}}, "expected an id and an object"),
    "an id of a normal piece": ({"added_tokens_decoder": {str(A): {"content": "<x>"}}}, "do these files belong together"),
    "two ids for a token": ({"added_tokens_decoder": {"12": {"content": "<s>"}}}, "the vocabulary has it as 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_contradiction_between_the_files_is_refused(tmp_path: Path, name: str) -> None:
    config, message = REFUSED[name]
    with pytest.raises(NanollamaError, match=message):
        load(tmp_path, tokenizer_model=sentencepiece_file(), tokenizer_config_json=config)


@pytest.mark.parametrize("name", ["tokenizer_config", "special_tokens_map", "added_tokens", "config", "generation_config"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"a": 1, "a": 2}', b"[" * 100_000])
def test_a_file_beside_it_that_is_no_json_object_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(NanollamaError, match=f"{name}.json"):
        load(tmp_path, tokenizer_model=sentencepiece_file(), **{f"{name}_json": content})


def test_ids_that_a_config_names_but_the_vocabulary_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NanollamaError, match="eos_token_id is 999 in the config"):
        load(tmp_path, tokenizer_json=library_file(), config_json={"eos_token_id": 999})


def test_a_token_that_tokenizer_json_has_under_another_id_is_refused(tmp_path: Path) -> None:
    config = {"added_tokens_decoder": {"300": {"content": "<new>", "special": True}}}
    with pytest.raises(NanollamaError, match=r"'<new>' has the id 260 in tokenizer\.json and 300"):
        load(tmp_path, tokenizer_json=library_file(), tokenizer_config_json=config)
    config = {"added_tokens_decoder": {"260": {"content": "<new>", "special": True}}}
    ours = load(tmp_path, tokenizer_json=library_file(), tokenizer_config_json=config)
    assert ours.encode("<new>", parse_special=True) == [260]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "not usable"),
        (
            {"post_processor": {"type": "BertProcessing", "sep": ["</s>", 258], "cls": ["<x>", 9999]}},
            "9999, which has no token",
        ),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "not usable"),
    ],
)
def test_a_damaged_tokenizer_json_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(NanollamaError, match=message):
        load(tmp_path, tokenizer_json=json.loads(library_file()) | change)


def test_truncation_and_padding_of_a_tokenizer_json_are_switched_off(tmp_path: Path) -> None:
    library = tokenizers.Tokenizer.from_str(library_file())
    library.enable_truncation(2)
    library.enable_padding(length=10**9)
    assert len(load(tmp_path, tokenizer_json=library.to_str()).encode("abcdef")) == 5

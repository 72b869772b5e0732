"""Special and other added tokens in text, decoding, and what is no text and no id."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from conformance.tests.runtime.text.tokenizer.test_tokenizer import (
    AB,
    BOS,
    EOS,
    LETTERS,
    SILENT,
    SPACE,
    SPACE_A,
    SPACE_AB,
    TIKTOKEN,
    UNK,
    USER,
    A,
    B,
    library_file,
    load,
    sentencepiece_file,
    write,
)
from conformance.tests.runtime.text.tokenizer.texts import cases, texts
from nanollama.errors import NanollamaError
from nanollama.text.tokenizer import Tokenizer, load_tokenizer

# Special tokens in text


def test_special_tokens_in_text_are_text_unless_asked_for(tmp_path: Path) -> None:
    ours = load(tmp_path, tokenizer_model=sentencepiece_file())
    assert ours.encode("<s>a", add_special=False) == [SPACE, UNK, A]
    assert ours.encode("a</s>b", add_special=False, parse_special=True) == [SPACE_A, EOS, B]
    assert ours.encode("a<unk>b", add_special=False, parse_special=True) == [SPACE_A, UNK, B]


def test_a_user_defined_piece_that_the_files_call_special_is_no_longer_found_in_text(tmp_path: Path) -> None:
    config = {"added_tokens_decoder": {str(USER): {"content": "<user>", "special": True}}}
    ours = load(tmp_path / "1", tokenizer_model=sentencepiece_file())
    assert ours.encode("b<user>a", add_special=False) == [SPACE, B, USER, A]
    ours = load(tmp_path / "2", tokenizer_model=sentencepiece_file(), tokenizer_config_json=config)
    assert ours.encode("b<user>a", add_special=False) == [SPACE, B, UNK, A]
    assert ours.encode("b<user>a", add_special=False, parse_special=True) == [SPACE, B, USER, A]
    assert ours.special_ids == {BOS, EOS, USER}


def test_after_a_special_token_there_is_no_dummy_space_unless_legacy(tmp_path: Path) -> None:
    files: dict[str, Any] = {"tokenizer_model": sentencepiece_file()}
    assert load(tmp_path, **files).encode("<s>ab</s> ab", add_special=False, parse_special=True) == [BOS, AB, EOS, SPACE_AB]
    ours = load(tmp_path, **files, tokenizer_config_json={"legacy": True})
    assert ours.encode("<s>ab</s>a", add_special=False, parse_special=True) == [BOS, SPACE_AB, EOS, SPACE_A]


def test_where_spaces_are_removed_a_special_token_keeps_one_beside_it(tmp_path: Path) -> None:
    ours = load(tmp_path, tokenizer_model=sentencepiece_file(remove_extra_whitespaces=True))
    assert ours.encode("  a  </s>  a ", add_special=False, parse_special=True) == [SPACE_A, SPACE, EOS, SPACE_A]


def test_add_prefix_space_decides_over_the_dummy_prefix(tmp_path: Path) -> None:
    files: dict[str, Any] = {"tokenizer_model": sentencepiece_file(), "tokenizer_config_json": {"add_prefix_space": False}}
    assert load(tmp_path, **files).encode("ab", add_special=False) == [AB]
    assert load(tmp_path, **files).decode([SPACE_AB]) == " ab"


def test_added_tokens_take_white_space_with_them_and_stand_alone_as_they_say(tmp_path: Path) -> None:
    tokens = {
        "20": {"content": "<l>", "special": True, "lstrip": True},
        "21": {"content": "<r>", "special": True, "rstrip": True},
        "22": {"content": "ab", "special": False, "single_word": True},
    }
    files = {"vocab_json": {"a": 0, "b": 1, "Ġ": 2}, "merges_txt": b"", "config_json": {"model_type": "gpt2"}}
    ours = load(tmp_path, **files, tokenizer_config_json={"added_tokens_decoder": tokens})
    assert ours.encode("a \n<l> a", parse_special=True) == [0, 20, 2, 0]
    assert ours.encode("a <r> \ta", parse_special=True) == [0, 2, 21, 0]
    assert ours.encode("ab aba bab") == [22, 2, 0, 1, 0, 2, 1, 0, 1]


def test_tokens_that_are_added_but_not_special_are_always_found_and_always_shown(tmp_path: Path) -> None:
    ours = load(tmp_path, tokenizer_json=library_file())
    assert ours.encode("a<tool>") == [LETTERS.index("a"), 259]
    assert ours.decode([259, 257]) == "<tool>"


def test_the_longest_added_token_wins(tmp_path: Path) -> None:
    added = {"<|x|>": 300, "<|x|>y": 301}
    ours = load(tmp_path, **SILENT, added_tokens_json=added)
    assert ours.encode("<|x|>y<|x|>") == [301, 300]


def test_added_tokens_json_makes_special_what_another_file_names(tmp_path: Path) -> None:
    names = {"additional_special_tokens": ["<|x|>"]}
    ours = load(tmp_path, **SILENT, added_tokens_json={"<|x|>": 300, "<|y|>": 301}, special_tokens_map_json=names)
    assert 300 in ours.special_ids and 301 not in ours.special_ids
    assert ours.vocab_size == 302


@pytest.fixture(scope="module", params=["llama2.tokenizer.model", "mistral.tokenizer.model.v1", "mistral.tokenizer.model.v3"])
def llama(request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    """Our tokenizer of a real SentencePiece model with two more tokens, and that of transformers."""
    model = (data_dir / "tokenizers" / request.param).read_bytes()
    size = load(tmp_path_factory.mktemp("bare"), tokenizer_model=model).vocab_size
    added = {str(size): {"content": "<|im_start|>", "special": True}, str(size + 1): {"content": "<x>", "special": False}}
    folder = tmp_path_factory.mktemp("llama")
    ours = load(folder, tokenizer_model=model, tokenizer_config_json={"added_tokens_decoder": added})
    return ours, LlamaTokenizer.from_pretrained(folder)


@cases
@given(text=texts)
def test_parsed_special_tokens_are_those_of_transformers(llama: tuple[Tokenizer, Any], text: str) -> None:
    """On what sentencepiece and transformers 5 agree on: single spaces, none in front, and no "▁"."""
    ours, peer = llama
    text = " ".join(text.replace("▁", "").split())
    ids = peer.encode(text, add_special_tokens=False)
    assert ours.encode(text, add_special=False, parse_special=True) == ids
    assert ours.decode(ids, skip_special=False) == peer.decode(ids)


@pytest.fixture(scope="module", params=["gpt2.tokenizer.json", "gpt-neox-olmo.tokenizer.json"])
def library(request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    """Our tokenizer of a real tokenizer.json, and that of transformers."""
    content = (data_dir / "tokenizers" / request.param).read_bytes()
    folder = write(tmp_path_factory.mktemp("library"), tokenizer_json=content)
    return load_tokenizer(folder), PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))


@cases
@given(text=texts)
def test_a_real_tokenizer_json_gives_the_ids_and_texts_of_transformers(library: tuple[Tokenizer, Any], text: str) -> None:
    ours, peer = library
    assert ours.encode(text, parse_special=True) == peer.encode(text)
    assert ours.encode(text) == peer.encode(text, split_special_tokens=True)
    assert ours.decode(peer.encode(text), skip_special=False) == peer.decode(peer.encode(text))


# Decoding


def test_special_tokens_are_left_out_of_decoded_text_or_spelled(tmp_path: Path) -> None:
    ours = load(tmp_path, tokenizer_model=sentencepiece_file())
    assert ours.decode([BOS, SPACE_A, EOS]) == "a"
    assert ours.decode([BOS, SPACE_A, EOS], skip_special=False) == "<s> a</s>"


def test_the_unknown_piece_shows_as_its_surface_or_is_spelled(tmp_path: Path) -> None:
    ours = load(tmp_path, tokenizer_model=sentencepiece_file())
    assert ours.decode([SPACE_A, UNK]) == "a ⁇ "
    assert ours.decode([SPACE_A, UNK], skip_special=False) == "a<unk>"
    assert UNK not in ours.special_ids


def test_an_id_without_a_token_has_no_text(tmp_path: Path) -> None:
    for ours in (
        load(tmp_path / "1", tokenizer_model=sentencepiece_file()),
        load(tmp_path / "2", tokenizer_json=library_file()),
    ):
        assert ours.decode([A, 10**6, B, 2**40]) == ours.decode([A, B])


def test_cleaning_up_spaces_is_never_done(tmp_path: Path) -> None:
    ours = load(tmp_path, **SILENT, tokenizer_config_json={"clean_up_tokenization_spaces": True})
    assert ours.decode(ours.encode("a .")) == "a ."


@cases
@given(text=texts)
def test_the_text_of_the_first_ids_is_how_the_text_of_all_begins(
    tmp_path_factory: pytest.TempPathFactory, prefix_models: list[Tokenizer], text: str
) -> None:
    """But for U+FFFD at the end, which may be half of a character."""
    if not prefix_models:
        files: list[dict[str, Any]] = [
            {"tokenizer_model": sentencepiece_file()},
            {"tokenizer_model": sentencepiece_file(remove_extra_whitespaces=True)},
            SILENT,
            {"tokenizer_model": TIKTOKEN},
        ]
        prefix_models += [load(tmp_path_factory.mktemp("model"), **some) for some in files]
    for ours in prefix_models:
        ids = ours.encode(text)
        for end in range(len(ids)):
            assert ours.decode(ids).startswith(ours.decode(ids[:end]).rstrip("\ufffd"))


@pytest.fixture(scope="module")
def prefix_models() -> list[Tokenizer]:
    return []


# Ids and tokens


def test_tokens_and_ids_name_each_other(tmp_path: Path) -> None:
    ours = load(tmp_path, tokenizer_model=sentencepiece_file())
    assert [ours.token_to_id(ours.id_to_token(id)) for id in range(ours.vocab_size)] == list(range(10))
    assert ours.token_to_id("no such token") is None


@pytest.mark.parametrize("id", [10, 10**9])
def test_an_id_without_a_token_has_no_name(tmp_path: Path, id: int) -> None:
    with pytest.raises(NanollamaError, match=f"id {id} has no token; the vocabulary has the ids 0 to 9"):
        load(tmp_path, tokenizer_model=sentencepiece_file()).id_to_token(id)


@pytest.mark.parametrize(("ids", "message"), [([-1], "-1 is negative"), ([0.5], "0.5 is a float"), (["a"], "'a' is a str")])
def test_what_is_no_id_is_refused(tmp_path: Path, ids: list[Any], message: str) -> None:
    with pytest.raises(NanollamaError, match=message):
        load(tmp_path, tokenizer_model=sentencepiece_file()).decode(ids)


@pytest.mark.parametrize("files", [{"tokenizer_model": sentencepiece_file()}, {"tokenizer_json": library_file()}, SILENT])
def test_half_a_surrogate_pair_is_refused_with_its_place(tmp_path: Path, files: dict[str, Any]) -> None:
    with pytest.raises(NanollamaError, match=r"character 2 of the text is U\+DC00"):
        load(tmp_path, **files).encode("ab\udc00")


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    text: Any = b"ab"
    with pytest.raises(NanollamaError, match="text to encode is a bytes"):
        load(tmp_path, **SILENT).encode(text)

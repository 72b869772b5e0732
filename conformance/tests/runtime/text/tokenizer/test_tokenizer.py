"""`load_tokenizer`: which file counts, and where BOS and EOS come from.

The vocabularies here, one for each kind of file, are small enough to redo by hand.
"""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from nanollama.errors import NanollamaError
from nanollama.text.bpe.byte_level import BYTE_TO_LETTER
from nanollama.text.tokenizer import Tokenizer, load_tokenizer

PROTOCOL: Any = sentencepiece_model_pb2  # its classes are made at run time
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = range(1, 5)
PIECES = ["<unk>", "<s>", "</s>", "<user>", "▁", "a", "b", "▁a", "ab", "▁ab"]
UNK, BOS, EOS, USER, SPACE, A, B, SPACE_A, AB, SPACE_AB = range(10)


def sentencepiece_file(*, user: int = USER_DEFINED, **spec: Any) -> bytes:
    """A BPE model of PIECES that keeps all spaces."""
    model = PROTOCOL.ModelProto()
    for id, piece in enumerate(PIECES):
        type = {UNK: UNKNOWN, BOS: CONTROL, EOS: CONTROL, USER: user}.get(id, NORMAL)
        model.pieces.add(piece=piece, score=-id, type=type)
    model.trainer_spec.model_type = 2
    model.normalizer_spec.remove_extra_whitespaces = False
    for name, value in spec.items():
        setattr(model.normalizer_spec if hasattr(model.normalizer_spec, name) else model.trainer_spec, name, value)
    return bytes(model.SerializeToString())


LETTERS = list(BYTE_TO_LETTER.values())
VOCAB = {letter: id for id, letter in enumerate(LETTERS)} | {"ab": 256}
MERGES = b"#version: 0.2\na b\n"
TIKTOKEN = b"".join(base64.b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(256)) + b"YWI= 256\n"


def library_file(template: str | None = None) -> str:
    """A tokenizer.json of VOCAB, with <s> and </s> as 257 and 258, and the ordinary added token <tool> as 259."""
    library = tokenizers.Tokenizer(models.BPE(VOCAB, [("a", "b")]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<s>", "</s>"])
    library.add_tokens(["<tool>"])
    if template:
        names = [("<s>", 257), ("</s>", 258)]
        library.post_processor = processors.TemplateProcessing(single=template, special_tokens=names)
    return str(library.to_str())


def write(folder: Path, **files: Any) -> Path:
    """Files by name, `_` for the dot; an object is written as JSON."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        stem, _, suffix = name.rpartition("_")
        raw = content if isinstance(content, bytes) else (content if isinstance(content, str) else json.dumps(content)).encode()
        (folder / f"{stem}.{suffix}").write_bytes(raw)
    return folder


def load(folder: Path, **files: Any) -> Tokenizer:
    return load_tokenizer(write(folder, **files))


# Which file counts


def test_tokenizer_json_goes_before_tokenizer_model_before_vocab_and_merges(tmp_path: Path) -> None:
    qwen = {"tokenizer_class": "Qwen2Tokenizer"}
    assert load(tmp_path, vocab_json=VOCAB, merges_txt=MERGES, tokenizer_config_json=qwen).encode("ab") == [256]
    (tmp_path / "tokenizer_config.json").unlink()
    assert load(tmp_path, tokenizer_model=sentencepiece_file()).encode("ab") == [BOS, SPACE_AB]
    assert load(tmp_path, tokenizer_json=library_file()).encode("ab") == [256]


def test_tokenizer_model_is_told_apart_by_its_content(tmp_path: Path) -> None:
    assert load(tmp_path, tokenizer_model=sentencepiece_file()).encode("a", add_special=False) == [SPACE_A]
    assert load(tmp_path, tokenizer_model=TIKTOKEN).encode("a", add_special=False) == [ord("a")]


def test_a_folder_without_a_tokenizer_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(NanollamaError, match=r"expected tokenizer.json, or tokenizer.model, or vocab.json with merges.txt"):
        load(tmp_path, vocab_json=VOCAB)


@pytest.mark.parametrize(
    "beside",
    [
        {"tokenizer_config_json": {"tokenizer_class": "GPT2TokenizerFast"}},
        {"config_json": {"model_type": "gpt2"}},
        {"tokenizer_config_json": {"tokenizer_class": "PreTrainedTokenizerFast"}, "config_json": {"model_type": "gpt2"}},
    ],
)
def test_the_kind_of_vocab_and_merges_is_the_class_else_the_model_type(tmp_path: Path, beside: dict[str, Any]) -> None:
    joined = {**VOCAB, "12": 257}
    ours = load(tmp_path, vocab_json=joined, merges_txt=MERGES + b"1 2\n", **beside)
    assert ours.encode("12") == [257]  # Qwen2 would cut the digits apart


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ({}, "needs a tokenizer_class"),
        ({"config_json": {"model_type": "roberta"}}, "found 'roberta'"),
        ({"tokenizer_config_json": {"tokenizer_class": "BartTokenizer"}}, "'BartTokenizer' is not implemented"),
    ],
)
def test_an_unknown_kind_of_vocab_and_merges_is_named(tmp_path: Path, beside: dict[str, Any], message: str) -> None:
    with pytest.raises(NanollamaError, match=message):
        load(tmp_path, vocab_json=VOCAB, merges_txt=MERGES, **beside)


def test_a_class_that_changes_the_ids_of_a_sentencepiece_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NanollamaError, match="'XLMRobertaTokenizer' is not implemented; known: GemmaTokenizer, LlamaTokenizer"):
        load(tmp_path, tokenizer_model=sentencepiece_file(), tokenizer_config_json={"tokenizer_class": "XLMRobertaTokenizer"})


def test_a_tiktoken_file_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NanollamaError, match="model_type 'llama4' is not known"):
        load(tmp_path, tokenizer_model=TIKTOKEN, config_json={"model_type": "llama4"})


# BOS and EOS

SILENT = {"vocab_json": VOCAB, "merges_txt": MERGES, "config_json": {"model_type": "gpt2"}}


def test_where_the_files_are_silent_sentencepiece_and_tiktoken_get_bos_and_the_others_nothing(tmp_path: Path) -> None:
    assert load(tmp_path / "1", tokenizer_model=sentencepiece_file()).encode("a") == [BOS, SPACE_A]
    assert load(tmp_path / "2", tokenizer_model=TIKTOKEN).encode("a") == [257, ord("a")]
    assert load(tmp_path / "3", tokenizer_json=library_file()).encode("a") == [LETTERS.index("a")]
    assert load(tmp_path / "4", **SILENT).encode("a") == [LETTERS.index("a")]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"add_bos_token": False}, [SPACE_A]),
        ({"add_eos_token": True}, [BOS, SPACE_A, EOS]),
        ({"add_bos_token": True, "add_eos_token": True, "eos_token": {"content": "<user>"}}, [BOS, SPACE_A, USER]),
        ({"bos_token": None}, [SPACE_A]),
        ({"bos_token": "", "pad_token": ""}, [SPACE_A]),
        ({"bos_token": "</s>"}, [EOS, SPACE_A]),
        ({"add_bos_token": None}, [BOS, SPACE_A]),
    ],
)
def test_tokenizer_config_decides_over_bos_and_eos(tmp_path: Path, config: dict[str, Any], expected: list[int]) -> None:
    ours = load(tmp_path, tokenizer_model=sentencepiece_file(), tokenizer_config_json=config)
    assert ours.encode("a") == expected
    assert ours.encode("a", add_special=False) == [SPACE_A]


@pytest.mark.parametrize(
    ("template", "config", "expected"),
    [
        ("<s> $A", {"add_bos_token": False}, [257, 97]),
        ("<s> $A </s>", {}, [257, 97, 258]),
        (None, {"add_bos_token": True, "bos_token": "<s>"}, [257, 97]),
        (None, {"add_eos_token": True, "eos_token": "</s>", "bos_token": "<s>"}, [97, 258]),
    ],
)
def test_the_post_processor_goes_before_tokenizer_config(
    tmp_path: Path, template: str | None, config: dict[str, Any], expected: list[int]
) -> None:
    ours = load(tmp_path, tokenizer_json=library_file(template), tokenizer_config_json=config)
    assert ours.encode("a") == [LETTERS.index("a") if id == 97 else id for id in expected]


@pytest.mark.parametrize("template", [None, "<s> $A", "$A </s>", "<s> $A </s>"])
@pytest.mark.parametrize("named", [{}, {"bos_token": "<s>", "eos_token": "</s>"}])
def test_a_tokenizer_json_gives_the_ids_and_texts_of_transformers(
    tmp_path: Path, template: str | None, named: dict[str, str]
) -> None:
    ours = load(tmp_path, tokenizer_json=library_file(template), tokenizer_config_json=named)
    peer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    for text in ("ab <s> c", "</s>x<tool>y", "", "é\n"):
        assert ours.encode(text, parse_special=True) == peer.encode(text)
        assert ours.encode(text) == peer.encode(text, split_special_tokens=True)
        assert ours.decode(peer.encode(text)) == peer.decode(peer.encode(text), skip_special_tokens=True)
        assert ours.decode(peer.encode(text), skip_special=False) == peer.decode(peer.encode(text))


def test_bert_and_roberta_post_processors_are_understood(tmp_path: Path) -> None:
    library = tokenizers.Tokenizer.from_str(library_file())
    library.post_processor = processors.Sequence(
        [processors.ByteLevel(), processors.RobertaProcessing(("</s>", 258), ("<s>", 257))]
    )
    assert load(tmp_path, tokenizer_json=library.to_str()).encode("ab") == [257, 256, 258]


def test_bos_id_and_eos_id_are_known_even_where_they_are_not_added(tmp_path: Path) -> None:
    ours = load(tmp_path / "1", tokenizer_model=sentencepiece_file(), tokenizer_config_json={"add_bos_token": False})
    assert (ours.bos_id, ours.eos_id) == (BOS, EOS)
    ours = load(tmp_path / "2", tokenizer_json=library_file(), tokenizer_config_json={"bos_token": "<s>"})
    assert (ours.bos_id, ours.eos_id) == (257, None)
    ids = {"bos_token_id": 257, "eos_token_id": [258, 257]}
    ours = load(tmp_path / "3", tokenizer_json=library_file(), config_json={}, generation_config_json=ids)
    assert (ours.bos_id, ours.eos_id) == (257, 258)
    ours = load(tmp_path / "4", tokenizer_json=library_file("<s> $A </s>"))
    assert (ours.bos_id, ours.eos_id) == (257, 258)


def test_special_tokens_map_counts_only_without_added_tokens_decoder(tmp_path: Path) -> None:
    files = {"tokenizer_model": sentencepiece_file(), "special_tokens_map_json": {"eos_token": {"content": "<user>"}}}
    assert load(tmp_path, **files).eos_id == USER
    assert load(tmp_path, **files, tokenizer_config_json={"added_tokens_decoder": {}}).eos_id == EOS


def test_a_sentencepiece_folder_without_configs_begins_with_bos(data_dir: Path) -> None:
    ours = load_tokenizer(data_dir / "weights/stories260K-hf")
    assert ours.encode("Once upon a time")[0] == ours.bos_id == 1
    assert (ours.eos_id, ours.vocab_size, ours.encode("")) == (2, 512, [1])


def test_llama_3_has_metas_special_tokens_after_its_ranks(tmp_path: Path) -> None:
    ours = load(tmp_path, tokenizer_model=TIKTOKEN)
    first = {
        "<|begin_of_text|>": 0,
        "<|end_of_text|>": 1,
        "<|finetune_right_pad_id|>": 4,
        "<|start_header_id|>": 6,
        "<|eot_id|>": 9,
    }
    assert {name: (ours.token_to_id(name) or 0) - 257 for name in first} == first
    assert ours.id_to_token(257 + 12) == "<|reserved_special_token_2|>"
    assert ours.id_to_token(257 + 255) == "<|reserved_special_token_245|>"
    assert (ours.bos_id, ours.eos_id, ours.vocab_size, len(ours.special_ids)) == (257, 258, 257 + 256, 256)


def test_declared_tokens_take_the_place_of_metas(tmp_path: Path) -> None:
    config = {"added_tokens_decoder": {"300": {"content": "<begin>", "special": True}}, "bos_token": "<begin>"}
    ours = load(tmp_path, tokenizer_model=TIKTOKEN, tokenizer_config_json=config)
    assert ours.encode("ab") == [300, 256]
    assert (ours.special_ids, ours.vocab_size) == (frozenset({300}), 301)


def test_qwens_end_of_text_follows_its_vocabulary(tmp_path: Path) -> None:
    ours = load(tmp_path, vocab_json=VOCAB, merges_txt=MERGES, config_json={"model_type": "qwen3"})
    assert (ours.token_to_id("<|endoftext|>"), ours.bos_id, ours.eos_id) == (257, None, 257)
    assert ours.encode("a<|endoftext|>", parse_special=True) == [LETTERS.index("a"), 257]


def test_auto_tokenizer_reads_the_same_policy_from_a_llama_3_style_folder(tmp_path: Path) -> None:
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    ours = load(tmp_path, tokenizer_json=library_file("<s> $A"), tokenizer_config_json=config)
    peer = AutoTokenizer.from_pretrained(tmp_path)
    assert ours.encode("ab") == peer.encode("ab")
    assert (ours.bos_id, ours.eos_id) == (peer.bos_token_id, peer.eos_token_id)

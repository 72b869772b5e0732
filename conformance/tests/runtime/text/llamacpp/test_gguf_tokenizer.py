"""Tokenizers from GGUF metadata: by hand, then llama.cpp's own pairs of texts and ids. llama.cpp as oracle: fuzz_tokenizer."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from conformance.fuzz.valid_vocabulary import KEY, C, D, N, U, X, paired, scored
from conformance.tests.runtime.text.tokenizer.texts import cases, texts
from nanollama.checkpoint.gguf.reader import read_gguf
from nanollama.text.bpe.byte_level import BYTE_TO_LETTER
from nanollama.text.detokenizer import Detokenizer
from nanollama.text.llamacpp.vocabulary import gguf_end_ids, load_gguf_template, load_gguf_tokenizer
from nanollama.text.tokenizer import Tokenizer

VOCABULARIES = ("deepseek-llm", "gemma-4", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2", "starcoder")
BETWEEN = "\n__ggml_vocab_test__\n"
BYTES = dict.fromkeys(BYTE_TO_LETTER.values(), N)


def load(metadata: dict[str, Any]) -> Tokenizer:
    tokenizer = load_gguf_tokenizer(metadata)
    assert tokenizer is not None
    return tokenizer


def spelled(tokenizer: Tokenizer, text: str, **options: bool) -> list[str]:
    return [tokenizer.id_to_token(id) for id in tokenizer.encode(text, **options)]


@pytest.mark.parametrize("kind", ["none", "no_vocab"])
def test_a_file_that_says_it_has_no_tokenizer_has_none(kind: str) -> None:
    assert load_gguf_tokenizer({"tokenizer.ggml.model": kind}) is None


def test_a_file_without_a_tokenizer_has_none() -> None:
    assert load_gguf_tokenizer({"general.architecture": "llama"}) is None


def test_the_pair_of_the_highest_score_is_merged_first() -> None:
    assert spelled(load(scored()), "abc", add_special=False) == ["▁a", "bc"]  # bc -1, then ▁a -3 and not abc -4
    assert spelled(load(scored(add_space_prefix=False)), "abc", add_special=False) == ["abc"]


def test_a_character_that_is_no_token_becomes_its_bytes() -> None:
    assert spelled(load(scored()), "é\0", add_special=False) == ["▁", "<0xC3>", "<0xA9>", "<0x00>"]


def test_bos_comes_first_with_scores_unless_the_file_says_no() -> None:
    assert load(scored()).encode("") == [1]
    assert load(scored(add_bos_token=False)).encode("") == []
    assert load(scored(add_eos_token=True)).encode("") == [1, 2]
    assert load(scored(add_eos_token=True, eos_token_id=0)).encode("") == [1, 0]


def test_a_space_is_put_before_the_text_and_after_every_special_token() -> None:
    tokenizer = load(scored())
    assert spelled(tokenizer, "a<s>a </s> ", parse_special=True) == ["<s>", "▁a", "<s>", "▁a", "▁", "</s>", "▁▁"]
    assert spelled(load(scored(add_space_prefix=False)), "a<s>a", parse_special=True) == ["<s>", "a", "<s>", "a"]


def test_special_tokens_stay_text_unless_they_are_parsed() -> None:
    assert 1 not in load(scored()).encode("<s>", add_special=False)
    assert load(scored()).encode("<s>", add_special=False, parse_special=True) == [1]


def test_decoding_drops_one_space_at_the_start_and_special_tokens_before_that() -> None:
    tokenizer = load(scored())
    for text in ("a", " a", "  abc", "a b\n", "é", ""):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    ids = tokenizer.encode("a</s>a", parse_special=True)
    assert tokenizer.decode(ids, skip_special=False) == "<s> a</s> a"  # as llama_detokenize: <s> has no space to drop
    assert tokenizer.decode(ids) == "a a"
    assert tokenizer.decode([3 + 0xC3]) == "�"


def test_merges_are_made_in_their_order_within_words() -> None:
    tokenizer = load(paired(BYTES | {"bc": N, "ab": N, "Ġa": N, "abc": N}, ["b c", "a b", "Ġ a", "a bc"]))
    assert spelled(tokenizer, "abc abcab") == ["abc", "Ġa", "bc", "ab"]
    assert tokenizer.decode(tokenizer.encode("abc  abcé\0")) == "abc  abcé\0"


def test_with_llama_3s_pre_tokenizer_a_whole_word_is_not_merged_and_bos_comes_first() -> None:
    tokens = BYTES | {"ab": N, "abc": N, "<s>": C}
    for pre, expected in (
        ("gpt-2", ["ab", "c"]),
        ("llama-bpe", ["<s>", "abc"]),
        ("minicpm5", ["abc"]),
        ("tekken", ["<s>", "abc"]),
    ):
        assert spelled(load(paired(tokens, ["a b"], pre=pre, bos_token_id=258)), "abc") == expected, pre


def test_without_a_pre_tokenizer_it_is_the_default_one() -> None:
    tokens = BYTES | {"12": N, "123": N, "1234": N}
    merges = ["1 2", "12 3", "123 4"]
    assert spelled(load(paired(tokens, merges, pre=None)), "1234") == ["123", "4"]
    assert spelled(load(paired(tokens, merges, pre="")), "1234") == ["123", "4"]
    assert spelled(load(paired(tokens, merges)), "1234") == ["1234"]


def test_a_byte_without_a_token_is_left_out() -> None:
    tokenizer = load(paired({"a": N, "Ã": N, "©": N}, []))
    assert spelled(tokenizer, "aéb") == ["a", "Ã", "©"]


def test_lines_of_characters_are_merged_and_a_run_of_newlines_that_is_a_token_stays_one() -> None:
    tokens = {"<bos>": C, "▁": N, "a": N, "\n": N, "▁a": N, "a▁": N, "\n\n\n": N, "<0xC3>": N, "<0xA9>": N}
    tokenizer = load(paired(tokens, ["▁ a", "a ▁"], model="gemma4", pre=None, bos_token_id=0, add_bos_token=False))
    assert spelled(tokenizer, "a a a\n\n\n a\n\né") == [
        "<bos>",
        "a",
        "▁a",
        "▁a",
        "\n\n\n",
        "▁a",
        "\n",
        "\n",
        "<0xC3>",
        "<0xA9>",
    ]
    assert spelled(load(paired(tokens, [], pre="sarvam-moe")), "\n\n\n") == ["\n", "\n", "\n"]
    assert tokenizer.decode([0, 1, 2, 4]) == " a a"


def test_user_defined_tokens_are_always_found_control_and_unknown_ones_when_parsed() -> None:
    tokenizer = load(paired(BYTES | {"hi": D, "<c>": C, "<u>": U, "<x>": X}, []))
    assert spelled(tokenizer, "hi<c>hi") == ["hi", "<", "c", ">", "hi"]
    assert spelled(tokenizer, "hi<c><u><x>", parse_special=True) == ["hi", "<c>", "<u>", "<", "x", ">"]
    assert tokenizer.special_ids == {257, 258}
    assert tokenizer.decode([256, 257, 258, 259]) == "hi"


def test_the_longest_token_is_found_first_wherever_it_is() -> None:
    tokenizer = load(paired(BYTES | {"<a>": D, ">bcd": D}, []))
    assert spelled(tokenizer, "<a>bcd") == ["<", "a", ">bcd"]
    assert spelled(tokenizer, "<a><a>bcd<a>") == ["<a>", "<", "a", ">bcd", "<a>"]


def test_length_is_in_bytes() -> None:
    assert spelled(load(paired(BYTES | {"abc": D, "c你": D}, [])), "abc你") == ["a", "b", "c你"]


def test_white_space_beside_special_tokens_goes_by_the_models_name() -> None:
    tokens = BYTES | {"<|user|>": C, "</s>": C, "<s>": C, "[MASK]": C, "<mask>": C}
    text = "a <|user|> \n<s> <mask> b [MASK] c"

    def parsed(name: str, pre: str = "gpt-2") -> str:
        tokenizer = load(paired(tokens, [], pre=pre) | {"general.name": name})
        return tokenizer.decode(tokenizer.encode(text, parse_special=True), skip_special=False)

    assert parsed("GPT") == text
    assert parsed("Phi-3-mini") == "a <|user|><s> <mask>b [MASK]c"
    assert parsed("modern-BERT") == "a <|user|> \n<s> <mask> b[MASK] c"
    assert parsed("phi3", pre="jina-v2-code") == "a <|user|> \n<s><mask> b [MASK] c"


def test_tokens_that_end_an_answer_are_special_whatever_the_file_says() -> None:
    tokens = BYTES | {"<|im_end|>": N, "<|fim_pad|>": N, "<|start|>": C, "<fim_prefix>": N}
    metadata = paired(tokens, [], eos_token_id=0)
    assert load(metadata).special_ids == {256, 257, 259}
    assert gguf_end_ids(metadata) == (0, 256, 257)
    assert load(metadata).encode("<|start|>") == [258]
    assert load(paired(tokens, [], fim_pre_token_id=0)).special_ids == {256, 257}
    harmony = BYTES | {"<|end|>": C, "<|return|>": C, "<|call|>": C}
    assert gguf_end_ids(paired(harmony, [])) == (257, 258)
    assert load(paired(harmony, [])).encode("<|end|>") == [256]
    assert load(paired(BYTES | {"</s>": C, "<|tool_response>": C}, [])).special_ids == {257}


def test_an_empty_token_has_a_name() -> None:
    assert load(paired({"a": N, "": N}, [])).token_to_id("[EMPTY_1]") == 1


def test_minus_one_is_no_id() -> None:
    assert load(paired(BYTES, [], bos_token_id=2**32 - 1)).bos_id is None


def test_a_template_sees_the_special_tokens() -> None:
    metadata = scored() | {"tokenizer.chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"}
    template = load_gguf_template(metadata | {KEY + "bos_token_id": 1, KEY + "eos_token_id": 2})
    assert template is not None
    assert template.render([{"role": "user", "content": "Hi"}]) == "<s>Hi</s>"


def test_templates_may_have_names() -> None:
    metadata = {
        "tokenizer.chat_template": "plain",
        "tokenizer.chat_template.tool_use": "tools",
        "tokenizer.chat_templates": ["tool_use"],
    }
    template = load_gguf_template(metadata)
    assert template is not None
    assert template.render([{"role": "user", "content": ""}]) == "plain"
    assert template.render([{"role": "user", "content": ""}], tools=[]) == "tools"
    assert load_gguf_template({}) is None


every_byte = load(paired(BYTES | {"Ġa": N, "ab": N, "<s>": C, "foo": D}, ["Ġ a", "a b"]))
every_score = load(scored())


@given(texts)
@cases
def test_decoding_gives_the_text_back_at_once_and_in_pieces(text: str) -> None:
    for tokenizer, expected in ((every_byte, text), (every_score, text.replace("▁", " "))):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == expected
        stream = Detokenizer(tokenizer)
        assert "".join(map(stream.push, ids)) + stream.flush() == expected


@pytest.mark.parametrize("name", VOCABULARIES)
def test_llama_cpps_own_texts_have_its_ids(name: str, data_dir: Path) -> None:
    path = data_dir / "tokenizers" / "ggml-vocab" / f"ggml-vocab-{name}.gguf"
    tokenizer = load(read_gguf(path).metadata)
    inputs = Path(f"{path}.inp").read_bytes().decode("utf-8").removesuffix(BETWEEN).split(BETWEEN)
    outputs = Path(f"{path}.out").read_bytes().decode("utf-8").splitlines()
    assert len(inputs) == len(outputs) > 40
    for text, ids in zip(inputs, outputs, strict=True):
        assert tokenizer.encode(text, add_special=False) == [int(id) for id in ids.split()], text


def test_stories260k_is_read_as_its_own_sentencepiece_file_says(data_dir: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(data_dir / "tokenizers" / "tok512.model"))
    ours = load(read_gguf(data_dir / "weights" / "stories260K.gguf").metadata)
    for text in ("Once upon a time, there was a little girl.", "", "a", "Zoë said: 日本"):
        assert ours.encode(text, add_special=False) == theirs.encode(text), text
        assert ours.decode(ours.encode(text)) == text

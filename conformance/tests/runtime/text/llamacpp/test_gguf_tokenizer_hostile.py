"""Metadata from strangers: whatever is wrong with a vocabulary or a template is one clear error, and nothing is repaired."""

import copy
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.fuzz.valid_vocabulary import KEY, N, X, paired, scored
from conformance.tests.runtime.text.tokenizer.texts import cases
from nanollama.errors import NanollamaError
from nanollama.text.llamacpp.pretokenizers import PRE_TOKENIZERS
from nanollama.text.llamacpp.vocabulary import gguf_end_ids, load_gguf_template, load_gguf_tokenizer

LETTERS = {"a": N, "b": N, "c": N, "ab": N, "d": X}
LONE = b"\xff".decode("utf-8", "surrogateescape")

REFUSED: list[tuple[dict[str, Any], str]] = [
    (scored(model="bert"), "tokenizer.ggml.model is 'bert', which is not implemented; known: llama, gpt2, gemma4"),
    *((scored(model=kind), f"'{kind}', which is not implemented") for kind in ("t5", "rwkv", "plamo2", "bert", "")),
    (scored(model=7), "tokenizer.ggml.model is 7; expected a value of type str"),
    (scored(model=LONE), r"tokenizer.ggml.model has the text b'\xed\xb3\xbf', which is not UTF-8"),
    (scored(tokens=None), "no tokenizer.ggml.tokens"),
    (scored(tokens=[]), "tokens is empty"),
    (scored(tokens="abc"), "tokens is 'abc'; expected an array of str"),
    (scored(tokens=["a", 1]), "tokens holds 1; expected an array of str"),
    (scored(tokens=[["a"]]), "tokens holds ['a']; expected an array of str"),
    (scored(scores=None), "no tokenizer.ggml.scores"),
    (scored(scores=[0.0]), "scores has 1 values for 268 tokens"),
    (scored(scores=[float("nan")] * 268), "token 0 has the score nan"),
    (scored(scores=[*[0.0] * 267, float("-inf")]), "token 267 has the score -inf"),
    (scored(scores=[True] * 268), "scores holds True; expected an array of float or int"),
    (scored(token_type=[1]), "token_type has 1 values for 268 tokens"),
    (scored(token_type=[0] * 268), "token 0 '<unk>' has type 0; expected one of 1 to 6"),
    (scored(token_type=[*[1] * 267, 2**31]), "token 267 '▁▁' has type 2147483648"),
    (scored(token_type=[1.0] * 268), "token_type holds 1.0; expected an array of int"),
    (scored(token_type=[6] * 268), "token 0 '<unk>' is of type byte; expected a text from <0x00> to <0xFF>"),
    (scored(bos_token_id=268), "bos_token_id is 268; expected an id below 268"),
    (scored(eot_token_id=-1), "eot_token_id is -1"),
    (scored(unknown_token_id="0"), "unknown_token_id is '0'; expected a value of type int"),
    (scored(eos_token_id=True), "eos_token_id is True"),
    (scored(fim_pad_token_id=2**64), "fim_pad_token_id is 18446744073709551616"),
    (scored(add_bos_token=1), "add_bos_token is 1; expected a value of type bool"),
    (scored(add_eos_token="no"), "add_eos_token is 'no'"),
    (scored(add_space_prefix=2), "add_space_prefix is 2"),
    (scored(remove_extra_whitespaces=0), "remove_extra_whitespaces is 0"),
    (scored() | {"general.name": 3}, "general.name is 3"),
    (paired({"a": N, "a\0b": N}, []), r"token 1 'a\x00b' has a NUL character"),
    (paired({"a": N, "b" + LONE: N}, []), r"tokens has the text b'b\xed\xb3\xbf', which is not UTF-8"),
    (paired({"a": N}, []) | {KEY + "tokens": ["a", "b", "a"]}, "'a' is token 0 and 2; expected every token once"),
    (paired({"": N, "[EMPTY_0]": N}, []), "'[EMPTY_0]' is token 0 and 1"),
    ({**paired(LETTERS, []), KEY + "merges": None}, "no tokenizer.ggml.merges"),
    (paired(LETTERS, ["a b", 3]), "merges holds 3"),
    (paired(LETTERS, ["ab"]), "merge 0 is 'ab'; expected two tokens with one space between them"),
    (paired(LETTERS, ["a b", "a  b"]), "merge 1 is 'a  b'; expected two tokens"),
    (paired(LETTERS, [" ab"]), "merge 0 is ' ab'; expected two tokens"),
    (paired(LETTERS, ["ab "]), "merge 0 is 'ab '; expected two tokens"),
    (paired(LETTERS, [""]), "merge 0 is ''; expected two tokens"),
    (paired(LETTERS, ["a b", "b c"]), "merge 1 is 'b c', but 'bc' is not in the vocabulary"),
    (paired(LETTERS, ["a b", "a b"]), "merge 1 is 'a b', as an earlier one"),
    (paired(LETTERS, [f"a {LONE}"]), r"merges has the text b'a \xed\xb3\xbf', which is not UTF-8"),
    (
        paired(LETTERS, [], pre="gpt-5"),
        "no pre-tokenizer (tokenizer.ggml.pre) 'gpt-5'; did you mean 'gpt-2'? There are llama3, ",
    ),
    (paired(LETTERS, [], pre="whitespace"), "there is no pre-tokenizer (tokenizer.ggml.pre) 'whitespace'"),
    (paired(LETTERS, [], pre=["gpt-2"]), "tokenizer.ggml.pre is ['gpt-2']; expected a value of type str"),
    (paired(LETTERS, [], pre="llama-bpe"), "bos_token_id names none"),
    (paired(LETTERS, [], add_eos_token=True), "eos_token_id names none"),
    (paired(LETTERS, [], model="gemma4"), "bos_token_id names none"),
]


@pytest.mark.parametrize(("metadata", "message"), REFUSED, ids=[message[:50] for _, message in REFUSED])
def test_a_damaged_vocabulary_is_refused(metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(NanollamaError, match=re.escape(message)):
        load_gguf_tokenizer(metadata)


def test_every_pre_tokenizer_is_named_when_one_is_not_known() -> None:
    with pytest.raises(NanollamaError) as error:
        load_gguf_tokenizer(paired(LETTERS, [], pre="?"))
    assert all(name in str(error.value) for name in PRE_TOKENIZERS)


def test_a_long_value_is_shortened_in_the_message() -> None:
    for metadata in (scored(model="x" * 10**6), paired(LETTERS, [], pre="x" * 10**6), paired(LETTERS, ["x" * 10**6])):
        with pytest.raises(NanollamaError) as error:
            load_gguf_tokenizer(metadata)
        assert len(str(error.value)) < 2000


def test_a_character_without_bytes_is_an_error_where_pieces_have_scores() -> None:
    tokenizer = load_gguf_tokenizer(scored(tokens=["a", "▁", "<s>"], scores=[0.0] * 3, token_type=[1, 1, 3]))
    assert tokenizer is not None
    assert tokenizer.encode("a", add_special=False) == [1, 0]
    with pytest.raises(NanollamaError, match="neither 'é' nor all of its bytes"):
        tokenizer.encode("é")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"tokenizer.chat_template": 3}, "tokenizer.chat_template is 3; expected a value of type str"),
        ({"tokenizer.chat_template": LONE}, "which is not UTF-8"),
        ({"tokenizer.chat_template.rag": ["x"]}, "tokenizer.chat_template.rag is ['x']"),
        ({"tokenizer.chat_templates": "rag"}, "tokenizer.chat_templates is 'rag'; expected an array of str"),
        ({"tokenizer.chat_templates": ["rag"]}, "lists 'rag', but there is no tokenizer.chat_template.rag"),
        (scored(bos_token_id=999) | {"tokenizer.chat_template": ""}, "bos_token_id is 999"),
    ],
)
def test_a_damaged_template_is_refused(metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(NanollamaError, match=re.escape(message)):
        load_gguf_template(metadata)


SOUND = [
    scored(bos_token_id=1, add_bos_token=True, add_space_prefix=True) | {"general.name": "phi-3"},
    paired(LETTERS, ["a b"], bos_token_id=0, eos_token_id=1, pre="llama-bpe") | {"tokenizer.chat_template": "x"},
    paired({"<bos>": N, "a": N, "▁": N, "a▁": N}, ["a ▁"], bos_token_id=0, model="gemma4"),
]
WRONG = st.one_of(
    *(st.none(), st.booleans(), st.integers(-(2**63), 2**64), st.floats(), st.text(max_size=5), st.just(LONE)),
    st.lists(st.one_of(st.text(max_size=3), st.integers(-1, 7), st.just(LONE), st.floats(), st.lists(st.none(), max_size=1))),
)


@given(st.data())
@cases
def test_any_damage_is_an_error_or_leaves_a_tokenizer_that_works(data: st.DataObject) -> None:
    metadata = copy.deepcopy(data.draw(st.sampled_from(SOUND)))
    for _ in range(data.draw(st.integers(1, 2))):
        key = data.draw(st.sampled_from([*sorted(metadata), KEY + "eot_token_id", "tokenizer.chat_templates"]))
        value = metadata.get(key)
        if isinstance(value, list) and value and data.draw(st.booleans()):
            value[data.draw(st.integers(0, len(value) - 1))] = data.draw(WRONG)
        else:
            metadata[key] = data.draw(WRONG)
    for load in (load_gguf_tokenizer, load_gguf_template, gguf_end_ids):
        try:
            found = load(metadata)
            if load is load_gguf_tokenizer and found:
                found.decode(found.encode("ab<s> é\n", parse_special=True))  # type: ignore[union-attr]
        except NanollamaError:
            pass

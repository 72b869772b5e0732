"""Pre-tokenizers of a tokenizer.json and llama.cpp's names for them, by hand and on random strings."""

import json
from pathlib import Path

import pytest
import tokenizers

from conformance.fuzz.tokenizer_strings import Strings
from conformance.tests.runtime.text.convert.test_text_export import BYTE_LEVEL
from nanollama.errors import NanollamaError
from nanollama.text.convert.pretokenizer_names import pre_name, pre_tokenizer_of
from nanollama.text.llamacpp.codepoints import LATER
from nanollama.text.llamacpp.pretokenizers import CUTS, PRE_TOKENIZERS, WHOLE_WORDS, DigitTriples, words_of

LLAMA3 = (  # as meta-llama/Meta-Llama-3-8B's tokenizer.json has it
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CASED = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
CASED += r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
TEKKEN = CASED + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CORPUS = [Path(__file__).read_text(encoding="utf-8")]
LATER_CODES = {
    code
    for first, _, last in (part.partition("-") for part in LATER.split())
    for code in range(int(first, 16), int(last or first, 16) + 1)
}


@pytest.mark.parametrize(
    ("steps", "whole_words", "name"),
    [
        ([LLAMA3], True, "llama-bpe"),
        ([LLAMA3], False, "dbrx"),
        ([LLAMA3.replace("{1,3}", "")], False, "qwen2"),
        ([TEKKEN], True, "tekken"),
    ],
)
def test_a_pattern_that_llama_cpp_has_gets_its_name(steps: list[str], whole_words: bool, name: str) -> None:
    cuts = [{"type": "Split", "pattern": {"Regex": step}, "behavior": "Isolated", "invert": False} for step in steps]
    pre_tokenizer = {"type": "Sequence", "pretokenizers": [*cuts, BYTE_LEVEL | {"use_regex": False}]}
    assert pre_name(pre_tokenizer, composes=False, whole_words=whole_words) == name


def test_digits_one_by_one_and_composed_text_decide_between_names() -> None:
    digits = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL]}
    assert pre_name(digits, composes=False, whole_words=False) == "smollm"
    assert [pre_name(BYTE_LEVEL, composes=composes, whole_words=False) for composes in (False, True)] == ["gpt-2", "olmo"]


@pytest.mark.parametrize(
    "name", [name for name, cuts in PRE_TOKENIZERS.items() if not any(isinstance(c, DigitTriples) for c in cuts)]
)
def test_a_name_comes_back_with_the_same_rules(name: str) -> None:
    again = pre_name(pre_tokenizer_of(name), composes=False, whole_words=name in WHOLE_WORDS)
    assert PRE_TOKENIZERS[again] == PRE_TOKENIZERS[name] and (again in WHOLE_WORDS) == (name in WHOLE_WORDS)


def test_digits_counted_from_the_right_are_refused() -> None:
    with pytest.raises(NanollamaError, match=r"'superbpe'; a tokenizer\.json can't cut text so"):
        pre_tokenizer_of("superbpe")


@pytest.mark.parametrize("names", [names for names, cuts in CUTS.items() if not any(isinstance(c, DigitTriples) for c in cuts)])
def test_the_library_cuts_as_llama_cpp_does(names: str) -> None:
    """But for characters that Unicode has got since 15.1."""
    name = names.split()[0]
    steps = pre_tokenizer_of(name)["pretokenizers"][:-1]
    content = {"version": "1.0", "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}
    library = tokenizers.Tokenizer.from_str(json.dumps({**content, "model": {"type": "BPE", "vocab": {}, "merges": []}}))
    strings, cut = Strings(0, [" the"], [], CORPUS), words_of(name)
    for text in (strings.next() for _ in range(200)):
        if LATER_CODES.isdisjoint(map(ord, text)):
            assert [word for word, _ in library.pre_tokenizer.pre_tokenize_str(text)] == cut(text)

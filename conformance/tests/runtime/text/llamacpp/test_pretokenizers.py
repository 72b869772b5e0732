"""Where llama.cpp's pre-tokenizers cut, by hand; fuzz_tokenizer compares all of them with llama.cpp itself."""

import unicodedata

import pytest
from hypothesis import given

from conformance.tests.runtime.text.tokenizer.texts import fewer_cases, texts
from nanollama.text.llamacpp import codepoints
from nanollama.text.llamacpp.codepoints import classes
from nanollama.text.llamacpp.pretokenizers import ADDS_BOS, PRE_TOKENIZERS, WHOLE_WORDS, words_of

CUT = [
    ("gpt-2", "Hello  world's 123!?\n\n x", "Hello| | world|'s| 123|!?|\n\n| x"),
    ("gpt-2", "'S", "'|S"),
    ("llama-bpe", "I'LL go 12345\r\n  \n x", "I|'LL| go| |123|45|\r\n  \n| x"),
    ("qwen2", "a12", "a|1|2"),
    ("qwen2", "न\u093e", "न|\u093e"),
    ("qwen35", "न\u093e", "न\u093e"),
    ("starcoder", " 12", " |1|2"),
    ("falcon", "a.1234", "a|.|123|4"),
    ("default", "a `b` 1234", "a| `|b|`| |123|4"),
    ("falcon", "a `b`", "a| |`|b|`"),
    ("deepseek-llm", " É 中 1234 \n", " É| |中| |1234| |\n"),
    ("deepseek-coder", "f(x) 12", "f|(|x|)| |1|2"),
    ("deepseek-v3", "1234 東京tower!", "123|4| |東京|tower|!"),
    ("bloom", "a, b (c)", "a|,| b| (|c|)"),
    ("viking", "a12", "a|1|2"),
    ("tekken", "helloWorld ÉCOLE", "hello|World| É|COLE"),  # É is both large and small
    ("gpt-4o", "helloWorld's 12345/\n", "hello|World's| |123|45|/\n"),
    ("kimi-k2", "中文abc's e\u0301", "中文|abc's| e|\u0301"),
    ("superbpe", "a bc 12345 d", "a bc |12|345| d"),
    ("afmoe", "x12345y", "x|12|345|y"),
    ("tiny_aya", "1234567", "1|234|567"),
    ("chameleon", "<sentinel:7>IMGIMGABZ    a", "<|sentinel|:|7|>|IMGIMGABZ|    |a"),
    ("jais-2", "a" + " " * 7 + "b", "a|    |  | b"),
    ("exaone-moe", "a b c", "a b c"),
    ("laguna", "a\n\n b", "a|\n\n| b"),
    ("seed-coder", "a!\nb", "a|!|\n|b"),
    ("bailingmoe", "a'D\n \nb", "a|'D|\n \n|b"),
    ("ufakzeka", "Ali'nin", "Ali|'nin"),
    ("spark2_5", "a!\n\nb", "a|!|\n|\n|b"),
    ("youtu", "한국abc。", "한국|abc|。"),
    ("minicpm5", "1234", "123|4"),
]


@pytest.mark.parametrize(("name", "text", "words"), CUT)
def test_a_text_is_cut_as_by_hand(name: str, text: str, words: str) -> None:
    assert words_of(name)(text) == words.split("|")


def test_the_names_with_special_rules_are_names_of_pre_tokenizers() -> None:
    assert not (WHOLE_WORDS | ADDS_BOS) - PRE_TOKENIZERS.keys()


@given(texts)
@fewer_cases
def test_the_words_are_the_text(text: str) -> None:
    for name in PRE_TOKENIZERS:
        words = words_of(name)(text)
        assert "".join(words) == text
        assert "" not in words


def test_a_long_text_is_cut_in_linear_time() -> None:
    for part in ("1", "a", "A", "é", " ", "\n", "'", ".", "\u0301", "中"):
        for name in PRE_TOKENIZERS:
            assert "".join(words_of(name)(part * 20_000)) == part * 20_000


def test_every_character_has_the_class_of_its_category() -> None:
    letters = {"L": codepoints.LETTER, "N": codepoints.NUMBER, "M": codepoints.MARK, "Z": "\v"}
    letters |= {"P": codepoints.PUNCTUATION, "S": codepoints.SYMBOL}
    text = "".join(map(chr, sorted({*range(128, 0x110000)} - codepoints._known.keys() - {*range(0xD800, 0xE000), 0x85})))
    seen = classes(text).replace(codepoints.HAN, codepoints.LETTER).replace(codepoints.OTHER_HAN, codepoints.OTHER)
    assert seen == "".join(letters.get(unicodedata.category(letter)[0], codepoints.OTHER) for letter in text)
    assert classes("\x85") == "\v"
    assert classes("ab\t 1é") == f"ab\t 1{codepoints.LETTER}"


def test_the_tables_hold_no_character_of_unicode_14() -> None:
    knows_16 = unicodedata.unidata_version >= "16"
    for code, category in codepoints._known.items():
        there = unicodedata.category(chr(code))
        assert there == "Cn" or (there[0] == category if category != "C" else knows_16), hex(code)


def test_the_class_letters_are_one_character_each() -> None:
    regex = pytest.importorskip("regex")
    assert regex.fullmatch(r"\p{L}", codepoints.LETTER)
    assert regex.fullmatch(r"\p{Han}", codepoints.HAN)

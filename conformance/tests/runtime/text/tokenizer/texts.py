"""The texts that tokenizers are compared on: real and awkward Unicode, and the spellings of special tokens.

`texts` is a Hypothesis strategy. NANOLLAMA_FUZZ_CASES sets how many texts every vocabulary gets.
"""

import os
import unicodedata
from collections.abc import Callable

from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

CASES = int(os.environ.get("NANOLLAMA_FUZZ_CASES", "300"))
cases = settings(max_examples=CASES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
fewer_cases = settings(cases, max_examples=max(20, CASES // 10))  # where there are many vocabularies

ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "0123456789",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "  \n\r\t\x0b\x0c\x1c\x85\xa0\u1680\u2003\u2028\u200b\u3000\ufeff",
    "éèüñçøßþÆŒſİıǅﬁﬆ",
    "\u0300\u0301\u0308\u0327\u064b\u093c\u0e33\u1100\u1161\u11a8",  # combining marks, and parts of Korean syllables
    "你好世界日本語한국어각アイｱｶﾞﾟ",
    "абвгдשלוםمرحباहिन्दी",
    "😀👨\u200d👩\u200d👧🏽🇫🇷❤\ufe0f",
    "𝔘𝒳𠀀\U000e0001\U0010ffff\ufffd\ufffe\uffff\ue000",
    "\x00\x01\x1f\x7f\x9f",
    "①½²ⅷ㍿﷽Å㌀▁",
]
WORDS = [
    *("the", " the", "hello world", "don't", "I'LL", "'S", "2023", "1234567", "https://x.y", "e\u0301", "▁hello", "foo", "ab"),
    *("<s>", "</s>", "<unk>", "<0x0A>", "<|endoftext|>", "<|im_start|>", "<|begin_of_text|>", "[INST]", "<x>", " a b"),
    *(" ", "  ", "   ", "\n\n", " \n ", "\t\t"),
]
runs = st.sampled_from(ALPHABETS).flatmap(lambda alphabet: st.text(alphabet, min_size=1, max_size=6))
repeats = st.tuples(st.sampled_from("".join(ALPHABETS)), st.integers(1, 9)).map(lambda pair: pair[0] * pair[1])
texts = st.lists(st.sampled_from(WORDS) | runs | repeats | st.text(max_size=4), max_size=12).map("".join)


@given(texts)
@settings(max_examples=200)
def test_the_texts_have_an_encoding(text: str) -> None:
    assert text.encode("utf-8").decode("utf-8") == text


def test_the_texts_reach_every_kind_of_character() -> None:
    quick = settings(max_examples=3000, database=None)

    def has(category: str) -> Callable[[str], bool]:
        return lambda text: category in map(unicodedata.category, text)

    for category in ("Cc", "Cf", "Co", "Cn", "Mn", "Nd", "No", "So", "Zs", "Lo", "Lt"):
        find(texts, has(category), settings=quick)
    find(texts, lambda text: any(letter > "\uffff" for letter in text), settings=quick)

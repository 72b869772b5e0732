"""Random strings on which tokenizers disagree: characters that decide where text is split, and spellings of special tokens."""

import random
from collections.abc import Callable, Sequence

SCRIPTS = [
    *((0x20, 0x7F), (0xA0, 0x250), (0x370, 0x590), (0x590, 0x780), (0x900, 0xE00), (0xE00, 0x1000), (0x1000, 0x1200)),
    *((0x1E00, 0x2000), (0x2000, 0x2070), (0x2070, 0x2200), (0x2C00, 0x2E80), (0x3000, 0x3100), (0x3100, 0x3200)),
    *((0x3400, 0x3500), (0x4E00, 0xA000), (0xA640, 0xAC00), (0xAC00, 0xD7A4), (0xF900, 0xFB50), (0xFF00, 0x10000)),
    *((0x10400, 0x10500), (0x1D400, 0x1D800), (0x1F300, 0x1FAFF), (0x20000, 0x20100), (0x2FA00, 0x2FA20), (0xE0000, 0xE0200)),
]
WHITE = " \n\r\t\v\f\x1c\x1f\x85\xa0\u1680\u2000\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
NOT_WHITE = "\u180e\u200b\u200c\u200d\u2060\ufeff\xad"
DIGITS = "0123456789٠٣۷०५๓０９²½Ⅷ①㍿〇𝟘𝟗"
MARKS = "\u0300\u0301\u0308\u0327\u0483\u05b0\u064b\u093c\u0bcd\u0e33\u1abe\u20dd\u20e3\u302a\u3099\ufe0f"
_suffixes = "'s 't 're 've 'm 'll 'd 'S 'T 'RE 'Ve 'M 'lL 'D 'x '' ’s 'ſ 's' 're' 'l 'r"
SUFFIXES = _suffixes.split()
_emoji = "😀 👨‍👩‍👧 🏽 🇫🇷 ❤️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 1️⃣ ☃ 🦙 👍🏿 🧑‍🚀"
EMOJI = _emoji.split()
CODE = [
    *("def f(x):\n    return x**2\n", "if (a != b) { c += d[i]; }\r\n", "#include <stdio.h>\n", "\t\tfoo->bar();", "// ok?!"),
    *("https://a.b/c?d=e&f=%20", "C:\\dir\\x.txt", '{"a": [1, 2.5, null]}', "<td>x</td>", "$x = 'y';", "a_b__c--d", "\\n"),
    *("<sentinel:12>", "IMGIMGABZ", "x = 0x1F;", "1,234,567.89", "3.14159265358979", "e\u0301te\u0301", "ÉCOLE École écolE"),
]


def code_point(random: random.Random) -> str:
    """Any character, assigned or not, except half of a surrogate pair."""
    while 0xD800 <= (code := random.randrange(0x110000)) < 0xE000:
        pass
    return chr(code)


class Strings:
    """Endless strings for one vocabulary.

    tokens: all its tokens. special: those that spell special tokens. corpora: real texts, to take parts of and to damage.
    """

    def __init__(self, seed: int, tokens: Sequence[str], special: Sequence[str], corpora: Sequence[str]) -> None:
        self._random = random.Random(seed)
        self._tokens, self._special, self._corpora = tokens, special or ("<s>",), corpora
        self._parts: list[Callable[[], str]] = [
            *(self._script, self._script, self._white, self._white, self._digits, self._word, self._word, self._emoji),
            *(self._marks, self._any, self._control, self._code, self._token, self._token, self._spelled, self._repeated),
            *(self._corpus, self._signs),
        ]

    def next(self) -> str:
        """A string of 1 to 40 parts, or a longer piece of a corpus with a few changes."""
        if self._random.random() < 0.1:
            return self._damaged()
        count = self._random.choice((1, 1, 2, 2, 3, 4, 5, 6, 8, 12, 20, 40))
        return "".join(self._random.choice(self._parts)() for _ in range(count))

    def _some(self, letters: Sequence[str], most: int) -> str:
        return "".join(self._random.choices(letters, k=self._random.randint(1, most)))

    def _script(self) -> str:
        first, end = self._random.choice(SCRIPTS)
        return "".join(chr(self._random.randrange(first, end)) for _ in range(self._random.randint(1, 8)))

    def _white(self) -> str:
        return self._some(self._random.choice((" ", "\n", " \n", "\r\n", " \t", " \n\r\t", WHITE, WHITE + NOT_WHITE)), 6)

    def _digits(self) -> str:
        return self._some(self._random.choice(("0123456789", "0123456789", DIGITS)), 12)

    def _word(self) -> str:
        word = self._some("aeiou" * 3 + "bcdfghjklmnprstvwzéñß", 7)
        word = self._random.choice((word, word, word.title(), word.upper(), self._some("aAbBÉé", 5)))
        return self._random.choice(("", " ", " ")) + word + self._random.choice(("", "", *SUFFIXES))

    def _emoji(self) -> str:
        return self._some(EMOJI, 3)

    def _marks(self) -> str:
        return self._random.choice(("a", "我", " ", "", "e", "1", "-")) + self._some(MARKS, 4)

    def _any(self) -> str:
        return "".join(code_point(self._random) for _ in range(self._random.randint(1, 3)))

    def _control(self) -> str:
        return self._some([chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))], 3)

    def _code(self) -> str:
        return self._random.choice(CODE)

    def _token(self) -> str:
        return self._random.choice(self._tokens).replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n")

    def _spelled(self) -> str:
        token = self._random.choice(self._special)
        cut = self._random.randint(0, len(token))
        return self._random.choice((token, token, token * 2, token[:cut], token[cut:], token[:cut] + token, " " + token + " "))

    def _repeated(self) -> str:
        part = self._random.choice(
            (" ", "\n", "a", "A", "1", "é", "我", "-", "\u0301", "ab", "\r\n", " \t", "١", code_point(self._random))
        )
        return part * self._random.choice((2, 3, 4, 7, 16, 33, 64, 200))

    def _signs(self) -> str:
        return self._some("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~¡¿«»—…。，、؟।", 5)

    def _corpus(self) -> str:
        text = self._random.choice(self._corpora)
        at = self._random.randrange(len(text))
        return text[at : at + self._random.choice((5, 20, 80))]

    def _damaged(self) -> str:
        text = list(self._corpus() + self._corpus())
        for _ in range(self._random.randint(0, 6)):
            at = self._random.randrange(len(text) + 1)
            text[at : at + self._random.randint(0, 2)] = self._random.choice(self._parts[:-2])()
        return "".join(text)

"""Unicode 15.1's general categories, independent of Python's version: one class letter for every character.

llama.cpp cuts text by the categories of Unicode 15.1 (src/unicode-data.cpp). Python 3.11 has Unicode 14.0, 3.13 has 15.1,
later versions have more; the tables here correct both. Characters that Unicode adds after 18.0 may still be cut differently:
to llama.cpp all characters outside 15.1 are unassigned.
"""

import re
import unicodedata

from nanollama.text.added_tokens import WHITE_SPACE

LETTER, HAN, NUMBER, MARK, PUNCTUATION, SYMBOL, WHITE, OTHER, OTHER_HAN = "Ł漢№◌¶©\v¿〇"
"""The class letters of characters beyond ASCII. HAN are letters too; OTHER_HAN are not assigned yet."""

MEMBERS = {
    r"\p{L}": f"A-Za-z{LETTER}{HAN}",
    r"\p{N}": f"0-9{NUMBER}",
    r"\p{M}": MARK,
    r"\p{P}": rf"!-#%-*,\-./:;?@\[-\]_{{}}{PUNCTUATION}",
    r"\p{S}": rf"$+<=>^`|~{SYMBOL}",
}
"""Category → its members in a text of class letters, as the inside of a regular expression's brackets."""

NOT_ASCII_WHITE = re.compile(f"[{''.join(letter for letter in WHITE_SPACE if not letter.isascii())}]")

ADDED = {  # by Unicode 15.0 and 15.1
    "L": "1123F-11240 11F02 11F04-11F10 11F12-11F33 1342F 13441-13446 1B132 1B155 1DF25-1DF2A 1E030-1E06D 1E4D0-1E4EB "
    "2B739 2EBF0-2EE5D 31350-323AF",
    "M": "CF3 ECE 10EFD-10EFF 11241 11F00-11F01 11F03 11F34-11F3A 11F3E-11F42 13440 13447-13455 1E08F 1E4EC-1E4EF",
    "N": "11F50-11F59 1D2C0-1D2D3 1E4F0-1E4F9",
    "P": "11B00-11B09 11F43-11F4F",
    "S": "2FFC-2FFF 31EF 1F6DC 1F774-1F776 1F77B-1F77F 1F7D9 1FA75-1FA77 1FA87-1FA88 1FAAD-1FAAF 1FABB-1FABD 1FABF "
    "1FACE-1FACF 1FADA-1FADB 1FAE8 1FAF7-1FAF8",
}
LATER = (  # added by Unicode 16.0 to 18.0
    "558 58B-58C 5C8-5C9 88F 897 B53-B54 C5C CDC 1ACF-1AF0 1B4E-1B4F 1B7F 1C89-1C8A 208F 209D-209F 20C1-20C4 2427-2429 "
    "2B96 2E60-2E63 31E4-31E5 A7CB-A7CF A7D2 A7D4 A7DA-A7DD A7E2 A7F1 AB6C-AB6D FBC3-FBD2 FD90-FD91 FDC8-FDCE "
    "105C0-105F3 107BB-107BF 10940-10959 10D40-10D65 10D69-10D85 10D8E-10D8F 10EC2-10EC7 10EC9-10EEE 10EF0-10EFC "
    "11380-11389 1138B 1138E 11390-113B5 113B7-113C0 113C2 113C5 113C7-113CA 113CC-113D5 113D7-113D8 113E1-113E2 "
    "116D0-116E3 11B0A 11B60-11B67 11BC0-11BE1 11BF0-11BF9 11DB0-11DDB 11DE0-11DE9 11DF0-11DF1 11F5A 1246F 12475-1247F "
    "12550-12686 13460-143FA 16100-16139 16D40-16D79 16EA0-16EB8 16EBB-16ED3 16FF2-16FF6 187F8-187FF 18CD6-18CDA 18CFF "
    "18D09-18D20 18D80-18DF2 18E00-19191 191A0-191D2 1B123-1B128 1B168 1CC00-1CCFC 1CD00-1CEB3 1CEBA-1CED0 1CED2-1CED4 "
    "1CEDD-1CEFD 1D127-1D128 1D1EB-1D1FF 1D250-1D281 1D6A6 1DB00-1DB1C 1DF1F-1DF24 1DF2B-1DF81 1DF90-1DF96 1DFCD-1DFFF "
    "1E5D0-1E5FA 1E5FF 1E6C0-1E6DE 1E6E0-1E6F5 1E6FE-1E6FF 1F1AE 1F6D8-1F6D9 1F777-1F77A 1F7DA-1F7DB 1F7F1-1F7FF "
    "1F8B2-1F8BB 1F8C0-1F8C1 1F8D0-1F8D8 1FA54-1FA57 1FA89-1FA8F 1FABE 1FAC6 1FAC8 1FACC-1FACD 1FADC-1FADD 1FADF "
    "1FAE9-1FAEB 1FAEF 1FAF9-1FAFA 1FBCB-1FBEF 1FBFA 2B73A-2B73F 2B81E 2CEA2-2CEAD 323B0-33479 3D000-3FC3F"
)
HAN_RANGES = "3400-4DBF 4E00-9FFF F900-FAFF 20000-2A6DF 2A700-2EBEF 2F800-2FA1F"  # unicode_cpt_is_han, src/unicode.cpp


def _ranges(text: str) -> list[range]:
    bounds = [part.partition("-") for part in text.split()]
    return [range(int(first, 16), int(last or first, 16) + 1) for first, _, last in bounds]


_known = {code: category for category, text in {**ADDED, "C": LATER}.items() for part in _ranges(text) for code in part}
_han = _ranges(HAN_RANGES)
_letters = {"L": LETTER, "N": NUMBER, "M": MARK, "P": PUNCTUATION, "S": SYMBOL}


class _Classes(dict[int, str]):
    """Code point → class letter (itself in ASCII), filled on demand."""

    def __missing__(self, code: int) -> str:
        self[code] = letter = chr(code) if code < 128 else _class(code)
        return letter


def _class(code: int) -> str:
    if NOT_ASCII_WHITE.match(chr(code)):
        return WHITE
    category = _known.get(code) or unicodedata.category(chr(code))[0]
    if any(code in part for part in _han):
        return HAN if category == "L" else OTHER_HAN
    return _letters.get(category, OTHER)


_classes = _Classes()


def classes(text: str) -> str:
    """`text` with a class letter in place of every character beyond ASCII; the length stays."""
    return text if text.isascii() else text.translate(_classes)


def plain_white(text: str) -> str:
    """`text` with a vertical tab in place of every white space beyond ASCII; the length stays."""
    return text if text.isascii() else NOT_ASCII_WHITE.sub(WHITE, text)

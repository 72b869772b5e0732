"""llama.cpp's pre-tokenizers: how the text of a byte-level BPE is cut into words, by `tokenizer.ggml.pre`.

A pre-tokenizer is a list of cuts, each made within the pieces of the one before; a match is one piece, and so is the text
between two matches. Most patterns contain categories (`\\p{L}`) and run on a text of class letters (codepoints.py).
llama.cpp does the same, by hand-written loops or by std::regex on such a text; where its loops differ from the pattern that
it quotes, the loops count. Source: llama.cpp, src/llama-vocab.cpp (llm_tokenizer_bpe) and src/unicode.cpp.

Facts that differ from Hugging Face's tokenizers for the same vocabulary: no text is composed (NFC) before it is cut,
`\\p{Lu}` and `\\p{Ll}` mean any letter beyond ASCII, so that `tekken` and `gpt-4o` cut `ÉCOLE` otherwise, and the cuts
of `kimi-k2` leave combining marks outside of words.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import NamedTuple

from nanollama.errors import unknown_name
from nanollama.text.bpe.byte_level import Words
from nanollama.text.bpe.patterns import (
    ASCII_CONTRACTIONS,
    DIGIT,
    DIGITS,
    GPT2,
    SIGNS,
    UP_TO_3,
    WHITE,
    WORD,
    llama3_pattern,
)
from nanollama.text.llamacpp.codepoints import HAN, LETTER, MARK, MEMBERS, OTHER_HAN, classes, plain_white


class DigitTriples(NamedTuple):
    """Cuts a run of digits into groups of three, counted from its right end: after each group, else before each.

    A run stays joined to the text on its left, and with `after` false to the text on its right, until a later cut.
    """

    digits: str
    after: bool

    def places(self, start: int, end: int) -> range:
        """The places at which the run from `start` to `end` is cut, from left to right."""
        return range(end, start, -3)[::-1] if self.after else range(end - 3, start - 1, -3)[::-1]


Pieces = Callable[[str, int, int], Iterator[tuple[int, int]]]
"""(text, start, end) → (begin, end) of each piece of text[start:end]."""

BREAK, LINES = "[\r\n]", r"[^\n]+|\n+"
LLAMA3 = llama3_pattern(ASCII_CONTRACTIONS, UP_TO_3)
QWEN2 = llama3_pattern(ASCII_CONTRACTIONS, DIGIT)
ASCII_SIGNS = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
MARKED_WORD = rf"{ASCII_SIGNS}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
DEEPSEEK3 = rf"{MARKED_WORD}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{WHITE}"
NOT_SENTENCE = r" ?[^(\s|.,!?…。，、।۔،)]+"
CJK = "[一-龥\u3040-\u309f\u30a0-\u30ff]+"
HALVES = "|".join(rf"\s{{{count}}}(?!\S)" for count in (512, 256, 128, 64, 32, 16, 8, 4, "1,2"))


def _cased(beyond: str, suffix: str, number: str) -> str:
    """gpt-4o's words: capitals, then small letters; the classes `beyond` ASCII are both."""
    capital, small, before = f"[A-Z{beyond}]", f"[a-z{beyond}]", r"[^\r\n\p{L}\p{N}]?"
    words = f"{before}{capital}*{small}+{suffix}|{before}{capital}+{small}*{suffix}"
    return rf"{words}|{number}|{SIGNS}[\r\n/]*|{WHITE}"


DEEPSEEK_LETTERS = (  # cased letters, as its tokenizer.json lists them
    r"\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
    r"\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    r"\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    r"\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
    r"\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    r"\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    r"\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    r"\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    r"\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    r"\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
DEEPSEEK_CJK = r"[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
AFMOE_SCRIPTS = (  # from U+8C48, because upstream's source file holds U+F900 in its composed form
    r"[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0eff\u1780-\u17ff\u1000-\u109f"
    r"\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
YOUTU_SCRIPTS = (
    r"[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
    rf"|[\u3105-\u312f]+|{CJK}"
)
MARKED = r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"
KIMI = rf"[{HAN}{OTHER_HAN}]+|[^\r\n\p{{L}}\p{{N}}]?[A-Za-z{LETTER}]+{ASCII_CONTRACTIONS}?|{UP_TO_3}|{SIGNS}[\r\n]*|{WHITE}"

LLAMA3_NAMES = "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano"
CUTS = {
    f"{LLAMA3_NAMES} dbrx smaug-bpe chatglm-bpe glm4 glm5": (LLAMA3,),
    "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2": (QWEN2,),
    "qwen35": (rf"{ASCII_CONTRACTIONS}|{MARKED}|{DIGIT}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{WHITE}",),
    "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en "
    "jina-v2-code roberta-bpe exaone4 mpt olmo jais trillion granite-docling": (GPT2,),
    "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2": (DIGIT, GPT2),
    "falcon": (r"[\p{P}$+<=>^~|`]+", GPT2, "[0-9]{3}"),
    "default": (r"[\p{P}$+<=>^~|]+", GPT2, DIGITS, "[0-9]{3}"),
    "deepseek-llm": (
        BREAK,
        rf"\s?[A-Za-z{DEEPSEEK_LETTERS}]+",
        r"\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
        r"\s+\Z",
        DEEPSEEK_CJK,
        DIGITS,
    ),
    "deepseek-coder": (BREAK, r"\s?[\p{L}]+", r"\s?[\p{P}]+", DEEPSEEK_CJK, DIGIT),
    "deepseek-v3 hunyuan-dense joyai-llm hy_v4": (UP_TO_3, CJK, DEEPSEEK3),
    "spark2_5": (UP_TO_3, CJK, rf"{MARKED_WORD}| ?[\p{{P}}\p{{S}}]+|[\r\n]|\s+(?!\S)|\s+", DIGIT),
    "youtu": (YOUTU_SCRIPTS, f"{MARKED}{ASCII_CONTRACTIONS}?|{DIGIT}|{SIGNS}[\\r\\n/]*|{WHITE}"),
    "poro-chat bloom gpt3-finnish": (NOT_SENTENCE,),
    "viking": (NOT_SENTENCE, DIGIT),
    "tekken": (_cased(LETTER + HAN, "", DIGIT),),
    "gpt-4o llama4 kanana2 talkie minimax-m2": (_cased(LETTER + HAN, f"{ASCII_CONTRACTIONS}?", UP_TO_3),),
    "granite-embed-multi-97m": (_cased(LETTER + HAN + MARK, f"{ASCII_CONTRACTIONS}?", UP_TO_3),),
    "tiny_aya cohere2moe": (
        DigitTriples(DIGITS, after=True),
        f"{MARKED}{ASCII_CONTRACTIONS}?|{UP_TO_3}|{SIGNS}[\\r\\n/]*|{WHITE}",
    ),
    "chameleon": (
        "<sentinel:[0-9]+>",
        "IMGIMG[A-I]{1,4}Z",
        r"[\t\n]|    |  ",
        DIGIT,
        r"[\p{P}!-/:-@\[-`{-~]",
        GPT2,
    ),
    "kimi-k2": (KIMI,),
    "superbpe": (DIGITS, DigitTriples("[0-9]+", after=False)),
    "bailingmoe bailingmoe2 llada-moe": (
        rf"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|{WORD}|{DIGIT}|{SIGNS}[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    ),
    "seed-coder": (rf"{ASCII_CONTRACTIONS}|{WORD}|{DIGIT}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{WHITE}",),
    "ufakzeka": (rf"{WORD}|{DIGIT}|{SIGNS}[\r\n]*|{WHITE}",),
    "afmoe": (DigitTriples(DIGITS, after=True), AFMOE_SCRIPTS, DEEPSEEK3),
    "laguna": (LINES, QWEN2),
    "exaone-moe": (
        rf"{ASCII_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?(?:[\p{{L}}][\p{{M}}]*(?: [\p{{L}}][\p{{M}}]*)*)+|{DIGIT}|{SIGNS}[\r\n/]?"
        r"|\s*[\r\n]|\s+(?!\S)|\s+",
    ),
    "jais-2": (rf"{ASCII_CONTRACTIONS}|{WORD}|{UP_TO_3}|{SIGNS}[\r\n]*|\s*[\r\n]+|{HALVES}|\s",),
    "minicpm5": (UP_TO_3, rf"{ASCII_CONTRACTIONS}|{WORD}|{DIGITS}|{SIGNS}[\r\n]*|{WHITE}"),
}
"""The cuts of each group of names that `tokenizer.ggml.pre` may have."""

PRE_TOKENIZERS = {name: cuts for names, cuts in CUTS.items() for name in names.split()}

WHOLE_WORDS = frozenset(f"{LLAMA3_NAMES} minicpm5 youtu glm4 glm5 tekken granite-embed-multi-97m".split())
"""The names with which a word that is a token is not merged (`ignore_merges`)."""

ADDS_BOS = frozenset(f"{LLAMA3_NAMES} tekken chameleon".split())
"""The names with which BOS is put before a text, unless `tokenizer.ggml.add_bos_token` says otherwise."""


@cache
def words_of(name: str) -> Words:
    """The function that cuts a text by the pre-tokenizer of this name."""
    if name not in PRE_TOKENIZERS:
        raise unknown_name("pre-tokenizer (tokenizer.ggml.pre)", name, PRE_TOKENIZERS)
    cuts = [_pieces_of(cut) for cut in PRE_TOKENIZERS[name]]

    def words(text: str) -> list[str]:
        spans = [(0, len(text))]
        by_class, by_letter = classes(text), plain_white(text)
        for pieces, uses_classes in cuts:
            seen = by_class if uses_classes else by_letter
            spans = [piece for span in spans for piece in pieces(seen, *span)]
        return [text[start:end] for start, end in spans]

    return words


def _pieces_of(cut: str | DigitTriples) -> tuple[Pieces, bool]:
    """The function of a cut, and whether it runs on a text of class letters."""
    source = pattern = cut.digits if isinstance(cut, DigitTriples) else cut
    for category, members in MEMBERS.items():
        pattern = pattern.replace(category, members)
    compiled = re.compile(pattern, re.ASCII)
    pieces = partial(_triples, compiled, cut) if isinstance(cut, DigitTriples) else partial(_matches, compiled)
    return pieces, r"\p{" in source


def _matches(pattern: re.Pattern[str], text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yields (begin, end) of the matches of a pattern and of the texts between them."""
    for match in pattern.finditer(text, start, end):
        if match.start() > start:
            yield start, match.start()
        yield match.span()
        start = match.end()
    if start < end:
        yield start, end


def _triples(pattern: re.Pattern[str], cut: DigitTriples, text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yields (begin, end) of the pieces between the places where runs of digits are cut."""
    for match in pattern.finditer(text, start, end):
        for place in cut.places(*match.span()):
            if place > start:
                yield start, place
                start = place
    if start < end:
        yield start, end

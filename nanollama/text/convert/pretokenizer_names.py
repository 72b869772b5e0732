r"""Converts pre-tokenizers: `pre_tokenizer` of a tokenizer.json to a name in `tokenizer.ggml.pre`, and back.

`pre_name` goes from the first to the second. The regular expressions of the tokenizer.json must be, up to spelling, those of
a name in llamacpp/pretokenizers.py: a guess would give wrong ids silently. Facts that a name can't express:

- `(?i:'s)` of a tokenizer.json also takes `'ſ` (U+017F), llama.cpp does not.
- The classes of capital and small letters in the patterns of GPT-4o and Mistral's tekken are Unicode's, with marks; in
  llama.cpp every letter beyond ASCII is both, and marks are neither: `ÉCOLE` or Devanagari are cut elsewhere.

`pre_tokenizer_of` goes back, to exactly the cuts of llama.cpp. The library tokenizers runs the patterns; its Oniguruma may
have characters newer than Unicode 15.1.
"""

import re
from collections.abc import Sequence
from typing import Any

from nanollama.errors import NanollamaError, quote
from nanollama.text.bpe.patterns import ASCII_CONTRACTIONS, CONTRACTIONS, DIGIT, DIGITS, GPT2
from nanollama.text.llamacpp.codepoints import HAN, HAN_RANGES, LETTER, MARK, OTHER_HAN
from nanollama.text.llamacpp.pretokenizers import PRE_TOKENIZERS, WHOLE_WORDS, DigitTriples

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
"""The step of a tokenizer.json that spells bytes as characters, and cuts nothing."""

USUAL = ("llama-bpe", "dbrx", "qwen2", "gpt-2", "smollm", "deepseek-v3", "gpt-4o", "bloom")
"""Of names with the same meaning, those that llama.cpp's converter writes for most models."""

CASED = {
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]": f"[A-Z{LETTER}{HAN}]",
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]": f"[a-z{LETTER}{HAN}]",
}
"""Class in a tokenizer.json → the class that llama.cpp uses in its place."""

SPELLINGS = {
    CONTRACTIONS: ASCII_CONTRACTIONS,
    **CASED,
    **{f"[{category}]": category for category in (r"\p{L}", r"\p{N}", r"\p{M}")},
    **dict.fromkeys((r"\Z", r"\z"), "$"),
    "\r": r"\r",
    "\n": r"\n",
}
"""Spelling → equivalent spelling, replaced before patterns are compared."""

_han = "".join(rf"\x{{{first}}}-\x{{{last}}}" for first, last in (part.split("-") for part in HAN_RANGES.split()))
CLASS_LETTERS = {
    LETTER: rf"[\p{{L}}&&[^A-Za-z]&&[^{_han}]]",
    HAN: rf"[\p{{L}}&&[{_han}]]",
    OTHER_HAN: rf"[[{_han}]&&[^\p{{L}}]]",
    MARK: r"\p{M}",
}
"""Class letter (codepoints.py) within brackets → its class in Oniguruma's syntax."""

WITHOUT_WHITE = {
    r"\u0800-\u4e00": r"\u0800-\u167f\u1681-\u1fff\u200b-\u2027\u202a-\u202e\u2030-\u205e\u2060-\u2fff\u3001-\u4e00",
    r"\u3000-\u3002": r"\u3001-\u3002",
}
"""DeepSeek's ranges that hold white space → without it; llama.cpp makes every white space ASCII before it matches them."""


def canonical(pattern: str) -> str:
    """A pattern in the spelling in which patterns are compared."""
    pattern = unescaped(pattern)
    for spelling, other in SPELLINGS.items():
        pattern = pattern.replace(spelling, other)
    return pattern


def pre_name(pre_tokenizer: dict[str, Any] | None, *, composes: bool, whole_words: bool) -> str:
    """The name in `tokenizer.ggml.pre` of a pre-tokenizer; NanollamaError if there is none.

    pre_tokenizer: as the library tokenizers writes it. composes: text is composed first (NFC), which decides between names
    with the same meaning. whole_words: `ignore_merges` of the model.
    """
    patterns = patterns_of(pre_tokenizer)
    wanted = [canonical(pattern) for pattern in patterns]
    found = [name for name, cuts in PRE_TOKENIZERS.items() if wanted in spellings(cuts)]
    fitting = [name for name in found if (name in WHOLE_WORDS) == whole_words]
    if not fitting:
        also = f", with ignore_merges {whole_words}" if found else ""
        raise NanollamaError(
            f"the pre-tokenizer of tokenizer.json, {quote(patterns)}{also}, is none that llama.cpp has a name for: a GGUF file "
            "can't hold this tokenizer. Export as a folder instead"
        )
    if composes and "olmo" in fitting:
        return "olmo"
    return next((name for name in USUAL if name in fitting), fitting[0])


def case_warnings(pre_tokenizer: dict[str, Any] | None) -> tuple[str, ...]:
    """A warning if the patterns use classes of capitals, which llama.cpp simplifies."""
    if any(spelling in pattern for spelling in CASED for pattern in patterns_of(pre_tokenizer)):
        return ("llama.cpp cuts words with capitals or marks beyond ASCII elsewhere than this tokenizer.json does",)
    return ()


def spellings(cuts: Sequence[str | DigitTriples]) -> list[list[str]]:
    """Cuts as `canonical` patterns of a tokenizer.json: in upstream's form, and in that of `pre_tokenizer_of`."""
    patterns = [cut for cut in cuts if isinstance(cut, str)]
    if len(patterns) < len(cuts):
        return []
    return [[canonical(pattern) for pattern in patterns], [canonical(oniguruma(pattern)) for pattern in patterns]]


def patterns_of(pre_tokenizer: dict[str, Any] | None) -> list[str]:
    """The patterns of a byte-level pre-tokenizer, in the order in which they cut; a match becomes a piece."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer])
    *cuts, last = steps or [None]
    if last is None or last["type"] != "ByteLevel" or last["add_prefix_space"]:
        raise NanollamaError(
            f"the pre-tokenizer of tokenizer.json is {quote(pre_tokenizer)}; expected one that ends in ByteLevel, without "
            "add_prefix_space: a GGUF file can hold no other. Export as a folder instead"
        )
    return [pattern_of(step) for step in cuts] + ([GPT2] if last["use_regex"] else [])


def pattern_of(step: dict[str, Any]) -> str:
    """The pattern of a step before ByteLevel."""
    if step["type"] == "Digits":
        return DIGIT if step["individual_digits"] else DIGITS
    if step["type"] == "Split" and step["behavior"] == "Isolated" and not step["invert"] and "Regex" in step["pattern"]:
        return str(step["pattern"]["Regex"])
    raise NanollamaError(
        f"the pre-tokenizer of tokenizer.json has the step {quote(step)}; a GGUF file can only hold steps of type Digits, or "
        "Split by a Regex that is Isolated. Export as a folder instead"
    )


def pre_tokenizer_of(name: str) -> dict[str, Any]:
    """The `pre_tokenizer` of a tokenizer.json with the cuts of llama.cpp's pre-tokenizer of this name."""
    cuts = PRE_TOKENIZERS.get(name, ())
    patterns = [oniguruma(cut) for cut in cuts if isinstance(cut, str)]
    if len(patterns) < max(len(cuts), 1):
        raise NanollamaError(
            f"tokenizer.ggml.pre is {quote(name)}; a tokenizer.json can't cut text so. Export as a GGUF file instead"
        )
    steps = [{"type": "Split", "pattern": {"Regex": each}, "behavior": "Isolated", "invert": False} for each in patterns]
    return {"type": "Sequence", "pretokenizers": [*steps, BYTE_LEVEL]}


def oniguruma(cut: str) -> str:
    """A cut in the syntax of the library tokenizers."""
    for part, other in (CLASS_LETTERS if r"\p{" in cut else WITHOUT_WHITE).items():
        cut = cut.replace(part, other)
    return unescaped(cut).replace(r"\Z", r"\z")


def unescaped(pattern: str) -> str:
    """The pattern with characters in place of `\\uXXXX`."""
    return re.sub(r"\\u([0-9a-fA-F]{4})|\\U([0-9a-fA-F]{8})", lambda code: chr(int(code[1] or code[2], 16)), pattern)

r"""Regular expressions that cut text into words: the patterns of GPT-2, Llama 3 and Qwen2, and the parts that others share.

Two engines run them: the library `tokenizers` (byte_level.py), and Python's `re` on a text of class letters as llama.cpp does
(llamacpp/pretokenizers.py). For the second, a category such as \p{L} must stand in brackets.
"""

DIGIT, DIGITS, UP_TO_3 = r"[\p{N}]", r"[\p{N}]+", r"[\p{N}]{1,3}"
WORD, SIGNS, WHITE = r"[^\r\n\p{L}\p{N}]?[\p{L}]+", r" ?[^\s\p{L}\p{N}]+", r"\s*[\r\n]+|\s+(?!\S)|\s+"
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"  # as Meta and Qwen publish it; it takes 'ſ (U+017F) too
ASCII_CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"  # as llama.cpp reads it

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""Source: openai/gpt-2, src/encoder.py."""


def llama3_pattern(contractions: str, number: str) -> str:
    """Llama 3's pattern (meta-llama/llama-models, models/llama3/tokenizer.py) with number UP_TO_3; Qwen2's with DIGIT
    (transformers, models/qwen2/tokenization_qwen2.py)."""
    return rf"{contractions}|{WORD}|{number}|{SIGNS}[\r\n]*|{WHITE}"

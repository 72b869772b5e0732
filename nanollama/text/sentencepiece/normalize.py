"""SentencePiece's text normalisation: replacement rules, then spaces.

The rules (NFKC and the like) are compiled into the model file as a double array, a trie in one array of 32-bit units.
`Charsmap` reads that array; `Normalizer` applies the model's `normalizer_spec`.
"""

import re
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from nanollama.errors import NanollamaError

SPACE = "▁"  # U+2581, written for " " inside pieces
BLOCK = 256  # units; a double array grows by such blocks, so `index ^ byte` never leaves the block of `index`
IS_VALUE = 1 << 31
LONGEST_RULE = 64  # characters a rule may match, and may put in their place; NFKC needs 4 and 18


class Charsmap:
    """Replacement rules: the longest rule that matches at a place replaces what it matches.

    blob: u32 size of the trie in bytes, the trie's units (u32, all little-endian), then the replacements, each ended by
    a NUL. The whole blob is checked once, so that lookups need no checks. Sources: sentencepiece, normalizer.cc
    (DecodePrecompiledCharsMap); darts-clone, darts.h (DoubleArrayUnit, commonPrefixSearch).
    """

    def __init__(self, blob: bytes) -> None:
        size = int.from_bytes(blob[:4], "little")
        if size == 0 or size % (4 * BLOCK) or len(blob) <= 4 + size or blob[-1] != 0:
            raise NanollamaError(
                f"precompiled_charsmap of {len(blob):,} bytes claims a trie of {size:,} bytes: expected a multiple of "
                f"{4 * BLOCK}, followed by replacements that end in NUL"
            )
        self._units = array("I", blob[4 : 4 + size])
        if sys.byteorder == "big":
            self._units.byteswap()
        self._replacements = blob[4 + size :]
        self._check()
        self._first: dict[str, int | None] = {}

    def _check(self) -> None:
        """Raise unless every step stays inside the array and every value points at a character of the replacements."""
        try:
            longest = max(map(len, self._replacements.decode("utf-8").split("\0")))
        except UnicodeDecodeError as error:
            raise NanollamaError(f"precompiled_charsmap holds replacements that are not UTF-8: {error}") from error
        if longest > LONGEST_RULE:
            raise NanollamaError(f"precompiled_charsmap has a replacement of {longest:,} characters, over {LONGEST_RULE}")
        for index, unit in enumerate(self._units):
            if unit & IS_VALUE and index:
                continue  # never passed: its label is no byte
            base = index ^ _offset(unit)
            value = self._units[base] & ~IS_VALUE if base < len(self._units) else 0
            inside = value < len(self._replacements) and self._replacements[value] & 0xC0 != 0x80
            if base >= len(self._units) or (unit >> 8 & 1 and not inside):
                raise NanollamaError(f"precompiled_charsmap is damaged: unit {index} points outside its tables")

    def _step(self, index: int, letter: str) -> int | None:
        """The unit reached from unit `index` by the bytes of one character, or None."""
        for byte in letter.encode("utf-8"):
            index ^= _offset(self._units[index]) ^ byte
            if self._units[index] & (IS_VALUE | 0xFF) != byte:
                return None
        return index

    def longest(self, text: str, start: int) -> tuple[int, str] | None:
        """(end, replacement) of the longest rule that matches `text` at `start`, or None."""
        letter = text[start]
        if letter not in self._first:  # most characters begin no rule
            self._first[letter] = self._step(0, letter)
        index, end, found = self._first[letter], start + 1, None
        while index is not None:
            unit = self._units[index]
            if unit >> 8 & 1:
                found = (end, self._units[index ^ _offset(unit)] & ~IS_VALUE)
            if end == len(text):
                break
            if end - start == LONGEST_RULE:
                raise NanollamaError(f"precompiled_charsmap has a rule for more than {LONGEST_RULE} characters")
            index, end = self._step(index, text[end]), end + 1
        return found and (found[0], self._replacement(found[1]))

    def _replacement(self, at: int) -> str:
        return self._replacements[at : self._replacements.index(0, at)].decode("utf-8")


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 0x200) >> 6)


@dataclass(frozen=True)
class Normalizer:
    """`normalizer_spec`: rules, then spaces collapsed, a dummy space added, and spaces written as "▁".

    kept: user-defined pieces, which no rule changes. Source: sentencepiece, normalizer.cc (Normalize).
    """

    charsmap: Charsmap | None = None
    kept: re.Pattern[str] | None = None
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True
    whitespace_as_suffix: bool = False

    def normalize(self, text: str, *, first: bool = True, last: bool = True) -> str:
        """The text in the spelling of the pieces.

        first, last: whether `text` begins and ends the whole input. Next to a special token only runs of spaces
        collapse; nothing is stripped and no dummy space is added there.
        """
        chunks = list(self._chunks(text))
        if self.remove_extra_whitespaces:
            chunks = _collapse(chunks, strip=first)
        if not chunks:
            return ""
        space = SPACE if self.escape_whitespaces else " "
        result = "".join(chunks).replace(" ", space)
        if self.add_dummy_prefix and first and not self.whitespace_as_suffix:
            result = space + result
        if self.remove_extra_whitespaces and last:
            result = result.rstrip(space)
        return result + space if self.add_dummy_prefix and last and self.whitespace_as_suffix else result

    def _chunks(self, text: str) -> Iterator[str]:
        """Yields `text` after the rules, cut at least before and after every space."""
        if self.charsmap is None and self.kept is None:
            yield from re.findall(" |[^ ]+", text) if self.remove_extra_whitespaces else [text] * bool(text)
            return
        start = 0
        while start < len(text):
            kept = self.kept.match(text, start) if self.kept else None
            rule = self.charsmap.longest(text, start) if self.charsmap and not kept else None
            end, chunk = rule or ((kept.end() if kept else start + 1), kept[0] if kept else text[start])
            yield chunk
            start = end


def _collapse(chunks: list[str], strip: bool) -> list[str]:
    """Drop spaces that follow a space; with `strip`, also those at the start. Empty if nothing but spaces is left."""
    start = 0
    while strip and start < len(chunks) and chunks[start] == " ":
        start += 1
    after_space, result = strip, []
    for chunk in chunks[start:]:
        rest = chunk.lstrip(" ") if after_space else chunk
        after_space = rest.endswith(" ") if rest else after_space
        result.append(rest)
    return result

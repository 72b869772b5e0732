"""Byte-level BPE: GPT-2's scheme, used by the vocabularies of GPT-2, Llama 3 and Qwen.

Text is cut into words by a regular expression, and the UTF-8 bytes of each word are merged. Bytes are written as
printable characters inside the vocabulary (`Ġ` is a space), so that tokens are ordinary strings.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache

from tokenizers import Regex, normalizers, pre_tokenizers

from nanollama.errors import NanollamaError, quote, unknown_name
from nanollama.text.bpe.merge import CACHED_LENGTH, CACHED_WORDS, Rank, merge_pairs
from nanollama.text.bpe.patterns import CONTRACTIONS, DIGIT, GPT2, UP_TO_3, llama3_pattern
from nanollama.text.folder.tokenizer_json import library_errors

PRE_TOKENIZERS = {
    "gpt2": GPT2,
    "llama3": llama3_pattern(CONTRACTIONS, UP_TO_3),
    "qwen2": llama3_pattern(CONTRACTIONS, DIGIT),
}
"""How text is cut into words, by name. Python's `re` has no \\p{L}, so the library `tokenizers` runs them."""

COMPOSES = {"qwen2"}
"""The names whose text is composed first (Unicode NFC)."""

_printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_others = [byte for byte in range(256) if byte not in _printable]
BYTE_TO_LETTER = {byte: chr(byte) for byte in _printable} | {byte: chr(256 + n) for n, byte in enumerate(_others)}
"""The character that stands for each byte: itself if printable, else from U+0100 on. Source: GPT-2's encoder.py."""
LETTER_TO_BYTE = {letter: byte for byte, letter in BYTE_TO_LETTER.items()}


Words = Callable[[str], list[str]]
"""Cuts a text into words; the words joined are the text."""


def library_words(name: str) -> Words:
    """The function that cuts a text by the pattern of this name."""
    if name not in PRE_TOKENIZERS:
        raise unknown_name("pre-tokenizer", name, PRE_TOKENIZERS)
    library = pre_tokenizers.Split(Regex(PRE_TOKENIZERS[name]), "isolated")

    def words(text: str) -> list[str]:
        with library_errors(f"the text {quote(text)} can't be cut into words"):  # 10 million spaces are too many
            return [word for word, _ in library.pre_tokenize_str(text)]

    return words


def spell(data: bytes) -> str:
    """Bytes in the vocabulary's spelling, one character per byte."""
    return data.decode("latin-1").translate(BYTE_TO_LETTER)


def merge_ranks(merges: Iterable[tuple[str, str]], vocab: dict[str, int]) -> Rank:
    """The ranks of a list of merges: the place in the list. NanollamaError unless every merge joins two tokens into a third."""
    places: dict[tuple[str, str], float] = {}
    for place, (left, right) in enumerate(merges):
        for token in (left, right, left + right):
            if token not in vocab:
                raise NanollamaError(
                    f"merge {place} joins {quote(left)} and {quote(right)}, but {quote(token)} is not in the vocabulary"
                )
        if (left, right) in places:
            raise NanollamaError(f"merge {place}, {quote(left)} and {quote(right)}, occurs twice; expected it once")
        places[left, right] = place
    return lambda left, right: places.get((left, right))


class ByteBpe:
    """Text to ids and back.

    vocab: token, in the spelling of `spell`, to id. rank: from `merge_ranks`, or tiktoken's, where the rank of a pair is
    the id of the token it makes. pre_tokenizer: the function that cuts text into words, or its name. whole_words: a word
    that is a token is not merged. prefix_space: a space is put before text that has none. drops_bytes: bytes without a token
    are left out, as in llama.cpp and tokenizers; else they are an error.
    """

    unknown_id = None

    def __init__(
        self,
        vocab: dict[str, int],
        rank: Rank,
        pre_tokenizer: str | Words,
        *,
        whole_words: bool = False,
        prefix_space: bool = False,
        drops_bytes: bool = False,
    ) -> None:
        self._words = library_words(pre_tokenizer) if isinstance(pre_tokenizer, str) else pre_tokenizer
        self._compose = normalizers.NFC() if pre_tokenizer in COMPOSES else None
        self._vocab, self._rank, self._drops_bytes = vocab, rank, drops_bytes
        self._whole_words, self._prefix_space = whole_words, prefix_space
        self._tokens = {id: token for token, id in vocab.items()}
        self._cached = lru_cache(CACHED_WORDS)(self._word_ids)
        self.size = max(self._tokens, default=-1) + 1

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it, None if there is no such token."""
        return self._vocab.get(token)

    def id_to_token(self, id: int) -> str | None:
        """The token as the vocabulary spells it, None if the id has none."""
        return self._tokens.get(id)

    def encode(self, text: str, *, first: bool = True, last: bool = True) -> list[int]:
        """The ids of `text`. first, last (whether it begins and ends the input) make no difference here."""
        if self._compose:
            text = self._compose.normalize_str(text)
        if self._prefix_space and text and not text.startswith(" "):
            text = " " + text
        words = self._words(text)
        return [id for word in words for id in (self._cached if len(word) <= CACHED_LENGTH else self._word_ids)(word)]

    def _word_ids(self, word: str) -> list[int]:
        spelled = spell(word.encode("utf-8"))
        whole = self._whole_words and spelled in self._vocab
        tokens = [spelled] if whole else merge_pairs(list(spelled), self._rank)
        if self._drops_bytes:
            return [self._vocab[token] for token in tokens if token in self._vocab]
        try:
            return [self._vocab[token] for token in tokens]
        except KeyError as error:
            raise NanollamaError(
                f"the vocabulary has no token for {quote(error.args[0])} in the word {quote(word)}; expected one per byte"
            ) from None

    def decode(self, parts: Iterable[int | str]) -> str:
        """The text of ids and of texts between them; bytes that are not UTF-8 become U+FFFD."""
        texts = (part.encode("utf-8") if isinstance(part, str) else self._bytes(self._tokens[part]) for part in parts)
        return b"".join(texts).decode("utf-8", "replace")

    @staticmethod
    def _bytes(token: str) -> bytes:
        try:
            return bytes([LETTER_TO_BYTE[letter] for letter in token])
        except KeyError:  # a token in plain spelling, not byte by byte
            return token.encode("utf-8")

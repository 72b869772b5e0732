"""Streaming text, written again: a token may end in the middle of a character, and returned text can't be changed."""

import random
from collections.abc import Sequence

from conformance.katas.testing.compare import agree
from nanollama.errors import NanollamaError
from nanollama.text.detokenizer import Detokenizer

SPECIAL = 0  # the id of "<s>"


class Bytes:
    """Like GPT-2's: tokens are bytes, which are joined and then decoded as UTF-8."""

    def __init__(self, *tokens: bytes) -> None:
        self.tokens = [b"<s>", *tokens]
        self.special_ids, self.bos_id = frozenset({SPECIAL}), SPECIAL
        self.work = 0  # how many ids decode() was given in all

    def kept(self, ids: Sequence[int], skip_special: bool) -> list[int]:
        """The ids that have text."""
        self.work += len(ids)
        return [i for i in ids if i < len(self.tokens) and not (skip_special and i == SPECIAL)]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return b"".join(self.tokens[i] for i in self.kept(ids, skip_special)).decode("utf-8", "replace")

    def id_to_token(self, token_id: int) -> str:
        if token_id >= len(self.tokens):
            raise NanollamaError(f"no token {token_id}")
        return self.tokens[token_id].decode("latin-1").replace(" ", "Ġ")

    def token_to_id(self, token: str) -> int | None:
        return next((i for i in range(len(self.tokens)) if self.id_to_token(i) == token), None)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        raise NotImplementedError


class Llama(Bytes):
    """Like Llama 2's: a token is text with ▁ for a space, or <0xE4>, one byte; one space at the beginning is dropped."""

    def id_to_token(self, token_id: int) -> str:
        super().id_to_token(token_id)
        return self.tokens[token_id].decode()

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        text, run = "", b""
        for token in [*map(self.id_to_token, self.kept(ids, skip_special)), ""]:
            if token.startswith("<0x"):
                run += bytes([int(token[3:5], 16)])
                continue
            text, run = text + utf8(run) + token.replace("▁", " "), b""
        return text.removeprefix(" ")


class Tidy(Llama):
    """Drops all spaces at the beginning, as some models' tokenizers do."""

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return super().decode(ids, skip_special=skip_special).lstrip(" ")


def utf8(run: bytes) -> str:
    """A run of byte tokens: either valid UTF-8 as a whole, or U+FFFD."""
    try:
        return run.decode()
    except UnicodeDecodeError:
        return "\N{REPLACEMENT CHARACTER}" * len(run)


def streamed(tokenizer: Bytes, *ids: int, skip_special: bool = True) -> list[str]:
    """The text after each token and after the end."""
    stream = Detokenizer(tokenizer, skip_special=skip_special)
    return [*map(stream.push, ids), stream.flush()]


def test_whole_characters_go_out_at_once() -> None:
    """Three tokens, "Hel", "lo" and " you"."""
    agree("the pieces", streamed(Bytes(b"Hel", b"lo", b" you"), 1, 2, 3), ["Hel", "lo", " you", ""])


def test_half_a_character_waits() -> None:
    """é is the bytes C3 A9, here in two tokens: nothing, and then é."""
    agree("the pieces", streamed(Bytes(b"\xc3", b"\xa9"), 1, 2), ["", "é", ""])


def test_a_token_may_end_one_character_and_begin_the_next() -> None:
    """a C3 | A9 b C3 | A9: "a", "éb", "é"."""
    agree("the pieces", streamed(Bytes(b"a\xc3", b"\xa9b\xc3", b"\xa9"), 1, 2, 3), ["a", "éb", "é", ""])


def test_a_character_may_take_four_tokens() -> None:
    """F0 9F 98 80 is one emoji; a second one follows, byte by byte as well."""
    tokens = Bytes(b"\xf0", b"\x9f", b"\x98", b"\x80")
    agree("the pieces", streamed(tokens, 1, 2, 3, 4, 1, 2, 3, 4), ["", "", "", "😀", "", "", "", "😀", ""])


def test_a_space_in_front_makes_no_character_whole() -> None:
    """A token of a space and C3: the space is returned, C3 is held back for its A9."""
    agree("the pieces", streamed(Bytes(b"a", b" \xc3", b"\xa9"), 1, 2, 3), ["a", " ", "é", ""])


def test_bytes_that_are_no_character_are_shown_once_that_is_sure() -> None:
    """C3 and then "A": C3 is U+FFFD, as decode() has it."""
    agree("the pieces", streamed(Bytes(b"\xc3", b"A"), 1, 2), ["", "\ufffdA", ""])


def test_an_unfinished_character_at_the_end_is_shown() -> None:
    """ "a" and C3, and no more: decode() says "a" and U+FFFD, and so do the pieces."""
    agree("the pieces", streamed(Bytes(b"a", b"\xc3"), 1, 2), ["a", "", "\ufffd"])


def test_special_tokens_have_no_text_even_inside_of_a_character() -> None:
    """C3 <s> A9: decode() leaves <s> out and says é."""
    agree("the pieces", streamed(Bytes(b"\xc3", b"\xa9", b"b"), 1, SPECIAL, 2, 3), ["", "", "é", "b", ""])


def test_special_tokens_are_shown_if_they_are_wanted() -> None:
    """skip_special=False: "<s>" and "a"."""
    agree("the pieces", streamed(Bytes(b"a"), SPECIAL, 1, skip_special=False), ["<s>", "a", ""])


def test_ids_without_a_token_have_no_text() -> None:
    """The embedding has more rows than there are tokens. Four such ids between C3 and A9: still é."""
    tokens = Bytes(b"a", b"\xc3", b"\xa9")
    agree("the pieces", streamed(tokens, 1, 2, 99, 99, 99, 99, 3), ["a", "", "", "", "", "", "é", ""])


def test_only_the_space_before_the_first_word_is_dropped() -> None:
    """▁a three times is "a a a": the decoder drops the first space, and only that one."""
    agree("the pieces", streamed(Llama("▁a".encode()), 1, 1, 1), ["a", " a", " a", ""])


def test_many_spaces_before_the_first_word() -> None:
    """▁ six times, and "a": five spaces are left."""
    agree("the pieces", streamed(Llama("▁".encode(), b"a"), 1, 1, 1, 1, 1, 1, 2), ["", " ", " ", " ", " ", " ", "a", ""])


def test_byte_tokens_wait_for_the_end_of_their_run() -> None:
    """<0xC3> <0xA9> is é, but with one invalid byte after them it is three times U+FFFD: only "b" decides."""
    tokens = Llama(b"<0xC3>", b"<0xA9>", b"<0xFF>", b"b")
    agree("the pieces of C3 A9 b", streamed(tokens, 1, 2, 4), ["", "", "éb", ""])
    agree("the pieces of C3 A9 FF b", streamed(tokens, 1, 2, 3, 4), ["", "", "", "\ufffd\ufffd\ufffdb", ""])


def test_a_run_at_the_end_comes_with_the_flush() -> None:
    """ "b", <0xC3>, <0xA9>, and no more."""
    agree("the pieces", streamed(Llama(b"<0xC3>", b"<0xA9>", b"b"), 3, 1, 2), ["b", "", "", "é"])


def test_after_a_flush_another_text_begins() -> None:
    """▁ab ▁ab is "ab ab"; then, after the flush, "ab ab" again: its first space is dropped too."""
    stream = Detokenizer(Llama("▁ab".encode()))
    pieces = [stream.push(1), stream.push(1), stream.flush(), stream.push(1), stream.push(1), stream.flush()]
    agree("the pieces", pieces, ["ab", " ab", "", "ab", " ab", ""])


def test_a_decoder_may_drop_every_space_at_the_beginning() -> None:
    """▁ a, and six times ▁: only the first ▁ is at the beginning, also in a second text."""
    stream = Detokenizer(Tidy("▁".encode(), b"a"))
    want = ["", "a", " ", " ", " ", " ", " ", " ", ""]
    for text in ("first", "second"):
        agree(f"the pieces of the {text} text", [*map(stream.push, [1, 2, *[1] * 6]), stream.flush()], want)


def test_a_second_flush_returns_nothing() -> None:
    """Half a character is returned once."""
    stream = Detokenizer(Bytes(b"\xc3"))
    agree("the pieces", [stream.push(1), stream.flush(), stream.flush()], ["", "\ufffd", ""])


def test_the_work_does_not_grow_with_the_text() -> None:
    """With a thousand tokens, a push decodes a handful, not all tokens so far."""
    for tokens in (Bytes(b"a"), Bytes(b"\xff"), Llama("▁a".encode())):
        streamed(tokens, *[1] * 1000)
        agree("decode() was given less than 25 ids a token", tokens.work < 25_000, True)


def test_the_pieces_together_are_the_text_of_all_ids() -> None:
    """Random tokens, many of them half characters: all text of decode() without a half at its end has been returned."""
    dice = random.Random(0)
    halves = Bytes(b"\xc3", b"\xa9", b"\xe4", b"\xbd", b"\xa0", b" a", b"\xa9\xe4")
    for tokens in (halves, Llama(b"b", "▁a".encode(), "▁".encode())):
        for _ in range(60):
            ids = [dice.randrange(len(tokens.tokens) + 1) for _ in range(dice.randrange(1, 12))]
            pieces = streamed(tokens, *ids)
            agree(f"the text of {ids}", "".join(pieces), tokens.decode(ids))
            agree(f"the text before the flush, of {ids}", "".join(pieces[:-1]), tokens.decode(ids).removesuffix("\ufffd"))

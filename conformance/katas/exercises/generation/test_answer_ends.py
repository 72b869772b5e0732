"""How an answer ends, written again: an end token, a limit or a stop string, and their combinations."""

from collections.abc import Sequence

from conformance.katas.testing.compare import agree
from nanollama.errors import NanollamaError
from nanollama.generation.request import FinishReason, GenerationDefaults, Piece, Request
from nanollama.generation.row import Row

END = 25  # z


class Letters:
    """Token 0 is a, 1 is b … 25 is z, the end token, whose text is its letter; 26 and 27 are the two bytes of é."""

    special_ids, bos_id = frozenset[int](), None
    tokens = [bytes([97 + i]) for i in range(26)] + [b"\xc3", b"\xa9"]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return b"".join(self.tokens[i] for i in ids).decode("utf-8", "replace")

    def id_to_token(self, token_id: int) -> str:
        if not 0 <= token_id < len(self.tokens):
            raise NanollamaError(f"no token {token_id}")
        return self.tokens[token_id].decode("latin-1")

    def token_to_id(self, token: str) -> int | None:
        return next((i for i in range(len(self.tokens)) if self.id_to_token(i) == token), None)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        return [ord(letter) - 97 for letter in text]


def row(prompt: str = "q", most: int | None = None, stop: Sequence[str] = (), context: int = 100) -> Row:
    """A running request."""
    request = Request(Letters().encode(prompt), max_tokens=most, stop=stop)
    return Row(3, request, GenerationDefaults(None, (END,)), Letters(), 28, context)


def fed(row: Row, *ids: int) -> list[Piece]:
    """The pieces for these ids; the prefill takes 8 seconds and each other step 1."""
    return [row.advance(token, 1.0 if step else 8.0) for step, token in enumerate(ids)]


def ends(pieces: list[Piece]) -> list[tuple[str, FinishReason | None]]:
    """Text and finish reason of each piece."""
    return [(piece.text, piece.finish_reason) for piece in pieces]


def test_a_token_gives_its_text() -> None:
    """a, b, and no end."""
    request = row()
    agree("the pieces", ends(fed(request, 0, 1)), [("a", None), ("b", None)])
    agree("done", request.done, False)
    agree("generated", request.generated, [0, 1])


def test_a_piece_has_its_index_and_token() -> None:
    """Index 3 in the batch, the id, and no usage before the end."""
    [piece] = fed(row(), 4)
    agree("index, token_id, usage", [piece.index, piece.token_id, piece.usage], [3, 4, None])


def test_the_end_token_ends_it_and_has_no_text() -> None:
    """a, then the end token: "z" is not part of the answer."""
    request = row()
    agree("the pieces", ends(fed(request, 0, END)), [("a", None), ("", "stop")])
    agree("done", request.done, True)


def test_an_end_token_in_the_prompt_ends_nothing() -> None:
    """The prompt is q z q; the answer is a."""
    agree("the pieces", ends(fed(row("qzq"), 0)), [("a", None)])


def test_the_last_token_that_is_allowed_is_part_of_it() -> None:
    """max_tokens is 2: a, then b with "length"."""
    request = row(most=2)
    agree("the pieces", ends(fed(request, 0, 1)), [("a", None), ("b", "length")])
    agree("done", request.done, True)


def test_a_full_context_is_another_reason() -> None:
    """A context of 3 and a prompt of 1: two tokens."""
    agree("the pieces", ends(fed(row(context=3), 0, 1)), [("a", None), ("b", "context")])


def test_the_end_token_wins_over_a_limit() -> None:
    """The second of two tokens is the end token: the answer was not cut short."""
    agree("the pieces", ends(fed(row(most=2), 0, END)), [("a", None), ("", "stop")])


def test_a_stop_string_ends_it_too() -> None:
    """a, then the stop string bc: b is held back, and neither is returned."""
    request = row(stop=["bc"])
    agree("the pieces", ends(fed(request, 0, 1, 2)), [("a", None), ("", None), ("", "stop")])
    agree("done", request.done, True)


def test_a_stop_string_wins_over_a_limit() -> None:
    """The stop string is complete with the last allowed token."""
    agree("the pieces", ends(fed(row(most=2, stop=["ab"]), 0, 1)), [("", None), ("", "stop")])


def test_text_held_back_for_a_stop_string_comes_at_the_end() -> None:
    """b might begin bc; then the limit, or the end token: b was text."""
    agree("the pieces, at the limit", ends(fed(row(most=2, stop=["bc"]), 0, 1)), [("a", None), ("b", "length")])
    agree("the pieces, at the end", ends(fed(row(stop=["bc"]), 1, END)), [("", None), ("b", "stop")])


def test_half_a_character_comes_at_the_end_as_it_is() -> None:
    """C3, and then the end: U+FFFD. With A9 in between it is é."""
    agree("the pieces", ends(fed(row(), 26, END)), [("", None), ("\ufffd", "stop")])
    agree("the pieces", ends(fed(row(), 26, 27, END)), [("", None), ("é", None), ("", "stop")])


def test_text_that_only_the_end_lets_out_may_hold_a_stop_string() -> None:
    """C3 is held back as half a character; at the limit it is U+FFFD, which is a stop string: the reason is "stop"."""
    agree("the pieces", ends(fed(row(most=1, stop=["\ufffd"]), 26)), [("", "stop")])


def test_usage_counts_every_token_that_was_sampled() -> None:
    """A prompt of 3; a, b and the end token are 3 tokens; all tokens of a stop string count."""
    usage = fed(row("qrs"), 0, 1, END)[-1].usage
    agree("prompt and answer", usage and [usage.prompt_tokens, usage.completion_tokens], [3, 3])
    usage = fed(row("qr", stop=["bcd"]), 0, 1, 2, 3)[-1].usage
    agree("prompt and answer", usage and [usage.prompt_tokens, usage.completion_tokens], [2, 4])
    usage = fed(row("qrs", most=2), 0, 1)[-1].usage
    agree("prompt and answer", usage and [usage.prompt_tokens, usage.completion_tokens], [3, 2])


def test_the_first_token_belongs_to_prefill() -> None:
    """8 seconds, then 1 + 1 + 1."""
    request = row()
    usage = fed(request, 0, 1, 2, END)[-1].usage
    agree("seconds of prefill and decode", usage and [usage.prefill_seconds, usage.decode_seconds], [8.0, 3.0])
    agree("the seed in usage is the one used", usage and usage.seed == request.seed, True)


def test_a_request_for_nothing_ends_with_a_piece_without_a_token() -> None:
    """No token, no text, no seconds; but a reason and usage."""
    request = row("qrs", most=0)
    piece = request.piece(None, "", "length")
    agree("token, text, reason", [piece.token_id, piece.text, piece.finish_reason], [None, "", "length"])
    agree("done", request.done, True)
    usage = piece.usage
    agree("prompt and answer", usage and [usage.prompt_tokens, usage.completion_tokens], [3, 0])
    agree("seconds, together", usage and float(usage.prefill_seconds + usage.decode_seconds), 0.0)

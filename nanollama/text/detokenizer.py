"""Streaming text: token ids to whole characters, and stop strings.

Both keep state over the input so far, and both keep one promise: however the input is cut into pieces, the output pieces
joined are the text that the whole input gives.
"""

from collections.abc import Sequence

from nanollama.errors import NanollamaError
from nanollama.text.tokenizer import TokenizerLike

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""The character that decoders show for bytes that are not UTF-8, or not yet."""

KEPT = 4
"""Tokens of context that the next text depends on: an unfinished character has at most 3 bytes, in at most 3 tokens."""


class Detokenizer:
    """Turns token ids into text one by one; the pieces together equal `tokenizer.decode(all_ids)` exactly.

    Text that `push` returns is final. It holds back a last U+FFFD, which more bytes may turn into a character, and a whole
    run of byte tokens (`<0xE4>`), since one invalid byte at its end changes how tokenizers show all of it. Each push decodes
    a window of few tokens: the first with text (a decoder strips the space before it, and only there) and the last few.
    """

    def __init__(self, tokenizer: TokenizerLike, *, skip_special: bool = True) -> None:
        self.tokenizer, self.skip_special = tokenizer, skip_special
        self._byte_ids = {tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in range(256)} - {None}
        self._window: list[int] = []
        self._head = 0  # tokens at the window's start that are never removed: those up to the first text
        self._shown = 0  # characters of the decoded window that were returned already

    def push(self, token_id: int) -> str:
        """The text that becomes final with this token; "" in the middle of a character."""
        if self.skip_special and token_id in self.tokenizer.special_ids:
            return ""  # decode() leaves it out, even between two bytes of one character
        try:
            self.tokenizer.id_to_token(token_id)
        except NanollamaError:
            return self.tokenizer.decode([token_id])  # "" for a padded row of the embedding, else an error
        if token_id in self._byte_ids:
            self._window.append(token_id)
            return ""
        window = [*self._window, token_id]
        text = self._decode(window)
        held = int(text.endswith(REPLACEMENT))
        piece = text[self._shown : len(text) - held]
        if text and not self._head:
            self._head = len(window)
        del window[self._head or len(window) : -KEPT]
        self._window, self._shown = window, len(self._decode(window)) - held
        return piece

    def flush(self) -> str:
        """The rest of the text, with unfinished bytes as decode() shows them. The next push begins a new text."""
        rest = self._decode(self._window)[self._shown :]
        self._window, self._head, self._shown = [], 0, 0
        return rest

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special=self.skip_special)


class StopStrings:
    """Passes text up to the first stop string, which is left out, however the text is cut into pieces.

    Of several stop strings, the one that begins first wins; of two that begin together, the shorter. Only text that can still
    become a stop string is held back. `stopped` is the stop string that was found, or None; read it after `flush` too.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if isinstance(stops, str) or not isinstance(stops, Sequence) or not all(isinstance(stop, str) for stop in stops):
            raise NanollamaError(f"stop strings are {stops!r:.80}; expected a list of strings")
        if "" in stops:
            raise NanollamaError("a stop string is empty, which would stop before the first character; leave it out")
        self.stops = tuple(stops)
        self.stopped: str | None = None
        self._held = ""

    def push(self, text: str) -> str:
        """The text that can no longer belong to a stop string."""
        return self._release(self._held + text, final=False)

    def flush(self) -> str:
        """The text that was held back and did not become a stop string."""
        return self._release(self._held, final=True)

    def _release(self, text: str, final: bool) -> str:
        if self.stopped is not None:
            return ""
        begin, stop = first_stop(text, self.stops)
        open_end = len(text) if final else unfinished(text, self.stops)
        if stop is not None and begin <= open_end:
            self.stopped, self._held = stop, ""
            return text[:begin]
        self._held = text[open_end:]
        return text[:open_end]


def first_stop(text: str, stops: Sequence[str]) -> tuple[int, str | None]:
    """(begin, stop string) of the first stop string in the text; (len(text), None) if there is none."""
    found = [(text.find(stop), len(stop), stop) for stop in stops if stop in text]
    begin, _, stop = min(found, default=(len(text), 0, None))
    return begin, stop


def unfinished(text: str, stops: Sequence[str]) -> int:
    """Begin of the longest end of the text that is the start of a stop string; len(text) if there is none."""
    longest = max(map(len, stops), default=0)
    for begin in range(max(0, len(text) - longest + 1), len(text)):
        if any(stop.startswith(text[begin:]) for stop in stops):
            return begin
    return len(text)

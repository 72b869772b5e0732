"""What the command line reads and writes: stdout gets the model's text and nothing else, stderr all that is said about it."""

import codecs
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

from nanollama.checkpoint import atomic
from nanollama.errors import NanollamaError

if TYPE_CHECKING:
    from nanollama.generation.request import FinishReason, Piece, Usage

MOST_INPUT = 64_000_000  # bytes of a prompt on stdin; a stream without an end must not fill the memory

# A model, and a file in an error message, may say whatever they like; on a terminal an escape sequence is a command.
CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "\N{REPLACEMENT CHARACTER}")


def open_streams() -> None:
    """UTF-8 without newline translation where bytes count; whatever can't be decoded or shown stays visible as an escape."""
    if sys.stdout is None:
        raise NanollamaError("stdout is closed, so there is nowhere to write to; leave it open, or send it to a file")
    if isinstance(sys.stdout, io.TextIOWrapper):
        if sys.stdout.isatty():
            sys.stdout.reconfigure(errors="replace")
        else:
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # the tokenizer then says which character is none


def write(text: str) -> None:
    """Text to stdout, at once."""
    try:
        sys.stdout.write(text.translate(CONTROLS) if sys.stdout.isatty() else text)
        sys.stdout.flush()
    except OSError as error:
        discard(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise
        raise NanollamaError(f"stdout can't be written: {error.strerror or error}") from error


def end_line(text: str) -> None:
    """After an answer, a new line where somebody looks at it; a file or pipe gets exactly the text."""
    if not text or text.endswith("\n"):
        return
    if sys.stdout.isatty():
        write("\n")
        return
    with suppress(OSError, AttributeError):
        if os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno()):
            notice("")


def notice(text: str) -> None:
    """A line to stderr, if there is one."""
    if sys.stderr is not None:
        with suppress(OSError):  # nobody listens any more
            print(text.translate(CONTROLS), file=sys.stderr, flush=True)


def discard(stream: TextIO | None) -> None:
    """Send what a broken stream still holds to nowhere, or Python complains about it on the way out."""
    with suppress(OSError, AttributeError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())  # type: ignore[union-attr]
        os.close(null)


def without_number(error: Exception) -> str:
    """The loop numbers its requests, in "request 0: the prompt has …"; who made only one, or counts lines, leaves that out."""
    return re.sub(r"^request \d+(: |, | (?=has ))", "", str(error))


def read_stdin() -> str:
    """All of stdin as UTF-8 text, without one newline at its end (as a shell's $(…) leaves it out)."""
    if sys.stdin is None:
        raise NanollamaError("there is no prompt: stdin is closed; give --prompt TEXT")
    if sys.stdin.isatty():
        notice("type the prompt; Ctrl-D on a line of its own ends it")
    try:
        raw = sys.stdin.buffer.read(MOST_INPUT + 1)
    except OSError as error:
        raise NanollamaError(f"stdin can't be read: {error.strerror or error}") from error
    if len(raw) > MOST_INPUT:
        raise NanollamaError(f"the prompt on stdin is longer than {MOST_INPUT:,} bytes")
    return decode(raw.removeprefix(codecs.BOM_UTF8), "the prompt on stdin").removesuffix("\n").removesuffix("\r")


def decode(raw: bytes, what: str) -> str:
    """UTF-8 to text."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NanollamaError(f"{what} is not UTF-8 text: {error.reason} at byte {error.start}; convert it first") from None


def file_path(name: str) -> Path:
    """The path of a file that somebody named, "~" expanded."""
    if "\0" in name:
        raise NanollamaError(f"{name!r} has a zero character, which no file name has")
    return Path(os.path.expanduser(name))  # noqa: PTH111  # Path.expanduser raises for an unknown ~user


@contextmanager
def new_file(name: str) -> Iterator[IO[str]]:
    """A text file that appears under its name when the block has ended well, whole or not at all."""
    with atomic.new_file(file_path(name)) as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8", newline="\n", errors="backslashreplace")
        try:
            yield text
        finally:
            text.detach()  # which writes what it still holds, and leaves the file open


@dataclass
class Answer:
    """What one request has said so far, and at its end why it stopped and what it took."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: "FinishReason | None" = None
    usage: "Usage | None" = None

    def add(self, piece: "Piece") -> None:
        """Take the next piece."""
        self.text += piece.text
        self.token_ids += [] if piece.token_id is None else [piece.token_id]
        self.finish_reason, self.usage = piece.finish_reason, piece.usage

    def to_json(self) -> dict[str, Any]:
        """A finished answer in JSON's types; token_ids are all that were sampled, the end token too."""
        assert self.usage is not None
        prompt, completion = self.usage.prompt_tokens, self.usage.completion_tokens
        return {
            "text": self.text,
            "token_ids": self.token_ids,
            "finish_reason": self.finish_reason,
            "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
            "seed": self.usage.seed,
        }


def rates(usage: "Usage") -> tuple[float | None, float | None]:
    """Tokens per second of prefill and of decoding, None where nothing ran; the first answer token belongs to prefill."""
    prefill, decode = usage.prefill_seconds, usage.decode_seconds
    return (
        usage.prompt_tokens / prefill if prefill else None,
        (usage.completion_tokens - 1) / decode if decode else None,
    )


def speed(usage: "Usage") -> str:
    """The line that ends every answer."""
    prefill, decode = (f"{rate:.1f} t/s" if rate is not None else "- t/s" for rate in rates(usage))
    return f"[prefill: {usage.prompt_tokens} tok @ {prefill} | decode: {usage.completion_tokens} tok @ {decode}]"

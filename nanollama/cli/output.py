"""Reading and writing of the command line: stdout gets the model's text and nothing else, stderr everything about it."""

import codecs
import io
import os
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

# A model's text, and a file name in an error, may hold any character; to a terminal an escape sequence is a command.
CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "\N{REPLACEMENT CHARACTER}")


def open_streams() -> None:
    """Set stdout to UTF-8 without newline translation unless it is a terminal; bytes that can't be shown become escapes."""
    if sys.stdout is None:
        raise NanollamaError("stdout is closed, so there is nowhere to write to; leave it open, or send it to a file")
    if isinstance(sys.stdout, io.TextIOWrapper):
        if sys.stdout.isatty():
            sys.stdout.reconfigure(errors="replace")
        else:
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # the tokenizer then names the bad character


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
    """Write a newline after an answer on a terminal; a file or pipe gets exactly the text."""
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
        with suppress(OSError):  # the reader went away
            print(text.translate(CONTROLS), file=sys.stderr, flush=True)


def discard(stream: TextIO | None) -> None:
    """Drop the buffer of a broken stream: Python would report it again when it exits."""
    with suppress(OSError, AttributeError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())  # type: ignore[union-attr]
        os.close(null)


def read_stdin() -> str:
    """All of stdin as UTF-8 text, without one newline at its end."""
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
    """The path of a file that the user named, "~" expanded."""
    if "\0" in name:
        raise NanollamaError(f"{name!r} has a zero character, which no file name has")
    return Path(os.path.expanduser(name))  # noqa: PTH111  # Path.expanduser raises for an unknown ~user


@contextmanager
def new_file(name: str) -> Iterator[IO[str]]:
    """Yields a text file that appears under its name if the block ends without an error."""
    with atomic.new_file(file_path(name)) as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8", newline="\n", errors="backslashreplace")
        try:
            yield text
        finally:
            text.detach()  # writes its buffer and leaves the file open


@dataclass
class Answer:
    """The text and ids of one request so far, and when it has ended, its finish reason and usage."""

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
        """A finished answer in JSON's types; token_ids are all sampled ids, the end token included."""
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
    """Tokens per second of prefill and of decoding, None if nothing ran; the first answer token belongs to prefill."""
    prefill, decode = usage.prefill_seconds, usage.decode_seconds
    return (
        usage.prompt_tokens / prefill if prefill else None,
        (usage.completion_tokens - 1) / decode if decode else None,
    )


def speed_line(usage: "Usage") -> str:
    """The line on stderr after every answer."""
    prefill, decode = (f"{rate:.1f} t/s" if rate is not None else "- t/s" for rate in rates(usage))
    return f"[prefill: {usage.prompt_tokens} tok @ {prefill} | decode: {usage.completion_tokens} tok @ {decode}]"

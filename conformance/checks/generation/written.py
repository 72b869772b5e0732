"""Batches and conversations as files: lines of input, results, and the format of a saved chat."""

import contextlib
import io
import json
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from conformance.checks import check
from conformance.checks.assertions import at, expect, expect_equal, expect_refused
from conformance.checks.generation.whole import WORDS, Typed, loaded
from nanollama.cli import batch, settings
from nanollama.cli import main as cli
from nanollama.text.chat import conversation

MIXED = "\ufeffa\r\nb\x0b\x0c\x1c\x85\u2028c\rd\n\n\ufeffe"
CHATS: tuple[tuple[str | None, list[tuple[str, str]]], ...] = (
    (None, []),
    ("", [("a", "b")]),
    ("s", [("é", "")]),
    ("s", [("a", "b"), ("c", "d")]),
    (None, [("a", "b")] * 3),
)


@contextlib.contextmanager
def file_of(content: bytes, name: str = "lines.txt") -> Iterator[Path]:
    """A file with this content."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        yield path


@check("BATCH-015", area="batching")
def only_newlines_end_lines() -> None:
    for content, want in (
        (b"", []),
        (b"\n", [b""]),
        (b"a", [b"a"]),
        (b"a\nb\n", [b"a", b"b"]),
        (MIXED.encode(), [b"a", "b\x0b\x0c\x1c\x85\u2028c\rd".encode(), b"", "\ufeffe".encode()]),
    ):
        with file_of(content) as path:
            expect_equal(
                "cli.batch.read_lines", list(batch.read_lines(str(path))), list(enumerate(want, 1)), f"lines of {content!r}"
            )
    before, batch.LONGEST_LINE = batch.LONGEST_LINE, 4
    try:
        with file_of(b"abc\nabcde") as path:
            lines = batch.read_lines(str(path))
            expect_equal("cli.batch.read_lines", next(lines), (1, b"abc"), "a line of the length that is allowed")
            expect_refused("cli.batch.read_lines", lambda: next(lines), "line 2", "a longer one")
    finally:
        batch.LONGEST_LINE = before


def answered(content: bytes, name: str, **changes: Any) -> tuple[int, list[dict[str, Any]], str]:
    """Run the command over a file, with a model whose answers are known: status, results, messages."""
    subject: Any = loaded(Typed(WORDS.pieces, WORDS.special_ids, 4))
    given = dict.fromkeys(settings.SETTINGS) | {"temperature": "0", "max_tokens": "2"}
    out, err = io.StringIO(), io.StringIO()
    load = mock.patch.object(batch, "load_lm", lambda _: subject)
    with load, file_of(content, name) as path, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        options = Namespace(**{**given, "file": str(path), "output": None, "context": None, "batch_size": 2, **changes})
        status = batch.batch_command(options)
        if options.output:
            out.write(Path(options.output).read_text(encoding="utf-8"))
    return status, [json.loads(line) for line in out.getvalue().splitlines()], err.getvalue()


@check("GENR-011", "BATCH-013", "CLIX-002", area="batching")
def a_batch_is_answered_line_by_line() -> None:
    place = "cli.batch.batch_command"
    with at(place):
        status, results, printed = answered(b"a\nb\na\xff\na\na", "x.txt")
    expect_equal(place, [result["line"] for result in results], [1, 2, 3, 4, 5], "line numbers")
    expect_equal(place, [result.get("text") for result in results], ["bc", "bc", None, "bc", "bc"], "answers")
    expect_equal(place, (status, printed.count("error: "), "line 3" in printed), (1, 1, True), "the error of a wrong line")
    expect(place, "[5 lines, 1 with an error]" in printed, f"the last line is {printed.splitlines()[-1]!r}")
    with at(place):
        status, results, printed = answered(b'{"prompt": "a", "max_tokens": 1}\n{"prompt": 3}\n', "X.JSONL")
    expect_equal(place, [result.get("text") for result in results], ["b", None], "answers to objects")
    with at(place):
        status, results, _ = answered(b"a\n", "x.txt", stop=["c"])
    expect_equal(
        place, (status, results[0]["text"], results[0]["finish_reason"]), (0, "b", "stop"), "settings of the command line"
    )
    with tempfile.TemporaryDirectory() as folder, at(place):
        status, results, _ = answered(b"a\nb\n", "x.txt", output=str(Path(folder, "out")))
        expect_equal("cli.batch.destination", [result.get("text") for result in results], ["bc", "bc"], "answers in a file")
    expect_equal(place, answered(b"", "x.txt")[:2], (0, []), "an empty file")
    missing = Namespace(**dict.fromkeys(settings.SETTINGS), file="/none/x", output=None, context=None, batch_size=2)
    expect_refused("cli.batch.open_input", lambda: batch.batch_command(missing), "/none/x", "a file that isn't there")
    expect_refused(place, lambda: answered(b"a", "x.txt", context=17), "context", "a context that the model does not have")


@check("CHAT-009", area="chat_template")
def conversations_are_saved_and_read() -> None:
    place = "text.chat.conversation.load_conversation"
    for system, turns in CHATS:
        whole = conversation.Conversation(system, list(turns), dropped=len(turns))
        saved = conversation.to_json(whole)
        chat = [{"role": "system", "content": system}] if system is not None else list[dict[str, str]]()
        for one, other in turns:
            chat += [{"role": "user", "content": one}, {"role": "assistant", "content": other}]
        expect_equal("text.chat.conversation.to_json", saved, {"messages": chat}, "what is saved: the dropped turns, too")
        with file_of(json.dumps(saved).encode(), "chat.json") as path, at(place):
            read = conversation.load_conversation(Path(path))
        expect_equal(place, (read.system, read.turns, read.dropped), (system, list(turns), 0), "what is read")
    question, answer, rules = ({"role": role, "content": "x"} for role in ("user", "assistant", "system"))
    for messages, part in (
        ([question], "no answer"),
        ([rules, question], "no answer"),
        ([answer, question], "messages[0]"),
        ([question, question], "messages[1]"),
        ([question, answer, answer, question], "messages[2]"),
        ([question, rules], "messages[1]"),
        ([rules, rules, question], "messages[1]"),
        ([rules, question, answer, rules], "messages[3]"),
        ([{"role": "tool", "content": "x"}, answer], "messages[0]"),
        ([{"role": "user", "content": 3}, answer], "messages[0]: content"),
        ([{"role": "user", "content": "\ud800"}, answer], "messages[0]: content"),
        ([{"role": "user", "content": "\udfff"}, answer], "messages[0]: content"),
        ([question, {**answer, "name": "x"}], "messages[1]"),
        (["x"], "messages[0]"),
        ("x", "messages"),
    ):
        with file_of(json.dumps({"messages": messages}).encode(), "chat.json") as path:
            expect_refused(place, partial(conversation.load_conversation, Path(path)), part, f"{messages}")
    with file_of(json.dumps({"messages": [], "more": 1}).encode(), "chat.json") as path:
        expect_refused(place, lambda: conversation.load_conversation(Path(path)), "more", "a file of something else")
    alone = conversation.Conversation(None, [])
    for system, named in ((None, "the message"), ("s", "the system prompt and the message")):
        fit = partial(conversation.Conversation(system, []).fit, "x", lambda _: [0] * 9, 9, 1)
        expect_refused("text.chat.conversation.Conversation.fit", fit, f"{named} make 9", "no room")
    expect_equal(
        "text.chat.conversation.Conversation.fit",
        len(alone.fit("x", lambda _: [0] * 8, 9, 4)),
        8,
        "less room than was reserved",
    )


@check("CLIX-002", "ERRS-001", area="generation")
def an_error_of_a_command_is_one_line() -> None:
    missing = "/none/model.gguf"
    for arguments, part in (
        (["quantize", missing, "--to", "/none/x.gguf", "--type", "q8_0"], missing),
        (["quantize", missing, "--to", "/none/x.gguf", "--type", "q9"], "q9"),
        (["export", missing, "--to", "/none/x.gguf"], missing),
        (["batch", missing], missing),
        (["show", missing], missing),
        (["run", missing, "--prompt", "Hi"], missing),
        (["run", "--prompt", "Hi", "--top-k", "x"], "--top-k"),
        (["run", "--no-such-option"], "--no-such-option"),
        (["no-such-command"], "no-such-command"),
    ):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), at("cli.main.main"):
            status = cli.main(arguments)
        got = (status, out.getvalue(), err.getvalue().count("\n"), part in err.getvalue())
        expect_equal(
            "cli.main.main",
            got,
            (2, "", 1, True),
            f"status, output, lines of error and whether it names {part} of {arguments}",
        )

"""The chat: what the model gets to see of a conversation, what is shown where, and what each command does.

Most tests use a scripted model whose encoder makes one id of every character, so that contexts can be counted by hand:
the conversation "<s:Be.><u:Hi><a:Ho>" is 19 tokens long.
"""

import io
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.models.small_model import write_small_model
from nanollama.cli.chat import Repl
from nanollama.cli.main import main
from nanollama.cli.output import new_file
from nanollama.errors import NanollamaError
from nanollama.generation.request import Piece, Request, Usage
from nanollama.text.chat.conversation import Conversation, load_conversation

Messages = Sequence[dict[str, str]]


def spelled(messages: Messages) -> str:
    return "".join(f"<{m['role'][0]}:{m['content']}>" for m in messages)


@dataclass
class ScriptedLM:
    """Gives the answers of a script, one piece per character; "^" in an answer is where Ctrl-C is pressed."""

    answers: list[str]
    context: int = 1000
    seen: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    config: Any = field(default_factory=lambda: SimpleNamespace(max_position_embeddings=1000))

    def encode_chat(self, messages: Messages) -> list[int]:
        if any("forbidden" in m["content"] for m in messages):
            raise NanollamaError("chat template: line 1: forbidden")
        self.last = spelled(messages)
        return [0] * len(self.last)

    def stream(self, requests: Sequence[Request], *, context: int) -> Iterator[Piece]:
        [request] = requests
        self.requests.append(request)
        self.seen.append(self.last)
        text = self.answers[len(self.seen) - 1]
        for letter in text:
            if letter == "^":
                raise KeyboardInterrupt
            yield Piece(0, 1, letter)
        yield Piece(0, 2, "", "stop", Usage(len(request.prompt_ids), len(text) + 1, 0, 1.0, 1.0))


@dataclass
class Session:
    """What a chat of some lines left behind."""

    status: int
    out: str
    err: str
    lm: ScriptedLM
    repl: Repl


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Feed lines to a chat with a scripted model."""

    def call(lines: str, *answers: str, context: int = 1000, terminal: bool = False, **settings: Any) -> Session:
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        lm: Any = ScriptedLM(list(answers))
        repl = Repl(lm, settings, context, terminal)
        status = repl.run()
        return Session(status, *capfd.readouterr(), lm, repl)

    return call


# --- the conversation


def test_answers_go_to_stdout_and_the_history_to_the_model(chat: Any) -> None:
    done = chat("Hi\n\nHow?\n", "Ho.", "So.")
    assert (done.status, done.out) == (0, "Ho.\nSo.\n")
    assert done.lm.seen == ["<u:Hi>", "<u:Hi><a:Ho.><u:How?>"]
    assert done.err.count("[prefill: ") == 2


def test_an_answer_that_ends_with_a_newline_gets_no_second_one(chat: Any) -> None:
    assert chat("Hi\nHi\n", "Ho\n", "").out == "Ho\n\n"


def test_the_oldest_turns_are_left_out_whole_and_told_but_never_the_system_prompt(chat: Any) -> None:
    # "<s:S>" 5, a turn "<u:aa><a:bb>" 12, a message "<u:aa>" 6; context 40, of which max_tokens 10 are for the answer:
    # 30 tokens hold the system prompt, the message and one turn (23), not two (35)
    done = chat("/system S\naa\naa\naa\naa\n", *["bb"] * 4, context=40, max_tokens=10)
    full = "<s:S><u:aa><a:bb><u:aa>"
    assert done.lm.seen == ["<s:S><u:aa>", full, full, full]
    assert done.err.count("left out") == 2
    assert "[the context is full: the oldest 1 turn left out, 1 in all]" in done.err
    assert "[the context is full: the oldest 1 turn left out, 2 in all]" in done.err
    assert len(done.repl.conversation.turns) == 4  # a file still gets them


def test_a_long_message_pushes_out_several_turns_at_once(chat: Any) -> None:
    long = "x" * 30  # "<u:xxx…>" is 34; with one turn 46, with two 58, and 50 is the room
    done = chat(f"aa\naa\naa\n{long}\n", *["bb"] * 4, context=60, max_tokens=10)
    assert done.lm.seen[-1] == f"<u:aa><a:bb><u:{long}>"
    assert "[the context is full: the oldest 2 turns left out, 2 in all]" in done.err


def test_a_message_that_never_fits_is_refused_and_the_chat_goes_on(chat: Any) -> None:
    done = chat(f"/system Be.\naa\n{'x' * 30}\naa\n", "bb", "cc", context=40, max_tokens=10)
    assert "error: the system prompt and the message make 41 tokens, which leaves no room" in done.err  # 7 + 34
    assert done.lm.seen == ["<s:Be.><u:aa>", "<s:Be.><u:aa>"]
    assert done.out == "bb\ncc\n"
    assert done.status == 2


def test_a_message_that_leaves_little_room_is_answered_in_what_is_left(chat: Any) -> None:
    done = chat("x" * 35 + "\n", "y", context=40, max_tokens=10)  # 39 of 40
    assert (done.status, len(done.lm.seen)) == (0, 1)


def test_the_room_for_the_answer_is_at_most_a_quarter_of_the_context(chat: Any) -> None:
    done = chat("aa\naa\n", "bb", "bb", context=24, max_tokens=2048)  # 24 - 6 = 18 = "<u:aa><a:bb><u:aa>"
    assert done.lm.seen[-1] == "<u:aa><a:bb><u:aa>"
    done = chat("aa\naa\n", "bb", "bb", context=22, max_tokens=2048)  # 22 - 5 = 17
    assert done.lm.seen[-1] == "<u:aa>"


@given(
    turns=st.lists(st.tuples(st.text("x", max_size=9), st.text("y", max_size=9)), max_size=12),
    system=st.none() | st.text("s", max_size=5),
    newest=st.text("n", max_size=9),
    context=st.integers(1, 120),
    reserve=st.integers(0, 30),
    dropped=st.integers(0, 3),
)
def test_as_many_turns_stay_as_fit(
    turns: Any, system: str | None, newest: str, context: int, reserve: int, dropped: int
) -> None:
    conversation = Conversation(system, turns, min(dropped, len(turns)))

    def encode(messages: Messages) -> list[int]:
        return [0] * len(spelled(messages))

    sizes = [len(spelled(conversation.messages(n, newest))) for n in range(len(turns) + 1)]
    fitting = [n for n, size in enumerate(sizes) if n >= conversation.dropped and size <= context - reserve]
    if not fitting and sizes[-1] >= context:
        with pytest.raises(NanollamaError, match="no room for an answer"):
            conversation.fit(newest, encode, context, reserve)
        return
    ids = conversation.fit(newest, encode, context, reserve)
    assert conversation.dropped == (fitting[0] if fitting else len(turns))
    assert len(ids) == sizes[conversation.dropped] < context or reserve == 0


# --- Ctrl-C


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(chat: Any) -> None:
    done = chat("Hi\nGo on\n", "Hel^lo", "lo", terminal=True)
    assert done.out == "Hel\nlo\n"
    assert "[stopped]" in done.err
    assert done.lm.seen[1] == "<u:Hi><a:Hel><u:Go on>"


def test_a_message_stopped_before_its_answer_is_forgotten(chat: Any) -> None:
    done = chat("Hi\nHo\n", "^", "x", terminal=True)
    assert done.lm.seen[1] == "<u:Ho>"
    assert "the message is forgotten" in done.err


def test_ctrl_c_ends_a_chat_that_reads_from_a_script(chat: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        chat("Hi\n", "Hel^lo")


def test_ctrl_c_at_the_prompt_says_how_to_leave(
    chat: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    lines: Iterator[Any] = iter([KeyboardInterrupt, "Hi", None])

    def read_line(self: Repl, prompt: str) -> str | None:
        line = next(lines)
        if line is KeyboardInterrupt:
            raise KeyboardInterrupt
        return line

    monkeypatch.setattr(Repl, "read_line", read_line)
    done = chat("", "Ho", terminal=True)
    assert "(/exit or Ctrl-D leaves)" in done.err
    assert done.out == "Ho\n"


def test_on_a_real_terminal_ctrl_c_stops_the_answer_clears_the_line_and_ctrl_d_leaves(tmp_path: Path) -> None:
    model = str(write_small_model(tmp_path))
    controller, terminal = os.openpty()
    # the first terminal that a session's leader opens becomes the one whose Ctrl-C it gets
    code = (
        "import os, sys; os.open(os.ttyname(0), os.O_RDWR); from nanollama.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "chat", "--model", model, "--device", "cpu", "--ignore-eos"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TERM": "dumb"}
    streams: Any = {"stdin": terminal, "stdout": terminal, "stderr": terminal}

    def wait_for(text: str, press: bytes = b"") -> None:
        """Read until the text has come; press a key, and again while nothing happens (readline may miss a lone signal)."""
        seen, patience = "", 60
        while text not in seen:
            os.write(controller, press)
            while not select.select([controller], [], [], 1 if press else 60)[0]:
                patience -= 1
                assert patience and press, f"{text!r} did not come after {seen!r}"
                os.write(controller, press)
            seen += os.read(controller, 4096).decode(errors="replace")

    process = subprocess.Popen(command, env=environment, start_new_session=True, **streams)
    try:
        wait_for("> ")
        os.write(controller, b"Hi\n")
        wait_for("Hi\r\n")
        assert select.select([controller], [], [], 60)[0]  # the answer has begun
        os.write(controller, b"\x03")
        wait_for("> ")  # the prompt again
        os.write(controller, b"half a line")
        wait_for("half a line")
        wait_for("(/exit or Ctrl-D leaves)", press=b"\x03")
        wait_for("seed = null", press=b"/set seed\n")  # nothing of the cleared line is before it
        for _ in range(60):
            os.write(controller, b"\x04")  # again while nothing happens: readline forgets what came before it was ready
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
                break
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        os.close(controller)
        os.close(terminal)


# --- commands


def test_help_lists_every_command(chat: Any) -> None:
    text = chat("/help\n").err
    assert [name for name in ("/system", "/set", "/clear", "/save", "/save!", "/load", "/exit") if name not in text] == []


def test_an_unknown_command_says_which_there_are_and_the_chat_goes_on(chat: Any) -> None:
    done = chat("/quit\nHi\n", "Ho")
    known = "/help, /system, /set, /clear, /save, /save!, /load, /exit"
    assert f"error: there is no command '/quit'; did you mean '/exit'? There are {known}" in done.err
    assert done.out == "Ho\n"
    assert done.status == 2


def test_exit_ends_it_and_nothing_after_it_is_read(chat: Any) -> None:
    done = chat("Hi\n/exit\nHo\n", "x")
    assert (done.status, done.out) == (0, "x\n")


@pytest.mark.parametrize("line", ["/help me", "/clear all", "/save", "/load", "/save! "])
def test_a_command_with_too_much_or_too_little_is_refused(chat: Any, line: str) -> None:
    assert "error: " + line.split()[0] in chat(f"{line}\n").err


def test_system_sets_shows_and_removes(chat: Any) -> None:
    done = chat("/system\n/system Be  nice.\n/system\nHi\n/system -\nHi\n", "a", "b")
    assert done.err.splitlines()[:2] == ["there is no system prompt", "Be  nice."]
    assert done.lm.seen == ["<s:Be  nice.><u:Hi>", "<u:Hi><a:a><u:Hi>"]


def test_a_system_prompt_that_the_template_refuses_is_not_taken(chat: Any) -> None:
    done = chat("/system Be.\n/system forbidden\nHi\n", "a")
    assert "error: chat template: line 1: forbidden" in done.err
    assert done.lm.seen == ["<s:Be.><u:Hi>"]


def test_clear_forgets_the_turns_and_keeps_the_system_prompt(chat: Any) -> None:
    done = chat("/system Be.\nHi\n/clear\nHo\n", "a", "b")
    assert done.lm.seen[1] == "<s:Be.><u:Ho>"


def test_set_changes_the_next_request(chat: Any) -> None:
    lines = (
        "/set temp 0.5\n/set top_k 3\n/set top-p 0.9\n/set repeat-last-n 7\n/set max_tokens 9\n/set seed 4\n"
        '/set stop ["a", "\\n"]\n/set logit-bias {"5": -100}\n/set ignore_eos true\nHi\n'
        "/set stop END\n/set stop\n/set seed default\n/set temperature default\nHi\n"
    )
    done = chat(lines, "a", "b")
    first, second = done.lm.requests
    assert (first.params.temperature, first.params.top_k, first.params.top_p) == (0.5, 3, 0.9)
    assert (first.params.penalty_window, first.max_tokens, first.params.seed) == (7, 9, 4)
    assert (first.stop, first.params.logit_bias, first.ignore_eos) == (("a", "\n"), {5: -100}, True)
    assert (second.stop, second.params.seed, second.params.temperature) == (("END",), None, 1.0)
    assert 'stop = ["END"]' in done.err


def test_set_alone_shows_every_setting(chat: Any) -> None:
    shown = dict(line.split(" = ") for line in chat("/set\n", temperature=0.5, max_tokens=7).err.splitlines())
    assert (shown["temperature"], shown["max_tokens"], shown["seed"], shown["top_p"]) == ("0.5", "7", "null", "1.0")
    assert len(shown) == 14


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("temp nan", "/set temp: temperature is nan"),
        ("temp hot", "/set temp: 'hot' is not a number"),
        ("seed -1", "/set seed: seed is -1"),
        ("max_tokens -1", "max_tokens is -1"),
        ("max_tokens 1e3", "'1e3' is not a whole number"),
        ("ignore_eos yes", "'yes' is neither true nor false"),
        ("logit_bias 5", "'5' is not ID=BIAS"),
        ('logit_bias {"x": 1}', "'x' is not a whole number"),
        ('stop ["a", 3]', "expected strings"),
        ('stop ["a"', "begins like JSON, but is none"),
        ("heat 3", "there is no setting 'heat'; there are temperature"),
        ("heat", "there is no setting 'heat'; there are temperature"),
    ],
)
def test_a_setting_out_of_range_is_refused_and_nothing_changes(chat: Any, line: str, named: str) -> None:
    done = chat(f"/set {line}\nHi\n", "a", temperature=0.25)
    assert named in done.err
    [request] = done.lm.requests
    assert request.params.temperature == 0.25
    assert request.params.seed is None


def test_triple_quotes_hold_lines_together(chat: Any) -> None:
    done = chat('"""one\n/two\n\nthree"""\n"""\nfour\n"""\n"""five"""\n', "a", "b", "c")
    assert [seen.rpartition("<u:")[2] for seen in done.lm.seen] == ["one\n/two\n\nthree>", "four>", "five>"]


def test_an_unfinished_block_is_not_sent(chat: Any) -> None:
    done = chat('"""one\ntwo\n')
    assert (done.status, done.lm.seen) == (2, [])
    assert "was not sent" in done.err


def test_a_message_the_template_refuses_is_one_line_and_leaves_no_trace(chat: Any) -> None:
    done = chat("forbidden\nHi\n", "a")
    assert done.lm.seen == ["<u:Hi>"]
    assert "error: chat template: line 1: forbidden" in done.err


# --- files


def test_a_saved_conversation_loads_again_dropped_turns_included(chat: Any, tmp_path: Path) -> None:
    file = tmp_path / "a b.json"
    chat(f"/system Sé\naa\naa\naa\n/save {file}\n", "bb", "b\nb", "bb", context=40, max_tokens=10)
    assert [m["content"] for m in json.loads(file.read_text("utf-8"))["messages"]] == [
        "Sé",
        "aa",
        "bb",
        "aa",
        "b\nb",
        "aa",
        "bb",
    ]
    done = chat(f"/system other\n/load {file}\nxx\n", "y")
    assert done.lm.seen == ["<s:Sé><u:aa><a:bb><u:aa><a:b\nb><u:aa><a:bb><u:xx>"]
    assert "3 turns loaded" in done.err


def test_save_never_replaces_a_file_unless_told(chat: Any, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    file.write_text("mine")
    done = chat(f"Hi\n/save {file}\n", "a")
    assert f"error: {file} exists; /save! {file} replaces it" in done.err
    assert file.read_text() == "mine"
    chat(f"Hi\n/save! {file}\n", "a")
    assert len(load_conversation(file).turns) == 1
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_can_not_be_written_is_one_line(chat: Any, tmp_path: Path) -> None:
    done = chat(f"/save {tmp_path}/no/such\n/save! {tmp_path}\n/save! {os.devnull}\n/save a\0b\n/save {'x' * 5000}\n")
    assert done.err.count("error: ") == done.err.count("\n") == 5


def test_a_new_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text("old")
    with pytest.raises(KeyboardInterrupt), new_file(str(file)) as part:
        part.write("half")
        raise KeyboardInterrupt
    assert file.read_text() == "old"
    with new_file(str(file)) as part:
        part.write("new\n")
        assert file.read_text() == "old"
    assert file.read_bytes() == b"new\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_stays_a_link_to_the_new_text(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with new_file(str(tmp_path / "link")) as part:
        part.write("x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "x"


USER, ASSISTANT = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ([], "holds a JSON list"),
        ({}, 'expected {"messages": [...]}'),
        ({"messages": [], "more": 1}, 'expected {"messages": [...]}'),
        ({"messages": {"0": 1}}, 'expected {"messages": [...]}'),
        ({"messages": ["a"]}, "messages[0] is 'a'; expected an object"),
        ({"messages": [{"role": "user"}]}, "expected an object with role and content"),
        ({"messages": [USER | {"name": "x"}]}, "expected an object with role and content"),
        ({"messages": [USER | {"content": None}]}, "messages[0]: content is None; expected text"),
        ({"messages": [USER | {"content": "\ud800"}]}, "messages[0]: content is"),
        ({"messages": [USER]}, "the last message has no answer"),
        ({"messages": [ASSISTANT]}, "messages[0] is of 'assistant'; expected 'user'"),
        ({"messages": [USER, USER]}, "messages[1] is of 'user'; expected 'assistant'"),
        ({"messages": [USER, ASSISTANT, {"role": "system", "content": ""}]}, "messages[2] is of 'system'; expected 'user'"),
    ],
)
def test_a_file_that_is_no_conversation_is_refused_and_the_old_one_stays(
    chat: Any, tmp_path: Path, value: Any, named: str
) -> None:
    file = tmp_path / "bad.json"
    file.write_text(json.dumps(value))
    done = chat(f"Hi\n/load {file}\nHo\n", "a", "b")
    assert named in done.err
    assert done.lm.seen[1] == "<u:Hi><a:a><u:Ho>"


def test_a_file_that_can_not_be_read_is_one_line(chat: Any, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"\xff{")
    done = chat(
        f"/load {tmp_path}\n/load {tmp_path}/none\n/load {tmp_path}/text\n/load ~nobody/x\n/load a\0b\n/load {'x' * 5000}\n"
    )
    assert done.err.count("error: ") == done.err.count("\n") == 6


# --- the command


def test_the_command_reads_lines_from_stdin_and_answers_with_a_real_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    model = str(write_small_model(tmp_path))

    def talk(raw: bytes, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))
        status = main(["chat", "--model", model, "--device", "cpu", "--temp", "0", "--max-tokens", "7", *arguments])
        return status, *capfd.readouterr()

    status, out, err = talk(b"Hi\nHo\n", "--system", "Be.")
    assert status == 0
    assert out.count("\n") >= 2
    first = len("[s]Be.[u]Hi[a]")  # and one for BOS
    assert f"prefill: {1 + first} tok" in err
    assert talk(b"Hi\nHo\n", "--system", "Be.")[1] == out
    status, out, err = talk(b"\xff\nHi\n")
    assert (status, err.count("error: ")) == (2, 1)
    assert "U+DCFF" in err
    assert talk(b"", "--context", "9000")[0] == 2
    assert talk(b"", "--temp", "-1")[0] == 2

"""Whatever is typed, written or piped, the command line answers with text or with one line of error, and nothing escapes."""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nanollama
from conformance.models.small_model import write_small_model
from nanollama.cli import batch, bench, pull, show, suite
from nanollama.cli.chat import Repl
from nanollama.cli.main import main
from nanollama.cli.options import COMMANDS
from nanollama.cli.settings import SETTINGS
from nanollama.lm import LM

FUZZ = int(os.environ.get("NANOLLAMA_CLI_FUZZ", "100"))  # cases per test; the numbers in the notes are of 5,000
fuzz = settings(max_examples=FUZZ, suppress_health_check=[HealthCheck.function_scoped_fixture])

FLAGS = [setting.flag for setting in SETTINGS.values()] + ["--context", "--dtype", "--device", "--system", "--model"]
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([2**31, 2**63, -(2**63), 10**400, 1e-320])).map(str)
TYPED = st.one_of(NUMBERS, st.text(max_size=20), st.from_regex(r"-?\d+=-?\d+|true|-|--|=", fullmatch=True))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | NUMBERS, inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.dictionaries(st.sampled_from([*SETTINGS, "prompt", "messages"]) | st.text(max_size=3), JSON, max_size=4)
LINES = st.one_of(
    FIELDS.map(lambda fields: json.dumps({"prompt": "Hi"} | fields).encode()),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=30),
)
COMMAND_WORDS = ["/system", "/set", "/clear", "/save", "/save!", "/load", "/help", "/x", '"""', ""]


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LM:
    return nanollama.load(write_small_model(tmp_path_factory.mktemp("small"), max_position_embeddings=64), device="cpu")


def streams(monkeypatch: pytest.MonkeyPatch, raw: bytes = b"") -> tuple[io.StringIO, io.StringIO]:
    """Fresh stdout and stderr, and these bytes on stdin."""
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    return out, err


@fuzz
@given(
    options=st.lists(st.builds("{}={}".format, st.sampled_from(FLAGS), TYPED), max_size=2),
    more=st.just([]) | st.lists(TYPED, max_size=2),
    command=st.just("run") | st.sampled_from(list(COMMANDS)),
)
def test_any_arguments_end_in_an_answer_or_one_line(
    options: list[str], more: list[str], command: str, lm: LM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_lm(options: Any) -> LM:
        return lm

    monkeypatch.setattr(suite, "run_suite", lambda *_, **__: 0)
    for module in (bench, pull, show):
        monkeypatch.setattr(module, "resolve", lambda *_, **__: Path("/nowhere"))
    for name in ("nanollama.cli.run", "nanollama.cli.chat", "nanollama.cli.batch"):
        monkeypatch.setattr(f"{name}.load_lm", load_lm)
    out, err = streams(monkeypatch, b"Hi\n")
    status = main([command, *(["--max-tokens=2"] if command in ("run", "chat", "batch") else []), *options, *more])
    assert status in (0, 1, 2)
    if status == 2 and command != "chat":
        assert out.getvalue() == ""
        assert err.getvalue().startswith("error: ")
        assert err.getvalue().count("\n") == 1


@fuzz
@given(lines=st.lists(st.tuples(st.sampled_from(COMMAND_WORDS), st.sampled_from([*SETTINGS, ""]), TYPED), max_size=5))
def test_any_lines_of_a_chat_leave_it_running(
    lines: list[tuple[str, str, str]], lm: LM, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    text = ""
    for word, name, value in lines:
        here = word.startswith("/save")  # only into this folder
        text += f"{word} {name or 'file'}{value.replace('/', '')}\n" if here else f"{word} {name} {value}\n"
    streams(monkeypatch, text.encode("utf-8", "surrogatepass"))
    sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    assert Repl(lm, {"max_tokens": 2}, 64).run() in (0, 2)


@fuzz
@given(lines=st.lists(LINES.filter(lambda raw: b"\n" not in raw), min_size=1, max_size=5))
def test_any_file_gives_one_result_per_line(
    lines: list[bytes], lm: LM, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(batch, "load_lm", lambda options: lm)
    for name in ("p.jsonl", "p.txt"):
        (tmp_path / name).write_bytes(b"\n".join(lines) + b"\n")
        out, err = streams(monkeypatch)
        status = main(["batch", str(tmp_path / name), "--max-tokens", "2"])
        results = [json.loads(line) for line in out.getvalue().split("\n")[:-1]]
        assert [result["line"] for result in results] == list(range(1, len(lines) + 1))
        failed = [result for result in results if "error" in result]
        assert status == (1 if failed else 0)
        assert err.getvalue().count("error: ") >= len(failed)

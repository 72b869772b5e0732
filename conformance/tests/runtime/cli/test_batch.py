"""`nanollama batch`: every line answered as if alone, in order, and no line's fault is another's."""

import io
import json
import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nanollama
from conformance.models.small_model import LETTERS, write_small_model
from nanollama.cli import batch
from nanollama.cli.batch import answer_together, read_lines
from nanollama.cli.main import main
from nanollama.cli.settings import make_request
from nanollama.errors import NanollamaError
from nanollama.lm import LM

PROMPTS = ["Once", "a much longer prompt than the others", "", "x", "Hi there", "zz top"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def lm(folder: Path) -> LM:
    return nanollama.load(folder, device="cpu")


@pytest.fixture
def run(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run a batch over a file with this content: status, results, stderr."""

    def call(content: str | bytes, *arguments: str, name: str = "p.txt") -> Any:
        file = tmp_path / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        status = main(["batch", str(file), "--model", str(folder), "--device", "cpu", "--max-tokens", "9", *arguments])
        out, err = capfd.readouterr()
        return SimpleNamespace(status=status, results=[json.loads(line) for line in out.splitlines()], out=out, err=err)

    return call


def objects(*values: Any) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def alone(lm: LM, prompt: str, **options: Any) -> str:
    return "".join(lm.generate(prompt, **{"max_tokens": 9, "temperature": 0.0, **options}))


@pytest.mark.parametrize("size", [1, 2, 4, 99])
def test_every_line_is_answered_in_order_as_if_it_were_alone(run: Any, lm: LM, size: int) -> None:
    done = run("\n".join(PROMPTS), "--temp", "0", "--batch-size", str(size))
    assert done.status == 0
    assert [(r["line"], r["text"]) for r in done.results] == [(i, alone(lm, p)) for i, p in enumerate(PROMPTS, 1)]
    assert [r["usage"]["prompt_tokens"] for r in done.results] == [1 + len(p) for p in PROMPTS]
    assert done.err == "[6 lines, 0 with an error]\n"


def test_results_have_these_fields(run: Any) -> None:
    [result] = run("Hi\n", "--seed", "3", "--ignore-eos").results
    assert result.keys() == {"line", "text", "token_ids", "finish_reason", "usage", "seed"}
    assert (len(result["token_ids"]), result["finish_reason"], result["seed"]) == (9, "length", 3)


def test_objects_override_the_settings_of_the_command_line(run: Any, lm: LM) -> None:
    lines = objects(
        {"prompt": "Hi"},
        {"prompt": "Hi", "max_tokens": 3},
        {"prompt": "Hi", "temperature": 1.3, "seed": 8, "top_k": 40},
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"prompt": "Hi", "logit_bias": {"9": 100}, "ignore_eos": True},
        {"prompt": "Hi", "stop": "g", "seed": None},
        {"prompt": "Hi", "stop": ["zzz", "g"]},
    )
    done = run(lines, "--temp", "0", name="p.jsonl")
    assert done.status == 0
    texts = [r["text"] for r in done.results]
    greedy = alone(lm, "Hi")
    assert "g" in greedy
    before_g = greedy[: greedy.index("g")]
    chat = "".join(lm.chat([{"role": "user", "content": "Hi"}], temperature=0.0, max_tokens=9))
    hot = alone(lm, "Hi", temperature=1.3, seed=8, top_k=40)
    assert texts == [greedy, greedy[:3], hot, chat, LETTERS[9 - 3] * 9, before_g, before_g]


def test_a_bad_line_is_named_and_the_others_go_on(run: Any, lm: LM) -> None:
    lines = [
        '{"prompt": "Hi"}',
        '{"prompt": "Hi", "temperatur": 1}',
        "Hi",
        "",
        "[]",
        '{"prompt": 3}',
        "{}",
        '{"prompt": "a", "messages": []}',
        '{"messages": 3}',
        '{"messages": [{"role": "user", "content": 3}]}',
        '{"prompt": "a", "temperature": "hot"}',
        '{"prompt": "a", "temperature": true}',
        '{"prompt": "a", "temperature": NaN}',
        '{"prompt": "a", "temperature": 1e999}',
        '{"prompt": "a", "max_tokens": -1}',
        '{"prompt": "a", "seed": 1.5}',
        '{"prompt": "a", "stop": 3}',
        '{"prompt": "a", "stop": [""]}',
        '{"prompt": "a", "logit_bias": {"x": 1}}',
        '{"prompt": "a", "logit_bias": {"99": 1}}',
        '{"prompt": "a", "logit_bias": [[5, 1]]}',
        '{"prompt": "a", "ignore_eos": 1}',
        '{"prompt": "a", "prompt": "b"}',
        '{"prompt": "\\ud800"}',
        json.dumps({"prompt": "a" * 9000}),
        '{"prompt": "Hi"}',
    ]
    done = run("\n".join(lines), "--temp", "0", "--batch-size", "5", name="p.jsonl")
    assert done.status == 1
    assert [r["line"] for r in done.results] == list(range(1, len(lines) + 1))
    assert [r["line"] for r in done.results if "error" not in r] == [1, len(lines)]
    assert {r["text"] for r in done.results if "error" not in r} == {alone(lm, "Hi")}
    errors = {r["line"]: r["error"] for r in done.results if "error" in r}
    assert errors[2].startswith(
        "there is no field 'temperatur'; did you mean 'temperature'? There are prompt, messages, temperature"
    )
    assert "the prompt has 9001 tokens" in errors[25]
    assert not any(text.startswith("request ") for text in errors.values())
    assert done.err.count("error: ") == 24
    assert f"p.jsonl, line 2: {errors[2]}\n" in done.err


def test_a_line_that_is_not_utf8_is_its_own_fault_only(run: Any, lm: LM) -> None:
    done = run(b"Hi\n\xff\xfe\nHi", "--temp", "0")
    assert [r.get("text") for r in done.results] == [alone(lm, "Hi"), None, alone(lm, "Hi")]
    assert "not UTF-8 text" in done.results[1]["error"]


def test_only_newlines_end_lines(tmp_path: Path) -> None:
    file = tmp_path / "p"
    file.write_bytes("\ufeffa\r\nb\x0b\x0c\x1c\x85\u2028c\rd\n\ne".encode())
    assert list(read_lines(str(file))) == [
        (1, b"a"),
        (2, "b\x0b\x0c\x1c\x85\u2028c\rd".encode()),
        (3, b""),
        (4, b"e"),
    ]


@settings(max_examples=50)
@given(lines=st.lists(st.binary(max_size=9).filter(lambda b: b"\n" not in b and b"\r" not in b and b != b""), max_size=9))
def test_lines_come_back_as_they_were_joined(lines: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("lines") / "p"
    file.write_bytes(b"\n".join(lines))
    assert [raw for _, raw in read_lines(str(file))] == lines
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    assert [raw for _, raw in read_lines(str(file))] == lines


def test_a_result_is_one_line_whatever_the_model_says(run: Any) -> None:
    newline = str(3 + LETTERS.index("\n"))
    done = run("Hi\n", "--logit-bias", f"{newline}=inf")
    assert done.out.count("\n") == 1
    assert done.results[0]["text"] == "\n" * 9


def test_a_request_that_fails_under_way_does_not_stop_the_others(lm: LM) -> None:
    banned = dict.fromkeys(range(lm.config.vocab_size), -math.inf)
    good = make_request(lm.encode("Hi"), {"temperature": 0.0, "max_tokens": 9})
    bad = make_request(lm.encode("x"), {"logit_bias": banned, "max_tokens": 9})
    results = answer_together(lm, [good, bad, good], None)
    assert [r.get("text") for r in results] == [alone(lm, "Hi"), None, alone(lm, "Hi")]
    assert results[1]["error"].startswith("token 1: no token can be chosen")


def test_a_reader_that_goes_away_ends_it_quietly(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(text: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(batch, "write", gone)
    done = run("Hi\nHo\n")
    assert (done.status, done.out, done.err) == (141, "", "")


def test_stdin_is_read_as_plain_lines(
    folder: Path, lm: LM, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Hi\nHo\n")))
    assert main(["batch", "-", "--model", str(folder), "--device", "cpu", "--temp", "0", "--max-tokens", "9"]) == 0
    assert [json.loads(line)["text"] for line in capfd.readouterr().out.splitlines()] == [alone(lm, "Hi"), alone(lm, "Ho")]


def test_an_empty_file_has_no_results(run: Any) -> None:
    done = run("")
    assert (done.status, done.out, done.err) == (0, "", "[0 lines, 0 with an error]\n")


def test_output_appears_when_all_is_done_and_replaces_what_was_there(run: Any, tmp_path: Path) -> None:
    plain = run("Hi\nHo\n", "--temp", "0", "--seed", "1").out
    output = tmp_path / "results.jsonl"
    output.write_text("old")
    done = run("Hi\nHo\n", "--temp", "0", "--seed", "1", "--output", str(output))
    assert (done.status, done.out) == (0, "")
    assert output.read_text() == plain
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.txt", "results.jsonl"]


def test_an_interrupted_batch_leaves_the_old_output_as_it_was(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "results.jsonl"
    output.write_text("old")

    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "answer_group", interrupt)
    assert run("Hi\n", "--output", str(output)).status == 130
    assert output.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.txt", "results.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--batch-size", "0"], "--batch-size: 0 is too small"),
        (["--batch-size", "x"], "--batch-size: 'x' is not a whole number"),
        (["--temp", "nan"], "--temp: temperature is nan"),
        (["--context", "8193"], "context is 8193"),
        (["--output", "/no/such/folder/x"], "can't be written"),
        (["--output", os.devnull], "is not a plain file"),
        (["--output", "."], "is not a plain file"),
        (["--chat"], "unrecognized arguments: --chat"),
    ],
)
def test_bad_options_are_one_line(run: Any, arguments: list[str], named: str) -> None:
    done = run("Hi\n", *arguments)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert named in done.err


def test_a_file_that_can_not_be_read_shows_before_the_model_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(batch, "load_lm", lambda options: pytest.fail("the model was loaded"))
    for file in (str(tmp_path), str(tmp_path / "none"), os.devnull):
        assert main(["batch", file, "--model", "x"]) == 2
        out, err = capfd.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert file in err
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["batch", "-", "--model", "x"]) == 2
    assert "stdin is closed" in capfd.readouterr().err


def test_a_line_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "LONGEST_LINE", 10)
    file = tmp_path / "p"
    file.write_bytes(b"a\n" + b"b" * 12)
    lines = read_lines(str(file))
    assert next(lines) == (1, b"a")
    with pytest.raises(NanollamaError, match="line 2: longer than 10 bytes"):
        next(lines)

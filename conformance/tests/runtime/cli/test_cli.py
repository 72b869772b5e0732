"""The command line as its users meet it: what is on stdout, what on stderr, and with which status it ends."""

import io
import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants

import nanollama
from conformance.__main__ import parser as suite_parser
from conformance.models.fixtures import checkpoint_shapes, fixture_config, write_fixture
from conformance.models.small_model import write_small_model
from nanollama.cli import pull, suite
from nanollama.cli import run as run_module
from nanollama.cli.main import main
from nanollama.cli.options import COMMANDS
from nanollama.cli.output import Answer, speed_line
from nanollama.cli.settings import DEFAULT_MAX_TOKENS, SETTINGS
from nanollama.generation.request import Usage

SPEED = r"\[prefill: \d+ tok @ [\d.]+ t/s \| decode: \d+ tok @ [\d.]+ t/s\]\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("small"))


@pytest.fixture
def run(folder: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`nanollama run` on the small model, on the CPU: its status, stdout and stderr."""

    def call(*arguments: str) -> Any:
        status = main(["run", "--model", str(folder), "--device", "cpu", *arguments])
        out, err = capfd.readouterr()
        return SimpleNamespace(status=status, out=out, err=err)

    return call


def type_on_stdin(monkeypatch: pytest.MonkeyPatch, raw: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))


def program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "nanollama", *arguments]


@contextmanager
def started(*arguments: str, **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The program in a process of its own, with pipes for its streams unless others are given."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | streams
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process: Any = subprocess.Popen(program(*arguments), env=environment, **streams)
    with process:
        try:
            yield process
        finally:
            process.kill()


# --- run: the text


def test_greedy_prints_the_text_that_the_library_makes_and_nothing_else(run: Any, folder: Path) -> None:
    want = "".join(nanollama.load(folder, device="cpu").generate("Hi", temperature=0.0, max_tokens=30))
    assert want
    done = run("--prompt", "Hi", "--temp", "0", "--max-tokens", "30")
    assert (done.status, done.out) == (0, want)
    assert re.fullmatch(SPEED, done.err)
    assert "[prefill: 3 tok @ " in done.err  # BOS, H, i


def test_the_published_story_comes_out_byte_for_byte(data_dir: Path) -> None:
    model = str(data_dir / "weights/stories260K-hf")
    greedy = ("--prompt", "", "--temp", "0", "--max-tokens", "200")
    with started("run", "--model", model, "--device", "cpu", *greedy) as process:
        out, err = process.communicate(timeout=120)
    assert out == (data_dir / "weights/stories260K.expected_greedy_200.txt").read_bytes()
    assert re.fullmatch(SPEED, err.decode())


def test_the_prompt_comes_from_stdin_where_none_is_given(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = run("--prompt", "a\n\nb", "--temp", "0", "--max-tokens", "9").out
    for raw in (b"a\n\nb", b"a\n\nb\n", b"a\n\nb\r\n", b"\xef\xbb\xbfa\n\nb"):
        for arguments in ([], ["--prompt", "-"]):
            type_on_stdin(monkeypatch, raw)
            assert run(*arguments, "--temp", "0", "--max-tokens", "9").out == given


def test_only_one_newline_at_the_end_of_stdin_is_left_out(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    type_on_stdin(monkeypatch, b"a\n\n")
    assert "prefill: 3 tok" in run("--max-tokens", "1").err  # BOS, a, newline


def test_json_is_one_object_with_everything_in_it_and_nothing_else(run: Any, folder: Path) -> None:
    plain = run("--prompt", "Hi", "--temp", "0.9", "--seed", "5", "--max-tokens", "20", "--ignore-eos")
    done = run("--prompt", "Hi", "--temp", "0.9", "--seed", "5", "--max-tokens", "20", "--ignore-eos", "--json")
    assert done.out.count("\n") == 1
    answer = json.loads(done.out)
    timings = answer.pop("timings")
    ids = answer.pop("token_ids")
    assert answer == {
        "model": str(folder),
        "text": plain.out,
        "finish_reason": "length",
        "usage": {"prompt_tokens": 3, "completion_tokens": 20, "total_tokens": 23},
        "seed": 5,
    }
    assert len(ids) == 20
    assert timings["prefill_tokens_per_second"] == pytest.approx(3 / timings["prefill_seconds"])
    assert timings["decode_tokens_per_second"] == pytest.approx(19 / timings["decode_seconds"])
    assert re.fullmatch(SPEED, done.err)


def test_the_seed_that_json_tells_replays_a_run_without_one(run: Any) -> None:
    first = json.loads(run("--prompt", "Hi", "--max-tokens", "20", "--json").out)
    again = json.loads(run("--prompt", "Hi", "--max-tokens", "20", "--json", "--seed", str(first["seed"])).out)
    assert again["token_ids"] == first["token_ids"]


def test_rates_of_what_did_not_run_are_left_out(run: Any) -> None:
    done = run("--prompt", "Hi", "--max-tokens", "0", "--json")
    assert json.loads(done.out)["timings"]["prefill_tokens_per_second"] is None
    assert done.err == "[prefill: 3 tok @ - t/s | decode: 0 tok @ - t/s]\n"
    assert speed_line(Usage(4, 1, 0, 2.0, 0.0)) == "[prefill: 4 tok @ 2.0 t/s | decode: 1 tok @ - t/s]"
    assert speed_line(Usage(4, 5, 0, 2.0, 8.0)) == "[prefill: 4 tok @ 2.0 t/s | decode: 5 tok @ 0.5 t/s]"


EFFECTS: dict[str, list[str]] = {
    "temperature": ["--temp", "0.3"],
    "top_k": ["--top-k", "1"],
    "top_p": ["--top-p", "0.1"],
    "min_p": ["--min-p", "0.9"],
    "typical_p": ["--typical-p", "0.1"],
    "repetition_penalty": ["--repeat-penalty", "9"],
    "presence_penalty": ["--presence-penalty", "2"],
    "frequency_penalty": ["--frequency-penalty", "2"],
    "penalty_window": ["--repeat-penalty", "9", "--repeat-last-n", "1"],
    "logit_bias": ["--logit-bias", "9=100"],
    "seed": ["--seed", "2"],
    "stop": ["--stop", "."],
    "max_tokens": ["--max-tokens", "3"],
    "ignore_eos": ["--ignore-eos", "--logit-bias", "2=100"],
}


def test_every_setting_has_an_effect(run: Any) -> None:
    def answer(*arguments: str) -> Any:
        return json.loads(run("--prompt", "Hi there", "--seed", "1", "--max-tokens", "60", "--json", *arguments).out)

    assert EFFECTS.keys() == SETTINGS.keys()
    compared_with = {"penalty_window": ["--repeat-penalty", "9"], "ignore_eos": ["--logit-bias", "2=100"]}
    for name, arguments in EFFECTS.items():
        base, changed = answer(*compared_with.get(name, [])), answer(*arguments)
        assert (base["token_ids"], base["text"]) != (changed["token_ids"], changed["text"]), name


def test_stop_and_logit_bias_may_repeat(run: Any) -> None:
    greedy = ("--prompt", "Hi", "--temp", "0", "--max-tokens", "30", "--ignore-eos")
    base = run(*greedy).out
    assert run(*greedy, "--stop", "never", "--stop", base[7:9]).out == base[: base.index(base[7:9])]
    biases = ("--logit-bias", "40=-inf", "--logit-bias", "9=inf")
    assert json.loads(run("--prompt", "Hi", *biases, "--max-tokens", "5", "--json").out)["token_ids"] == [9] * 5


def test_chat_and_system_go_through_the_template(run: Any) -> None:
    done = run("--prompt", "Hi", "--chat", "--system", "Be.", "--max-tokens", "1")
    assert f"prefill: {1 + len('[s]Be.[u]Hi[a]')} tok" in done.err
    assert f"prefill: {1 + len('[u]Hi[a]')} tok" in run("--prompt", "Hi", "--chat", "--max-tokens", "1").err


@pytest.mark.parametrize("chat", [[], ["--chat"]])
def test_special_tokens_in_the_prompt_are_text_unless_asked(run: Any, chat: list[str]) -> None:
    as_text = json.loads(run("--prompt", "a</s>", *chat, "--max-tokens", "0", "--json").out)
    as_token = json.loads(run("--prompt", "a</s>", *chat, "--parse-special", "--max-tokens", "0", "--json").out)
    assert as_text["usage"]["prompt_tokens"] - as_token["usage"]["prompt_tokens"] == len("</s>") - 1


def test_a_full_context_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = str(write_small_model(tmp_path, max_position_embeddings=20))
    for arguments in ([], ["--context", "12"]):
        assert main(["run", "--model", model, "--prompt", "Hi", "--ignore-eos", "--json", *arguments]) == 0
        out, err = capfd.readouterr()
        assert json.loads(out)["finish_reason"] == "context"
        assert json.loads(out)["usage"]["total_tokens"] == (12 if arguments else 20)
        assert "context is full" in err


def test_an_answer_cut_by_the_default_length_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    answer = Answer(finish_reason="length", usage=Usage(1, DEFAULT_MAX_TOKENS, 0, 1.0, 1.0))
    run_module.notice_end(answer, {"max_tokens": DEFAULT_MAX_TOKENS})
    assert f"after {DEFAULT_MAX_TOKENS} tokens; --max-tokens" in capfd.readouterr().err
    run_module.notice_end(answer, {"max_tokens": 5})
    assert "--max-tokens" not in capfd.readouterr().err


# --- run: streams and signals


def test_text_streams_and_ctrl_c_ends_with_130_and_no_traceback(folder: Path) -> None:
    endless = ("--prompt", "Hi", "--ignore-eos", "--max-tokens", "100000")
    with started("run", "--model", str(folder), *endless) as process:
        assert process.stdout is not None
        assert process.stdout.read(5)  # long before the 8000 tokens of the context are made
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"\n")


def test_ctrl_c_while_torch_is_imported_ends_the_program_though_the_import_swallows_it() -> None:
    code = """
import os, signal
from nanollama.cli.main import ended_by_interrupt
with ended_by_interrupt():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"")


def test_a_reader_that_goes_away_ends_the_program_quietly(folder: Path) -> None:
    with started("run", "--model", str(folder), "--prompt", "Hi", "--ignore-eos", "--max-tokens", "100000") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(process.stdout.read(10)) == 10
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


def test_a_terminal_gets_a_newline_at_the_end_and_no_control_characters(folder: Path, tmp_path: Path) -> None:
    forced = ("--logit-bias", "97=inf", "--max-tokens", "3")  # only spaces
    controller, terminal = os.openpty()
    with started("run", "--model", str(folder), "--prompt", "Hi", *forced, stdout=terminal) as process:
        os.close(terminal)
        _, err = process.communicate(timeout=60)
        assert os.read(controller, 100) == b"   \r\n"  # the terminal's driver adds the carriage return
    os.close(controller)
    assert err.startswith(b"[prefill")
    both = tmp_path / "both"
    with (
        both.open("wb") as file,
        started("run", "--model", str(folder), "--prompt", "Hi", *forced, stdout=file, stderr=subprocess.STDOUT) as process,
    ):
        process.wait(60)
    assert both.read_bytes().startswith(b"   \n[prefill")  # in one file, the speed begins a line of its own


def test_control_characters_are_shown_and_not_sent_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    hostile = "a\x1b[2Jb\rc\x9b\td\n\x7fé€"
    for stream, shown in ((Terminal(), "a\ufffd[2Jb\ufffdc\ufffd\td\n\ufffdé€"), (io.StringIO(), hostile)):
        monkeypatch.setattr(sys, "stdout", stream)
        nanollama.cli.output.write(hostile)
        assert stream.getvalue() == shown
    errors = Terminal()
    monkeypatch.setattr(sys, "stderr", errors)
    assert [main(["\x1b[2J"]), main(["run", "--\x9b"])] == [2, 2]
    assert errors.getvalue().count("error: ") == 2
    assert {"\x1b", "\x9b"}.isdisjoint(errors.getvalue())


def test_a_full_disk_is_one_line(folder: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    for arguments in (["run", "--model", str(folder), "--prompt", "Hi"], ["run", "--help"], ["--help"]):
        with full.open("wb") as file, started(*arguments, stdout=file) as process:
            _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (2, b"error: stdout can't be written: No space left on device\n")


def test_closed_streams_are_one_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], run: Any) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert "stdin is closed; give --prompt" in run().err
    assert main(["chat", "--model", "x"]) == 2
    assert "stdin is closed" in capfd.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert main(["run", "--prompt", "x"]) == 2
    assert "stdout is closed" in capfd.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        assert main(["run", "--prompt", "x", "--temp", "x"]) == 2
    assert capfd.readouterr() == ("", "")  # an error must not end up in the text


# --- bad input


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--temp", "nan"], "--temp: temperature is nan"),
        (["--temp", "1e999"], "--temp: temperature is inf"),
        (["--temp", "warm"], "--temp: 'warm' is not a number"),
        (["--max-tokens", "-1"], "--max-tokens: max_tokens is -1"),
        (["--max-tokens", "9" * 5000], "is not a whole number"),
        (["--top-k", "1.5"], "--top-k: '1.5' is not a whole number"),
        (["--top-p", "1.1"], "--top-p: top_p is 1.1"),
        (["--min-p", "-0.1"], "--min-p: min_p is -0.1"),
        (["--typical-p", "nan"], "--typical-p: typical_p is nan"),
        (["--repeat-penalty", "0"], "--repeat-penalty: repetition_penalty is 0.0"),
        (["--repeat-last-n", "-2"], "--repeat-last-n: penalty_window is -2"),
        (["--presence-penalty", "3"], "--presence-penalty: presence_penalty is 3.0"),
        (["--frequency-penalty", "x"], "--frequency-penalty: 'x' is not a number"),
        (["--logit-bias", "5"], "--logit-bias: '5' is not ID=BIAS"),
        (["--logit-bias", "5=nan"], "logit_bias of token 5 is nan"),
        (["--logit-bias", "5=1", "--logit-bias", "5=2"], "a token id stands twice"),
        (["--logit-bias", "99=1"], "logit_bias has 99; expected ids from 0 to 98"),
        (["--seed", "4294967296"], "--seed: seed is 4294967296"),
        (["--stop", ""], "--stop: stop is"),
        (["--context", "0"], "--context: 0 is too small"),
        (["--context", "9000"], "context is 9000; expected from 1 to 8192"),
        (["--context", "2"], "the prompt has 3 tokens, the context only 2"),
        (["--dtype", "bf16"], "dtype 'bf16' is not known"),
        (["--device", "tpu"], "device 'tpu' is not known"),
        (["--device", "cpu:7"], "device 'cpu:7' does not exist"),
        (["--system", "x"], "--system is for the chat template: add --chat"),
        (["--temp=--"], "--temp=--: -- can't be a value"),
        (["--tem", "1"], "unrecognized arguments: --tem 1"),
        (["more"], "unrecognized arguments: more"),
        (["--seed"], "--seed: expected one argument"),
        (["--prompt", "a\udcff"], "U+DCFF"),
        (["--model", "/no/such/folder"], "'/no/such/folder' does not exist"),
        (["--model", os.devnull], "/dev/null is not a plain file"),
        (["--model", ""], "'' does not exist"),
    ],
)
def test_bad_input_is_one_line_that_names_it(run: Any, arguments: list[str], named: str) -> None:
    done = run("--prompt", "Hi", *arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert named in done.err
    assert len(done.err) < 500


@pytest.mark.parametrize(
    ("raw", "named"),
    [(b"a\xff", "not UTF-8 text: invalid start byte at byte 1"), (b"a" * 64_000_001, "longer than 64,000,000 bytes")],
)
def test_a_bad_prompt_on_stdin_is_one_line(run: Any, monkeypatch: pytest.MonkeyPatch, raw: bytes, named: str) -> None:
    type_on_stdin(monkeypatch, raw)
    done = run()
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert named in done.err


def test_an_empty_prompt_is_refused_where_nothing_is_put_in_front(folder: Path, tmp_path: Path, capfd: Any) -> None:
    assert main(["run", "--model", str(folder), "--prompt", "", "--max-tokens", "2"]) == 0  # BOS is something
    bare = write_small_model(tmp_path)
    data = json.loads((bare / "tokenizer.json").read_text())
    (bare / "tokenizer.json").write_text(json.dumps(data | {"post_processor": None}))
    (bare / "tokenizer_config.json").unlink()
    capfd.readouterr()
    assert main(["run", "--model", str(bare), "--prompt", ""]) == 2
    assert "error: the prompt is empty, and this tokenizer puts no token in front" in capfd.readouterr().err


def test_what_a_checkpoint_lacks_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bare = str(write_fixture(tmp_path / "bare", fixture_config("LlamaForCausalLM")))
    base = str(write_small_model(tmp_path / "base", template=None))
    for model, arguments, named in (
        (bare, [], "no tokenizer"),
        (base, ["--chat"], "no chat template"),
        (str(tmp_path), [], "no config.json"),
    ):
        assert main(["run", "--model", model, "--prompt", "Hi", *arguments]) == 2
        out, err = capfd.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert named in err
    assert main(["chat", "--model", base]) == 2
    assert "has no chat template, it is a base model: use `nanollama run`" in capfd.readouterr().err


@pytest.mark.parametrize("planned", ["serve", "list", "rm", "train", "eval", "Run", ""])
def test_an_unknown_command_is_an_error_that_lists_those_there_are(planned: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([planned]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert re.search("[Tt]here are run, chat, batch, bench, verify, doctor, pull, show", err)
    assert main([]) == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert re.search(rf"examples?:\n  nanollama {name}\b", out)
    assert max(map(len, COMMANDS[name].example.splitlines())) <= 128


def test_help_lists_all_commands_and_the_version_is_the_packages(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert re.findall(r"^  (\w+) ", capfd.readouterr().out, re.MULTILINE) == list(COMMANDS)
    assert main(["--version"]) == 0
    assert capfd.readouterr().out == f"{nanollama.__version__}\n"


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys; from nanollama.cli.main import main; main(['run', '--help']); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_no_memory_and_no_compiler_are_one_line_and_a_bug_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    compiler = type("InductorError", (RuntimeError,), {"__module__": "torch._inductor.exc"})("No compiler\n\nSet TORCH_LOGS")
    for error, named in (
        (MemoryError("x"), "not enough memory: lower --max-tokens"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
        (compiler, "leave --compile out, or mend it (No compiler)"),
    ):
        monkeypatch.setattr(run_module, "run_command", lambda options, error=error: raising(error))
        assert main(["run"]) == 2
        out, err = capfd.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert named in err
    monkeypatch.setattr(run_module, "run_command", lambda options: raising(RuntimeError("shapes don't match")))
    with pytest.raises(RuntimeError, match="shapes"):
        main(["run"])


def raising(error: Exception) -> None:
    raise error


# --- the other commands


def test_bench_prints_its_figures(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "--model", str(folder), "--prompt-tokens", "9", "--new-tokens", "3", "--repeats", "1"]
    assert main(arguments) == 0
    assert re.search(r"^decode +[\d.]+ tok/s$", capfd.readouterr().out, re.MULTILINE)
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["decode_tokens_per_second"] > 0
    assert main([*arguments, "--new-tokens", "8192"]) == 2
    assert "more than 8192 tokens" in capfd.readouterr().err


def test_verify_runs_the_suite_from_any_folder_and_passes_its_status_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conformance").mkdir()  # what lies around here must not be taken for the suite
    (tmp_path / "conformance" / "__init__.py").write_text("raise SystemExit(77)")
    write_fixture(tmp_path / "one", fixture_config("LlamaForCausalLM"))
    write_fixture(tmp_path / "two", fixture_config("LlamaForCausalLM", rms_norm_eps=1e-3))
    monkeypatch.chdir(tmp_path)
    assert main(["verify", "one", "two", "--ids", "1,2,3"]) == 1
    out = capfd.readouterr().out
    assert "on 3 tokens in float64" in out
    assert "DIFFERENT: layers.0.input_layernorm" in out


def test_the_suite_gets_the_options_and_its_status_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def fake(line: list[str], **_: Any) -> Any:
        calls.append(line)
        return SimpleNamespace(returncode=statuses.pop())

    monkeypatch.setattr(subprocess, "run", fake)
    statuses = [-9, 1, 0]
    assert [main(["doctor"]), main(["doctor", "--device", "cpu"]), main(["verify", "--dtype", "float32", "A", "B"])] == [
        0,
        1,
        137,
    ]
    prefix = [sys.executable, "-P", "-m", "conformance"]
    assert calls == [
        [*prefix, "doctor"],
        [*prefix, "doctor", "--device=cpu"],
        [*prefix, "verify", "--dtype=float32", "--", "A", "B"],
    ]
    for line in calls:
        suite_parser().parse_args(line[len(prefix) :])  # it understands them


@pytest.mark.parametrize("arguments", [["doctor"], ["verify", "A", "B"], ["kata", "list"]])
def test_without_a_clone_the_suites_commands_say_what_to_do(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    assert main(arguments) == 2
    assert "needs the conformance suite, which only a clone of the project has" in capfd.readouterr().err


def test_pull_prints_the_folder_and_refuses_a_local_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pull, "resolve", lambda name: Path("/cache") / name)
    assert main(["pull", "org/name@v1"]) == 0
    assert capfd.readouterr().out == "/cache/org/name@v1\n"
    assert main(["pull", str(tmp_path)]) == 2
    assert "is a local path, there is nothing to pull" in capfd.readouterr().err


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Gemma2ForCausalLM", "Phi3ForCausalLM", "GPT2LMHeadModel"])
def test_show_counts_parameters_tensors_and_bytes(architecture: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = fixture_config(architecture)
    write_fixture(tmp_path, config)
    shapes = checkpoint_shapes(config)
    count = sum(map(math.prod, shapes.values()))
    assert main(["show", str(tmp_path), "--tensors"]) == 0
    out = capfd.readouterr().out
    assert f"\nparameters               {count:,}\n" in out
    assert f"\nfloat64                  {len(shapes)} tensors, {8 * count:,} bytes\n" in out
    assert f"\narchitecture             {architecture}\n" in out
    listed = {line.split()[0] for line in out.partition("bytes\n")[2].splitlines() if line}
    assert listed == shapes.keys()


def test_show_never_downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert main(["show", "org/name"]) == 2
    assert "not completely in the cache, and offline mode is on" in capfd.readouterr().err

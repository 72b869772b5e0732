"""Servers judged from the command line: any by its URL, and llama.cpp's, which is started for it."""

import importlib.util
from pathlib import Path

import pytest
import torch

from conformance.__main__ import main
from conformance.judging.wire import llamacpp_server as launcher
from conformance.judging.wire.rigged.bugs import BUGS
from conformance.judging.wire.rigged.model import HashedModel
from conformance.judging.wire.rigged.server import RiggedServer, serving
from conformance.judging.wire.served_model import write_served_model
from conformance.requirements.results import read_run
from nanollama.lm import load


def test_a_server_that_is_right_conforms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(RiggedServer(HashedModel())) as url:
        assert main(["run", "--engine", url, "--json", str(tmp_path / "run.json")]) == 0
    assert "FAIL  " not in capsys.readouterr().out
    run = read_run(tmp_path / "run.json")
    assert run.engine.levels == ("L0", "L1")
    assert run.passed


def test_a_server_that_is_wrong_is_named_with_the_requirement(capsys: pytest.CaptureFixture[str]) -> None:
    server, requirement = BUGS["done_is_missing"]
    with serving(server(HashedModel())) as url:
        assert main(["run", "--engine", url]) == 1
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert requirement in line
    assert "[DONE]" in line


def test_a_server_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(RiggedServer(HashedModel())) as url:
        pass
    assert main(["run", "--engine", url]) == 2
    assert "does not answer" in capsys.readouterr().err


def test_llamacpp_that_is_not_installed_is_one_line_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert launcher.main(["model.gguf"]) == 2
    assert capsys.readouterr().err == (
        "error: llama_cpp is not installed here; install it: python -m pip install 'llama-cpp-python[server]'\n"
    )


def test_a_server_that_does_not_come_up_says_its_last_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert launcher.main([str(tmp_path / "none.gguf"), "--", "--no-such-option"]) == 2
    assert "llama_cpp.server did not start: " in capsys.readouterr().err


def test_the_served_model_is_the_same_as_a_folder_and_as_gguf(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "gguf").mkdir()
    folder = load(write_served_model(tmp_path / "folder"), dtype="float32", device="cpu")
    gguf = load(launcher.write_served_gguf(tmp_path / "gguf"), dtype="float32", device="cpu")
    ids = folder.encode("Once upon a time")
    assert len(ids) == 17 and gguf.encode("Once upon a time") == ids
    messages = [{"role": "user", "content": "Hi"}]
    assert gguf.encode_chat(messages) == folder.encode_chat(messages)
    with torch.inference_mode():
        logits = folder.model(torch.tensor([ids]))
        assert torch.equal(gguf.model(torch.tensor([ids])).argmax(-1), logits.argmax(-1))
    assert torch.equal(logits[..., 0], torch.zeros(1, 17))

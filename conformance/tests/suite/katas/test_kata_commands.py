"""`nanollama kata`: what a learner types, what is on the screen then, and what is in the folder."""

import os
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from conformance.katas import __main__ as command
from conformance.katas import stub
from conformance.katas.checking.check import Outcome
from conformance.katas.checking.records import ReportedTest
from conformance.katas.course import course
from conformance.katas.pages import picture
from conformance.katas.progress import Progress
from nanollama.cli.main import main as nanollama_main

RMSNORM = course()["rmsnorm"]
UNWRITTEN = '        raise NotImplementedError("RMSNorm.forward is yours to write")'
PASSED, FAILED = Outcome(None, [ReportedTest("test_x")]), Outcome(None, [ReportedTest("test_x", problem="wrong")])


class Learner:
    """Somebody at the command line."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.file = folder / "rmsnorm" / "layers.py"

    def does(self, *words: str) -> tuple[int, str]:
        """The exit status, and what is on the screen."""
        status = command.main([*words, "--folder", str(self.folder)])
        captured = self.capsys.readouterr()
        return status, captured.out + captured.err


@pytest.fixture
def someone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Learner:
    """A learner in a new folder."""
    return Learner(tmp_path / "kata", capsys)


def test_a_kata_from_start_to_its_end(someone: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    first = next(iter(course()))
    assert f"0 of {len(course())} passed; next: nanollama kata start {first}" in someone.does("list")[1]
    status, text = someone.does("start", "rmsnorm")
    line = someone.file.read_text().splitlines().index(UNWRITTEN) + 1
    assert status == 0 and f"write RMSNorm.forward at {someone.file}:{line}\n" in text
    monkeypatch.setattr(command, "check", lambda *_: PASSED)
    status, text = someone.does("check")
    assert status == 0 and "PASSED" in text and "nanollama kata diff rmsnorm" in text
    text = someone.does("list")[1]
    assert "15 min  passed\n" in text and f"1 of {len(course())} passed; next: nanollama kata start" in text


def test_start_without_a_name_begins_the_first_that_is_not_passed(someone: Learner) -> None:
    first = next(iter(course()))
    assert someone.does("start")[1].startswith(f"kata {first} (")
    assert f"next: nanollama kata check {first}\n" in someone.does("list")[1]


def test_who_begins_in_the_middle_goes_on_from_there(someone: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    names = list(course())
    monkeypatch.setattr(command, "check", lambda *_: PASSED)
    for name, following in ((names[3], names[4]), (names[-1], names[0])):
        someone.does("start", name)
        assert f"nanollama kata start {following}\n" in someone.does("check", name)[1]


def test_a_learners_file_is_never_overwritten(someone: Learner) -> None:
    someone.does("start", "rmsnorm")
    for number, text in enumerate(("first", "second"), 1):
        someone.file.write_text(text)
        status, said = someone.does("start", "rmsnorm")
        assert status == 2 and "exists: continue with it, or start again with `nanollama kata reset rmsnorm`" in said
        assert someone.file.read_text() == text
        status, said = someone.does("reset")
        copy = someone.file.with_name(f"layers.py.{number}.bak")
        assert status == 0 and copy.read_text() == text and str(copy) in said
        assert stub.without_header(someone.file.read_text()) == stub.stub(RMSNORM)


def test_hints_come_one_by_one_and_end_at_the_solution(someone: Learner) -> None:
    someone.does("start", "rmsnorm")
    texts = [" ".join(someone.does("hint")[1].split()) for _ in range(4)]
    for number, hint in enumerate(RMSNORM.hints, 1):
        assert texts[number - 1].startswith(f"hint {number} of 3 for rmsnorm {' '.join(hint.split())}")
    assert texts[3] == texts[2]
    assert "nanollama kata solution rmsnorm" in texts[2]


def test_solution_and_diff_show_the_functions_of_the_runtime(someone: Learner) -> None:
    someone.does("start", "rmsnorm")
    assert someone.does("solution")[1] == stub.function_text(RMSNORM.source, "RMSNorm.forward")
    status, text = someone.does("diff")
    assert status == 0 and f"-{UNWRITTEN}\n" in text
    someone.file.write_text(stub.header(RMSNORM) + RMSNORM.source)
    assert someone.does("diff")[1] == "no difference\n"
    someone.file.write_text("def (")
    status, text = someone.does("diff")
    assert status == 2 and "is not complete Python" in text


def test_a_runtime_that_has_changed_since_is_mentioned(someone: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    someone.does("start", "rmsnorm")
    someone.file.write_text(someone.file.read_text().replace(stub.fingerprint(RMSNORM), "0123456789ab", 1))
    monkeypatch.setattr(command, "check", lambda *_: PASSED)
    assert "note: nanollama.model.layers has changed since; `nanollama kata reset rmsnorm`" in someone.does("check")[1]
    assert "passed; the runtime has changed since" in someone.does("list")[1]


@pytest.mark.parametrize("words", [["check"], ["hint"], ["diff"], ["reset"], ["watch"], ["solution"]])
def test_without_a_kata_begun_one_has_to_be_named(words: list[str], someone: Learner) -> None:
    assert someone.does(*words) == (2, "error: name a kata (`nanollama kata list`)\n")


def test_bad_input_is_one_line(someone: Learner) -> None:
    assert someone.does("start", "rmsnrm")[1].startswith("error: there is no kata 'rmsnrm'; did you mean 'rmsnorm'? There are ")
    status, text = someone.does("check", "rope")
    assert status == 2 and text.endswith("start it with `nanollama kata start rope`\n")
    someone.does("start", "rope")
    (someone.folder / "progress.txt").write_text("rope done 1\n")
    status, text = someone.does("list")
    assert status == 2 and "'rope done 1' is not a valid line; expected a kata, started or passed, and a number" in text


def test_watch_checks_at_once_and_after_each_save_until_it_passes(someone: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    someone.does("start", "rmsnorm")
    outcomes = [FAILED, FAILED, PASSED]
    looks: list[int] = []

    def saved(seconds: float) -> None:  # nothing, then a save, nothing, a save
        looks.append(len(looks))
        if len(looks) % 2 == 0:
            os.utime(someone.file, ns=(len(looks), len(looks)))

    monkeypatch.setattr(command, "check", lambda *_: outcomes.pop(0))
    monkeypatch.setattr(time, "sleep", saved)
    status, text = someone.does("watch")
    assert status == 0 and text.count("kata rmsnorm: testing") == 3 and "watching" in text
    assert outcomes == [] and looks == [0, 1, 2, 3]


def test_ctrl_c_ends_without_a_word(someone: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    someone.does("start", "rmsnorm")

    def interrupted(*_: Any) -> Outcome:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "check", interrupted)
    assert someone.does("watch") == (130, "")


def test_progress_is_a_line_for_each_kata_with_the_latest_at_the_end(tmp_path: Path) -> None:
    first = Progress(tmp_path)
    assert first.latest is None
    first.note("rope", passed=True)
    first.note("rmsnorm", hint=True)
    first.note("rope", hint=True)
    again = Progress(tmp_path)
    assert again.latest == "rope"
    assert (tmp_path / "progress.txt").read_text().splitlines()[1:] == ["rmsnorm started 1", "rope passed 1"]


def test_the_program_passes_everything_on_and_the_status_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # it works from any folder
    assert nanollama_main(["kata", "start", "rmsnorm", "--folder", "mine"]) == 0
    assert f"write RMSNorm.forward at {Path('mine', 'rmsnorm', 'layers.py')}:" in capfd.readouterr().out
    assert nanollama_main(["kata", "start", "rmsnorm", "--folder", "mine"]) == 2
    assert "exists: continue with it" in capfd.readouterr().err
    assert nanollama_main(["kata", "begin"]) == 2
    assert "invalid choice: 'begin'" in capfd.readouterr().err


def test_the_picture_in_the_readme_is_what_the_program_says() -> None:
    assert picture.PICTURE.read_text(encoding="utf-8") == picture.svg(picture.transcript())


def test_a_picture_has_a_line_of_text_for_each_line_and_escapes_what_is_markup() -> None:
    drawn = ElementTree.fromstring(picture.svg("$ a < b\n\n  c\n"))
    texts = [(each.text or "").replace("\N{NO-BREAK SPACE}", " ") for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["$ a < b", "", "  c"]

"""Smoke: broken adapters are told from engines that do not conform, by a sentence each; and the command around both."""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conformance.__main__ import main
from conformance.engines.engine import Answer, Prompt, Taps, Unsupported
from conformance.judging import smoke
from conformance.judging.controls import ReferenceEngine, right
from conformance.requirements.results import About, read_run

OLMO = "Olmo2ForCausalLM"


class Adapter(ReferenceEngine):
    """The truth behind an adapter that does one thing wrong."""

    def __init__(self, fault: str = "") -> None:
        super().__init__("float64", right)
        self.fault, self.calls = fault, 0

    def about(self) -> About:
        levels = {"no logits": ("L0",), "unknown level": ("L2", "L9")}.get(self.fault, super().about().levels)
        return replace(super().about(), levels=levels, dtype="int4" if self.fault == "unknown dtype" else "float64")

    def load(self, folder: Path) -> None:
        if self.fault == "loads nothing":
            raise Unsupported("no such architecture")
        super().load(folder)
        if self.fault == "wrong values":
            self.reference.spec = replace(self.reference.spec, scales=(1.0,) * self.reference.spec.layers)

    def run(self, prompt: Prompt, taps: bool = False) -> Answer:
        answer = super().run(Prompt((1,) * len(prompt.ids), prompt.positions) if self.fault == "deaf" else prompt, taps)
        self.calls += 1
        change = {
            "one row": lambda x: x[-1:],
            "integers": lambda x: x.int(),
            "nan": lambda x: x.index_fill(1, torch.tensor([3]), torch.nan),
            "draws": lambda x: x + self.calls,
        }.get(self.fault)
        answer.logits = change(answer.logits) if change else answer.logits
        answer.taps = taps_with(self.fault, answer.taps)
        return answer

    def inject(self, prompt: Prompt, inputs: Mapping[str, Tensor]) -> Taps:
        whole = self.subject_inputs(prompt)
        return super().inject(prompt, whole if self.fault == "puts nothing in" else {**whole, **inputs})

    def subject_inputs(self, prompt: Prompt) -> Taps:
        """What every module has without injection."""
        from conformance.engines.subject import inputs_of

        trace = self.reference.run(torch.tensor(prompt.ids), torch.tensor(prompt.positions))
        return inputs_of(trace, self.reference.spec)


def taps_with(fault: str, taps: Taps) -> Taps:
    """Taps as a broken adapter shows them."""
    if fault == "other names":
        return {f"model.{name}": value for name, value in taps.items()}
    if fault == "batch axis":
        return {name: value[None] for name, value in taps.items()}
    if fault == "no taps":
        return {}
    if fault == "a layer missing":
        return {name: value for name, value in taps.items() if name != "layers.1"}
    if fault == "frozen tap":
        return {name: torch.zeros_like(value) if name == "layers.0.mlp" else value for name, value in taps.items()}
    return taps


def said(adapter: Adapter, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.setattr(smoke, "find_engine", lambda name: adapter)
    status = smoke.smoke_command("adapter")
    return status, capsys.readouterr().out


BROKEN = {
    "one row": "logits have the shape [1, 97] instead of [16, 97]",
    "integers": "logits are torch.int32, which is no floating-point number",
    "nan": "16 logits are NaN or infinite",
    "draws": "two runs of the same prompt differ by up to 1",
    "deaf": "they don't depend on the input",
    "other names": "there is no tap model.embeddings",
    "batch axis": "the tap embeddings has the shape [1, 16, 60] instead of [16, 60]",
    "no taps": "shows no tap",
    "a layer missing": "the tap layers.1 is missing, though others of its kind are there",
    "frozen tap": "the tap layers.0.mlp is the same for another prompt",
    "puts nothing in": "twice the input of layers.0.mlp gives the same output",
    "no logits": "this needs L2, logits",
    "unknown level": "levels are L0, L1, L2, L3, L4",
    "unknown dtype": "it states that it computes in 'int4'",
    "loads nothing": "it loads none of the suite's families; LlamaForCausalLM: no such architecture",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_adapter_is_told_by_a_sentence(
    fault: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, text = said(Adapter(fault), capsys, monkeypatch)
    assert status == 1
    assert BROKEN[fault] in text
    assert "sound" not in text


def test_a_sound_adapter_passes_whether_its_values_are_right_or_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, text = said(Adapter(), capsys, monkeypatch)
    assert (status, "BROKEN" in text) == (0, False)
    assert "the adapter is sound, and its values are right" in text
    status, text = said(Adapter("wrong values"), capsys, monkeypatch)
    assert (status, "BROKEN" in text) == (0, False)
    assert "its values are not: the first that is off is layers.0.self_attn.weights" in text


# The command


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["run", "--engine", "nope"], "there is no engine 'nope'"),
        (["run", "--engine", "nanollama", "--family", "Lama"], "there is no family 'Lama'"),
        (["run", "--engine", "transformers", "--model", "x"], "--model names the checkpoint of a server"),
        (["run", "--engine", "nanollama", "--report", "no/such/folder/x.html"], "can't be written: there is no folder"),
        (["run", "--engine", "nanollama", "--against", "no.json"], "expected a file that --json wrote"),
        (["run", "--report", "no/such/folder/x.html"], "can't be written: there is no folder"),
        (["run", "--engine", "http://127.0.0.1:9/v1", "--no-transformers"], "--no-transformers is about the suite's models"),
        (["run", "--engine", "http://127.0.0.1:9/v1", "--family", OLMO], "--family chooses among the suite's models"),
        (["smoke", "--engine", "nope"], "there is no engine 'nope'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments: list[str], fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert fault in told
    assert told.count("\n") == 1


def test_the_engines_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--engines"]) == 0
    assert "exec:COMMAND" in capsys.readouterr().out


def test_one_family_through_the_command_with_everything_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, page = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "report.html"
    command = ["run", "--engine", "nanollama", "--family", OLMO]
    assert main([*command, "--json", str(first)]) == 0
    assert main([*command, "--json", str(second), "--report", str(page), "--against", str(first)]) == 0
    run = read_run(first)
    assert run.passed
    assert run.command == f"python -m conformance run --engine nanollama --family {OLMO}"
    assert run.detectable
    assert page.read_text().lstrip().startswith("<!doctype html>")
    assert "NORM-005" in json.dumps([result.requirement for result in read_run(second).results])
    assert "judged requirements pass" in capsys.readouterr().out


def test_a_program_behind_the_protocol_is_judged_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "dies.py"
    script.write_text("import sys; input(); sys.exit('no model here')")
    assert main(["run", "--engine", f"exec:{sys.executable} -S {script}", "--family", OLMO, "--json"]) == 1
    run = json.loads(capsys.readouterr().out)
    errors = [result for result in run["results"] if result["verdict"] == "ERROR"]
    assert {result["case"] for result in errors} == {OLMO, "olmo2: biases"}
    assert "its last words: no model here" in errors[0]["detail"]


def test_the_example_adapter_conforms_as_far_as_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    program = f"exec:{sys.executable} -m conformance.engines.example_adapter"
    assert main(["run", "--engine", program, "--family", OLMO, "--json"]) == 0
    run = json.loads(capsys.readouterr().out)
    assert {point["tap"] for point in run["growth"][OLMO]} == {"layers.0", "layers.1", "layers.2", "logits"}
    verdicts = {result["requirement"]: result["verdict"] for result in run["results"]}
    assert (verdicts["NORM-005"], verdicts["CACHE-003"]) == ("PASS", "UNSUPPORTED")

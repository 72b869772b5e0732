"""Programs behind the protocol, as real processes: a sound one, and everything that a broken one can do."""

import json
import sys
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator

from conformance import ROOT
from conformance.engines.engine import Broken, Prompt, Unsupported
from conformance.engines.protocols.messages import SCHEMA, check, pack, parsed, unpack
from conformance.engines.protocols.protocol import Program
from nanollama.errors import NanollamaError

PROMPT = Prompt((3, 1), (0, 1))
HELLO = {"name": "toy", "version": "1", "levels": ["L2"], "dtype": "float32"}
TOY = """
import json, sys
answers = json.loads({answers!r})
for line in sys.stdin:
    verb = json.loads(line)["verb"]
    {before}
    print(json.dumps(answers[verb]), flush=True)
    if verb == "bye":
        break
"""


def logits() -> dict[str, object]:
    return pack(torch.tensor([[0.0, 1.0], [2.0, 3.5]]))


def toy(folder: Path, before: str = "pass", seconds: float = 20.0, longest: int = 10_000, **answers: object) -> Program:
    """A program that answers what it is told to, after `before`, a statement."""
    said = {"hello": HELLO, "load": {"loaded": True}, "run": {"logits": logits()}, "bye": {"bye": True}, **answers}
    script = folder / "toy.py"
    script.write_text(TOY.format(answers=json.dumps(said), before=before))
    return Program(f"{sys.executable} -S {script}", seconds, longest)


def fault_of(program: Program) -> str:
    """What breaks when a model is loaded and run."""
    try:
        with pytest.raises(Broken) as caught:
            program.load(Path("model"))
            program.run(PROMPT)
        return str(caught.value)
    finally:
        program.close()


# Messages


def test_a_tensor_goes_there_and_back_by_hand() -> None:
    packed = pack(torch.tensor([[1.0, -2.0]], dtype=torch.float32))
    assert packed == {"shape": [1, 2], "dtype": "float64", "data": "AAAAAAAA8D8AAAAAAAAAwA=="}  # 3ff0…, c000…, low byte first
    assert torch.equal(unpack(packed), torch.tensor([[1.0, -2.0]], dtype=torch.float64))
    assert torch.equal(unpack({"shape": [1], "dtype": "float32", "data": "AACAPw=="}), torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize(
    ("shape", "data", "fault"),
    [([2], "AACAPw==", "has 8 bytes, and it sent 4"), ([1], "A", "no base64"), ([10**12], "AACAPw==", "sent 4")],
)
def test_data_of_another_size_than_the_shape_are_refused(shape: list[int], data: str, fault: str) -> None:
    with pytest.raises(Broken, match=fault):
        unpack({"shape": shape, "dtype": "float32", "data": data})


def test_the_schema_is_one_and_knows_a_request_and_an_answer_for_every_verb() -> None:
    schema = json.loads(SCHEMA.read_text())
    Draft202012Validator.check_schema(schema)
    for verb in ("hello", "load", "run", "inject", "bye"):
        assert verb in schema["$defs"]
        assert f"answer to {verb}" in schema["$defs"]


@pytest.mark.parametrize("line", [b"hello\n", b"[1]\n", b"\xff\n", b"[" * 100_000, b"1" * 5000])
def test_what_is_no_json_object_is_told_by_its_beginning(line: bytes) -> None:
    with pytest.raises(Broken, match="it wrote"):
        parsed(line)


def test_a_request_that_is_not_as_the_schema_says_is_never_sent() -> None:
    with pytest.raises(Broken, match="no request"):
        check({"verb": "run", "ids": [-1], "positions": [0], "chunks": [], "taps": False}, "request")


# A sound program


def test_a_sound_program_is_an_engine(tmp_path: Path) -> None:
    program = toy(tmp_path)
    assert (program.about().name, program.about().levels, program.about().dtype) == ("toy", ("L2",), "float32")
    program.load(tmp_path)
    assert program.run(PROMPT).logits.tolist() == [[0.0, 1.0], [2.0, 3.5]]
    process = program.process
    assert process is not None
    program.close()
    assert process.child.returncode == 0


def test_what_a_program_does_not_support_is_no_failure_and_it_goes_on(tmp_path: Path) -> None:
    program = toy(tmp_path, load={"unsupported": "no experts"})
    with pytest.raises(Unsupported, match="no experts"):
        program.load(tmp_path)
    assert program.run(PROMPT).logits.shape == (2, 2)
    program.close()


def test_an_error_that_a_program_reports_is_an_error_and_it_goes_on(tmp_path: Path) -> None:
    program = toy(tmp_path, run={"error": "out of memory"})
    program.load(tmp_path)
    for _ in range(2):
        with pytest.raises(Broken, match="the program says: out of memory"):
            program.run(PROMPT)
    program.close()


# Broken programs


@pytest.mark.parametrize(
    ("before", "fault"),
    [
        (
            "if verb == 'run': sys.exit('a wheel came off')",
            "it ended with status 1 instead of an answer; its last words: a wheel",
        ),
        ("if verb == 'run': print('loading')", "it wrote 'loading\\n', which is no JSON"),
        ("if verb == 'run': print('x' * 20000)", "a line of more than 10000 bytes"),
        ("if verb == 'run': sys.stdout.write('x' * 20000); sys.stdin.read()", "a line of more than 10000 bytes"),
        ("if verb == 'run': import os; os.close(1); sys.stdin.read()", "instead of an answer"),
    ],
    ids=["dies", "prints", "long line", "no end of line", "closes stdout"],
)
def test_a_program_that_breaks_is_told_by_how(before: str, fault: str, tmp_path: Path) -> None:
    assert fault in fault_of(toy(tmp_path, before))


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ({}, "no answer to run: $: 'logits' is a required property"),
        ({"logits": [1]}, "$.logits"),
        ({"logits": {"shape": [1], "dtype": "int8", "data": ""}}, "$.logits.dtype"),
        ({"logits": {"shape": [2, 2], "dtype": "float32", "data": ""}}, "has 16 bytes, and it sent 0"),
    ],
)
def test_an_answer_that_is_not_as_the_schema_says_breaks(answer: object, fault: str, tmp_path: Path) -> None:
    assert fault in fault_of(toy(tmp_path, run=answer))


def test_no_answer_in_time_ends_the_process_and_twice_is_enough(tmp_path: Path) -> None:
    program = toy(tmp_path, "if verb == 'load': sys.stdin.read()", seconds=2.0)
    for fault in ("no answer to load within 2 s", "no answer to load within 2 s", "it is not asked any more"):
        with pytest.raises(Broken, match=fault):
            program.load(tmp_path)
        assert program.process is None


def test_a_program_that_ended_is_started_again_for_the_next_model(tmp_path: Path) -> None:
    program = toy(tmp_path, "if verb == 'run': sys.exit(3)")
    for _ in range(2):
        program.load(tmp_path)
        with pytest.raises(Broken, match="status 3"):
            program.run(PROMPT)
        with pytest.raises(Broken, match="the program has ended: it ended with status 3"):
            program.run(PROMPT)


def test_a_line_that_nobody_asked_for_breaks(tmp_path: Path) -> None:
    program = toy(tmp_path, "if verb == 'load': print('{}'); print('{}', flush=True)")
    with pytest.raises(Broken):
        program.load(tmp_path)
        program.run(PROMPT)
    program.close()


def test_a_program_that_can_not_be_started_is_an_engine_that_offers_nothing() -> None:
    program = Program("/no/such/program")
    assert program.about().levels == ()
    assert "can't be started" in program.about().notes
    with pytest.raises(Broken, match="not asked any more"):
        program.load(Path("model"))
    with pytest.raises(NanollamaError, match="names no command"):
        Program(" ")


# The example


def test_the_example_is_a_whole_adapter_in_forty_lines() -> None:
    path = ROOT / "conformance" / "engines" / "example_adapter.py"
    assert len(path.read_text().splitlines()) <= 40
    assert "conformance" not in path.read_text().partition('"""\n')[2]  # nothing of ours is needed

"""A slice of the hostile-checkpoint fuzz, and proof that the fuzz sees what it is there to see.

NANOLLAMA_FUZZ_CASES sets the size of the slice; the full run is `python -m conformance.fuzz.checkpoint`.
"""

import json
import os
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
import safetensors.torch
import tokenizers

from conformance.fuzz.checkpoint import Job, fuzz, main, make_case
from conformance.fuzz.valid_checkpoint import SHAPES, TOKENIZER, build

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fuzz reads a worker's memory from /proc")
CASES = int(os.environ.get("NANOLLAMA_FUZZ_CASES", "300"))


@pytest.mark.parametrize("target", ["weights", "model", "all"])
def test_no_mutated_checkpoint_escapes_the_one_error(target: str) -> None:
    kinds = Counter[str]()
    for outcome in fuzz(Job(target), range(CASES)):
        assert not outcome.is_finding, f"case {outcome.case} {outcome.kind}\n{outcome.detail}"
        kinds[outcome.kind] += 1
    assert kinds["loaded"] > CASES / 20 and kinds["refused"] > CASES / 2, "neither kind may be rare, or little is tested"


CONTROLS = {
    "raises": ("raised", "KeyError: 'weight_map'"),
    "hangs": ("hung", ""),
    "dies": ("died", ""),
    "takes_memory": ("memory", "bytes; then loaded"),
    "asks_for_memory": ("raised", "MemoryError"),
}


@pytest.mark.parametrize("control", CONTROLS)
def test_the_fuzz_finds_a_target_that(control: str) -> None:
    kind, detail = CONTROLS[control]
    first, second = fuzz(Job(f"conformance.fuzz.targets:{control}", seconds=1.0 if kind == "hung" else 30.0), range(2))
    assert (first.case, first.kind, second.case, second.kind) == (0, kind, 1, kind), "and goes on after it"
    assert detail in first.detail


def test_the_fuzz_has_nothing_to_say_about_a_target_without_bugs() -> None:
    outcomes = list(fuzz(Job("conformance.fuzz.targets:refuses_some"), range(100), workers=2))
    assert [outcome.case for outcome in outcomes] == list(range(100))
    assert {outcome.kind for outcome in outcomes} == {"loaded", "refused"}


def test_a_target_that_loads_nothing_is_no_target() -> None:
    for target in ("conformance.fuzz.targets:loads_nothing", "conformance.fuzz.targets:no_such_function"):
        with pytest.raises(RuntimeError, match="does not load a sound checkpoint"):
            list(fuzz(Job(target), range(1)))


def test_the_sound_checkpoint_is_what_the_safetensors_library_reads(tmp_path: Path) -> None:
    for seed in range(4):
        build(tmp_path / "sound", random.Random(seed))
        files = sorted((tmp_path / "sound").glob("*.safetensors"))
        tensors = {name: tensor for path in files for name, tensor in safetensors.torch.load_file(path).items()}
        assert {name: list(tensor.shape) for name, tensor in tensors.items()} == SHAPES
        shutil.rmtree(tmp_path / "sound")


def test_the_sound_tokenizer_is_what_the_tokenizers_library_reads() -> None:
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(TOKENIZER))
    assert tokenizer.encode("<s>ab cd ab").tokens == ["<s>", "ab", "Ġ", "cd", "Ġ", "ab"]


def test_a_case_is_the_same_folder_every_time(tmp_path: Path) -> None:
    for case in range(50):
        contents = []
        for copy in ("first", "second"):
            make_case(tmp_path / f"{copy}-{case}", Job("model"), case)
            files = sorted((tmp_path / f"{copy}-{case}").rglob("*"))
            contents.append({path.name: path.read_bytes() if path.is_file() else None for path in files})
        assert contents[0] == contents[1]


def test_findings_set_the_exit_status_and_are_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = "conformance.fuzz.targets:raises"
    assert main(["--target", target, "--cases", "2", "--save", str(tmp_path / "found")]) == 1
    assert f"target {target}, seed 0, cases 0 to 1, 1 workers" in capsys.readouterr().out
    assert len(list((tmp_path / "found").iterdir())) == 2
    with pytest.raises(KeyError):
        main(["--target", target, "--case", "0"])

"""`nanollama show FILE.gguf`: everything a file says, nothing of it raw."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conformance.fuzz.valid_gguf import Model, Pair, Tensor, model_bytes, parts_of
from nanollama.checkpoint.gguf.values import ARRAY, STRING, ValueType
from nanollama.checkpoint.gguf.writer import NewTensor, write_gguf
from nanollama.cli.main import main
from nanollama.cli.show import LONGEST, brief, visible
from nanollama.quant import FORMATS

F32, I32, U32, ARRAYS = 6, 5, 4, ValueType(ARRAY, STRING)


@pytest.fixture
def show(capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def call(path: Path, *arguments: str) -> list[str]:
        assert main(["show", str(path), *arguments]) == 0
        out, err = capfd.readouterr()
        assert err == ""
        return out.splitlines()

    return call


def test_a_small_file_is_shown_whole(show: Any, tmp_path: Path) -> None:
    zeros = torch.zeros(1000, dtype=torch.uint8)
    tensors = [
        NewTensor("a", (2, 32), FORMATS["Q4_0"], lambda: [zeros[:36]]),
        NewTensor("b", (2, 3), FORMATS["F32"], lambda: [zeros[:24]]),
        NewTensor("c", (), FORMATS["F32"], lambda: [zeros[:4]]),
    ]
    metadata = {"general.architecture": "none", "x.eps": 1e-5, "x.list": [1, 2, 3], "x.on": True}
    write_gguf(tmp_path / "a.gguf", metadata, tensors)
    head = [
        f"{tmp_path}/a.gguf",
        "",
        "general.architecture      string            none",
        "x.eps                     float32           1e-05",
        "x.list                    array of int32    3: [1, 2, 3]",
        "x.on                      bool              True",
        "",
        "tensors                   3",
        "parameters                71",
        "bits per weight           7.21",
        "Q4_0                      1 tensors, 36 bytes",
        "F32                       2 tensors, 28 bytes",
    ]
    listed = [
        "",
        "a                                        Q4_0                 36  [2, 32]",
        "b                                        F32                  24  [2, 3]",
        "c                                        F32                   4  []",
    ]
    assert show(tmp_path / "a.gguf") == head
    assert show(tmp_path / "a.gguf", "--tensors") == head + listed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("é ▁ 漢", "é ▁ 漢"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202eabc", r"\u202eabc"),
        ("\udcff\udc80", r"\xff\x80"),
        ("\\n", r"\\n"),
        ("\0", r"\x00"),
        ("x" * 101, "x" * 100 + "… (101 characters)"),
    ],
)
def test_what_can_not_be_seen_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert brief(text, ValueType(STRING)) == shown


def test_long_arrays_are_cut() -> None:
    assert brief(list(range(1000)), ValueType(ARRAY, I32)) == "1,000: [0, 1, 2, 3, 4, 5, 6, 7, …]"
    assert brief([], ARRAYS) == "0: []"
    assert brief(["a\n", "b"], ARRAYS) == r'2: ["a\n", "b"]'
    assert brief([0.1, 1e10], ValueType(ARRAY, F32)) == "2: [0.1, 1e+10]"
    many = brief(["y" * 1000] * 9, ARRAYS)
    assert many.startswith(f'9: ["{"y" * 32}… (1,000 characters)"') and len(many) < 3 * LONGEST
    inner = ValueType(ARRAY, U32)
    assert brief([[1], [2, 3]], ValueType(ARRAY, ARRAY, (inner, inner))) == "2: [[1], [2, 3]]"


def hostile(folder: Path) -> Path:
    """Escape sequences wherever a file can hold them."""
    evil = b"\x1b]0;title\x07\x1b[2J\x9b\xff\n"
    names = [evil.replace(b"\xff", b"").replace(b"\x9b", b"\xc2\x9b"), "‮".encode()]
    pairs = [Pair(name, STRING, evil) for name in names] + [Pair(b"k" * 65_000, ARRAY, (STRING, [evil] * 9))]
    path = folder / "a.gguf"
    path.write_bytes(model_bytes(Model(3, 32, pairs, [Tensor(name, [2], 0, bytes(8)) for name in names])))
    return path


def test_nothing_of_a_hostile_file_reaches_stdout_raw(show: Any, tmp_path: Path) -> None:
    lines = show(hostile(tmp_path), "--tensors")
    assert len(lines) == 13 and all(line.isprintable() and len(line) < 400 for line in lines)
    assert any(r"\x1b]0;title\x07\x1b[2J\x9b\xff\n" in line for line in lines)
    assert any(r"\u202e" in line for line in lines)


@pytest.mark.skipif(sys.platform != "linux", reason="pseudo-terminals of Linux")
def test_a_terminal_gets_no_escape_either(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "nanollama", "show", hostile(tmp_path)], stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        raw = b""
        while True:
            try:
                raw += os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
    os.close(ours)
    assert process.returncode == 0 and b"title" in raw
    assert b"\x1b" not in raw and b"\x07" not in raw and "\u202e".encode() not in raw and b"\xc2\x9b" not in raw


def test_a_split_model_is_shown_as_one(show: Any, tmp_path: Path) -> None:
    whole = Model(3, 32, [Pair(b"a", U32, 7)], [Tensor(b"x%d" % i, [2], 0, bytes(8)) for i in range(4)])
    paths = [tmp_path / f"m-{i + 1:05}-of-00003.gguf" for i in range(3)]
    for path, part in zip(paths, parts_of(whole, 3), strict=True):
        path.write_bytes(model_bytes(part))
    lines = show(paths[1])
    assert lines[:3] == [str(path) for path in paths] and "tensors                   4" in lines


def test_what_is_no_gguf_file_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.gguf").write_bytes(b"PK\3\4" + bytes(100))
    for path, named in ((tmp_path / "a.gguf", "it is not a GGUF file"), (tmp_path / "b.gguf", "b.gguf")):
        assert main(["show", str(path)]) == 2
        out, err = capfd.readouterr()
        assert out == "" and err.count("\n") == 1 and named in err


@pytest.mark.parametrize("name", ["gpt-2", "llama-spm", "qwen2", "gemma-4"])
def test_a_real_vocabulary_is_shown(name: str, show: Any, data_dir: Path) -> None:
    lines = show(data_dir / "tokenizers" / "ggml-vocab" / f"ggml-vocab-{name}.gguf")
    assert all(line.isprintable() and len(line) < 400 for line in lines) and lines[-1] == "tensors                   0"
    assert any(line.startswith("tokenizer.ggml.tokens") and "array of string" in line for line in lines)

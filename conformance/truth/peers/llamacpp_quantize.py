"""`nanollama quantize` against llama.cpp: both quantize the same F32 models.

    python -m conformance.truth.peers.llamacpp_quantize [--python VENV/bin/python] [--model FILE.gguf] [--type q4_k_m]

Needs llama-cpp-python, in this or in the named interpreter. The models are small and random, one per rule of the mixes: tied
and untied heads, 4 and 8 experts, fused attention, narrow rows, 80 layers. Metadata and every tensor's type must be equal.
Bytes are counted: a build of llama.cpp may use fused multiply-add, which changes a code here and there.
"""

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf import GGUFReader, GGUFWriter
from numpy.typing import NDArray

from nanollama.cli.quantize import quantize_command
from nanollama.quant.file_types import FILE_TYPES

PEER = """
import llama_cpp, sys
params = llama_cpp.llama_model_quantize_default_params()
params.ftype, params.nthread = int(sys.argv[3]), 2
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), params))
"""


class Shape(NamedTuple):
    """The shape of a random model."""

    architecture: str = "llama"
    layers: int = 9
    columns: int = 256
    kv_heads: int = 2
    experts: int = 0
    tied: bool = False
    rows: int = 4


MODELS = {
    "llama": Shape(),
    "llama, more values": Shape(layers=2, columns=1024, rows=512),
    "llama, tied": Shape(tied=True, layers=4),
    "llama, rows of 64": Shape(columns=64),
    "llama, rows of 96, tied": Shape(columns=96, tied=True),
    "llama, rows of 40": Shape(columns=40),
    "llama of 80 layers": Shape(layers=80),
    "llama of 80 layers, as many kv heads": Shape(layers=80, kv_heads=4),
    "qwen2 of 80 layers": Shape("qwen2", layers=80),
    "mixtral": Shape(experts=8, layers=17),
    "four experts": Shape("qwen3moe", experts=4, layers=12),
    "phi3": Shape("phi3", layers=16),
    "falcon": Shape("falcon", layers=32),
    "gpt2": Shape("gpt2", layers=5, tied=True),
}


def write_model(path: Path, shape: Shape, seed: int = 0) -> None:
    """Write a file with the names, metadata and row lengths of such a model; matrices have few rows."""
    writer, random = GGUFWriter(path, shape.architecture), np.random.default_rng(seed)
    writer.add_block_count(shape.layers)
    writer.add_context_length(64)
    writer.add_embedding_length(shape.columns)
    writer.add_feed_forward_length(shape.columns)
    writer.add_head_count(4)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_layer_norm_eps(1e-5)
    writer.add_rope_dimension_count(shape.columns // 4)
    writer.add_vocab_size(8)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(2)
    for name, lengths in tensors(shape):
        writer.add_tensor(name, (random.standard_normal(lengths) ** 3 * 0.02).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each tensor."""
    columns = shape.columns
    yield "token_embd.weight", (8, columns)
    yield "output_norm.weight", (columns,)
    if not shape.tied:
        yield "output.weight", (8, columns)
    if shape.architecture == "gpt2":
        yield "position_embd.weight", (8, columns)
    for layer in reversed(range(shape.layers)):  # the order in the file must not matter
        fused = shape.architecture in ("phi3", "falcon", "gpt2")
        for part in ("qkv", "output") if fused else ("q", "k", "v", "output"):
            yield f"blk.{layer}.attn_{part}.weight", (shape.rows, columns)
        yield f"blk.{layer}.attn_norm.weight", (columns,)
        if shape.experts:
            yield f"blk.{layer}.ffn_gate_inp.weight", (shape.experts, columns)
        for part in ("up", "gate", "down"):
            experts = (shape.experts, 2, columns) if shape.experts else (shape.rows, columns)
            yield f"blk.{layer}.ffn_{part}{'_exps' if shape.experts else ''}.weight", experts


def quantize_with_both(python: str, model: Path, file_type: str, folder: Path) -> str:
    """Quantize with both; one line of findings, AssertionError where types or metadata differ."""
    ours, theirs = folder / "ours.gguf", folder / "theirs.gguf"
    number = FILE_TYPES[file_type].number
    done = subprocess.run([python, "-c", PEER, model, theirs, str(number)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"llama.cpp does not quantize {model.name} to {file_type}: {done.stderr[-500:]}"
    quantize_command(Namespace(source=str(model), to=str(ours), type=file_type, allow_requantize=False))
    (kept, found), (their_kept, expected) = contents(ours), contents(theirs)
    assert kept == their_kept, f"metadata: {kept} here, {their_kept} there"
    assert found.keys() == expected.keys()
    wrong = {name: (kind, expected[name][0]) for name, (kind, _) in found.items() if kind != expected[name][0]}
    assert not wrong, f"{model.name} as {file_type}: types (here, there) {wrong}"
    same, total = Counter[str](), Counter[str]()
    for name, (kind, raw) in found.items():
        total[kind] += raw.size
        same[kind] += int((raw == expected[name][1]).sum())
    return ", ".join(f"{kind} {100 * same[kind] / total[kind]:.3f} %" for kind in total)


def contents(path: Path) -> tuple[dict[str, Any], dict[str, tuple[str, NDArray[np.uint8]]]]:
    """Metadata with their types, and tensors with theirs and their bytes, as the `gguf` package reads them."""
    reader = GGUFReader(path)
    kept = {key: (field.types, field.contents()) for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    found = {tensor.name: (tensor.tensor_type.name, tensor.data.reshape(-1).view(np.uint8).copy()) for tensor in reader.tensors}
    return kept, found


def peer_python() -> str | None:
    """An interpreter that has llama-cpp-python: NANOLLAMA_LLAMACPP, or this one; None if neither has it."""
    return os.environ.get("NANOLLAMA_LLAMACPP") or (sys.executable if find_spec("llama_cpp") else None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--python", default=os.environ.get("NANOLLAMA_LLAMACPP", sys.executable), help="interpreter to use (this)"
    )
    parser.add_argument("--model", type=Path, action="append", help="an F32 file to quantize besides the random ones")
    parser.add_argument("--type", choices=list(FILE_TYPES), action="append", help="only this file type; may be repeated")
    options = parser.parse_args()
    if not options.python:
        parser.error("llama-cpp-python is not installed: install it, or name an interpreter that has it with --python")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = {path: path.name for path in options.model or []}
        for number, (model, shape) in enumerate(MODELS.items()):
            path = folder / f"{number}.gguf"
            names[path] = model
            write_model(path, shape, number)
        for file_type in options.type or FILE_TYPES:
            for path in names:
                with contextlib.redirect_stdout(io.StringIO()):
                    found = quantize_with_both(options.python, path, file_type, folder)
                print(f"{file_type:9} {names[path]:36} types equal; bytes equal: {found}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

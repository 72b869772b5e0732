"""Goldens of the block formats, written by ggml's own C code: golden/quant/blocks.safetensors and recipe.json.

Per format two sets of blocks, and a third for the formats that only ggml can encode. `random`: random bytes.
`written`: ggml's encoding of known `input` values. `awkward`: the same for every kind of `awkward_values` that these formats
can hold. `values`: ggml's decoding. A round trip through one encoder and decoder can't find a layout bug; these can.

`python -m conformance.truth.quant_golden LIBRARY` writes them again, from a library that exports ggml's `dequantize_row_*`
and `quantize_row_*_ref`: ggml-quants.c compiled alone, without fused multiply-add (recipe.json has the command).
"""

import argparse
import ctypes
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from conformance import GOLDEN
from conformance.truth.quant_exact import awkward_values
from nanollama.quant import FORMATS, quantize
from nanollama.quant.formats.format import Format

FOLDER = GOLDEN / "quant"
BLOCKS = 4  # of each set
GOLDEN_FORMATS = tuple(name for name, format in FORMATS.items() if format.block_size > 1)
ONLY_GGML_ENCODES = ("Q4_K", "Q5_K", "Q6_K")
TOO_LARGE = ("huge", "largest", "any scale", "any bits", "at and below powers of two")  # float16 scales overflow


def hashed_bytes(name: str, count: int) -> NDArray[np.uint8]:
    """Bytes that any language re-creates: sha256 of "name/0", "name/1", … in a row, cut to `count`."""
    digests = (hashlib.sha256(f"{name}/{i}".encode()).digest() for i in range(-(-count // 32)))
    return np.frombuffer(b"".join(digests)[:count], dtype=np.uint8).copy()


def bell_values(name: str, count: int) -> NDArray[np.float32]:
    """Roughly normal values, exact in float32: sums of four bytes, centred, in 256ths."""
    four = hashed_bytes(f"{name}/input", 4 * count).reshape(count, 4).astype(np.float32)
    return np.asarray((four.sum(axis=1) - 510) / 256, dtype=np.float32)


class Ggml:
    """ggml's row functions, called by name."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path), mode=os.RTLD_LAZY)

    def call(self, function: str, source: NDArray[np.generic], target: NDArray[np.generic], values: int) -> None:
        pointers = (array.ctypes.data_as(ctypes.c_void_p) for array in (source, target))
        self.library[function](*pointers, ctypes.c_int64(values))

    def decode(self, format: Format, blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
        values = np.empty(blocks.size // format.block_bytes * format.block_size, dtype=np.float32)
        self.call(f"dequantize_row_{row_name(format)}", blocks, values, values.size)
        return values

    def encode(self, format: Format, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        blocks = np.zeros(values.size // format.block_size * format.block_bytes, dtype=np.uint8)
        self.call(f"quantize_row_{row_name(format)}_ref", values, blocks, values.size)
        return blocks


def row_name(format: Format) -> str:
    """The name in ggml's function: q4_K for Q4_K."""
    return format.name.lower().removesuffix("_k") + ("_K" if format.name.endswith("_K") else "")


def make_goldens(ggml: Ggml) -> dict[str, Tensor]:
    tensors: dict[str, NDArray[np.generic]] = {}
    for name in GOLDEN_FORMATS:
        format = FORMATS[name]
        random = hashed_bytes(name, BLOCKS * format.block_bytes)
        source = bell_values(name, BLOCKS * format.block_size)
        written = ggml.encode(format, source)
        tensors |= {f"{name}/random/blocks": random, f"{name}/random/values": ggml.decode(format, random)}
        tensors |= {f"{name}/written/blocks": written, f"{name}/written/values": ggml.decode(format, written)}
        tensors[f"{name}/written/input"] = source
        if name in ONLY_GGML_ENCODES:
            source = awkward_blocks(format)
            tensors |= {f"{name}/awkward/input": source, f"{name}/awkward/blocks": ggml.encode(format, source)}
    return {key: torch.from_numpy(array) for key, array in tensors.items()}


def awkward_blocks(format: Format, count: int = 1) -> NDArray[np.float32]:
    """`count` blocks of each kind, concatenated."""
    kinds = awkward_values(format.block_size, count, np.random.default_rng(format.id))
    return np.concatenate([values.reshape(-1) for kind, values in kinds if kind not in TOO_LARGE])


def load_goldens() -> dict[str, Tensor]:
    return load_file(FOLDER / "blocks.safetensors")


def compare_encoders(ggml: Ggml, count: int) -> int:
    """Encode `count` blocks of each awkward kind with ggml and with ours, and print how many differ."""
    wrong = 0
    for name in ONLY_GGML_ENCODES:
        values = awkward_blocks(FORMATS[name], count)
        theirs = ggml.encode(FORMATS[name], values).reshape(-1, FORMATS[name].block_bytes)
        differ = int((quantize(torch.from_numpy(values), name).numpy().reshape(theirs.shape) != theirs).any(axis=1).sum())
        print(f"{name}: {len(theirs)} blocks encoded, {differ} differ from ggml's")
        wrong += differ
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path, help="shared library with ggml's row functions")
    parser.add_argument(
        "--compare", type=int, metavar="N", help="write nothing: compare N blocks of each kind with the library"
    )
    parser.add_argument("--source", default="unknown", help="where the library comes from: version and build command")
    options = parser.parse_args()
    if options.compare:
        return compare_encoders(Ggml(options.library), options.compare)
    FOLDER.mkdir(parents=True, exist_ok=True)
    tensors = make_goldens(Ggml(options.library))
    save_file(tensors, FOLDER / "blocks.safetensors")
    recipe = {
        "producer": options.source,
        "command": "python -m conformance.truth.quant_golden LIBRARY --source SOURCE",
        "random": "blocks: sha256 of NAME/0, NAME/1, … in a row; values: dequantize_row_*",
        "written": "input: bell_values of the same hash; blocks: quantize_row_*_ref; values: dequantize_row_*",
        "sha256": hashlib.sha256((FOLDER / "blocks.safetensors").read_bytes()).hexdigest(),
        "awkward": "input: awkward_values, made with numpy's PCG64 and stored; blocks: quantize_row_*_ref",
        "formats": GOLDEN_FORMATS,
    }
    (FOLDER / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n")
    print(f"{len(tensors)} tensors of {len(GOLDEN_FORMATS)} formats written to {FOLDER}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

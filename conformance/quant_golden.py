"""Goldens of the block formats, written by ggml's own C code: golden/quant/blocks.safetensors and recipe.json.

Per format two sets of blocks. `random`: bytes that nobody encoded. `written`: what ggml's encoder makes of known `input` values
(for most K formats the only encoder there is). `values` is what ggml's decoder reads in them. A round trip through one's own
encoder can't see a layout bug; these can.

`python -m conformance.quant_golden LIBRARY` writes them again, from a shared library that exports ggml's `dequantize_row_*` and
`quantize_row_*_ref`: libggml-base.so of a llama.cpp build, or ggml-quants.c compiled alone.
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

from nanollama.quant import FORMATS
from nanollama.quant.format import Format

FOLDER = Path(__file__).parents[1] / "golden" / "quant"
BLOCKS = 4  # of each set
GOLDEN_FORMATS = tuple(name for name, format in FORMATS.items() if format.block_size > 1)


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
    """Q4_K's functions are called …_q4_K."""
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
    return {key: torch.from_numpy(array) for key, array in tensors.items()}


def load_goldens() -> dict[str, Tensor]:
    return load_file(FOLDER / "blocks.safetensors")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path, help="shared library with ggml's row functions")
    parser.add_argument("--source", required=True, help="where the library comes from: version and build command")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    tensors = make_goldens(Ggml(options.library))
    save_file(tensors, FOLDER / "blocks.safetensors")
    recipe = {
        "producer": options.source,
        "command": "python -m conformance.quant_golden LIBRARY --source SOURCE",
        "random": "blocks: sha256 of NAME/0, NAME/1, … in a row; values: dequantize_row_*",
        "written": "input: bell_values of the same hash; blocks: quantize_row_*_ref; values: dequantize_row_*",
        "sha256": hashlib.sha256((FOLDER / "blocks.safetensors").read_bytes()).hexdigest(),
        "formats": GOLDEN_FORMATS,
    }
    (FOLDER / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n")
    print(f"{len(tensors)} tensors of {len(GOLDEN_FORMATS)} formats written to {FOLDER}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

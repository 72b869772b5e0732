"""Exactness of the block formats: decoding random bytes and encoding awkward numbers, bit by bit against package `gguf`.

`python -m conformance.truth.quant_exact --blocks 1000000` is the full run, `test_quant_exact.py` a small one. Where the package
has no decoder (F64, integers, Q8_K) numpy reads the same struct. Two values are equal if their bits are. Two NaNs are equal, as
ggml, numpy and torch widen the payload of a float16 NaN differently, and no arithmetic depends on it.
"""

import argparse
import time
from collections.abc import Iterator
from importlib.metadata import version

import gguf
import numpy as np
import torch
from numpy.typing import NDArray

from nanollama.quant import FORMATS, dequantize
from nanollama.quant.formats.format import Format

Array = NDArray[np.generic]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

NUMPY_DTYPES = {"F64": "<f8", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}
Q8_K = np.dtype([("d", "<f4"), ("qs", "i1", 256), ("bsums", "<i2", 16)])
PEER_ENCODES = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4", "TQ1_0", "TQ2_0")
CHUNK = 4096  # blocks compared at a time: 4 MiB of float32 for a format of 256


def peer_type(name: str) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType[name]


def peer_decode(name: str, blocks: Bytes) -> Array:
    """The peer's values of blocks [N, block_bytes]: [N, block_size] in float32; in the stored dtype for F64 and integers."""
    with np.errstate(all="ignore"):
        if name in NUMPY_DTYPES:
            return blocks.view(NUMPY_DTYPES[name])
        if name == "Q8_K":
            block = blocks.reshape(-1).view(Q8_K)
            return np.multiply(block["d"][:, None], block["qs"].astype(np.float32))
        return gguf.quants.dequantize(blocks.reshape(1, -1), peer_type(name)).reshape(len(blocks), -1)


def peer_encode(name: str, values: Floats) -> Bytes:
    """The peer's bytes for values [N, block_size]: [N, block_bytes]."""
    with np.errstate(all="ignore"):
        return gguf.quants.quantize(values, peer_type(name)).view(np.uint8).reshape(len(values), -1)


def encode_differences(format: Format, values: Floats) -> int:
    """How many blocks differ in any byte.

    Among zeros of both signs, the sign of numpy's minimum and maximum depends on its vector lanes; ours is the first
    zero's, as in ggml's C. It changes no decoded value: for Q4_1 and Q5_1 the numbers d = -0 and m = -0 count as 0.
    """
    ours, theirs = our_encode(format, values), peer_encode(format.name, values)
    if format.name in ("Q4_1", "Q5_1"):
        ours, theirs = without_negative_zeros(ours), without_negative_zeros(theirs)
    return int((ours != theirs).any(axis=1).sum())


def without_negative_zeros(blocks: Bytes) -> Bytes:
    """Blocks whose first two float16 numbers are 0 where they are -0."""
    scales = blocks[:, :4].copy().view("<u2")
    return np.concatenate([np.where(scales == 0x8000, np.uint16(0), scales).view(np.uint8), blocks[:, 4:]], axis=1)


def our_decode(format: Format, blocks: Bytes) -> Array:
    """The runtime's values, by `dequantize`, in the dtype of the peer's."""
    dtype = torch.float64 if format.plain is torch.float64 else torch.float32
    return dequantize(torch.from_numpy(blocks), format, (len(blocks), format.block_size), dtype).numpy()


def our_encode(format: Format, values: Floats) -> Bytes:
    """The runtime's bytes, without the refusals of `quantize`, which the peer doesn't have."""
    return format.encode(torch.from_numpy(values)).numpy()


def differing(ours: Array, theirs: Array) -> int:
    """How many values differ in any bit; two NaNs are equal (see above)."""
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        raise ValueError(f"ours are {ours.dtype} {ours.shape}, theirs {theirs.dtype} {theirs.shape}: nothing to compare")
    bits = np.dtype(f"u{ours.itemsize}")
    same = np.ascontiguousarray(ours).view(bits) == np.ascontiguousarray(theirs).view(bits)
    return int((~same & ~(np.isnan(ours) & np.isnan(theirs))).sum())


def random_blocks(format: Format, count: int, random: np.random.Generator) -> Bytes:
    """Any bytes. One float16 scale in 32 is infinite or NaN, one in 32 subnormal or zero."""
    return random.integers(0, 256, (count, format.block_bytes), dtype=np.uint8)


def decode_differences(format: Format, blocks: Bytes) -> int:
    ours, theirs = our_decode(format, blocks), peer_decode(format.name, blocks)
    with np.errstate(over="ignore", invalid="ignore"):
        return differing(ours, theirs.astype(ours.dtype))


def awkward_values(size: int, count: int, random: np.random.Generator) -> Iterator[tuple[str, Floats]]:
    """Name and blocks [count, size] float32 of every kind of values that encoders get wrong."""
    normal = random.standard_normal((count, size))
    powers = 2.0 ** random.integers(-126, 127, (count, 1))
    kinds = {
        "normal": normal,
        "uniform": random.random((count, size)),
        "heavy tails": normal**5,
        "constant": np.repeat(normal[:, :1], size, axis=1),
        "zero": np.zeros((count, size)),
        "zeros of both signs": np.where(normal < 0, -0.0, 0.0),
        "one spike": np.where(np.arange(size) == random.integers(0, size, (count, 1)), normal, 0),
        "equal magnitudes": np.sign(normal) * np.abs(normal[:, :1]),
        "ties": random.integers(-16, 17, (count, size)) / 2,
        "ties of a 7 bit grid": np.where(np.arange(size) == 5, 127.0, random.integers(-253, 254, (count, size)) / 2),
        "positive": np.abs(normal) + 3,
        "negative": -np.abs(normal) - 3,
        "at and below powers of two": powers * (1 - random.integers(0, 70, (count, size)) * 2.0**-24),
        "any scale": normal * powers / 8,
        "huge": normal * 1e37,
        "largest": np.sign(normal) * np.finfo(np.float32).max,
        "tiny": normal * 1e-30,
        "float16 subnormal scales": normal * 1e-6,
        "float32 subnormal": normal * 1e-40,
        "one unit of the last place": np.sign(normal) * 2.0**-149,
        "any bits": np.nan_to_num(
            random.integers(0, 2**32, (count, size), dtype=np.uint32).view(np.float32), posinf=0, neginf=0
        ),
    }
    with np.errstate(over="ignore", under="ignore"):
        for name, values in kinds.items():
            yield name, np.clip(values, -3.4028234e38, 3.4028234e38).astype(np.float32)


def check_format(format: Format, blocks: int, seed: int) -> bool:
    """Compare one format in chunks and print one line; returns whether all is equal."""
    random, started, wrong, encoded = np.random.default_rng([seed, format.id]), time.perf_counter(), 0, 0
    decoded = 0
    while decoded < blocks:
        chunk = random_blocks(format, min(CHUNK, blocks - decoded), random)
        wrong, decoded = wrong + decode_differences(format, chunk), decoded + len(chunk)
    line = f"{format.name:7} decode: {decoded} blocks, {wrong} values differ"
    while format.name in PEER_ENCODES and encoded < blocks:
        for _, values in awkward_values(max(format.block_size, 32), CHUNK, random):
            numbers = values.reshape(-1, format.block_size)
            wrong, encoded = wrong + encode_differences(format, numbers), encoded + len(numbers)
    line += f"; encode: {encoded} blocks" if encoded else ""
    print(f"{line}; {'EXACT' if not wrong else 'DIFFERS'} ({time.perf_counter() - started:.0f} s)", flush=True)
    return not wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=100_000, help="random blocks per format (default 100000)")
    parser.add_argument("--format", choices=list(FORMATS), action="append", help="only this format; may be repeated")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.blocks < 1:
        parser.error(f"--blocks {options.blocks} would compare nothing; expected 1 or more")
    torch.set_num_threads(1)
    print(f"gguf {version('gguf')}, torch {torch.__version__}, numpy {np.__version__}, seed {options.seed}")
    exact = [check_format(FORMATS[name], options.blocks, options.seed) for name in options.format or FORMATS]
    return 0 if exact and all(exact) else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""Block formats bit by bit: against package `gguf` on random bytes and awkward values, and against ggml's stored goldens."""

import gguf
import numpy as np
import pytest
import torch

from conformance.truth.quant_exact import (
    PEER_ENCODES,
    awkward_values,
    decode_differences,
    differing,
    encode_differences,
    peer_decode,
    random_blocks,
)
from conformance.truth.quant_golden import BLOCKS, GOLDEN_FORMATS, ONLY_GGML_ENCODES, bell_values, hashed_bytes, load_goldens
from nanollama.quant import FORMATS, dequantize, quantize

BLOCK_FORMATS = [name for name, format in FORMATS.items() if format.block_size > 1]


@pytest.mark.parametrize("name", FORMATS)
def test_numbers_and_sizes_are_those_of_the_peer(name: str) -> None:
    format, peer = FORMATS[name], gguf.GGMLQuantizationType[name]
    sizes = (format.block_size, format.block_bytes)
    assert format.id == peer
    assert sizes == ((256, 4 + 256 + 32) if name == "Q8_K" else gguf.GGML_QUANT_SIZES[peer])


@pytest.mark.parametrize("name", FORMATS)
def test_decoding_random_bytes_equals_the_peer_in_every_bit(name: str) -> None:
    format = FORMATS[name]
    blocks = random_blocks(format, 2000, np.random.default_rng(format.id))
    assert decode_differences(format, blocks) == 0


@pytest.mark.parametrize("name", [name for name in BLOCK_FORMATS if "d" in FORMATS[name].layout and name != "Q8_K"])
@pytest.mark.parametrize("scale", [0x0000, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0x7C00, 0xFC00, 0x7C01, 0xFE00])
def test_zero_subnormal_largest_infinite_and_nan_scales_equal_the_peer(name: str, scale: int) -> None:
    format = FORMATS[name]
    blocks = random_blocks(format, 20, np.random.default_rng(scale))
    for field in ("d", "dmin", "m"):
        if field in format.layout:
            before = list(format.layout).index(field)
            start = sum(each.size for each in list(format.layout.values())[:before])
            blocks[:, start : start + 2] = (scale & 255, scale >> 8)
    assert decode_differences(format, blocks) == 0


@pytest.mark.parametrize("name", PEER_ENCODES)
def test_encoding_awkward_values_equals_the_peer_in_every_byte(name: str) -> None:
    format = FORMATS[name]
    for kind, values in awkward_values(max(format.block_size, 32), 100, np.random.default_rng(format.id)):
        assert encode_differences(format, values.reshape(-1, format.block_size)) == 0, kind


def test_we_encode_what_the_peer_encodes_and_three_k_formats() -> None:
    ours = {name for name, format in FORMATS.items() if format.to_fields}
    assert ours == {*PEER_ENCODES, *ONLY_GGML_ENCODES, "F64"}


@pytest.mark.parametrize("name", GOLDEN_FORMATS)
@pytest.mark.parametrize("kind", ["random", "written"])
def test_stored_blocks_decode_to_what_ggml_read(name: str, kind: str) -> None:
    goldens = load_goldens()
    values = goldens[f"{name}/{kind}/values"]
    ours = dequantize(goldens[f"{name}/{kind}/blocks"], name, values.shape)
    assert len(values) == BLOCKS * FORMATS[name].block_size
    assert differing(ours.numpy(), values.numpy()) == 0


@pytest.mark.parametrize("name", [name for name in GOLDEN_FORMATS if FORMATS[name].to_fields])
def test_stored_values_encode_to_what_ggml_wrote(name: str) -> None:
    goldens = load_goldens()
    ours = quantize(goldens[f"{name}/written/input"], name)
    assert torch.equal(ours, goldens[f"{name}/written/blocks"])


@pytest.mark.parametrize("name", ONLY_GGML_ENCODES)
def test_awkward_values_encode_to_what_ggml_wrote(name: str) -> None:
    goldens, format = load_goldens(), FORMATS[name]
    ours = quantize(goldens[f"{name}/awkward/input"], name).reshape(-1, format.block_bytes)
    assert torch.equal(ours, goldens[f"{name}/awkward/blocks"].reshape(-1, format.block_bytes))
    assert len(ours) > 10


@pytest.mark.parametrize("name", GOLDEN_FORMATS)
def test_stored_inputs_are_the_ones_that_their_recipe_defines(name: str) -> None:
    goldens, format = load_goldens(), FORMATS[name]
    assert np.array_equal(goldens[f"{name}/random/blocks"].numpy(), hashed_bytes(name, BLOCKS * format.block_bytes))
    assert np.array_equal(goldens[f"{name}/written/input"].numpy(), bell_values(name, BLOCKS * format.block_size))


@pytest.mark.parametrize("name", [name for name in GOLDEN_FORMATS if name != "Q8_K"])
def test_the_peer_reads_the_stored_blocks_as_ggml_did(name: str) -> None:
    goldens, format = load_goldens(), FORMATS[name]
    for kind in ("random", "written"):
        blocks = goldens[f"{name}/{kind}/blocks"].numpy().reshape(-1, format.block_bytes)
        assert differing(peer_decode(name, blocks).reshape(-1), goldens[f"{name}/{kind}/values"].numpy()) == 0


def test_the_comparison_sees_a_sign_a_bit_and_a_shape() -> None:
    one = np.array([1.0, np.nan, 0.0], dtype=np.float32)
    assert differing(one, one) == 0
    assert differing(one, np.array([1.0, np.nan, -0.0], dtype=np.float32)) == 1
    assert differing(one, np.array([1.0000001, 2.0, 0.0], dtype=np.float32)) == 2
    with pytest.raises(ValueError, match="nothing to compare"):
        differing(one, one[:2])

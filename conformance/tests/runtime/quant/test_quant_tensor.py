"""Whole quantized tensors: tiles, rows, dtypes, and what is refused."""

import pytest
import torch
from torch import Tensor

from nanollama.errors import NanollamaError
from nanollama.quant import FORMATS, decode_rows, dequantize, find_format, format_of_type, quantize, tensor_rows
from nanollama.quant.formats import tensor as quant_tensor


def random_bytes(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.nan_to_num(nan=12345.0), b.nan_to_num(nan=12345.0))


@pytest.mark.parametrize("name", FORMATS)
def test_tiles_rows_and_addresses_make_no_difference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    format = FORMATS[name]
    shape = (3, 4, 2 * format.block_size)
    data = random_bytes(24 * format.block_bytes + 1)[1:]
    whole = dequantize(data, format, shape)
    rows = tensor_rows(data, format, shape)
    assert whole.dtype is torch.float32
    assert same_bits(decode_rows(rows[torch.tensor([7, 0])], format), whole.reshape(12, -1)[[7, 0]])
    assert same_bits(decode_rows(rows[2:5], name.lower()), whole.reshape(12, -1)[2:5])
    assert same_bits(dequantize(data.reshape(2, -1).T.contiguous().T, format, shape), whole)
    monkeypatch.setattr(quant_tensor, "TILE", 5 * format.block_size)
    assert same_bits(dequantize(data, format, shape), whole)


@pytest.mark.parametrize("name", [name for name, format in FORMATS.items() if format.block_size > 1])
def test_float64_is_float32_widened(name: str) -> None:
    data = random_bytes(8 * FORMATS[name].block_bytes)
    shape = (2, 4 * FORMATS[name].block_size)
    assert same_bits(dequantize(data, name, shape, torch.float64), dequantize(data, name, shape).double())


def test_a_tile_is_bounded_and_covers_everything() -> None:
    assert quant_tensor.TILE <= 1 << 20
    tiles = list(quant_tensor.tiles(2500, 256))
    assert sum(len(range(2500)[tile]) for tile in tiles) == 2500
    assert all(len(range(2500)[tile]) * 256 <= quant_tensor.TILE for tile in tiles)


def test_empty_tensors_and_scalars_have_their_shape() -> None:
    none = torch.empty(0, dtype=torch.uint8)
    assert dequantize(none, "Q4_0", (0, 32)).shape == (0, 32)
    assert dequantize(none, "Q4_0", (5, 0)).shape == (5, 0)
    assert tensor_rows(none, "Q4_0", (0, 64)).shape == (0, 36)
    assert dequantize(torch.tensor([0, 0, 128, 63], dtype=torch.uint8), "F32", ()).item() == 1.0
    assert quantize(torch.tensor(1.0), "F32").tolist() == [0, 0, 128, 63]
    assert quantize(torch.empty(0, 32), "Q4_0").shape == (0, 18)


def test_values_that_lie_on_the_levels_survive_a_round_trip() -> None:
    values = torch.arange(-16, 16).repeat(8).float().reshape(1, 256)
    for name in ("F64", "F32", "F16", "BF16", "Q5_0", "Q5_1"):
        assert torch.equal(dequantize(quantize(values, name), name, values.shape), values), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_any_dtype_are_quantized_as_their_float32_values(dtype: torch.dtype) -> None:
    values = torch.randn(4, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert torch.equal(quantize(values, "q4_0"), quantize(values.float(), "Q4_0"))
    assert quantize(values, "Q4_0").shape == (4, 2 * 18)


def test_float64_is_written_without_loss() -> None:
    values = torch.tensor([0.1, 1e300], dtype=torch.float64)
    assert torch.equal(dequantize(quantize(values, "F64"), "F64", (2,), torch.float64), values)


@pytest.mark.parametrize(
    ("data", "name", "shape", "message"),
    [
        (torch.zeros(17, dtype=torch.uint8), "Q4_0", (32,), "17 bytes .* expected 18 bytes"),
        (torch.zeros(19, dtype=torch.uint8), "Q4_0", (32,), "19 bytes .* expected 18 bytes"),
        (torch.zeros(18, dtype=torch.uint8), "Q4_0", (2, 16), "row of 16 values .* multiple of 32"),
        (torch.zeros(18, dtype=torch.uint8), "Q4_0", (), "row of 1 values"),
        (torch.zeros(18, dtype=torch.uint8), "Q4_0", (-1, -32), "negative length"),
        (torch.zeros(18, dtype=torch.uint8), "Q4_0", (2**40, 2**40), "expected 6800\\d+ bytes"),
        (torch.zeros(18, dtype=torch.int8), "Q4_0", (32,), "torch.int8; expected bytes"),
        (torch.zeros(18, dtype=torch.uint8), "Q4_9", (32,), "no quantization format 'Q4_9'; did you mean .*There are F32"),
    ],
)
def test_bytes_that_do_not_fit_their_shape_are_refused(data: Tensor, name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(NanollamaError, match=message):
        dequantize(data, name, shape)


def test_weights_are_not_decoded_to_integers() -> None:
    with pytest.raises(NanollamaError, match=r"can't be torch\.int32"):
        dequantize(torch.zeros(18, dtype=torch.uint8), "Q4_0", (32,), torch.int32)
    with pytest.raises(NanollamaError, match=r"not rows of Q4_0; expected uint8"):
        decode_rows(torch.zeros(2, 17, dtype=torch.uint8), "Q4_0")


@pytest.mark.parametrize(
    ("values", "name", "message"),
    [
        (torch.zeros(2, 33), "Q8_0", "row of 33 values"),
        (torch.zeros(256), "Q3_K", "writing Q3_K is not implemented.*Q8_0"),
        (torch.zeros(4), "I32", "writing I32 is not implemented"),
        (torch.tensor([float("nan")] * 32), "Q8_0", "infinite or NaN"),
        (torch.tensor([float("inf")] * 32), "MXFP4", "infinite or NaN"),
        (torch.full((32,), 1e30), "Q8_0", "1e\\+30 does not fit Q8_0: its d would be infinite"),
        (torch.full((256,), 1e9), "Q6_K", "1e\\+09 does not fit Q6_K"),
        (torch.full((256,), 1e20), "Q6_K", "1e\\+20 does not fit Q6_K"),
        (torch.full((256,), 3e38), "Q4_K", "3e\\+38 does not fit Q4_K"),
        (torch.full((256,), -1e12), "Q5_K", "1e\\+12 does not fit Q5_K: its dmin"),
        (torch.tensor([70000.0]), "F16", "70000 does not fit F16"),
    ],
)
def test_what_can_not_be_written_is_refused(values: Tensor, name: str, message: str) -> None:
    with pytest.raises(NanollamaError, match=message):
        quantize(values, name)


def test_types_are_found_by_number_and_unread_ones_are_named() -> None:
    assert format_of_type(12) is find_format("q4_k") is FORMATS["Q4_K"]
    with pytest.raises(NanollamaError, match="ggml type 16, which is IQ2_XXS, can't be read"):
        format_of_type(16)
    with pytest.raises(NanollamaError, match="ggml type 99 can't be read"):
        format_of_type(99)

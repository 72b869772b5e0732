"""Tensors of blocks: sizes, rows, tiles, refusals; matrices that stay quantized and the modules that hold them."""

# mypy: disable-error-code="assignment,misc"
# tables mix good and bad arguments

import itertools
import math
import struct
from typing import Any

import torch
from torch import Tensor, nn

from conformance.checks import check
from conformance.checks.assertions import expect, expect_close, expect_equal, expect_equal_tensor, expect_refused
from nanollama.kernels import linear as kernels
from nanollama.model import layers
from nanollama.quant import modules as linear
from nanollama.quant import quant_tensor as stored
from nanollama.quant.formats import table, tensor

Q4_0, Q8_0 = table.FORMATS["Q4_0"], table.FORMATS["Q8_0"]


def numbers(*shape: int) -> Tensor:
    """Numbers that Q8_0 stores exactly: multiples of 1/8 up to 127/8."""
    count = math.prod(shape)
    whole = torch.tensor([(i * 37 % 255) - 127 for i in range(count)], dtype=torch.float32)
    whole[::32] = 127
    return (whole / 8).reshape(shape)


def q8_0(values: Tensor) -> Tensor:
    """Bytes of Q8_0 with the scale 1/8, made without the runtime: [rows, bytes per row]."""
    codes = (values * 8).to(torch.int8).reshape(-1, 32).view(torch.uint8)
    scale = torch.tensor([0.125], dtype=torch.float16).view(torch.uint8).expand(len(codes), 2)
    return torch.cat([scale, codes], dim=1).reshape(len(values.reshape(-1, values.shape[-1])), -1)


@check("QUNT-030", "ERRS-007", area="quantization")
def rows_are_whole_blocks() -> None:
    for columns, size in ((0, 0), (32, 18), (96, 54)):
        expect_equal("quant.formats.tensor.row_bytes", tensor.row_bytes(Q4_0, columns), size, f"bytes of {columns} values")
    for columns in (1, 33, -32):
        expect_refused(
            "quant.formats.tensor.row_bytes",
            lambda columns=columns: tensor.row_bytes(Q4_0, columns),
            "Q4_0",
            f"{columns} columns",
        )
    place, data = "quant.formats.tensor.tensor_rows", torch.arange(108, dtype=torch.uint8)
    for shape, wanted in (((2, 96), (2, 54)), ((2, 3, 32), (6, 18)), ((192,), (1, 108))):
        got = tensor.tensor_rows(data, "Q4_0", shape)
        expect_equal_tensor(place, got, data.reshape(wanted), f"rows of shape {shape}")
        expect(place, got.data_ptr() == data.data_ptr(), "the rows are a copy")
    expect_equal(
        place, tuple(tensor.tensor_rows(torch.zeros(4, dtype=torch.uint8), "F32", ()).shape), (1, 4), "the row of one number"
    )
    for shape, part in (((3, 96), "108 bytes"), ((2, 95), "95"), ((-2, -96), "negative"), ((-2, 96), "negative")):
        expect_refused(place, lambda shape=shape: tensor.tensor_rows(data, "Q4_0", shape), part, f"shape {shape}")
    expect_refused(
        place, lambda: tensor.tensor_rows(data.float(), "Q4_0", (2, 96)), "torch.float32", "numbers that are no bytes"
    )


@check("QUNT-031", area="quantization")
def tiles_cover_every_block_once() -> None:
    place = "quant.formats.tensor.tiles"
    for blocks, size in ((0, 32), (1, 32), (8192, 32), (8193, 32), (3, 1 << 19), (20, 65536), (7, 0)):
        covered = [i for tile in tensor.tiles(blocks, size) for i in range(tile.start, min(tile.stop, blocks))]
        expect_equal(place, covered, list(range(blocks)), f"tiles of {blocks} blocks of {size}")
        lengths = [tile.stop - tile.start for tile in tensor.tiles(blocks, size)]
        most = max(1, (1 << 18) // max(1, size))
        expect(place, all(length <= most for length in lengths), f"tiles of {blocks} blocks of {size} hold {lengths}")
    expect_equal(place, max(tile.stop - tile.start for tile in tensor.tiles(20, 65536)), 4, "rows in a tile of wide rows")
    huge = [(tile.start, tile.stop) for tile in tensor.tiles(2, 1 << 20)]
    expect_equal(place, huge, [(0, 1), (1, 2)], "tiles of rows that are larger than a tile")


@check("QUNT-031", "QUNT-032", area="quantization")
def tensors_decode_to_their_shape_and_dtype() -> None:
    values = numbers(3, 64)
    raw = q8_0(values)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        expect_equal_tensor(
            "quant.formats.tensor.decode_rows", tensor.decode_rows(raw, Q8_0, dtype), values.to(dtype), f"rows as {dtype}"
        )
        got = tensor.dequantize(raw, "q8_0", (3, 2, 32), dtype)
        expect_equal_tensor("quant.formats.tensor.dequantize", got, values.reshape(3, 2, 32).to(dtype), f"a tensor as {dtype}")
    large = numbers(9000, 32)  # more than one tile
    expect_equal_tensor(
        "quant.formats.tensor.dequantize", tensor.dequantize(q8_0(large), Q8_0, (9000, 32)), large, "a tensor of several tiles"
    )
    exact = torch.tensor([[1 + 2.0**-40, 2.0**60 + 2**10]], dtype=torch.float64)
    got = tensor.dequantize(exact.view(torch.uint8), "F64", (1, 2), torch.float64)
    expect_equal_tensor("quant.formats.tensor.dequantize", got, exact, "float64 numbers")
    for bad in (raw.float(), raw[0], raw[:, :-1], raw[None]):
        expect_refused(
            "quant.formats.tensor.decode_rows", lambda bad=bad: tensor.decode_rows(bad, Q8_0), "not rows of Q8_0", "no rows"
        )
    expect_refused(
        "quant.formats.tensor.floating", lambda: tensor.decode_rows(raw, Q8_0, torch.int32), "torch.int32", "an integer dtype"
    )
    expect_refused(
        "quant.formats.tensor.floating",
        lambda: tensor.dequantize(raw, Q8_0, (3, 64), torch.int8),
        "torch.int8",
        "an integer dtype",
    )


@check("QUNT-033", "ERRS-007", area="quantization")
def tensors_are_quantized_row_by_row_and_only_if_they_fit() -> None:
    place, values = "quant.formats.tensor.quantize", numbers(2, 3, 64)
    expect_equal_tensor(place, tensor.quantize(values, "q8_0"), q8_0(values).reshape(2, 3, 68), "three dimensions as Q8_0")
    large = numbers(9000, 32)
    expect_equal_tensor(place, tensor.quantize(large.double(), Q8_0), q8_0(large), "several tiles")
    one = torch.tensor(1.5, dtype=torch.float64)
    expect_equal_tensor(place, tensor.quantize(one, "F64"), one.reshape(1).view(torch.uint8), "one number as F64")
    precise = torch.tensor([1 + 2.0**-40], dtype=torch.float64)
    expect_equal_tensor(place, tensor.quantize(precise, "F64"), precise.view(torch.uint8), "a float64 that is no float32")
    bf16 = torch.tensor([1.00390625, 1.01171875, -3.0])  # the first two are half way: to even
    expect_equal(place, tensor.quantize(bf16, "BF16").view(torch.bfloat16).tolist(), [1.0, 1.015625, -3.0], "rounded to BF16")
    expect_refused(place, lambda: tensor.quantize(numbers(1, 256), "Q2_K"), "only reading", "a format that is only read")
    expect_refused(
        "quant.formats.tensor.row_bytes", lambda: tensor.quantize(numbers(1, 32)[:, :31], "Q4_0"), "31", "31 columns"
    )
    for bad in (math.nan, math.inf):
        wrong = numbers(2, 32)
        wrong[1, 5] = bad
        expect_refused(
            "quant.formats.tensor.check_finite", lambda wrong=wrong: tensor.quantize(wrong, "Q4_0"), "infinite or NaN", f"{bad}"
        )
    expect_refused(
        "quant.formats.tensor.check_finite",
        lambda: tensor.quantize(torch.tensor([[1e7] + [0.0] * 63]), "Q4_0"),
        "its d",
        "1e7 as Q4_0",
    )
    expect_refused(
        "quant.formats.tensor.check_finite", lambda: tensor.quantize(torch.full((1, 32), 1e5), "F16"), "F16", "1e5 as F16"
    )


@check("QUNT-034", area="quantization")
def a_quantized_matrix_is_its_rows_in_order() -> None:
    place, values = "quant.quant_tensor.QuantTensor", numbers(5, 64)
    order = torch.tensor([3, 0, 4, 1, 2])
    plain, turned = stored.QuantTensor(q8_0(values), Q8_0), stored.QuantTensor(q8_0(values), Q8_0, order)
    facts = plain.shape, plain.ndim, plain.dtype, plain.device.type, plain.nbytes
    expect_equal(place, facts, (torch.Size([5, 64]), 2, torch.float32, "cpu", 5 * 68), "facts of a matrix")
    expect_equal(
        place,
        stored.QuantTensor(torch.zeros(2, 16, dtype=torch.uint8), table.FORMATS["F64"]).dtype,
        torch.float64,
        "dtype of F64",
    )
    for matrix, wanted in ((plain, values), (turned, values[order])):
        expect_equal_tensor(place, matrix.dequantize(), wanted, "decoded")
        expect_equal_tensor(place, matrix.dequantize(torch.float64), wanted.double(), "decoded to float64")
        for rows in (slice(1, 4), torch.tensor([4, 0, 0])):
            expect_equal_tensor(place, matrix.pick(rows).dequantize(), wanted[rows], f"the rows {rows}")
        expect(place, matrix.to(torch.device("cpu")) is matrix, "moved to where it is, it is another")
    expect(place, plain.pick(slice(1, 3)).rows.data_ptr() == plain.rows[1:].data_ptr(), "a slice of rows is a copy")
    large = numbers(9000, 32)  # more than one tile
    expect_equal_tensor(place, stored.QuantTensor(q8_0(large), Q8_0).dequantize(), large, "a matrix of several tiles, decoded")
    for matrix in (plain, turned):
        moved = matrix.to(torch.device("meta"))
        facts = (
            moved.device.type,
            moved.format is Q8_0,
            moved.order is None or moved.order.device.type == "meta",
            (moved.order is None) == (matrix.order is None),
        )
        expect_equal(place, facts, ("meta", True, True, True), "a matrix on another device")
    raw = q8_0(values)
    for bad in (raw.float(), raw[0], raw[:, :-1]):
        expect_refused(place, lambda bad=bad: stored.QuantTensor(bad, Q8_0), "not rows of Q8_0", "no rows")
    for bad in (order.int(), order[:4], order[None]):
        expect_refused(place, lambda bad=bad: stored.QuantTensor(raw, Q8_0, bad), "order", "an order of another kind")


@check("QUNT-035", area="quantization")
def a_quantized_product_is_that_of_the_decoded_matrix() -> None:
    values, x = numbers(6, 64), torch.linspace(-1, 1, 3 * 64).reshape(3, 64)
    order = torch.tensor([5, 3, 1, 0, 2, 4])
    bias = torch.arange(6.0)
    for dtype, turn, some in itertools.product((torch.float64, torch.float32), (None, order), (None, bias)):
        matrix = stored.QuantTensor(q8_0(values), Q8_0, turn)
        exact = values.double() if turn is None else values[order].double()
        wanted = x.double() @ exact.T + (0 if some is None else some.double())
        given = None if some is None else some.to(dtype)
        bar = 1e-12 if dtype is torch.float64 else 1e-5
        for rows in (x, x[:1], x[None]):
            want = wanted[: len(rows)] if rows.ndim == 2 else wanted[None]
            got = kernels.quantized_linear(rows.to(dtype), matrix.rows, Q8_0, turn, given)
            expect("kernels.linear.quantized_linear", got.dtype == dtype, f"{dtype} became {got.dtype}")
            expect_close("kernels.linear.quantized_linear", got, want, bar, f"a product in {dtype}")
            module = linear.QuantLinear(matrix, None if given is None else nn.Parameter(given))
            expect_close("quant.modules.QuantLinear", module(rows.to(dtype)), want, bar, f"a module's product in {dtype}")
    odd = torch.tensor([[*b"\x31\x2e", *range(32)]], dtype=torch.uint8)  # the scale 0.0968 times 0 to 31
    got = kernels.quantized_linear(torch.eye(32, dtype=torch.float64), odd, Q8_0)
    wanted = torch.tensor([struct.unpack("<e", b"\x31\x2e")[0] * i for i in range(32)], dtype=torch.float64)
    expect_close("kernels.linear.decoded_linear", got[:, 0], wanted, 1e-7, "numbers that no half precision holds")
    expect_equal("quant.modules.QuantLinear", list(linear.QuantLinear(matrix).state_dict()), [], "state")
    table_ = linear.QuantEmbedding(stored.QuantTensor(q8_0(values), Q8_0, order), torch.float64)
    got = table_(torch.tensor([[5, 0], [0, 3]]))
    expect_equal_tensor(
        "quant.modules.QuantEmbedding", got, values[order].double()[torch.tensor([[5, 0], [0, 3]])], "looked up rows"
    )


class Small(nn.Module):
    """A model with every kind of module for `use_quantized`."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(4, 32)
        self.embed_positions = nn.Embedding(3, 32)
        self.inner = nn.Sequential(layers.Linear(32, 2, bias=True), nn.LayerNorm(2))
        self.lm_head = layers.Linear(32, 4, bias=False)


@check("QUNT-036", "WGHT-005", area="quantization")
def modules_are_swapped_for_quantized_ones_by_name() -> None:
    place, model = "quant.modules.use_quantized", Small().eval()
    shared, other = stored.QuantTensor(q8_0(numbers(4, 32)), Q8_0), stored.QuantTensor(q8_0(numbers(2, 32)), Q8_0)
    bias: Any = model.inner[0].bias
    linear.use_quantized(
        model, {"embed_tokens.weight": shared, "lm_head.weight": shared, "inner.0.weight": other}, torch.float64
    )
    kinds = [type(m).__name__ for m in (model.embed_tokens, model.lm_head, model.inner[0])]
    expect_equal(place, kinds, ["QuantEmbedding", "QuantLinear", "QuantLinear"], "the modules")
    head: Any = model.lm_head
    table_: Any = model.embed_tokens
    first: Any = model.inner[0]
    expect(place, first.bias is bias and head.bias is None, "a bias is lost or changed")
    expect(place, head.rows.data_ptr() == table_.rows.data_ptr() == shared.rows.data_ptr(), "a tied head has bytes of its own")
    expect(place, not head.training, "the new module is in training mode")
    expect_equal(place, table_(torch.tensor([1])).dtype, torch.float64, "the dtype that an embedding gives")
    for name, weight in (
        ("inner.1.weight", other),
        ("nothing.weight", other),
        ("inner.0.bias", other),
        ("inner.0.weight", shared),
    ):
        expect_refused(
            "quant.modules.find_matrix", lambda n=name, w=weight: linear.use_quantized(model, {n: w}, torch.float32), name, name
        )

"""Weights that stay quantized in memory: stored rows, the modules that compute with them, and models made of these."""

import copy
import pickle
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from conformance.models.fixtures import FIXTURES, fixture_config, near_prompt, write_fixture
from nanollama.errors import NanollamaError
from nanollama.kernels import linear as kernels
from nanollama.lm import load_model
from nanollama.quant import FORMATS, QuantTensor, decode_rows
from nanollama.quant import quant_tensor as stored
from nanollama.quant.formats import tensor
from nanollama.quant.modules import QuantEmbedding, QuantLinear, use_quantized

Q8_0 = FORMATS["Q8_0"]
BLOCKS = [name for name, format in FORMATS.items() if format.block_size > 1]


def q8_0_rows(*rows: tuple[float, list[int]]) -> Tensor:
    """Rows of one Q8_0 block each, by hand: a float16 scale and 32 signed bytes, the ones not given 0."""
    blocks = [np.float16(scale).tobytes() + np.array(q + [0] * (32 - len(q)), np.int8).tobytes() for scale, q in rows]
    return torch.tensor([list(block) for block in blocks], dtype=torch.uint8)


def random_tensor(name: str, rows: int, columns: int, seed: int = 0) -> tuple[QuantTensor, np.ndarray]:
    """Random rows of a format, and what the gguf package makes of them; scales are finite and of ordinary size."""
    quants = gguf.GGMLQuantizationType[name]
    values = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    encoded = gguf.quants.quantize(values, quants)
    return QuantTensor(torch.from_numpy(encoded).view(torch.uint8), FORMATS[name]), gguf.quants.dequantize(encoded, quants)


# --- rows


def test_rows_are_decoded_as_the_matrix_they_are() -> None:
    weight = QuantTensor(q8_0_rows((0.5, [2, -4]), (2.0, [0, 0, 3])), Q8_0)
    assert (weight.shape, weight.ndim, weight.nbytes) == (torch.Size([2, 32]), 2, 2 * 34)
    assert weight.dequantize()[:, :4].tolist() == [[1.0, -2.0, 0.0, 0.0], [0.0, 0.0, 6.0, 0.0]]
    assert weight.dequantize(torch.float64).dtype is torch.float64


def test_an_order_says_where_each_row_is_stored() -> None:
    rows = q8_0_rows((1.0, [10]), (1.0, [20]), (1.0, [30]))
    weight = QuantTensor(rows, Q8_0, torch.tensor([2, 0, 1]))
    assert weight.dequantize()[:, 0].tolist() == [30.0, 10.0, 20.0]
    assert weight.pick(slice(0, 2)).dequantize()[:, 0].tolist() == [30.0, 10.0]
    assert weight.pick(torch.tensor([1, 1, 0])).dequantize()[:, 0].tolist() == [10.0, 10.0, 30.0]


def test_a_slice_of_rows_is_a_view_and_an_index_a_copy() -> None:
    rows = q8_0_rows((1.0, [1]), (1.0, [2]), (1.0, [3]))
    weight = QuantTensor(rows, Q8_0)
    assert weight.pick(slice(1, 3)).rows.data_ptr() == rows[1].data_ptr()
    assert weight.pick(torch.tensor([1, 2])).rows.untyped_storage().data_ptr() != rows.untyped_storage().data_ptr()


@pytest.mark.parametrize(
    ("rows", "order", "message"),
    [
        (torch.zeros(2, 34), None, r"torch\.float32 of shape \[2, 34\] are not rows of Q8_0"),
        (torch.zeros(34, dtype=torch.uint8), None, r"of shape \[34\] are not rows"),
        (torch.zeros(2, 35, dtype=torch.uint8), None, "a multiple of 34"),
        (torch.zeros(2, 34, dtype=torch.uint8), torch.tensor([0]), r"order of 2 rows is torch\.int64 of shape \[1\]"),
        (torch.zeros(2, 34, dtype=torch.uint8), torch.tensor([0.0, 1.0]), r"order of 2 rows is torch\.float32"),
    ],
)
def test_what_is_not_rows_is_refused(rows: Tensor, order: Tensor | None, message: str) -> None:
    with pytest.raises(NanollamaError, match=message):
        QuantTensor(rows, Q8_0, order)


def test_decoding_a_large_matrix_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0

    def watch(rows: Tensor, *rest: Any) -> Tensor:
        nonlocal largest
        largest = max(largest, rows.shape[0])
        return decode_rows(rows, *rest)

    weight, _ = random_tensor("Q4_0", 3000, 1024)
    layer = QuantLinear(weight)
    for module in (stored, kernels):
        monkeypatch.setattr(module, "decode_rows", watch)
    weight.dequantize()
    layer(torch.zeros(1, 1024))
    assert 0 < largest * 1024 <= tensor.TILE <= 1 << 20


# --- one matrix


def test_a_layer_multiplies_by_the_decoded_rows() -> None:
    layer = QuantLinear(QuantTensor(q8_0_rows((0.5, [2, -4]), (2.0, [0, 0, 3])), Q8_0))
    x = torch.zeros(2, 32)
    x[0, :3], x[1, :3] = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([10.0, 0.0, -1.0])
    assert layer(x).tolist() == [[-1.0, 6.0], [10.0, -6.0]]
    bias = nn.Parameter(torch.tensor([100.0, 1000.0]))
    assert QuantLinear(layer.weight, bias)(x).tolist() == [[99.0, 1006.0], [110.0, 994.0]]
    reordered = QuantLinear(QuantTensor(layer.rows, Q8_0, torch.tensor([1, 0])), bias)
    assert reordered(x).tolist() == [[106.0, 999.0], [94.0, 1010.0]]


def test_an_embedding_decodes_the_rows_of_the_ids() -> None:
    table = QuantTensor(q8_0_rows((1.0, [1]), (1.0, [2]), (1.0, [3])), Q8_0)
    out = QuantEmbedding(table, torch.float64)(torch.tensor([[2, 0], [1, 2]]))
    assert (out.shape, out.dtype) == ((2, 2, 32), torch.float64)
    assert out[:, :, 0].tolist() == [[3.0, 1.0], [2.0, 3.0]]


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4", "TQ1_0", "TQ2_0", "F16", "BF16", "F32"])
@pytest.mark.parametrize("tile", [1, 700, 1 << 20])
def test_every_format_gives_the_product_with_what_the_gguf_package_decodes(
    name: str, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor, "TILE", tile)
    weight, values = random_tensor(name, 37, 512)
    order = torch.from_numpy(np.random.default_rng(1).permutation(37))
    x = torch.randn(2, 5, 512, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = x.numpy() @ values.astype(np.float64).T
    assert np.abs(QuantLinear(weight)(x).numpy() - expected).max() < 1e-12 * np.abs(expected).max()
    ordered = QuantLinear(QuantTensor(weight.rows, weight.format, order))(x)
    assert np.abs(ordered.numpy() - expected[..., order]).max() < 1e-12 * np.abs(expected).max()
    assert np.array_equal(weight.dequantize().numpy(), values)


@pytest.mark.parametrize("name", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"])
def test_formats_that_the_gguf_package_does_not_write_are_multiplied_too(name: str) -> None:
    format = FORMATS[name]
    raw = np.random.default_rng(0).integers(0, 256, (9, 512 // format.block_size, format.block_bytes), dtype=np.uint8)
    starts = np.cumsum([0, *(field.size for field in format.layout.values())])
    for start, (field_name, field) in zip(starts, format.layout.items(), strict=False):
        if field_name in ("d", "dmin"):  # an ordinary float16, for random bytes are infinite now and then
            assert field.dtype is torch.float16
            raw[..., start : start + 2] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
    rows = raw.reshape(9, -1)
    values = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[name]).astype(np.float64)
    x = torch.randn(3, 512, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = x.numpy() @ values.T
    found = QuantLinear(QuantTensor(torch.from_numpy(rows), format))(x).numpy()
    assert np.abs(found - expected).max() < 1e-12 * np.abs(expected).max()


@given(st.integers(1, 9), st.integers(1, 4), st.lists(st.integers(0, 3), max_size=3), st.integers(0, 2**32 - 1))
def test_any_shape_of_input_gives_the_rows_apart(rows: int, blocks: int, shape: list[int], seed: int) -> None:
    weight, values = random_tensor("Q8_0", rows, 32 * blocks, seed)
    x = torch.randn(*shape, 32 * blocks, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    out = QuantLinear(weight)(x)
    assert out.shape == (*shape, rows)
    assert np.allclose(out.numpy(), x.numpy() @ values.T.astype(np.float64), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_output_has_the_dtype_of_the_input_and_is_rounded_once(dtype: torch.dtype) -> None:
    weight, values = random_tensor("Q8_0", 8, 64)
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    bias = nn.Parameter(torch.full((8,), 0.25, dtype=dtype))
    out = QuantLinear(weight, bias)(x)
    exact = torch.from_numpy(x.double().numpy() @ values.astype(np.float64).T + 0.25)
    assert out.dtype is dtype
    wide = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    sums = 65 * wide * (x.abs().double() @ torch.from_numpy(values).abs().double().T + 0.25)  # any order of 65 terms
    rounding = torch.finfo(dtype).eps / 2 * exact.abs()
    assert ((out.double() - exact).abs() <= (rounding + sums) * 1.01).all()


def test_gradients_flow_through_to_the_input() -> None:
    weight, values = random_tensor("Q8_0", 8, 64)
    x = torch.randn(2, 64, requires_grad=True)
    QuantLinear(weight)(x).sum().backward()
    assert x.grad is not None
    assert np.allclose(x.grad.numpy(), np.broadcast_to(values.sum(0), (2, 64)), atol=1e-5)


# --- a module among others


def test_changing_the_dtype_of_a_model_does_not_touch_stored_bytes() -> None:
    weight, values = random_tensor("Q4_0", 8, 64)
    table, head = QuantEmbedding(weight, torch.float32), QuantLinear(weight)
    model = nn.Sequential(table, nn.Linear(64, 64), head)
    before = weight.rows.clone()
    model.half().double()
    assert torch.equal(weight.rows, before)
    assert head.rows.data_ptr() == weight.rows.data_ptr()
    assert model(torch.tensor([1])).dtype is torch.float64
    assert np.array_equal(table(torch.tensor([3])).numpy()[0], values[3])


def test_stored_rows_are_not_part_of_the_state_dict_and_are_not_trained() -> None:
    weight, _ = random_tensor("Q4_0", 8, 64)
    layer = QuantLinear(weight, nn.Parameter(torch.zeros(8)))
    assert list(layer.state_dict()) == ["bias"]
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    assert "[8, 64], Q4_0" in repr(layer)


def test_a_module_can_be_copied_and_pickled() -> None:
    weight, values = random_tensor("Q4_0", 8, 64)
    for copied in (copy.deepcopy(QuantLinear(weight)), pickle.loads(pickle.dumps(QuantLinear(weight)))):
        assert np.array_equal(copied.weight.dequantize().numpy(), values)


def test_a_tensor_moves_to_another_device_with_its_order() -> None:
    weight, _ = random_tensor("Q4_0", 8, 64)
    ordered = QuantTensor(weight.rows, weight.format, torch.arange(8))
    assert ordered.to(torch.device("cpu")) is ordered
    moved = ordered.to(torch.device("meta"))
    assert moved.order is not None
    assert (moved.device.type, moved.order.device.type) == ("meta", "meta")


def test_a_compiled_layer_calls_the_same_function() -> None:
    weight, _ = random_tensor("Q4_0", 8, 64)
    order = torch.arange(7, -1, -1)
    layer = QuantLinear(QuantTensor(weight.rows, weight.format, order), nn.Parameter(torch.ones(8)))
    x = torch.randn(3, 64)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    with torch.inference_mode():
        assert torch.equal(compiled(x), layer(x))


# --- a whole model


def quantized(model: nn.Module, name: str) -> dict[str, QuantTensor]:
    """Every matrix of a model in a format with blocks of 32, by the gguf package, rows stored in reverse order."""
    weights = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding) and module.weight.shape[1] % 32 == 0:
            rows = gguf.quants.quantize(module.weight.detach().float().flip(0).numpy(), gguf.GGMLQuantizationType[name])
            order = torch.arange(len(rows) - 1, -1, -1)
            weights[f"{path}.weight"] = QuantTensor(torch.from_numpy(rows), FORMATS[name], order)
    return weights


@pytest.mark.parametrize("architecture", FIXTURES)
def test_a_model_of_stored_rows_equals_the_model_of_their_values(architecture: str, tmp_path: Path) -> None:
    gpt2 = architecture == "GPT2LMHeadModel"
    sizes = {"n_embd": 96, "n_inner": 64} if gpt2 else {"hidden_size": 96, "intermediate_size": 64}
    if architecture == "Qwen3MoeForCausalLM":
        sizes["moe_intermediate_size"] = 32
    folder = write_fixture(tmp_path, fixture_config(architecture, **sizes))
    model, plain = load_model(folder), load_model(folder)
    weights = quantized(model, "Q4_0")
    assert len(weights) == sum(isinstance(module, nn.Linear | nn.Embedding) for module in model.modules())
    if model.config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["embed_tokens.weight"]
    with torch.no_grad():
        for path, weight in weights.items():
            values = gguf.quants.dequantize(weight.rows.numpy(), gguf.GGMLQuantizationType.Q4_0)
            plain.get_parameter(path).copy_(torch.from_numpy(values).flip(0))
    use_quantized(model, weights, torch.float64)
    ids = near_prompt(fixture_config(architecture))
    assert (model.dtype, model.device.type, model.training) == (torch.float64, "cpu", False)
    with torch.inference_mode():
        found, expected = model(ids), plain(ids)
    assert found.dtype is torch.float64
    assert (found - expected).abs().max() <= 1e-11 * expected.abs().max()
    if model.config.tie_word_embeddings:
        assert model.get_buffer("lm_head.rows").data_ptr() == model.get_buffer("embed_tokens.rows").data_ptr()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("layers.9.mlp.up_proj.weight", "can't be a quantized weight of this model"),
        ("norm.weight", "expected a matrix or an embedding"),
        ("lm_head", "lm_head can't be"),
        ("lm_head.bias", r"lm_head\.bias can't be"),
        ("lm_head.weight", r"stored with shape \[8, 64\], but the model's is \[97, 60\]"),
    ],
)
def test_weights_of_another_model_are_refused(name: str, message: str, tmp_path: Path) -> None:
    model = load_model(write_fixture(tmp_path, fixture_config("LlamaForCausalLM")))
    weight, _ = random_tensor("Q4_0", 8, 64)
    with pytest.raises(NanollamaError, match=message):
        use_quantized(model, {name: weight}, torch.float64)


def test_a_mistaken_name_changes_nothing(tmp_path: Path) -> None:
    model = load_model(write_fixture(tmp_path, fixture_config("LlamaForCausalLM", hidden_size=64)))
    good, _ = random_tensor("Q4_0", 97, 64)
    with pytest.raises(NanollamaError):
        use_quantized(model, {"lm_head.weight": good, "lm_tail.weight": good}, torch.float64)
    assert isinstance(model.lm_head, nn.Linear)

"""Our own quantization, q8 and q4: by hand, by property, on every family, and by the perplexity of real checkpoints."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from conformance.models.fixtures import FIXTURES, fixture_config, near_prompt, write_fixture
from conformance.verify.perplexity import agreement, log_likelihoods, perplexity, windows
from nanollama.errors import NanollamaError
from nanollama.lm import load, load_model
from nanollama.quant import QuantTensor, quantize
from nanollama.quant.formats.rowwise import format_for, rowwise_format
from nanollama.quant.modules import QuantEmbedding, QuantLinear
from nanollama.quant.weight_only import Change, quantize_model

TOKENS = 12_000  # of wikitext-2's test part; the whole has 1.25 million of babyllama's


def stored(values: Tensor, name: str) -> QuantTensor:
    """A matrix in our own format."""
    format = rowwise_format(name, values.shape[1])
    return QuantTensor(quantize(values, format), format)


def back(values: Tensor, name: str) -> Tensor:
    """A matrix after the way into our own format and out."""
    return stored(values, name).dequantize()


# --- by hand


def test_q8_is_a_scale_per_row_and_signed_bytes() -> None:
    weight = stored(torch.tensor([[254.0, -127.0, 1.2, 0.0], [0.0, 0.0, 0.0, 0.0]]), "q8")
    scale, codes = weight.rows[:, :4].contiguous().view(torch.float32), weight.rows[:, 4:].contiguous().view(torch.int8)
    assert scale.flatten().tolist() == [2.0, 0.0]
    assert codes.tolist() == [[127, -64, 1, 0], [0, 0, 0, 0]]  # -63.5 goes to the even neighbour
    assert weight.dequantize().tolist() == [[254.0, -128.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]]


def test_q4_is_a_scale_and_a_minimum_per_32_and_two_codes_in_a_byte() -> None:
    row = torch.arange(32.0).clamp(max=15) * 2 - 10  # -10, -8 … 20, 20, 20 …: all on levels
    weight = stored(row[None], "q4")
    halves, codes = weight.rows[:, :4].contiguous().view(torch.float16), weight.rows[0, 4:]
    assert halves.tolist() == [[2.0, -10.0]]
    assert codes[:8].tolist() == [0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]
    assert codes[8:].tolist() == [0xFF] * 8
    assert torch.equal(weight.dequantize(), row[None])


def test_a_row_that_is_not_whole_groups_ends_in_a_short_one() -> None:
    values = torch.tensor([[5.0, 6.0, 20.0]])  # filled up with 20, not with a 0 that would widen the range
    weight = stored(values, "q4")
    assert (weight.shape, weight.nbytes) == (torch.Size([1, 3]), 2 + 2 + 16)
    assert torch.equal(weight.dequantize(), values)
    assert stored(torch.zeros(1, 33), "q4").nbytes == 2 * 20
    assert stored(torch.zeros(3, 44), "q8").nbytes == 3 * 48


def test_equal_weights_stay_equal() -> None:
    assert torch.equal(back(torch.full((2, 40), 0.75), "q4"), torch.full((2, 40), 0.75))
    assert torch.equal(back(torch.full((2, 40), -3.0), "q8"), torch.full((2, 40), -3.0))
    assert torch.equal(back(torch.zeros(2, 40), "q4"), torch.zeros(2, 40))


# --- by property


@given(st.integers(1, 5), st.integers(1, 100), st.integers(-30, 12), st.integers(0, 2**32 - 1))
def test_q8_is_off_by_half_a_step_at_most(rows: int, columns: int, exponent: int, seed: int) -> None:
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    step = np.abs(values.numpy()).max(axis=1, keepdims=True) / 127
    assert (np.abs(back(values, "q8").numpy() - values.numpy()) <= step * 0.5001).all()


@given(st.integers(1, 5), st.integers(1, 100), st.integers(-8, 12), st.integers(0, 2**32 - 1))
def test_q4_is_off_by_half_a_step_of_its_group_at_most(rows: int, columns: int, exponent: int, seed: int) -> None:
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    found = back(values, "q4").numpy()
    for start in range(0, columns, 32):
        group = values[:, start : start + 32].numpy()
        span, size = np.ptp(group, axis=1, keepdims=True), np.abs(group).max(axis=1, keepdims=True)
        allowed = span / 30 * 1.02 + size * 2.0**-9  # float16 holds scale (times up to 15) and minimum to 11 bits
        assert (np.abs(found[:, start : start + 32] - group) <= allowed).all()


@pytest.mark.parametrize("name", ["q8", "q4"])
@given(columns=st.integers(1, 100), seed=st.integers(0, 2**32 - 1))
def test_decoded_weights_are_their_own_quantization(name: str, columns: int, seed: int) -> None:
    once = back(torch.randn(3, columns, generator=torch.Generator().manual_seed(seed)), name)
    size = once.abs().max().item()
    assert (back(once, name) - once).abs().max().item() <= size * (2.0**-20 if name == "q8" else 2.0**-8)


@pytest.mark.parametrize("name", ["q8", "q4"])
def test_a_layer_multiplies_by_the_decoded_weights(name: str) -> None:
    weight = stored(torch.randn(7, 44, generator=torch.Generator().manual_seed(0)), name)
    x = torch.randn(2, 3, 44, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = x.numpy() @ weight.dequantize().numpy().astype(np.float64).T
    assert np.allclose(QuantLinear(weight)(x).numpy(), expected, rtol=0, atol=1e-12)
    assert format_for(name, 44) is weight.format


# --- models


@pytest.mark.parametrize("name", ["q8", "q4"])
@pytest.mark.parametrize("architecture", FIXTURES)
def test_every_family_is_quantized_and_computes_with_the_decoded_weights(architecture: str, name: str, tmp_path: Path) -> None:
    config = fixture_config(architecture)
    folder = write_fixture(tmp_path, config)
    model, plain = load_model(folder), load_model(folder)
    before = {path: parameter.clone() for path, parameter in plain.named_parameters()}
    changes = quantize_model(model, name)
    with torch.no_grad():
        for path, module in model.named_modules():
            if isinstance(module, QuantLinear | QuantEmbedding):
                plain.get_parameter(f"{path}.weight").copy_(module.weight.dequantize(torch.float64))
    with torch.inference_mode():
        found, expected = model(near_prompt(config)), plain(near_prompt(config))
    assert found.dtype is torch.float64
    assert (found - expected).abs().max() <= 1e-11 * expected.abs().max()
    for path, parameter in model.named_parameters():  # what is left: norms, biases, routers, learned positions
        assert parameter.ndim == 1 or path.endswith((".gate.weight", "embed_positions.weight")), path
        assert torch.equal(parameter, before[path]), path
    check_report(changes, before, plain, name)


def check_report(changes: list[Change], before: dict[str, Tensor], plain: nn.Module, name: str) -> None:
    """Every matrix once, with its own error and sizes."""
    assert len({change.name for change in changes}) == len(changes)
    for change in changes:
        original, decoded = before[f"{change.name}.weight"], plain.get_parameter(f"{change.name}.weight")
        rows, columns = original.shape
        error = ((decoded - original).norm() / original.norm()).item()
        assert math.isclose(change.error, error, rel_tol=1e-9)
        assert 0 < change.error < (0.01 if change.format == "q8" else 0.12)
        assert change.format == ("q8" if change.name in ("embed_tokens", "lm_head") else name)
        bytes_after = rows * (columns + 4) if change.format == "q8" else rows * -(-columns // 32) * 20
        assert (change.shape, change.bytes_before, change.bytes_after) == ((rows, columns), rows * columns * 8, bytes_after)


def test_a_tied_head_stays_tied_and_is_reported_once(tmp_path: Path) -> None:
    model = load_model(write_fixture(tmp_path, fixture_config("Gemma2ForCausalLM")))
    changes = quantize_model(model, "q4")
    assert model.get_buffer("lm_head.rows").data_ptr() == model.get_buffer("embed_tokens.rows").data_ptr()
    assert [change.name for change in changes if change.name in ("embed_tokens", "lm_head")] == ["embed_tokens"]


def test_a_quantized_model_is_smaller_by_what_its_formats_say(tmp_path: Path) -> None:
    config = fixture_config("LlamaForCausalLM", hidden_size=96, intermediate_size=256, dtype="float32")
    changes = quantize_model(load_model(write_fixture(tmp_path, config), dtype="float32"), "q4")
    layers = [change for change in changes if change.format == "q4"]
    assert sum(c.bytes_after for c in layers) / sum(c.bytes_before for c in layers) == 5 / 32


@pytest.mark.parametrize("name", ["q5", "Q8", "Q4_0", ""])
def test_an_unknown_quantization_is_refused_before_anything_changes(name: str, tmp_path: Path) -> None:
    model = load_model(write_fixture(tmp_path, fixture_config("LlamaForCausalLM")))
    with pytest.raises(NanollamaError, match=f"there is no quantization '{name}'; .*q8, q4"):
        quantize_model(model, name)
    assert isinstance(model.lm_head, nn.Linear)


def test_a_quantized_model_is_not_quantized_again(tmp_path: Path) -> None:
    model = load_model(write_fixture(tmp_path, fixture_config("LlamaForCausalLM")))
    quantize_model(model, "q8")
    with pytest.raises(NanollamaError, match="stored as q8 already; load the original weights to make q4"):
        quantize_model(model, "q4")


@pytest.mark.parametrize(
    ("value", "name", "message"),
    [
        (math.nan, "q8", r"layers\.1\.mlp\.up_proj can't be q8: .* infinite or NaN"),
        (math.inf, "q4", r"layers\.1\.mlp\.up_proj can't be q4: .* infinite or NaN"),
        (1e6, "q4", r"layers\.1\.mlp\.up_proj can't be q4: magnitude 1e\+06 does not fit q4: its scale"),
        (-1e6, "q4", r"magnitude 1e\+06 does not fit q4: its scale|minimum"),
    ],
)
def test_weights_that_can_not_be_quantized_are_named(value: float, name: str, message: str, tmp_path: Path) -> None:
    model = load_model(write_fixture(tmp_path, fixture_config("LlamaForCausalLM")))
    with torch.no_grad():
        model.get_parameter("layers.1.mlp.up_proj.weight")[3, 5] = value
    with pytest.raises(NanollamaError, match=message):
        quantize_model(model, name)


# --- perplexity


class Table(nn.Module):
    """A model that looks only at the last token: fixed logits for each."""

    logits: Tensor

    def __init__(self, probabilities: list[list[float]]) -> None:
        super().__init__()
        self.register_buffer("logits", torch.tensor(probabilities, dtype=torch.float64).log())

    def forward(self, ids: Tensor) -> Tensor:
        """[B, T] → [B, T, V]."""
        return self.logits[ids]


def test_perplexity_by_hand() -> None:
    model = Table([[0.5, 0.5], [0.25, 0.75]])
    ids = [0, 1, 1, 0]  # p = 0.5, 0.75, 0.25
    assert math.isclose(perplexity(model, ids, 4, 3), (0.5 * 0.75 * 0.25) ** (-1 / 3), rel_tol=1e-14)
    assert math.isclose(perplexity(model, ids, 2, 1), (0.5 * 0.75 * 0.25) ** (-1 / 3), rel_tol=1e-14)
    assert math.isclose(perplexity(Table([[0.25] * 4] * 4), [0, 1, 2, 3, 0, 1], 3, 2), 4.0, rel_tol=1e-14)


def test_agreement_by_hand() -> None:
    a, b = Table([[0.5, 0.5], [0.25, 0.75]]), Table([[0.25, 0.75], [0.25, 0.75]])
    found = agreement(a, b, [0, 1, 1], 4, 3)
    kl = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)  # at the first of two positions; at the second none
    assert math.isclose(found.kl, kl / 2, rel_tol=1e-14)
    assert math.isclose(found.largest_kl, kl, rel_tol=1e-14)
    assert (found.top1, found.tokens) == (0.5, 2)  # of a's tie the first counts
    assert agreement(a, a, [0, 1, 1], 4, 3) == (0.0, 0.0, 1.0, 2)


@given(st.integers(0, 60), st.integers(2, 12), st.data())
def test_every_token_but_the_first_is_scored_once_with_enough_context(count: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window - 1))
    scored = []
    for begin, first, end in windows(count, window, stride):
        assert 0 <= begin < first < end <= min(count, begin + window)
        for token in range(first, end):
            assert token - begin >= min(token, window - stride)
            scored.append(token)
    assert scored == list(range(1, count))


def test_batches_and_windows_make_no_difference_to_a_model_without_memory() -> None:
    model = Table(torch.rand(7, 7, generator=torch.Generator().manual_seed(0)).tolist())
    ids = torch.randint(0, 7, (50,), generator=torch.Generator().manual_seed(1)).tolist()
    expected = log_likelihoods(model, ids, 50, 49)
    assert len(expected) == 49
    for window, stride, batch in ((8, 4, 1), (8, 7, 3), (5, 2, 64)):
        assert torch.allclose(log_likelihoods(model, ids, window, stride, batch), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("window", "stride"), [(4, 0), (4, 4), (4, 5), (1, 1)])
def test_windows_that_leave_tokens_out_are_refused(window: int, stride: int) -> None:
    with pytest.raises(NanollamaError, match=f"stride {stride} with window {window}"):
        perplexity(Table([[1.0]]), [0, 0, 0], window, stride)


def test_a_text_of_one_token_has_no_perplexity() -> None:
    with pytest.raises(NanollamaError, match="1 tokens has no perplexity"):
        perplexity(Table([[1.0]]), [0], 4, 2)


@pytest.mark.parametrize("checkpoint", ["babyllama-tok105-hf", "stories260K-hf"])
def test_perplexity_stays_within_1_percent_in_q8_and_8_percent_in_q4(checkpoint: str, data_dir: Path) -> None:
    """Both bars of the issue, on the first TOKENS ids, windows of 256 with a stride of 128."""
    text = (data_dir / "corpora/wikitext-2.test.txt").read_text()[: 3 * TOKENS]
    found = {}
    for name, bar in (("float32", 1.0), ("q8", 1.01), ("q4", 1.08)):
        lm = load(data_dir / "weights" / checkpoint, dtype="float32")
        if name != "float32":
            quantize_model(lm.model, name)
        ids = lm.encode(text)[:TOKENS]
        assert len(ids) == TOKENS
        found[name] = perplexity(lm.model, ids, 256, 128)
        assert found[name] / found["float32"] <= bar, found

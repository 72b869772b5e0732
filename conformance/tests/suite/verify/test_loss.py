"""`nanollama verify` on quantized models: a format's loss is told apart from what is wrong, and from rounding in kernels."""

from pathlib import Path

import pytest
import torch

from conformance.models.fixtures import FIXTURES, near_prompt
from conformance.models.gguf_fixtures import unpermuted, write_folder
from conformance.truth.compare import norm_error, worst
from conformance.truth.replay_modules import kernel_errors
from conformance.verify.compare_models import verify_command
from conformance.verify.loss import format_loss, holds, stored_as, weight_losses
from nanollama.checkpoint.export import export_folder, export_gguf
from nanollama.checkpoint.source import open_source
from nanollama.lm import load_model
from nanollama.quant import FORMATS, find_format, quantize
from nanollama.quant.quant_tensor import QuantTensor

LLAMA = "LlamaForCausalLM"
BLOCKY = {"hidden_size": 64, "intermediate_size": 96}  # rows of whole blocks of 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama as a folder, and beside it as GGUF files of several types."""
    folder = tmp_path_factory.mktemp("loss") / "model"
    write_folder(folder, LLAMA, **BLOCKY)
    for file_type in ("f32", "f16", "q8_0", "q4_0"):
        export_gguf(open_source(folder), folder / f"{file_type}.gguf", file_type)
    with unpermuted():
        export_gguf(open_source(folder), folder / "wrong.gguf", "q4_0")
    return folder


def test_the_distance_is_the_norm_of_the_difference_over_the_norm() -> None:
    assert norm_error(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 4.0])) == 3 / 4
    assert norm_error(torch.zeros(2), torch.zeros(2)) == 0


def test_a_row_of_32_ones_and_a_half_loses_in_q4_0_what_can_be_worked_out_by_hand() -> None:
    """The largest magnitude, 1.0 in every place but one, becomes -8 · d; 0.5 is -4 · d, a level of its own: nothing is lost.
    0.51 lies 0.01 above that level, the next ones are 0.125 away: 0.01 is lost."""
    row = torch.ones(1, 32, dtype=torch.float64)
    row[0, 5] = 0.5
    weight = QuantTensor(quantize(row, "Q4_0"), find_format("Q4_0"))
    assert format_loss(row, weight) == 0
    row[0, 5] = 0.51
    assert format_loss(row, weight) == pytest.approx(0.01 / float(row.norm()))


@pytest.mark.parametrize(
    "name", [name for name, format in FORMATS.items() if format.to_fields is None and format.block_size > 1]
)
def test_a_format_without_an_encoder_has_a_nominal_loss_of_the_right_size(name: str) -> None:
    format = find_format(name)
    weight = QuantTensor(torch.zeros(1, format.block_bytes, dtype=torch.uint8), format)
    assert 0.002 < format_loss(torch.ones(1, format.block_size, dtype=torch.float64), weight) < 0.35


def test_which_dtypes_hold_which_numbers() -> None:
    single, half, brain = (torch.ones(2, 2, dtype=dtype) for dtype in (torch.float32, torch.float16, torch.bfloat16))
    blocks = QuantTensor(torch.zeros(1, 18, dtype=torch.uint8), find_format("Q4_0"))
    assert holds(single, half) and holds(single, brain) and holds(single, blocks) and holds(blocks, blocks)
    assert not holds(half, single) and not holds(half, brain) and not holds(brain, half)
    assert not holds(blocks, single) and not holds(half, blocks)
    assert (stored_as(brain), stored_as(blocks)) == ("bfloat16", "Q4_0")


@pytest.mark.parametrize("file_type", ["f16", "q8_0", "q4_0"])
def test_every_loss_of_a_sound_file_is_exactly_that_of_its_format(file_type: str, folder: Path) -> None:
    a, b = open_source(folder).tensors, open_source(folder / f"{file_type}.gguf").tensors
    losses = list(weight_losses(a, b))
    assert len(losses) == len(b)
    assert all(loss.error == pytest.approx(loss.format_loss, rel=1e-6, abs=1e-9) and loss.is_explained for loss in losses)
    assert any(loss.error > 1e-5 for loss in losses) == (file_type != "f16")  # the fixture's numbers are those of bfloat16


def test_a_sound_quantized_file_is_the_same_up_to_its_formats(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_command(str(folder), str(folder / "q4_0.gguf")) == 0
    printed = capsys.readouterr().out
    assert "SAME up to its formats" in printed and "Q4_0" in printed and "kernel error: B in float32" in printed


def test_an_exact_file_is_compared_exactly(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_folder(open_source(folder / "q8_0.gguf"), tmp_path / "decoded", "f32")
    assert verify_command(str(folder / "q8_0.gguf"), str(tmp_path / "decoded")) == 0
    assert "SAME: the largest relative error" in capsys.readouterr().out


def test_rows_in_a_wrong_order_are_not_a_loss_of_any_format(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_command(str(folder), str(folder / "wrong.gguf")) == 1
    verdict = capsys.readouterr().out.partition("DIFFERENT: ")[2].partition("\n")[0]
    assert verdict.startswith("layers.0.self_attn.") and verdict.endswith("and 11 more")  # q and k, weights and biases


def test_one_scale_that_is_wrong_is_found_in_a_quantized_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = bytearray((folder / "q4_0.gguf").read_bytes())
    blocks = open_source(folder / "q4_0.gguf").tensors["layers.1.mlp.up_proj.weight"]
    assert isinstance(blocks, QuantTensor)
    at = raw.index(blocks.rows[0].numpy().tobytes())
    for row in range(8):  # the scale of eight rows' first block, times four
        raw[at + row * 36 + 1] += 8
    (tmp_path / "scaled.gguf").write_bytes(raw)
    assert verify_command(str(folder), str(tmp_path / "scaled.gguf")) == 1
    assert "DIFFERENT: layers.1.mlp.up_proj\n" in capsys.readouterr().out


def test_another_models_file_is_different(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "model", LLAMA, **BLOCKY, num_hidden_layers=2)
    export_gguf(open_source(tmp_path / "model"), tmp_path / "small.gguf", "q8_0")
    assert verify_command(str(folder), str(tmp_path / "small.gguf")) == 1
    assert "not in both with the same shape" in capsys.readouterr().out


def test_a_text_gives_kl_agreement_and_perplexity(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = data_dir / "weights/stories260K-hf"
    export_folder(open_source(model), tmp_path / "half", "f16")
    assert verify_command(str(model), str(tmp_path / "half"), text=data_dir / "corpora/tinyshakespeare.txt", tokens=300) == 0
    printed = capsys.readouterr().out
    assert "300 tokens, windows of 512, stride 256" in printed
    assert "top-1 agreement" in printed and "perplexity" in printed and "KL(A ‖ B)" in printed


@pytest.mark.parametrize("architecture", FIXTURES)
def test_kernel_errors_are_those_of_the_dtype(architecture: str, tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "model", architecture)
    exact, single = (load_model(tmp_path / "model", dtype, "cpu") for dtype in ("float64", "float32"))
    errors = kernel_errors(exact, single, near_prompt(raw))
    assert len(errors) > 20
    assert 1e-9 < worst(errors).error < 1e-5

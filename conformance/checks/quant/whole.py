"""The formats q8 and q4 of `--quantize`, and models that are quantized after loading; runs after the checks of matrices."""

# mypy: disable-error-code="operator,union-attr"
# tables mix good and bad arguments

import torch
from torch import Tensor

from conformance.checks import check
from conformance.checks.assertions import expect, expect_close, expect_equal, expect_equal_tensor, expect_refused
from conformance.checks.generation.rigged import blamed, fresh
from conformance.checks.quant.stored import Small
from conformance.models.fixtures import fixture_config
from nanollama.model.config import read_config
from nanollama.model.transformer import Transformer
from nanollama.quant import weight_only as own
from nanollama.quant.formats import rowwise


def own_cases() -> dict[str, tuple[Tensor, Tensor]]:
    """By format: rows and the values they decode to."""
    q8 = torch.tensor([[127.0, -127.0, 0.4, 0.6, -1.5, 2.5], [0.0] * 6, [254.0, 2.0, 2.9, 3.1, -6.0, 0.0]])
    q4 = torch.tensor([[*[float(i % 16) for i in range(48)]], [0.5] * 48])
    q4[0, 3] = 3.4
    near = q4.clone()
    near[0, 3] = 3.0
    return {
        "q8": (q8, torch.tensor([[127.0, -127.0, 0.0, 1.0, -2.0, 2.0], [0.0] * 6, [254.0, 2.0, 2.0, 4.0, -6.0, 0.0]])),
        "q4": (q4, near),
    }


@check("QUNT-040", "QUNT-041", area="quantization")
def our_own_formats_by_hand() -> None:
    with fresh():
        for name, (values, wanted) in own_cases().items():
            format = rowwise.rowwise_format(name, values.shape[1])
            fields = getattr(rowwise, f"encode_{name}")(values)
            for each in (fields, *(getattr(rowwise, f"encode_{name}")(torch.full((1, 64), x)) for x in (0.0, 1.5))):
                finite = all(bool(field.isfinite().all()) for field in each.values())
                expect(f"quant.formats.rowwise.encode_{name}", finite, f"{name}: a code or a scale is not finite")
            raw = torch.cat([fields[k].to(f.dtype).contiguous().view(torch.uint8) for k, f in format.layout.items()], dim=1)
            extra = {"columns": values.shape[1]} if name == "q4" else {}
            got = getattr(rowwise, f"decode_{name}")(**format.split(raw), **extra)
            expect_equal_tensor(
                f"quant.formats.rowwise.encode_{name}", got.float(), wanted, f"{name} rows, encoded and decoded"
            )
            expect_equal_tensor(
                "quant.formats.rowwise.rowwise_format",
                format.decode(format.encode(values)),
                wanted,
                f"{name} through its format",
            )
        q8, q4 = rowwise.rowwise_format("q8", 100), rowwise.rowwise_format("q4", 100)
        sizes = (q8.block_size, q8.block_bytes, q4.block_size, q4.block_bytes)
        expect_equal("quant.formats.rowwise.rowwise_format", sizes, (100, 104, 100, 4 * 4 + 64), "sizes of rows of 100")
        expect_equal(
            "quant.formats.rowwise.format_for",
            (rowwise.format_for("q4", 7).name, rowwise.format_for("q4_0", 7).name),
            ("q4", "Q4_0"),
            "names",
        )
        expect_refused("quant.formats.rowwise.rowwise_format", lambda: rowwise.rowwise_format("q5", 8), "q5", "an unknown name")
    codes = torch.tensor([[3, -4]], dtype=torch.int8)
    expect_equal(
        "quant.formats.rowwise.decode_q8",
        rowwise.decode_q8(torch.tensor([[0.5]]), codes).tolist(),
        [[1.5, -2.0]],
        "codes of q8",
    )
    got = rowwise.decode_q4(
        torch.tensor([[2.0]]), torch.tensor([[-1.0]]), torch.tensor([[0x21, *[0] * 15]], dtype=torch.uint8), 3
    )
    expect_equal("quant.formats.rowwise.decode_q4", got.tolist(), [[1.0, 3.0, -1.0]], "codes of q4")
    random = torch.randn(40, 70, generator=torch.Generator().manual_seed(1)) * torch.logspace(-2, 2, 40)[:, None]
    filled = torch.cat([random, random[:, -1:].expand(40, 26)], dim=1).reshape(40, 3, 32)
    minimum, step = filled.amin(2), (filled.amax(2) - filled.amin(2)) / 15
    fields = rowwise.encode_q4(random)
    expect_equal_tensor("quant.formats.rowwise.encode_q4", fields["scale"], step.half(), "scales")
    expect_equal_tensor("quant.formats.rowwise.encode_q4", fields["minimum"], minimum.half(), "minimums")
    small, low = step.half().float()[:, :, None], minimum.half().float()[:, :, None]
    codes = ((filled - low) / small).round().clamp(0, 15).to(torch.uint8).flatten(1)
    wanted_codes = codes[:, ::2] + 16 * codes[:, 1::2]
    expect_equal_tensor("quant.formats.rowwise.encode_q4", fields["q"], wanted_codes, "codes for the scales as they are stored")
    fields = rowwise.encode_q4(torch.tensor([[0.0, 15.0, 1.0, *[2.0] * 30]]))
    expect_equal("quant.formats.rowwise.encode_q4", fields["q"][0, :2].tolist(), [0xF0, 0x21], "the first codes")
    expect_equal(
        "quant.formats.rowwise.encode_q4",
        (fields["scale"].tolist(), fields["minimum"].tolist()),
        ([[1.0, 0.0]], [[0.0, 2.0]]),
        "scales",
    )


@check("QUNT-042", area="quantization")
def a_loaded_model_is_quantized_matrix_by_matrix() -> None:
    torch.manual_seed(0)
    model = Small()
    model.lm_head.weight = model.embed_tokens.weight
    position, bias = model.embed_positions.weight, model.inner[0].bias
    with torch.no_grad():
        model.inner[0].weight.copy_(torch.arange(64.0).reshape(2, 32) % 16)
    wanted = model.embed_tokens.weight.detach().clone()
    place = "quant.weight_only.quantize_model"
    with blamed(place):
        changes = own.quantize_model(model, "q4")
    facts = [(c.name, c.shape, c.format, c.bytes_before, c.bytes_after) for c in changes]
    expect_equal(place, facts, [("embed_tokens", (4, 32), "q8", 512, 144), ("inner.0", (2, 32), "q4", 256, 40)], "what changed")
    expect(place, model.embed_positions.weight is position and model.inner[0].bias is bias, "positions or a bias changed")
    kinds = [type(m).__name__ for m in (model.lm_head, model.embed_tokens, model.inner[0])]
    expect_equal(place, kinds, ["QuantLinear", "QuantEmbedding", "QuantLinear"], "the modules")
    head, table_, first = (m.weight for m in (model.lm_head, model.embed_tokens, model.inner[0]))
    expect(place, head.rows.data_ptr() == table_.rows.data_ptr(), "a tied head is stored twice")
    expect_close(place, table_.dequantize(), wanted, 0.5 / 127 * 1.01, "the embedding as q8")
    expect_equal_tensor(place, first.dequantize(), torch.arange(64.0).reshape(2, 32) % 16, "a matrix that q4 holds exactly")
    off = float((table_.dequantize().double() - wanted).norm() / wanted.double().norm())
    expect_close(
        "quant.weight_only.quantize_matrix", torch.tensor([changes[0].error]), torch.tensor([off]), 1e-5, "the reported error"
    )
    expect_equal("quant.weight_only.quantize_matrix", changes[1].error, 0.0, "the reported error of an exact matrix")
    expect_refused(place, lambda: own.quantize_model(model, "q8"), "already", "a model that is quantized")
    expect_refused("quant.formats.rowwise.rowwise_format", lambda: own.quantize_model(Small(), "q7"), "q7", "an unknown name")


@check("QUNT-042", area="quantization")
def which_matrices_are_quantized_and_how() -> None:
    free = Small()
    facts = [(c.name, c.format) for c in own.quantize_model(free, "q4")]
    expect_equal(
        "quant.weight_only.quantize_model",
        facts,
        [("embed_tokens", "q8"), ("inner.0", "q4"), ("lm_head", "q8")],
        "formats of a model",
    )
    with torch.device("meta"):
        model = Transformer(read_config(fixture_config("MixtralForCausalLM")))
    names = [name for name, _ in own.matrices(model)]
    expect("quant.weight_only.matrices", not any(name.endswith(".gate") for name in names), "a router is among the matrices")
    expect("quant.weight_only.matrices", sum(".experts." in name for name in names) > 0, "no expert is among the matrices")
    stored, change = own.quantize_matrix("x", torch.zeros(2, 32), "q4")
    expect_equal(
        "quant.weight_only.quantize_matrix",
        (change.error, stored.dequantize().tolist()),
        (0.0, [[0.0] * 32] * 2),
        "a matrix of zeros",
    )
    expect_refused(
        "quant.weight_only.quantize_matrix",
        lambda: own.quantize_matrix("x", torch.full((1, 32), float("nan")), "q8"),
        "x",
        "NaN",
    )

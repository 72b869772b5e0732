"""In lower precisions sums run in at least float32: errors stay within a multiple of transformers' error in that dtype, and
every module on recorded inputs stays within the noise floor, the spread of correct variants.

The float64 truth of the modules is recorded from the clean runtime and proven against the golden; recording from a runtime with
a bug raises RuntimeError.
"""

from types import SimpleNamespace
from typing import Any

import torch

from conformance.checks import check
from conformance.checks.assertions import expect, expect_equal
from conformance.checks.model.semantics import without_layer
from conformance.models.fixtures import FIXTURES
from conformance.numerics import check as numerics
from conformance.truth.cases import case
from conformance.truth.compare import rms_error, row_error
from conformance.truth.golden import load_golden
from nanollama.kernels import linear as kernels

MARGIN = 10.0
FAR_TOO_MUCH = 0.05  # of the largest value
REPLAYED = (
    "bfloat16 LlamaForCausalLM",
    "bfloat16 Gemma2ForCausalLM",
    "bfloat16 Qwen3MoeForCausalLM",
    "float16 LlamaForCausalLM",
)


@check("NUMR-008", "QUNT-035", area="numerics")
def every_implementation_of_a_product_is_the_product() -> None:
    """[..., in] by [out, in], with a bias and without, for one token and for several, in every dtype.

    In half precision partial sums may be rounded, as in engines that split a sum.
    """
    generator = torch.Generator().manual_seed(5)
    weight, bias = torch.randn(24, 40, generator=generator).double(), torch.randn(24, generator=generator).double()
    for dtype, bar in ((torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 2**-6), (torch.float16, 2**-9)):
        w, b = weight.to(dtype), bias.to(dtype)
        for shape in ((40,), (1, 40), (1, 1, 40), (2, 40), (2, 3, 40), (0, 40)):
            x = torch.randn(*shape, generator=generator).to(dtype)
            for added in (None, b):
                want = x.double() @ w.double().T + (0 if added is None else added.double())
                got = kernels.linear(x, w, added)
                what = f"{list(shape)} in {dtype}, {'with' if added is not None else 'without'} bias"
                expect_equal("kernels.linear.linear", (got.dtype, got.shape), (dtype, want.shape), what)
                error = float((got.double() - want).abs().max()) / 10 if got.numel() else 0.0  # sums are about 10
                place = (
                    "kernels.cpu.single_row_linear" if x.numel() == 40 and dtype is torch.bfloat16 else "kernels.linear.linear"
                )
                expect(place, error <= bar, f"{what}: off by {error:.1e} (bar {bar:.0e})")


@check("NUMR-001", "NUMR-002", area="numerics", each=tuple(FIXTURES))
def a_lower_precision_stays_near_the_error_of_transformers(family: str) -> None:
    golden, this = load_golden(family), case(family)
    ids, _ = golden.prompt("near")
    for dtype, allowed in golden.recipe["transformers_rms_error_nats"].items():
        logits = this.load(dtype)(ids).double().log_softmax(-1)
        ratio = rms_error(logits, golden.taps["near/logits"]) / allowed
        expect(
            "model.transformer.Transformer.forward",
            ratio <= MARGIN,
            f"{dtype}: {ratio:.1f} times the error of transformers in {dtype}",
        )


@check("NUMR-002", area="numerics", each=REPLAYED, also={"EMBD-002": [REPLAYED[1]]})
def every_module_is_within_the_noise_floor(case_name: str) -> None:
    judgement = judged(case_name)
    first = judgement.first
    expect(place_in(first), first is None, f"{case_name}: {described(first)} what honest variants need")


@check("NUMR-002", "NORM-007", "ATTN-008", area="numerics", each=REPLAYED, also={"EMBD-002": [REPLAYED[1]]}, policies=True)
def every_module_rounds_where_its_definition_does(case_name: str) -> None:
    judgement = judged(case_name)
    first = next(iter(judgement.beyond("all") or judgement.beyond("order")), None)
    expect(place_in(first), first is None, f"{case_name}: {described(first)} what the same roundings in another order need")


def judged(case_name: str) -> numerics.Judgement:
    """Local replay of every module, run in four ways, in a low precision."""
    dtype, family = case_name.split(" ")
    return numerics.check(family, dtype)


def place_in(finding: numerics.Finding | None) -> str:
    """A module's name without its layer number."""
    return without_layer(finding.place) if finding else "model"


def described(finding: numerics.Finding | None) -> str:
    """The error and its statistic, as text."""
    return f"{finding.place}, {finding.statistic}, is {finding.excess:.1f} times" if finding else "within"


@check("NUMR-003", area="numerics")
def scores_beyond_the_range_of_float16_are_finite() -> None:
    model = case("LlamaForCausalLM").load("float16")
    layer: Any = model.layers[0]
    attend = layer.self_attn.attend
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(1, heads, 6, 8, generator=generator).half() for heads in (12, 3, 3))
    q, k = q * 150, k * 150  # q·k is about 64,000 and more
    allowed = torch.ones(6, 6, dtype=torch.bool).tril()[None, None]
    wide = (q.double() @ k.double().repeat_interleave(4, 1).transpose(2, 3)) * 8**-0.5
    want = wide.masked_fill(~allowed, -torch.inf).softmax(-1) @ v.double().repeat_interleave(4, 1)
    for implementation in ("eager", "sdpa"):
        got = getattr(attend, implementation)(q, k, v, SimpleNamespace(allowed=allowed, causal=True))
        error = row_error(got[0], want[0])
        detail = f"{implementation}: scores of 60,000 and more are off by {error:.1e}"
        expect("self_attn.attend.scores", error <= FAR_TOO_MUCH, detail)

"""In lower precisions the sums run in at least float32: errors stay within a generous multiple of what transformers' own code
makes in that dtype. How exact each piece is, is judged elsewhere; this is for what would be wrong by a power of ten."""

from types import SimpleNamespace
from typing import Any

import torch

from conformance.checks import check
from conformance.checks.cases import case
from conformance.checks.judging import expect
from conformance.checks.replay import row_error
from conformance.fixtures import FIXTURES
from conformance.golden import load_golden, rms_error

MARGIN = 10.0
FAR_TOO_MUCH = 0.05  # of the largest value


@check("NUMR-001", "NUMR-002", area="numerics", each=tuple(FIXTURES))
def a_lower_precision_costs_what_it_must(family: str) -> None:
    golden, this = load_golden(family), case(family)
    ids, _ = golden.prompt("near")
    for dtype, allowed in golden.recipe["transformers_rms_error_nats"].items():
        logits = this.load(dtype)(ids).double().log_softmax(-1)
        ratio = rms_error(logits, golden.taps["near/logits"]) / allowed
        expect("model.Transformer.forward", ratio <= MARGIN, f"{dtype}: {ratio:.1f} times the error of transformers in {dtype}")


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
    for road in ("eager", "sdpa"):
        got = getattr(attend, road)(q, k, v, SimpleNamespace(allowed=allowed, causal=True))
        error = row_error(got[0], want[0])
        expect("self_attn.attend.scores", error <= FAR_TOO_MUCH, f"{road}: scores of 60,000 and more are off by {error:.1e}")

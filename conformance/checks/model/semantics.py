"""Every family's model is the right function: each module on true inputs, the whole at every tap of the golden, in float64."""

from typing import Any

import torch
from torch import Tensor, nn

from conformance.checks import check
from conformance.checks.assertions import expect
from conformance.checks.checkpoint.loading import loaded
from conformance.checks.model.diagnosis import faults
from conformance.models.fixtures import FIXTURES
from conformance.truth.cases import CASES, case, truth_of
from conformance.truth.compare import SEMANTIC_BAR, relative_error, row_error
from conformance.truth.golden import load_golden


def with_prefix(*beginnings: str) -> list[str]:
    """The cases whose names begin with this prefix."""
    return [name for name in CASES if name.startswith(beginnings)]


EXERCISED = {  # the cases that can show it, where not all can
    "NORM-002": with_prefix("GPT2", "gpt2"),
    "NORM-003": with_prefix("Gemma", "gemma"),
    "NORM-004": with_prefix("Qwen3", "qwen3", "Gemma3", "gemma3"),
    "NORM-005": with_prefix("Olmo2", "olmo2"),
    "ROPE-003": with_prefix("Qwen3For", "Gemma3", "gemma3", "llama: heads"),
    "ROPE-004": with_prefix("llama: dynamic"),
    "ROPE-005": with_prefix("Llama"),
    "ROPE-006": with_prefix("llama: yarn", "Qwen2", "qwen2"),
    "ROPE-007": with_prefix("llama: yarn", "Qwen2", "qwen2"),
    "ROPE-008": with_prefix("llama: longrope", "Phi3"),
    "ROPE-009": with_prefix("Phi3"),
    "ROPE-012": with_prefix("SmolLM3", "smollm3"),
    "ATTN-002": with_prefix("Llama", "Qwen", "Gemma", "Phi3", "qwen2", "olmo2", "llama: yarn"),
    "ATTN-004": with_prefix("Gemma", "gemma"),
    "ATTN-005": with_prefix("Gemma2"),
    "ATTN-006": with_prefix("Llama", "Qwen2", "GPT2", "olmo2"),
    "ATTN-007": with_prefix("GPT2", "gpt2"),
    "MLP-003": with_prefix("GPT2", "gpt2"),
    "MLP-004": with_prefix("Llama"),
    "MOE-001": with_prefix("Mixtral", "mixtral", "Qwen3Moe", "qwen3moe"),
    "MOE-002": with_prefix("Mixtral", "mixtral"),
    "MOE-003": with_prefix("Qwen3Moe"),
    "MOE-004": with_prefix("Qwen3Moe", "qwen3moe"),
    "MOE-005": with_prefix("Mixtral", "mixtral", "Qwen3Moe", "qwen3moe"),
    "EMBD-003": with_prefix("GPT2", "gpt2"),
    "HEAD-002": with_prefix("Gemma", "gemma3"),
    "HEAD-003": CASES,
    "HEAD-004": CASES,
}


@check(
    *("NORM-001", "NORM-006", "ROPE-001", "ATTN-001", "ATTN-003", "MLP-001", "MLP-002", "EMBD-001", "RESI-001", "RESI-003"),
    area="attention",
    each=CASES,
    also=EXERCISED,
)
def every_module_is_right_on_true_inputs(name: str) -> None:
    for fault in faults(name):
        raise fault


@check("HEAD-001", "RESI-002", "NUMR-004", area="head", each=tuple(FIXTURES))
def every_tap_equals_the_golden(family: str) -> None:
    golden, this = load_golden(family), case(family)
    model = loaded(this, this.load)
    for prompt in ("near", "far"):
        ids, positions = golden.prompt(prompt)
        want, got = golden.part(prompt), dict[str, Tensor]()
        handles = [keep(got, name, module) for name, module in model.named_modules() if name in want]
        try:
            logits = model(ids, positions=positions).log_softmax(-1)
        finally:
            for handle in handles:
                handle.remove()
        for name, value in got.items():  # in the order of the data path
            if name.endswith("mlp.gate"):
                continue  # transformers' router sees tokens in one row
            error = relative_error(value, want[name])
            expect(without_layer(name), error <= SEMANTIC_BAR, f"{prompt}, {name}: off by {error:.1e} (bar {SEMANTIC_BAR:.0e})")
        error = row_error(logits, want["logits"])
        expect(
            "model.transformer.Transformer.forward",
            error <= SEMANTIC_BAR,
            f"{prompt}, logits: off by {error:.1e} (bar {SEMANTIC_BAR:.0e})",
        )


def keep(taps: dict[str, Tensor], name: str, module: nn.Module) -> Any:
    """Record a module's output if it is one tensor."""

    def see(_: nn.Module, args: Any, out: Any) -> None:
        if isinstance(out, Tensor):
            taps[name] = out.detach().clone()

    return module.register_forward_hook(see)


def without_layer(name: str) -> str:
    """ "layers.3.mlp.gate" → "mlp.gate"; a layer itself is a Block."""
    parts = name.split(".")
    if parts[0] != "layers":
        return name
    return ".".join(parts[2:]) or "model.layers.Block.forward"


@check("BATCH-002", "MOE-005", area="moe", each=tuple(FIXTURES))
def every_module_treats_the_rows_of_a_batch_alike(family: str) -> None:
    """The near prompt's true values, forwards and backwards, as two rows: each row must give what it gives alone."""
    this = case(family)
    model, trace = loaded(this, this.load), truth_of(family, "near")
    for name, module in model.named_modules():
        part = name.rpartition(".")[2]
        if f"{name}.in" not in trace or not (part == "mlp" or part.endswith("norm")):
            continue
        x = trace[f"{name}.in"]
        rows = torch.stack([x, x.flip(0)])
        got = module(rows)
        for row, one in zip(got, rows, strict=True):
            error = row_error(row, module(one[None])[0])
            expect(
                without_layer(name), error <= SEMANTIC_BAR, f"{name}: a row of a batch is off by {error:.1e} from the row alone"
            )

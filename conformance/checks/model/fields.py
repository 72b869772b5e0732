"""Every field and every tensor of a model has exactly its effect: with one changed, the logits are those of the independent
model with the same change."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from conformance.checks import Failed, check
from conformance.checks.assertions import expect
from conformance.checks.model.configured import repaired
from conformance.checks.model.diagnosis import outer_steps
from conformance.models.fixtures import FIXTURES
from conformance.truth.cases import Case, case
from conformance.truth.compare import SEMANTIC_BAR, row_error
from conformance.truth.reference import Reference
from conformance.truth.rotation import Rope
from conformance.truth.spec import Spec
from nanollama.model.transformer import Transformer

FAMILIES = tuple(FIXTURES)
EFFECT = 1e-6  # relative; the weakest field moves the logits by more
PLACES = {
    "eps": "input_layernorm",
    "activation": "mlp.activation",
    "embedding_scale": "model.transformer.Transformer.embed",
    "attention_cap": "self_attn.attend.scores",
    "logit_cap": "model.transformer.Transformer.forward",
    "scales": "self_attn.attend.scores",
    "windows": "model.kv_cache.KVView",
    "ropes": "rotary",
    "chosen": "mlp.route",
    "renormalise": "mlp.route",
}


def changes(spec: Spec) -> list[tuple[str, Any]]:
    """Fields with other values; each changes the function."""
    found: list[tuple[str, Any]] = [
        ("eps", spec.eps * 3),
        ("activation", "relu" if spec.activation != "relu" else "silu"),
        ("embedding_scale", spec.embedding_scale * 1.5),
        ("attention_cap", None if spec.attention_cap else 1.5),
        ("logit_cap", None if spec.logit_cap else 1.5),
        ("windows", (4, *(None if window else 3 for window in spec.windows[1:]))),
        ("windows", (None,) * spec.layers if any(spec.windows) else (2,) * spec.layers),
    ]
    for i in range(spec.layers):
        found.append(("scales", tuple(scale * (1.3 if i == layer else 1) for layer, scale in enumerate(spec.scales))))
        if spec.ropes[i]:
            found.append(("ropes", tuple(turned(rope) if layer == i else rope for layer, rope in enumerate(spec.ropes))))
    if spec.experts:
        found += [("chosen", spec.chosen + 1), ("chosen", 1), ("renormalise", not spec.renormalise)]
    return found


def turned(rope: Rope | None) -> Rope | None:
    """Another rotation."""
    return None if rope is None else Rope(rope.dim, 77.0, "default", {"factor": 1.0}, rope.max_length, rope.original, 1.1)


def model_of(this: Case, spec: Spec, tensors: dict[str, Tensor]) -> Transformer:
    """The subject's modules for a spec, with these weights."""
    with torch.device("meta"):
        model = Transformer(repaired(this.load().config, spec)).requires_grad_(False)
    model.load_state_dict({name: tensors[name] for name in model.state_dict()}, assign=True)
    return model.eval()


@check("CONF-020", "CONF-021", area="attention", each=FAMILIES)
def every_field_has_its_effect(family: str) -> None:
    this = case(family)
    ids, _ = this.prompt("near")
    before = this.truth.run(ids)["logits"].log_softmax(-1)
    for field, value in changes(this.spec):
        spec = replace(this.spec, **{field: value})
        truth = Reference(spec, this.truth.tensors)
        want = truth.run(ids)["logits"].log_softmax(-1)
        model = model_of(this, spec, this.truth.tensors)
        error = row_error(model(ids[None]).log_softmax(-1), want)
        if error > SEMANTIC_BAR:
            for fault in inner_faults(model, replace_case(this, spec, truth)):
                raise fault
        expect(PLACES[field], error <= SEMANTIC_BAR, f"with {field} = {str(value)[:60]} the logits are off by {error:.1e}")
        expect("conformance", row_error(before, want) > EFFECT, f"{field} has no effect here: nothing was tested")


def replace_case(this: Case, spec: Spec, truth: Reference) -> Case:
    """The case with another spec."""
    return replace(this, name=f"{this.name}, changed", spec=spec, truth=truth)


def inner_faults(model: Transformer, this: Case) -> list[Failed]:
    """The faults of a changed model, module by module."""
    ids, positions = this.prompt("near")
    trace = this.truth.run(ids, positions)
    return [fault for step in outer_steps(model, this, ids, positions, trace) for fault in step.faults()][:1]


@check("WGHT-020", area="weights", each=FAMILIES)
def every_tensor_has_its_effect(family: str) -> None:
    this = case(family)
    ids = torch.arange(97) if this.spec.experts else this.prompt("near")[0]  # every expert is chosen by some token
    tensors = {name: tensor.clone() for name, tensor in this.truth.tensors.items()}
    model = model_of(this, this.spec, tensors)
    before = model(ids[None]).log_softmax(-1)
    for name, tensor in tensors.items():
        kept = tensor.clone()
        tensor.mul_(1.01).add_(0.01)
        moved = row_error(model(ids[None]).log_softmax(-1), before[0])
        tensor.copy_(kept)
        shifts_all_scores = this.spec.learned_positions and name.endswith("k_proj.bias")
        parts = [part for part in name.split(".")[:-1] if part != "layers" and not part.isdigit()]
        expect(".".join(parts), moved > EFFECT or shifts_all_scores, f"{name} has no effect ({moved:.1e})")

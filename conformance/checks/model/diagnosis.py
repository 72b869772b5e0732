"""One model against the truth, from its files to its logits; every independent fault of it.

Only outer steps decide (embedding, norms, attention, MLP, blocks, head, whole runs). A wrong one is then taken apart in the
order of dependency: the config, the weights, then the parts, each on true inputs.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

import nanollama.model.layers
from conformance.checks import Failed, compared
from conformance.checks.checkpoint.loading import loaded, loading_faults
from conformance.checks.model.configured import config_faults, repaired
from conformance.checks.model.parts import attention_step, experts_step, linear_step, mlp_step, norm_step
from conformance.checks.model.steps import Step, all_faults
from conformance.truth.cases import Case, case, truth_of
from conformance.truth.compare import row_error
from conformance.truth.reference import Trace, cap
from conformance.truth.taps import hooks
from nanollama.model.config import ModelConfig, read_config
from nanollama.model.transformer import Transformer

NORMS = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
PROMPTS = ("near", "far")


def diagnose(name: str) -> list[Failed]:
    """Every fault of a case (a family, or one of `cases.VARIATIONS`) that is not the consequence of another."""
    found: dict[str, Failed] = {}
    for fault in faults(name):
        found.setdefault(fault.place, fault)
    return list(found.values())


def faults(name: str) -> Iterator[Failed]:
    """The same, lazily and with repeated places, so that the first one comes without waiting for the others."""
    this, found = case(name), list[Failed]()
    try:
        model = loaded(this, this.load)
        if not any(step.faults() for prompt in PROMPTS for step in judged_steps(model, this, prompt)):
            return
        found = config_faults(this.raw, model.config, this.spec) or weight_faults(model, this)
        config = model.config
    except Failed as failure:
        found, config = [failure], read_config(this.raw)
    yield from found
    if found:
        try:
            model = sound_model(config, this)
        except Exception:  # its modules can't hold the weights, so nothing else can run
            return
    clean = not found
    for part in (outer_of, whole):
        for prompt in PROMPTS:
            for step in part(model, this, prompt):
                for fault in step.faults():
                    clean = False
                    yield fault
        if not clean:  # the whole is wrong too, then
            return


def outer_of(model: Transformer, this: Case, prompt: str) -> Iterator[Step]:
    """Every part on the true values of one of the prompts."""
    return outer_steps(model, this, *this.prompt(prompt), truth_of(this.name, prompt))


def judged_steps(model: Transformer, this: Case, prompt: str) -> Iterator[Step]:
    """All steps that decide."""
    yield from outer_of(model, this, prompt)
    yield from whole(model, this, prompt)


def weight_faults(model: Transformer, this: Case) -> list[Failed]:
    """Parameters that differ from the checkpoint's tensor, at the faulty function of loading."""
    state = model.state_dict()
    for name, want in this.truth.tensors.items():
        compared()
        if name in state and not (state[name].shape == want.shape and torch.equal(state[name].double(), want)):
            return loading_faults(this) or [Failed("checkpoint.build.build_model", f"{name} is not what the file stores")]
    return []


def sound_model(config: ModelConfig, this: Case) -> Transformer:
    """The subject's modules, with the true config and the true weights."""
    with torch.device("meta"):
        model = Transformer(repaired(config, this.spec)).requires_grad_(False)
    state = model.state_dict()
    model.load_state_dict({name: this.truth.tensors[name] for name in state}, assign=True)
    return model.eval()


def outer_steps(model: Transformer, this: Case, ids: Tensor, positions: Tensor, trace: Trace) -> Iterator[Step]:
    """Every part on its true values of this prompt, from `trace`."""
    yield embedding_step(model, this, ids, positions)
    rotations, views = Lazy(lambda: model.rotations(positions[None], None)), Lazy(lambda: model.views(positions[None], None))
    for i in range(this.spec.layers):
        yield from layer_steps(model, this, i, positions, trace, rotations, views)
        want = trace[f"layers.{i}"]
        block: Any = model.layers[i]
        x = trace[f"layers.{i}.in"][None]
        run = partial(run_block, block, x, rotations, views, i)
        parts = partial(layer_steps, model, this, i, positions, trace, rotations, views)
        yield Step("model.layers.Block.forward", run, want, f"layer {i}", partial(faults_of, parts))
    yield norm_step(this.truth, model.norm, "norm", "norm", trace["norm.in"])
    yield linear_step(this.truth, model.lm_head, "lm_head", "lm_head", trace["norm"])
    finished = partial(after_head, model, ids, positions, trace)
    yield Step(
        "model.transformer.Transformer.forward",
        finished,
        trace["logits"].log_softmax(-1),
        "logits",
        partial(softcap_faults, this, trace),
    )


def after_head(model: Transformer, ids: Tensor, positions: Tensor, trace: Trace) -> Tensor:
    """Log-probabilities with the true head; the truth itself if another part makes the run fail."""
    logits = trace["logits"]
    with hooks([(model.lm_head, lambda *_: trace["lm_head"][None], False)]), suppress(Exception):
        logits = model(ids[None], positions=positions[None])
    return logits.log_softmax(-1)


def softcap_faults(this: Case, trace: Trace) -> list[Failed]:
    """A fault of the logits' softcap, if there is one."""
    head, limit = trace["lm_head"], this.spec.logit_cap
    return Step("model.layers.softcap", lambda: nanollama.model.layers.softcap(head, limit), cap(head, limit)).faults()


def run_block(block: Any, x: Tensor, rotations: Any, views: Any, i: int) -> Tensor:
    """A layer without a cache."""
    out: Tensor = block(x, rotations[i], views[i], None)
    return out


def faults_of(steps: Callable[[], Iterator[Step]]) -> list[Failed]:
    """The faults of steps that are made lazily."""
    return all_faults(steps())


class Lazy:
    """A list made at its first use, so that its exceptions belong to the step that uses it."""

    def __init__(self, make: Callable[[], list[Any]]) -> None:
        self.make = make
        self.made: list[Any] | None = None

    def __getitem__(self, i: int) -> Any:
        if self.made is None:
            self.made = self.make()
        return self.made[i]


def layer_steps(
    model: Transformer, this: Case, i: int, positions: Tensor, trace: Trace, rotations: Any, views: Any
) -> Iterator[Step]:
    """The norms, attention and MLP of layer i, in the order of the data path."""
    layer: Any = model.layers[i]
    at = f"layers.{i}"
    for name in (*NORMS[:1], "self_attn", *NORMS[1:3], "mlp", NORMS[3]):
        if name == "self_attn":
            yield attention_step(model, this.truth, i, trace[f"{at}.self_attn.in"], positions, rotations, views)
        elif name == "mlp" and this.spec.sparse[i]:
            yield experts_step(this.truth, layer.mlp, i, trace[f"{at}.mlp.in"])
        elif name == "mlp":
            yield mlp_step(this.truth, layer.mlp, f"{at}.mlp", "mlp", trace[f"{at}.mlp.in"])
        elif f"{at}.{name}" in trace:
            yield norm_step(this.truth, getattr(layer, name, None), f"{at}.{name}", name, trace[f"{at}.{name}.in"])


def embedding_step(model: Transformer, this: Case, ids: Tensor, positions: Tensor) -> Step:
    """The embedding."""
    tables = {"embed_tokens": ids} | ({"embed_positions": positions} if this.spec.learned_positions else {})

    def step(name: str, index: Tensor) -> Step:
        return Step(name, lambda: getattr(model, name)(index[None]), this.truth.tensors[f"{name}.weight"][index])

    def inner() -> list[Failed]:
        return all_faults(step(name, index) for name, index in tables.items())

    want = this.truth.embed(ids, positions)
    return Step("model.transformer.Transformer.embed", lambda: model.embed(ids[None], positions[None]), want, inner=inner)


def whole(model: Transformer, this: Case, prompt: str) -> Iterator[Step]:
    """The whole model: log-probabilities, as engines may shift logits; with given positions, then with counted ones."""
    (ids, positions), want = this.prompt(prompt), truth_of(this.name, prompt)["logits"].log_softmax(-1)

    def inner() -> list[Failed]:
        got = model.place(ids[None], None, None if prompt == "near" else positions[None])
        wrong = row_error((got - got[:, :1]).double(), (positions - positions[0]).double()[None]) > 0
        if wrong:
            return [Failed("model.transformer.Transformer.place", "positions are not counted by ones")]
        return softcap_faults(this, truth_of(this.name, prompt))

    place = "model.transformer.Transformer.forward"
    yield Step(place, lambda: model(ids[None], positions=positions[None]).log_softmax(-1), want, inner=inner)
    if prompt == "near":
        yield Step(place, lambda: model(ids[None]).log_softmax(-1), want, inner=inner)
        yield Step(place, lambda: model(ids[None], last_only=True).log_softmax(-1), want[-1:], "last_only", inner)

"""The steps of each part of a layer: outer ones decide, inner ones find the place. See `steps.py`."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import nanollama.kernels.linear
import nanollama.model.kv_cache
import nanollama.model.layers
from conformance.checks import Failed
from conformance.checks.model.steps import Step, all_faults
from conformance.checks.model.turning import rotation_steps
from conformance.truth.reference import Reference, Trace, activate, cap, seen
from conformance.truth.taps import hooks
from nanollama.model.transformer import Transformer


def linear_step(truth: Reference, module: Any, name: str, place: str, x: Tensor) -> Step:
    """A matrix; if the product itself is wrong, the fault is the kernel's."""
    want = truth.linear(name, x)

    def inner() -> list[Failed]:
        weight, bias = truth.tensors[f"{name}.weight"], truth.tensors.get(f"{name}.bias")
        return Step("kernels.linear.linear", lambda: nanollama.kernels.linear.linear(x[None], weight, bias), want).faults()

    return Step(place, lambda: module(x[None]), want, inner=inner)


def norm_step(truth: Reference, module: Any, name: str, place: str, x: Tensor) -> Step:
    """A norm, on its input and on rows a thousand times smaller (eps dominates) and larger (eps is negligible)."""
    rows = torch.cat([x, 1e-3 * x, 1e-6 * x, 1e3 * x])
    return Step(place, lambda: module(rows[None]), truth.norm(name, rows))


def attention_step(
    model: Transformer, truth: Reference, i: int, x: Tensor, positions: Tensor, rotations: Any, views: Any
) -> Step:
    """Attention of layer i without a cache, on its normed input."""
    length = int(positions.max()) + 1
    trace: Trace = {}
    want = truth.attention(i, x, positions, length, trace)
    module: Any = model.layers[i].self_attn

    def inner() -> list[Failed]:
        return all_faults([*attention_parts(model, truth, i, x, positions, trace), merging])

    def run() -> Tensor:
        return module(x[None], rotations[i], views[i], None)

    mixed, context = (trace[f"layers.{i}.self_attn.{name}"] for name in ("mixed", "context"))
    merging = Step("self_attn", partial(merged, module, run, mixed, context), context)
    return Step("self_attn", run, want, f"layer {i}", inner)


def merged(module: Any, run: Callable[[], Tensor], mixed: Tensor, context: Tensor) -> Tensor:
    """The input of o_proj [T, H·D] with the truth [H, T, D] as the core's output; the truth itself if another
    part makes the run fail."""
    caught: list[Tensor] = []
    truth = (module.attend, lambda *_: mixed[None], False)
    with hooks([truth, (module.o_proj, lambda args, _: caught.append(args[0]), True)]), suppress(Exception):
        run()
    return caught[0] if caught else context


def attention_parts(model: Transformer, truth: Reference, i: int, x: Tensor, positions: Tensor, trace: Trace) -> Iterator[Step]:
    """The parts of attention, in order."""
    module: Any = model.layers[i].self_attn
    spec, at = truth.spec, f"layers.{i}.self_attn"
    for part in "qkv":
        name = f"{at}.{part}_proj"
        yield linear_step(truth, getattr(module, f"{part}_proj"), name, f"self_attn.{part}_proj", x)
    for part in "qkv":
        flat, norm = trace[f"{at}.{part}_proj"], None
        if spec.qk_norm and part != "v":
            norm = getattr(module, f"{part}_norm", None)
            rows = flat if spec.qk_norm == "full" else flat.reshape(len(x), -1, spec.head_dim)
            yield norm_step(truth, norm, f"{at}.{part}_norm", f"self_attn.{part}_norm", rows)
        yield Step("self_attn.heads", partial(module.heads, flat[None], norm), trace[f"{at}.{part}"])
    yield from rotation_steps(model, truth, i, positions, trace)
    yield from view_steps(model, truth, i, positions)
    yield from attend_steps(module.attend, truth, i, positions, trace)
    yield linear_step(truth, module.o_proj, f"{at}.o_proj", "self_attn.o_proj", trace[f"{at}.context"])


def view_steps(model: Transformer, truth: Reference, i: int, positions: Tensor) -> Iterator[Step]:
    """The mask: made from positions, kept in a view, one view per layer."""
    window, row = truth.spec.windows[i], positions[None]
    want = seen(positions, window).double()

    def mask(view: Any) -> Tensor:
        plain = torch.ones_like(want).tril()[None, None]
        return plain if view.causal else view.allowed.double()

    yield Step("model.kv_cache.visible", lambda: nanollama.model.kv_cache.visible(row, row, window).double(), want)
    yield Step("model.kv_cache.KVView", lambda: mask(nanollama.model.kv_cache.KVView(row, window, None, model.device)), want)
    yield Step("model.transformer.Transformer.views", lambda: mask(model.views(row, None)[i]), want)


def attend_steps(attend: Any, truth: Reference, i: int, positions: Tensor, trace: Trace) -> Iterator[Step]:
    """Scores, softmax and weighted sum, by the definition and by torch's kernel, for all queries and for the last alone."""
    spec, at = truth.spec, f"layers.{i}.self_attn"
    q, k, v = (trace[f"{at}.{part}.turned"][None] for part in "qkv")
    allowed, repeated = seen(positions, spec.windows[i])[None, None], trace[f"{at}.repeated"][None]
    values = torch.linspace(-60, 60, 41, dtype=torch.float64)
    capped = cap(values, spec.attention_cap)
    yield Step("model.layers.softcap", lambda: nanollama.model.layers.softcap(values, spec.attention_cap), capped)
    yield Step("self_attn.attend.scores", lambda: attend.scores(q, repeated, allowed), trace[f"{at}.attend.scores"])
    causal = bool((allowed[0, 0] == torch.ones_like(allowed[0, 0]).tril()).all())
    mixed = trace[f"{at}.mixed"]
    for implementation in ("eager", "sdpa") if spec.attention_cap is None else ("eager",):
        run = getattr(attend, implementation)
        for flag in {False, causal}:
            view = SimpleNamespace(allowed=allowed, causal=flag)
            yield Step(f"self_attn.attend.{implementation}", partial(run, q, k, v, view), mixed)
        view = SimpleNamespace(allowed=allowed[:, :, -1:], causal=False)
        last = mixed[:, -1:]
        yield Step(f"self_attn.attend.{implementation}", partial(run, q[:, :, -1:], k, v, view), last)
    yield Step("self_attn.attend", lambda: attend(q, k, v, SimpleNamespace(allowed=allowed, causal=causal)), mixed)


def mlp_step(truth: Reference, module: Any, name: str, place: str, x: Tensor) -> Step:
    """An MLP, on its input and on larger and smaller rows, as activations differ away from 0."""
    x = torch.cat([x, 5 * x, 0.01 * x])

    def inner() -> list[Failed]:
        trace: Trace = {}
        truth.mlp(name, x, trace)
        return all_faults(mlp_parts(truth, module, name, place, x, trace))

    return Step(place, lambda: module(x[None]), truth.mlp(name, x), inner=inner)


def mlp_parts(truth: Reference, module: Any, name: str, place: str, x: Tensor, trace: Trace) -> Iterator[Step]:
    """Matrices and activation."""
    for part in ("gate_proj", "up_proj") if truth.spec.gated else ("up_proj",):
        yield linear_step(truth, getattr(module, part, None), f"{name}.{part}", f"{place}.{part}", x)
    values = torch.linspace(-8, 8, 65, dtype=torch.float64)
    wanted = activate(truth.spec.activation, values)
    yield Step(f"{place}.activation", lambda: module.activation(values), wanted, truth.spec.activation)
    yield linear_step(truth, module.down_proj, f"{name}.down_proj", f"{place}.down_proj", trace[f"{name}.inner"])


def experts_step(truth: Reference, module: Any, i: int, x: Tensor) -> Step:
    """A mixture of experts, on its input and on near ties between two experts."""
    x = torch.cat([x, 5 * x, near_ties(truth, i, x)])
    trace: Trace = {}
    want = truth.experts(i, x, trace)

    def inner() -> list[Failed]:
        return all_faults(experts_parts(truth, module, i, x, trace))

    return Step("mlp", lambda: module(x[None]), want, f"layer {i}", inner)


def near_ties(truth: Reference, i: int, x: Tensor) -> Tensor:
    """Rows moved until the last chosen expert and the first one not chosen differ by 1e-7."""
    weight, chosen = truth.tensors[f"layers.{i}.mlp.gate.weight"], truth.spec.chosen
    if chosen >= len(weight):
        return x[:0]
    order = (x @ weight.T).argsort(-1, descending=True)
    between = weight[order[:, chosen - 1]] - weight[order[:, chosen]]
    lead = (x * between).sum(-1, keepdim=True)
    return x - between * (lead / between.square().sum(-1, keepdim=True)) * (1 - 1e-7)


def experts_parts(truth: Reference, module: Any, i: int, x: Tensor, trace: Trace) -> Iterator[Step]:
    """Router, choice, experts."""
    at, logits = f"layers.{i}.mlp", trace[f"layers.{i}.mlp.gate"]
    yield linear_step(truth, module.gate, f"{at}.gate", "mlp.gate", x)

    def routed() -> Tensor:
        weights, chosen = module.route(logits)
        return torch.zeros_like(logits).scatter_add(1, chosen, weights.double())

    yield Step("mlp.route", routed, trace[f"{at}.weights"])
    for e, expert in enumerate(module.experts):
        yield mlp_step(truth, expert, f"{at}.experts.{e}", "mlp.experts", x)

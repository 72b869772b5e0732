"""Record the values inside a model, for any way of calling it, and optionally inject recorded inputs into every module.

*Local replay by injection*: before a module runs, its input is replaced by the input that the module had in the float64 run,
rounded to the model's dtype. So every module is judged alone, although the model is called as users call it: in chunks,
padded, in batches, from a cache. Errors do not accumulate, and the first module beyond its floor is the wrong one.

Every value belongs to a token of the workload, in any row or call; values of padding are dropped.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from conformance.truth.taps import NORMS, blocks, hooks, log_weights
from nanollama.model.kv_cache import KVCache
from nanollama.model.transformer import Transformer

Inputs = dict[str, Tensor]  # of every module, [tokens, size]


@dataclass(frozen=True)
class Prompt:
    """Token ids and positions, int64 [T]."""

    ids: Tensor
    positions: Tensor


@dataclass(frozen=True)
class Step:
    """One call of the model. `tokens` int64 [B, T]: the token of the workload at each entry, -1 for padding. `implicit`: the
    positions follow from the cache, so they are not passed to the model; `last_only` as in the model."""

    ids: Tensor
    positions: Tensor
    tokens: Tensor
    cache: KVCache | None = None
    implicit: bool = False
    last_only: bool = False

    def run(self, model: Transformer) -> Tensor:
        """Logits."""
        positions = None if self.implicit else self.positions
        return model(self.ids, cache=self.cache, positions=positions, last_only=self.last_only)

    def tokens_of(self, value: Tensor) -> Tensor:
        """The tokens that a value [B, T, …] belongs to: [B, T], or [B, 1] after the model has dropped all but the last ones."""
        if not self.last_only or value.shape[:2] != (len(self.tokens), 1):
            return self.tokens
        last = torch.where(self.tokens >= 0, torch.arange(self.tokens.shape[1]), -1).amax(1, keepdim=True)
        return self.tokens.gather(1, last.clamp(min=0))


Way = Callable[[Transformer, Sequence[Prompt]], Iterator[Step]]


@dataclass(frozen=True)
class Seen:
    """A tap's values, one row for every time a token passed it: `token` int64 [M], `values` float64 [M, columns, rest]."""

    token: Tensor
    values: Tensor


Observed = dict[str, Seen]


def offsets(prompts: Sequence[Prompt]) -> list[int]:
    """The number of the first token of every prompt."""
    return [sum(len(p.ids) for p in prompts[:i]) for i in range(len(prompts))]


def token_count(prompts: Sequence[Prompt]) -> int:
    """Tokens of the whole workload."""
    return sum(len(p.ids) for p in prompts)


def places(prompts: Sequence[Prompt]) -> Tensor:
    """Each token's place in its own prompt, int64 [tokens]."""
    return torch.cat([torch.arange(len(p.ids)) for p in prompts])


class Watch:
    """The hooks of one observation: they record, and inject if `inject` is given."""

    def __init__(self, prompts: Sequence[Prompt], inject: Inputs | None) -> None:
        self.prompts, self.inject = prompts, inject
        self.places, self.longest = places(prompts), max(len(p.ids) for p in prompts)
        self.found: dict[str, list[Seen]] = {}
        self.inputs: dict[str, list[Seen]] = {}
        self.step: Step | None = None

    def keep(self, store: dict[str, list[Seen]], name: str, value: Tensor) -> None:
        """Store the rows of real tokens under a name; value [B, T, …] or [B·T, …]."""
        assert self.step is not None
        value, tokens = value.detach().to("cpu", torch.float64), self.step.tokens_of(value)
        if value.shape[:2] == tokens.shape:
            value = value.flatten(0, 1)
        tokens = tokens.flatten()
        values = value[tokens >= 0]
        if values.ndim == 2:
            values = values[..., None]
        store.setdefault(name, []).append(Seen(tokens[tokens >= 0], values))

    def output(self, name: str) -> Callable[[Any, Any], None]:
        """A forward hook that stores the module's output."""
        return lambda _, out: self.keep(self.found, name, out)

    def log_output(self, name: str) -> Callable[[Any, Any], None]:
        """A forward hook that stores logits as log-probabilities: a constant added to all logits does not matter."""
        return lambda _, out: self.keep(self.found, name, out.double().log_softmax(-1))

    def weights(self, name: str) -> Callable[[Any, Any], None]:
        """A forward hook on Scores: [B, H, T, S] → log weights, each key in its place of the prompt.

        Not with a cache, whose slots only the engine knows: there only the context is compared.
        """

        def see(_: Any, out: Tensor) -> None:
            assert self.step is not None
            if self.step.cache is not None:
                return
            keys = torch.where(self.step.tokens >= 0, self.places[self.step.tokens.clamp(min=0)], self.longest)
            scores = log_weights(out.detach().to("cpu", torch.float64)).transpose(1, 2)  # [B, T, H, S]
            scores = scores.masked_fill(scores.exp() == 0, -torch.inf)  # whatever number the engine uses for a masked key
            wide = scores.new_full((*scores.shape[:-1], self.longest + 1), -torch.inf)  # the last: weight on padding
            wide.scatter_reduce_(-1, keys[:, None, None, :].expand(scores.shape), scores, "amax")
            self.keep(self.found, name, wide)

        return see

    def arrival(self, name: str) -> Callable[[Any, Any], None]:
        """A pre-hook that stores a module's input as a tap."""
        return lambda args, _: self.keep(self.found, name, args[0])

    def enter(self, name: str) -> Callable[[nn.Module, Any], Any]:
        """A pre-hook that stores a module's input and replaces it by the recorded one."""

        def see(_: nn.Module, args: Any) -> Any:
            assert self.step is not None
            x, tokens = args[0], self.step.tokens_of(args[0])
            self.keep(self.inputs, name, x)
            if self.inject is None or name not in self.inject:
                return None
            recorded = self.inject[name][tokens.clamp(min=0)].to(x.device, x.dtype)
            return torch.where((tokens >= 0)[..., None].to(x.device), recorded, x), *args[1:]

        return see


def joined(parts: dict[str, list[Seen]]) -> Observed:
    """All calls concatenated."""
    return {name: Seen(torch.cat([s.token for s in seen]), torch.cat([s.values for s in seen])) for name, seen in parts.items()}


def attach(watch: Watch, model: Transformer) -> tuple[list[Any], list[tuple[str, nn.Module]]]:
    """The hooks, and the modules whose inputs can be replaced. Tap names are those of the goldens."""
    see: list[Any] = [(model.layers[0], watch.arrival("embeddings"), True)]
    entries: list[tuple[str, nn.Module]] = []
    for i, layer in enumerate(blocks(model)):
        at, attention = f"layers.{i}", layer.self_attn
        for norm in NORMS:
            if getattr(layer, norm) is not None:
                see.append((getattr(layer, norm), watch.output(f"{at}.{norm}"), False))
                entries.append((f"{at}.{norm}", getattr(layer, norm)))
        see.append((attention.attend.scores, watch.weights(f"{at}.self_attn.weights"), False))
        see.append((attention.o_proj, watch.arrival(f"{at}.self_attn.context"), True))
        see.append((attention, watch.output(f"{at}.self_attn"), False))
        if hasattr(layer.mlp, "gate"):
            see.append((layer.mlp.gate, watch.log_output(f"{at}.mlp.gate"), False))
        see += [(layer.mlp, watch.output(f"{at}.mlp"), False), (layer, watch.output(at), False)]
        entries += [(f"{at}.self_attn", attention), (f"{at}.self_attn.o_proj", attention.o_proj)]
        entries += [(f"{at}.mlp", layer.mlp), (at, layer)]
    see.append((model.norm, watch.output("norm"), False))
    return see, [*entries, ("norm", model.norm), ("lm_head", model.lm_head)]


def observe(model: Transformer, way: Way, prompts: Sequence[Prompt], inject: Inputs | None = None) -> tuple[Observed, Observed]:
    """Run the workload; every tap's values, in the order of the data path, and every module's inputs."""
    watch = Watch(prompts, inject)
    see, entries = attach(watch, model)
    with hooks(see):  # before the injection: `arrival` stores the engine's value, not the injected one
        handles = [module.register_forward_pre_hook(watch.enter(name)) for name, module in entries]
        try:
            for step in way(model, prompts):
                watch.step = step
                watch.keep(watch.found, "logits", step.run(model).double().log_softmax(-1))
        finally:
            for handle in handles:
                handle.remove()
    return joined(watch.found), joined(watch.inputs)


def recorded_inputs(inputs: Observed, prompts: Sequence[Prompt]) -> Inputs:
    """Inputs in the order of the tokens, [tokens, size], from a run in which each token passed once."""
    order = torch.arange(token_count(prompts))
    return {name: seen.values[seen.token.argsort()][order].flatten(1) for name, seen in inputs.items()}

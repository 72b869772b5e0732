"""mlx-lm on this machine's CPU, model and cache as its own `load_model` and `make_prompt_cache` make them.

Its modules are ordinary objects, so that what goes into them and comes out is seen by giving each a class of its own for the
time of a run: taps at every module that has one of our names, and injection. The weights of attention stay inside its kernel.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import numpy as np
import torch
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model
from torch import Tensor

from conformance.engines.engine import Answer, Broken, Engine, Prompt, Taps, Unsupported, parse_options
from conformance.engines.prompt_pieces import has_gap, pieces
from conformance.models.readable_copy import readable_copy
from conformance.requirements.results import About
from conformance.truth.taps import GPT2_NAMES, NORMS

Seen = dict[str, list[Tensor]]


class Mlx(Engine):
    """A model of mlx-lm in float32, or rounded to another dtype before it is loaded."""

    def __init__(self, argument: str = "") -> None:
        self.dtype = parse_options(argument, dtype=("float32", "bfloat16", "float16"))["dtype"]
        mx.set_default_device(mx.cpu)

    def about(self) -> About:
        """Taps and injection go through the classes of its modules."""
        return About("mlx-lm", f"{mlx_lm.__version__} (mlx {mx.__version__})", ("L2", "L3", "L4"), self.dtype)

    def load(self, folder: Path) -> None:
        """As mlx-lm loads a checkpoint of this dtype; whatever it raises is what it says of the folder."""
        self.loaded = None
        with tempfile.TemporaryDirectory() as scratch:
            copy = readable_copy(folder, Path(scratch, "model"), self.dtype)
            try:
                self.loaded, _ = load_model(copy)
            except Exception as error:
                raise Unsupported(f"{type(error).__name__}: {error}") from error

    def run(self, prompt: Prompt, taps: bool = False) -> Answer:
        """One row through a cache, in one call or several."""
        seen = self.work(prompt, {}, taps)
        logits = torch.cat(seen.pop("logits"))
        return Answer(logits, finished(seen, logits) if taps else {})

    def inject(self, prompt: Prompt, inputs: Mapping[str, Tensor]) -> Taps:
        """Every named module is called with the value that it is given."""
        seen = self.work(prompt, inputs, taps=True)
        return finished(seen, torch.cat(seen.pop("logits")))

    def work(self, prompt: Prompt, inputs: Mapping[str, Tensor], taps: bool) -> Seen:
        """The logits of every call, and what was seen at every tap."""
        seen: Seen = {"logits": []}
        cache = make_prompt_cache(self.model)
        if has_gap(prompt):
            cache = [Placed(getattr(each, "max_size", None)) for each in cache]
        for piece in pieces(prompt):
            for each in cache if has_gap(prompt) else ():
                each.offset = prompt.positions[piece.start]
            with ExitStack() as stack:
                for name, value in inputs.items():
                    stack.enter_context(called(*self.place(name), enter=put(value[piece])))
                for name, (at, before) in self.taps().items() if taps else ():
                    see = keep(seen.setdefault(name, []))
                    stack.enter_context(called(*self.place(at), enter=see) if before else called(*self.place(at), leave=see))
                seen["logits"].append(as_tensor(self.call(prompt.ids[piece], cache)))
        return seen

    def call(self, ids: tuple[int, ...], cache: Any) -> Any:
        """The model, which may not be able to run what it could load."""
        try:
            return self.model(mx.array([ids]), cache=cache)
        except (ValueError, IndexError, TypeError) as error:
            raise Broken(f"{type(error).__name__}: {error}") from error

    def taps(self) -> dict[str, tuple[str, bool]]:
        """Every tap that this model has: the module where it is seen, and whether before it."""
        found = {"embeddings": ("layers.0", True)}
        for i in range(len(self.model.layers)):
            at = f"layers.{i}"
            outputs = [*NORMS, "self_attn", "mlp.gate", "mlp"]
            found |= {f"{at}.self_attn.context": (f"{at}.self_attn.o_proj", True)}
            found |= {f"{at}.{name}": (f"{at}.{name}", False) for name in outputs if self.has(f"{at}.{name}")}
            found[at] = (at, False)
        return {**found, "norm": ("norm", False)}

    def has(self, name: str) -> bool:
        """Whether the model has a module of this name."""
        try:
            return bool(self.place(name))
        except Unsupported:
            return False

    def place(self, name: str) -> tuple[Any, str]:
        """Its module of our name, and the method that is called."""
        if name == "lm_head" and "lm_head" not in self.model:
            return self.place("embed_tokens")[0], "as_linear"
        module: Any = self.model if name == "lm_head" else self.model.model
        for part in name.split("."):
            spellings = [part, GPT2_NAMES.get(part, part), {"mlp": "block_sparse_moe", "embed_tokens": "wte"}.get(part, part)]
            found = next((s for s in spellings if s in module), None) if not part.isdigit() else int(part)
            if found is None:
                raise Unsupported(f"it has no module {name}")
            module = module[found]
        return module, "__call__"


@contextmanager
def called(
    module: Any, method: str, enter: Callable[[Any], Any] = lambda x: x, leave: Callable[[Any], Any] = lambda x: x
) -> Iterator[None]:
    """Inside, what goes into a module's method and what comes out pass through these. It gets a class of its own for it."""
    plain = type(module)

    def call(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        return leave(getattr(plain, method)(self, enter(x), *args, **kwargs))

    module.__class__ = type(plain.__name__, (plain,), {method: call})
    try:
        yield
    finally:
        module.__class__ = plain


def keep(store: list[Tensor]) -> Callable[[Any], Any]:
    """Files every value that passes."""

    def see(value: Any) -> Any:
        store.append(as_tensor(value))
        return value

    return see


def put(value: Tensor) -> Callable[[Any], Any]:
    """This value [T, …] instead of the one that comes."""
    return lambda x: mx.array(value.float().numpy()).astype(x.dtype).reshape(x.shape)


def as_tensor(value: Any) -> Tensor:
    """float64 [T, …] of an array [1, T, …]."""
    return torch.from_numpy(np.array(value.astype(mx.float32))).double()[0]


def finished(seen: Seen, logits: Tensor) -> Taps:
    """Taps of all calls together; a router's as log-probabilities."""
    whole = {name: torch.cat(parts) for name, parts in seen.items()}
    gates = {name: value.log_softmax(-1) for name, value in whole.items() if name.endswith(".gate")}
    return {**whole, **gates, "logits": logits.log_softmax(-1)}


class Placed:
    """A cache whose tokens stand at any positions, for prompts with a gap, which mlx-lm's own caches can't hold.

    It answers what mlx-lm's models ask of a cache: where the next token stands, the keys and values so far, and the mask.
    """

    def __init__(self, window: int | None) -> None:
        self.offset, self.window = 0, window
        self.positions: list[int] = []
        self.parts: list[tuple[Any, Any]] = []

    def update_and_fetch(self, keys: Any, values: Any) -> tuple[Any, Any]:
        """Append [1, K, T, D]; everything so far."""
        self.parts.append((keys, values))
        self.positions += range(self.offset, self.offset + keys.shape[2])
        self.offset += keys.shape[2]
        every_key, every_value = zip(*self.parts, strict=True)
        return mx.concatenate(every_key, axis=2), mx.concatenate(every_value, axis=2)

    def make_mask(self, count: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """Which keys [S] each of the next `count` queries may see, by their positions."""
        queries = mx.arange(self.offset, self.offset + count)[:, None]
        keys = mx.array([*self.positions, *range(self.offset, self.offset + count)])[None]
        window = window_size or self.window
        seen = queries >= keys
        return seen & (queries - keys < window) if window else seen


ENGINE = Mlx

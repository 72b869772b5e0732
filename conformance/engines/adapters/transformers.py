"""transformers as an engine: eager, SDPA or compiled, in any dtype; float64 through the mode of `conformance.truth.oracle`."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache

from conformance.engines.engine import Answer, Engine, Prompt, Taps, Unsupported, parse_options, row_per_token
from conformance.requirements.results import About
from conformance.truth.oracle import precision, visible_masks
from conformance.truth.taps import GPT2_NAMES, NORMS
from nanollama.errors import NanollamaError
from nanollama.model.dtypes import DTYPES

IMPLEMENTATIONS = ("eager", "sdpa", "compiled")


class Transformers(Engine):
    """A model as `AutoModelForCausalLM` loads it. Only eager attention shows its weights; a compiled model shows nothing."""

    def __init__(self, argument: str = "") -> None:
        chosen = parse_options(argument, implementation=IMPLEMENTATIONS, dtype=tuple(DTYPES))
        self.implementation, self.dtype = chosen["implementation"], chosen["dtype"]
        if self.implementation == "compiled" and self.dtype == "float64":
            if "float64" in argument:
                raise NanollamaError("transformers:compiled,float64 is not possible: the float64 mode can't be compiled")
            self.dtype = "float32"

    def about(self) -> About:
        """Taps and injection go through hooks, which a compiled model has not."""
        levels = ("L2",) if self.implementation == "compiled" else ("L2", "L3", "L4")
        return About("transformers", transformers.__version__, levels, self.dtype, notes=self.implementation)

    def load(self, folder: Path) -> None:
        """The folder's model, which must use every tensor there is."""
        self.loaded = None
        dtype = DTYPES[self.dtype]
        attention = "sdpa" if self.implementation == "sdpa" else "eager"
        experts = "eager"  # the grouped one has no float64, and wants rows of whole 16 bytes
        load: Any = AutoModelForCausalLM.from_pretrained
        with precision(dtype), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns about configs that are unusual on purpose
            options = {"attn_implementation": attention, "experts_implementation": experts, "output_loading_info": True}
            try:
                model, info = load(folder, dtype=dtype, local_files_only=True, **options)
            except ValueError as error:  # such as a family that has no SDPA
                raise Unsupported(str(error)) from error
        if wrong := {k: v for k, v in info.items() if v}:
            raise Unsupported(f"transformers did not load the folder cleanly: {wrong}")
        self.loaded = model.eval()
        if self.implementation == "compiled":
            torch.compiler.reset()
            self.loaded.forward = torch.compile(model.forward)

    def in_dtype(self, dtype: str) -> Engine | None:
        """The same implementation in another dtype."""
        return Transformers(f"{self.implementation},{dtype}")

    def run(self, prompt: Prompt, taps: bool = False) -> Answer:
        """One row; in chunks through a DynamicCache."""
        recorder = Listener(self.model)
        if taps:
            recorder.listen()
        with recorder.working():
            logits = self.forward(prompt)
        return Answer(logits.double(), recorder.taps | ({"logits": logits.double().log_softmax(-1)} if taps else {}))

    def inject(self, prompt: Prompt, inputs: Mapping[str, Tensor]) -> Taps:
        """Every named module gets its input just before it runs."""
        recorder = Listener(self.model)
        recorder.listen()
        recorder.replace(inputs)
        with recorder.working():
            logits = self.forward(prompt)
        return recorder.taps | {"logits": logits.double().log_softmax(-1)}

    def forward(self, prompt: Prompt) -> Tensor:
        """Logits [T, V]."""
        ids, positions = torch.tensor([prompt.ids]), torch.tensor([prompt.positions])
        with precision(self.model.dtype), torch.no_grad():
            if not prompt.chunks:
                mask = visible_masks(self.model, positions)
                return self.model(ids, position_ids=positions, attention_mask=mask, use_cache=False).logits[0]
            if prompt.positions != tuple(range(len(prompt.ids))):
                raise Unsupported("its masks count places of the cache, so that positions with a gap need one call")
            name = "cache" if "cache" in inspect.signature(type(self.model).forward).parameters else "past_key_values"
            through = {name: DynamicCache(config=self.model.config), "use_cache": True}
            return torch.cat([self.model(piece, **through).logits[0] for piece in ids.split(list(prompt.chunks), 1)])


class Listener:
    """Hooks on a model of transformers by the names of our taps."""

    def __init__(self, model: Any) -> None:
        self.model, self.taps = model, Taps()
        self.gpt2 = model.config.model_type == "gpt2"
        self.hooks: list[Callable[[], Any]] = []  # each registers one

    def module(self, name: str) -> nn.Module | None:
        """Their module of our name, if the family has it."""
        parts = [GPT2_NAMES.get(part, part) if self.gpt2 else part for part in name.split(".")]
        try:
            found: nn.Module = self.model.lm_head if name == "lm_head" else self.model.base_model.get_submodule(".".join(parts))
        except AttributeError:
            return None
        return found

    @contextmanager
    def working(self) -> Iterator[None]:
        """The hooks are on while inside."""
        handles = [register() for register in self.hooks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def output(self, name: str, of: str = "", change: Callable[[Any], Tensor | None] = lambda out: out) -> None:
        """Keep what a module returns, the first of several values."""
        module = self.module(of or name)

        def see(_: Any, args: Any, out: Any) -> None:
            value = change(out)
            value = value[0] if isinstance(value, tuple) else value
            if value is not None:
                self.taps[name] = row_per_token(value)

        if module is not None:
            self.hooks.append(partial(module.register_forward_hook, see))

    def input(self, name: str, of: str) -> None:
        """Keep what arrives at a module."""
        module = self.module(of)

        def see(_: Any, args: Any, kwargs: Any) -> None:
            self.taps[name] = row_per_token(hidden(args, kwargs))

        if module is not None:
            self.hooks.append(partial(module.register_forward_pre_hook, see, with_kwargs=True))

    def listen(self) -> None:
        """All taps, in the order of the data path."""
        self.input("embeddings", "layers.0")
        for i in range(self.model.config.num_hidden_layers):
            at = f"layers.{i}"
            for norm in NORMS:
                self.output(f"{at}.{norm}")
            self.output(f"{at}.self_attn.weights", f"{at}.self_attn", lambda out: None if out[1] is None else out[1].log())
            self.input(f"{at}.self_attn.context", f"{at}.self_attn.o_proj")
            self.output(f"{at}.self_attn")
            self.output(f"{at}.mlp.gate", change=lambda out: (out[0] if isinstance(out, tuple) else out).log_softmax(-1))
            self.output(f"{at}.mlp")
            self.output(at)
        self.output("norm")

    def replace(self, inputs: Mapping[str, Tensor]) -> None:
        """Put these in the place of what arrives."""
        for name, value in inputs.items():
            module = self.module(name)
            if module is None:
                raise Unsupported(f"it has no module {name}")
            self.hooks.append(partial(module.register_forward_pre_hook, put(value), with_kwargs=True))


def hidden(args: Any, kwargs: Any) -> Tensor:
    """A module's input, however it was passed."""
    value: Tensor = args[0] if args else kwargs["hidden_states"]
    return value


def put(value: Tensor) -> Callable[[Any, Any, Any], Any]:
    """A pre-hook that replaces a module's input [1, T, …] or [T, …] by this value [T, …]."""

    def enter(_: Any, args: Any, kwargs: Any) -> Any:
        before = hidden(args, kwargs)
        new = value.to(before.device, before.dtype).reshape(before.shape)
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    return enter


ENGINE = Transformers

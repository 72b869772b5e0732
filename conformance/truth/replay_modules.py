"""Local replay: every small module of one model on the inputs of another model's module, so that errors don't add up."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from conformance.truth.compare import TapError, relative_error
from conformance.truth.taps import eager_attention, hooks
from nanollama.model.transformer import Transformer


def small_modules(model: Transformer) -> dict[str, nn.Module]:
    """The modules without submodules, in the order of the data path, and attention's core besides its submodules."""
    return {name: m for name, m in model.named_modules() if name and (not list(m.children()) or name.endswith(".attend"))}


def recorded_calls(model: Transformer, ids: Tensor) -> dict[str, tuple[Any, Any]]:
    """Every small module's arguments and result in one run, in the order in which they ran."""
    calls: dict[str, tuple[Any, Any]] = {}

    def see(name: str) -> Callable[[Any, Any], None]:
        return lambda args, out: calls.__setitem__(name, (args, out))

    pairs = [(module, see(name), False) for name, module in small_modules(model).items()]
    with eager_attention(model), hooks(pairs):
        model(ids)
    return calls


def replay(a: Transformer, b: Transformer, ids: Tensor) -> list[TapError]:
    """Relative error of each small module of B on the inputs of A's; infinite if B has no such module."""
    theirs, errors = small_modules(b), []
    with eager_attention(b):
        for name, (args, want) in recorded_calls(a, ids).items():
            if name not in theirs:
                errors.append(TapError(name, torch.inf))
                continue
            try:
                got = theirs.pop(name)(*args)
            except RuntimeError:  # of another size
                errors.append(TapError(name, torch.inf))
                continue
            errors.append(TapError(name, max(map(relative_error, tensors(got), tensors(want)))))
    return errors + [TapError(name, torch.inf) for name in theirs if name not in small_modules(a)]


def tensors(value: Any) -> tuple[Tensor, ...]:
    """A module's result as a tuple of tensors."""
    return value if isinstance(value, tuple) else (value,)


def kernel_errors(reference: Transformer, run: Transformer, ids: Tensor) -> list[TapError]:
    """Relative error of each small module in the dtype of `run` against the same module in float64, on the same inputs: those
    of the float64 run, rounded to that dtype."""
    errors = []
    modules, exact = small_modules(run), small_modules(reference)
    with eager_attention(run), eager_attention(reference):
        for name, (args, _) in recorded_calls(reference, ids).items():
            rounded = cast(args, run.dtype)
            got, want = modules[name](*rounded), exact[name](*cast(rounded, reference.dtype))
            errors.append(TapError(name, max(map(relative_error, tensors(got), tensors(want)))))
    return errors


def cast(value: Any, dtype: torch.dtype) -> Any:
    """Floating-point tensors, alone or in nested tuples, in another dtype."""
    if isinstance(value, tuple):
        return tuple(cast(each, dtype) for each in value)
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

"""`nanollama verify A B`: are these two the same function, and if not, which module is the first that differs?

Two views. *Accumulated*: each model runs alone; errors spread downstream, the first tap that differs bounds the cause.
*Replayed*: every small module of B is given exactly the input that A's module had, so a module differs only by itself, and
several independent differences all show in one run.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from conformance.compare import SEMANTIC_BAR, TapError, compare_taps, first_beyond, relative_error
from conformance.taps import Taps, eager_attention, hooks, runtime_taps
from conformance.weights import derived_ids
from nanollama.checkpoint.hub import resolve
from nanollama.errors import NanollamaError
from nanollama.lm import load_model
from nanollama.model import Transformer

PROMPT = 24  # tokens of the derived prompt


@dataclass
class Side:
    """One of the two things compared."""

    name: str
    taps: Callable[[Tensor], Taps]
    model: Transformer | None  # None: an engine whose modules can't be replayed
    vocab_size: int


def load_side(spec: str, dtype: str) -> Side:
    """A model by its spec: a folder or hub id, or `transformers:FOLDER` for the same files run by transformers."""
    engine, _, rest = spec.partition(":")
    if engine == "transformers":
        return transformers_side(resolve(rest), dtype)
    model = load_model(resolve(spec), dtype, "cpu")
    return Side(spec, lambda ids: runtime_taps(model, lambda: model(ids)), model, model.config.vocab_size)


def transformers_side(folder: Path, dtype: str) -> Side:
    """transformers' own model of a folder, tapped."""
    from conformance.oracle import load_oracle, oracle_logits
    from conformance.taps import oracle_taps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_oracle(folder, getattr(torch, dtype))
    return Side(
        f"transformers:{folder}",
        lambda ids: oracle_taps(model, lambda: oracle_logits(model, ids)),
        None,
        model.config.vocab_size,
    )


def small_modules(model: Transformer) -> dict[str, nn.Module]:
    """The modules without modules of their own, in the order of the data path; attention's core counts as two."""
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
    """Error of each small module of B on the inputs of A's; infinite where B has no such module."""
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


def verify_command(a: str, b: str, dtype: str = "float64", bar: float = SEMANTIC_BAR, prompt: list[int] | None = None) -> int:
    """Compare, print, and return the exit status: 0 the same function, 1 different."""
    one, two = load_side(a, dtype), load_side(b, dtype)
    print(f"A  {one.name}\nB  {two.name}")
    vocabulary = min(one.vocab_size, two.vocab_size)
    if prompt and (max(prompt) >= vocabulary or min(prompt) < 0):
        raise NanollamaError(f"prompt id {max(prompt)} is not in the vocabulary of both models ({vocabulary} tokens)")
    ids = torch.tensor([prompt or derived_ids(0, "verify prompt", PROMPT, vocabulary)])
    accumulated = compare_taps(two.taps(ids), one.taps(ids))
    replayed = replay(one.model, two.model, ids) if one.model is not None and two.model is not None else []
    beyond = [e for e in accumulated if not e.error <= bar]
    own = [e for e in replayed if not e.error <= bar]
    own = [e for e in own if not any(part.name.startswith(f"{e.name}.") for part in own)]  # a part explains its whole
    compared = f"{len(accumulated)} taps" + (f" and {len(replayed)} modules" if replayed else "")
    print(f"{compared} on {ids.shape[1]} tokens in {dtype}, bar {bar:.0e}\n")
    if not beyond and not own:
        largest = max(e.error for e in accumulated)
        print(f"SAME: the largest relative error is {largest:.1e}")
        return 0
    report(accumulated, own, bar)
    return 1


def report(accumulated: list[TapError], own: list[TapError], bar: float) -> None:
    """The first tap that differs in its neighbourhood, then the modules that differ by themselves."""
    first = first_beyond(accumulated, bar)
    if first:
        at = accumulated.index(first)
        print("each model alone, along the data path          relative error")
        for e in accumulated[max(0, at - 2) : at + 3]:
            print(f"  {e.name:44} {e.error:9.1e}" + ("  <- first difference" if e is first else ""))
        rest = len(accumulated) - at - 3
        print(f"  … {rest} taps more" if rest > 0 else "")
    if own:
        print("B's modules on A's inputs                      relative error")
        for e in own[:8]:
            print(f"  {e.name:44} {e.error:9.1e}")
        if len(own) > 8:
            print(f"  … {len(own) - 8} modules more")
    if own:
        cause = own[0].name + (f" and {len(own) - 1} more" if len(own) > 1 else "")
    elif first and (at := accumulated.index(first)):
        cause = f"between {accumulated[at - 1].name} and {first.name}"
    else:
        cause = accumulated[0].name
    print(f"\nDIFFERENT: {cause}")

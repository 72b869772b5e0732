"""Checks: each judges the live runtime in this process against requirements and names the first place that is wrong.

A check is a plain function under `@check("CACHE-003", area="kv_cache")`. It compares what the runtime does with a truth that
does not use the code under test, through the functions of `conformance.checks.assertions` (which count: a check that compares
nothing fails), or raises `Failed(place, detail)` itself. It caches nothing that the runtime computed: between two calls of a
check the runtime may have been changed. What the runtime raises is a failure too, at its innermost function that was running.

`all_checks()` lists them in the order of the data path, so that the first failure is the most telling one.
"""

import functools
import importlib
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RUNTIME = "nanollama"
# The modules with checks, in the order in which the score asks them: what others are built of comes first, so that the first
# check that fails is the most telling one. In a module, checks go as they are written.
ORDER = """
    model.config model.semantics model.cache checkpoint.folders quant.bits quant.decode quant.encode quant.file
    quant.mixes quant.stored quant.whole gguf.whole_models gguf.bytes gguf.metadata gguf.names gguf.written model.bounds
    checkpoint.export checkpoint.export_bytes model.fields model.positions model.precision tokenizer.added
    tokenizer.base tokenizer.cleaning tokenizer.exported tokenizer.models tokenizer.of_gguf tokenizer.unpacked
    tokenizer.wired tokenizer.written tokenizer.files tokenizer.folders tokenizer.kinds chat.messages chat.rendering
    chat.template_input chat.to_ids generation.stream_pieces generation.sampling_filters generation.sampling_order
    generation.sampling_settings generation.loop generation.reasons generation.whole generation.written checkpoint.files
    checkpoint.safetensors checkpoint.tensors checkpoint.verify
    """.split()  # noqa: SIM905


class Failed(Exception):
    """The runtime is wrong: `place` is the first module ("self_attn.attend.scores") or function ("sampling.top_p") that is."""

    def __init__(self, place: str, detail: str) -> None:
        super().__init__(f"{place}: {detail}")
        self.place, self.detail = place, detail


@dataclass(frozen=True)
class Check:
    """One judgement; `run()` raises Failed, or returns when the runtime is right."""

    name: str
    requirements: tuple[str, ...]
    area: str
    run: Callable[[], None]
    case: str = ""  # which of the cases that its function runs on
    policies: bool = False  # fails for precision policies as well: right functions that round elsewhere than ours

    @property
    def function(self) -> str:
        """The name without the case."""
        return self.name.removesuffix(f"[{self.case}]")


class _Tally:
    """How many comparisons the check that runs now has made."""

    compared = 0


def compared(count: int = 1) -> None:
    """Say that something was compared with the truth."""
    _Tally.compared += count


_registered: dict[str, list[Check]] = {}  # by module


def check(
    *requirements: str,
    area: str,
    each: Sequence[str] = (),
    also: Mapping[str, Sequence[str]] | None = None,
    policies: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a check; with `each`, as one check per string, which the function takes as its argument.

    `also`: further requirements, and the cases that judge them. `policies`: it tells precision policies, which are right,
    from our own; the score asks it about nothing else.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        module = function.__module__.removeprefix(f"{__name__}.")
        for case in each or (None,):
            name = f"{module}.{function.__name__}" + ("" if case is None else f"[{case}]")
            body = function if case is None else functools.partial(function, case)
            listed = _registered.setdefault(function.__module__, [])
            listed[:] = [other for other in listed if other.name != name]  # a module that is imported again
            more = tuple(id for id, cases in (also or {}).items() if case in cases)
            listed.append(Check(name, (*requirements, *more), area, functools.partial(judged, body), case or "", policies))
        return function

    return register


def judged(body: Callable[[], None]) -> None:
    """Run a check's body: whatever goes wrong is a Failed, and so is a body that compared nothing."""
    outer, _Tally.compared = _Tally.compared, 0
    try:
        body()
        if _Tally.compared == 0:
            raise Failed("conformance", "the check compared nothing")
    except Failed:
        raise
    except Exception as error:
        raise Failed(place_of(error.__traceback__), f"{type(error).__name__}: {str(error)[:300]}") from error
    finally:
        _Tally.compared += outer


def place_of(traceback: types.TracebackType | None) -> str:
    """The innermost function of the runtime in a traceback: "cache.LayerCache.append"; where there is none, "conformance"."""
    place = "conformance"
    while traceback is not None:
        frame: Any = traceback.tb_frame
        module = str(frame.f_globals.get("__name__", ""))
        if module.split(".")[0] == RUNTIME:
            name = frame.f_code.co_qualname.replace(".<locals>", "")
            place = f"{module}.{name}".removeprefix(f"{RUNTIME}.")
        traceback = traceback.tb_next
    return place


def all_checks() -> list[Check]:
    """Every check, what others depend on first."""
    for name in ORDER:
        importlib.import_module(f"{__name__}.{name}")
    return [check for name in ORDER for check in _registered[f"{__name__}.{name}"]]

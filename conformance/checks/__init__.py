"""Checks: each tests the live runtime in this process against requirements and names the first faulty place.

A check is a plain function under `@check("CACHE-003", area="kv_cache")`. It compares what the runtime does with a truth that
does not use the code under test, through the functions of `conformance.checks.assertions` (which count: a check that compares
nothing fails), or raises `Failed(place, detail)` itself. It caches no result of the runtime, which may change between two
calls. An exception of the runtime is a failure too, at its innermost running function.

`all_checks()` lists them in the order of the data path, so that the first failure is nearest to the cause.

One module per subject belongs here. Checks must not import score, katas, report, diagnosis or judging.
"""

import functools
import importlib
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RUNTIME = "nanollama"
# The modules with checks, in the order in which the score runs them: dependencies first, so that the first failing check is
# nearest to the cause. Within a module, checks run in the order of the source.
ORDER = """
    model.config model.semantics model.cache checkpoint.folders quant.bits quant.decode quant.encode quant.file
    quant.mixes quant.stored quant.whole gguf.whole_models gguf.bytes gguf.metadata gguf.rope gguf.names gguf.written
    model.bounds checkpoint.export checkpoint.export_bytes model.fields model.positions model.precision tokenizer.added
    tokenizer.base tokenizer.cleaning tokenizer.exported tokenizer.models tokenizer.of_gguf tokenizer.unpacked
    tokenizer.wired tokenizer.written tokenizer.files tokenizer.folders tokenizer.kinds chat.messages chat.rendering
    chat.template_input chat.to_ids generation.stream_pieces generation.sampling_filters generation.sampling_order
    generation.sampling_settings generation.loop generation.reasons generation.whole generation.written checkpoint.files
    checkpoint.safetensors checkpoint.tensors checkpoint.verify
    """.split()  # noqa: SIM905


class Failed(Exception):
    """The runtime is wrong; `place`: the first faulty module ("self_attn.attend.scores") or function ("sampling.top_p")."""

    def __init__(self, place: str, detail: str) -> None:
        super().__init__(f"{place}: {detail}")
        self.place, self.detail = place, detail


@dataclass(frozen=True)
class Check:
    """One check; `run()` raises Failed, or returns if the runtime is right."""

    name: str
    requirements: tuple[str, ...]
    area: str
    run: Callable[[], None]
    case: str = ""  # the case that its function runs on
    policies: bool = False  # also fails for precision policies: correct functions that round elsewhere

    @property
    def function(self) -> str:
        """The name without the case."""
        return self.name.removesuffix(f"[{self.case}]")


class _Tally:
    """The number of comparisons of the running check."""

    compared = 0


def compared(count: int = 1) -> None:
    """Count comparisons with the truth."""
    _Tally.compared += count


_registered: dict[str, list[Check]] = {}  # by module


def check(
    *requirements: str,
    area: str,
    each: Sequence[str] = (),
    also: Mapping[str, Sequence[str]] | None = None,
    policies: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a check; with `each`, as one check per string, the argument of the function.

    `also`: further requirements, each with the cases that test it. `policies`: the check fails for precision policies other
    than the runtime's, which are correct; the score asks it about nothing else.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        module = function.__module__.removeprefix(f"{__name__}.")
        for case in each or (None,):
            name = f"{module}.{function.__name__}" + ("" if case is None else f"[{case}]")
            body = function if case is None else functools.partial(function, case)
            listed = _registered.setdefault(function.__module__, [])
            listed[:] = [other for other in listed if other.name != name]  # the module may be imported again
            more = tuple(id for id, cases in (also or {}).items() if case in cases)
            listed.append(Check(name, (*requirements, *more), area, functools.partial(judged, body), case or "", policies))
        return function

    return register


def judged(body: Callable[[], None]) -> None:
    """Run a check's body; raises Failed for every exception, and if the body compared nothing."""
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
    """The innermost function of the runtime in a traceback ("model.kv_cache.LayerCache.append"), else "conformance"."""
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
    """Every check, dependencies first."""
    for name in ORDER:
        importlib.import_module(f"{__name__}.{name}")
    return [check for name in ORDER for check in _registered[f"{__name__}.{name}"]]

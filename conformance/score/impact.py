"""Which functions of the runtime each check runs: a check can't see a change in a function that it never calls.

Measured on the clean runtime, with Python's tracing hook. Only Python functions of this process count: what runs in another
process (a chat template's sandbox) or is not in a function (a table of a module) reaches every check, to be safe.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from conformance.checks import Check
from conformance.score.zoo.live import find_definition, forget_cached
from conformance.score.zoo.seeding import Bug

ELSEWHERE = ("nanollama.text.chat.jinja_child:",)


@dataclass(frozen=True)
class Survey:
    """What one check does on the clean runtime: the functions that it runs, and the seconds of CPU that it takes."""

    functions: frozenset[str]
    seconds: float


def functions_run(run: Callable[[], None]) -> frozenset[str]:
    """The runtime's functions that run while `run` does, as "nanollama.model.layers:RMSNorm.forward"."""
    seen: dict[CodeType, str] = {}

    def see(frame: FrameType, event: str, _: Any) -> None:  # called at every call; None: not at every line too
        if frame.f_code not in seen:
            seen[frame.f_code] = frame.f_globals.get("__name__", "")

    forget_cached()  # a cached result would hide a function
    before = sys.gettrace()
    sys.settrace(see)
    try:
        run()
    finally:
        sys.settrace(before)
    return frozenset(f"{module}:{code.co_qualname}" for code, module in seen.items() if module.startswith("nanollama"))


def survey(checks: Sequence[Check], until: float | None = None) -> dict[str, Survey]:
    """Run every check on the runtime as it is, by name; those not reached by the time `until` are left out.

    Raises Failed if one fails: it would mean nothing then that it fails with a bug.
    """
    found: dict[str, Survey] = {}
    for check in checks:
        if until is not None and time.perf_counter() > until:
            break
        started = time.process_time()
        found[check.name] = Survey(functions_run(check.run), time.process_time() - started)
    return found


def reached(bug: Bug, checks: Sequence[Check], impact: Mapping[str, frozenset[str]]) -> list[Check]:
    """The checks that can see a bug, in their order."""
    targets = {edit.at for edit in bug.edits}
    if bug.custom or any(at.startswith(ELSEWHERE) or not is_function(at) for at in targets):
        return list(checks)
    return [
        check for check in checks if any(ran == at or ran.startswith(f"{at}.") for at in targets for ran in impact[check.name])
    ]


def is_function(at: str) -> bool:
    """Whether a target of the zoo is a function, and not a table or another constant."""
    return type(find_definition(at)).__name__ in ("FunctionDef", "AsyncFunctionDef")

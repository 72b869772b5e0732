"""Which functions of the runtime each check runs: a check can't see a change in a function that it never calls.

Measured on the clean runtime with Python's tracing hook, which sees Python functions of this process only. A change in another
process (a chat template's sandbox) or outside a function (a module's table) therefore counts as seen by every check.
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

OTHER_PROCESS = ("nanollama.text.chat.jinja_child:",)


@dataclass(frozen=True)
class Survey:
    """One check on the clean runtime: the functions that it runs, and its seconds of CPU."""

    functions: frozenset[str]
    seconds: float


def functions_run(run: Callable[[], None]) -> frozenset[str]:
    """The runtime's functions that run while `run` does, as "nanollama.model.layers:RMSNorm.forward"."""
    seen: dict[CodeType, str] = {}

    def see(frame: FrameType, event: str, _: Any) -> None:  # called at every call; returning None turns line events off
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
    """Run every check on the clean runtime, by name; stops at the time `until` of perf_counter.

    Raises Failed if a check fails: its failure with a bug would then prove nothing.
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
    if bug.custom or any(at.startswith(OTHER_PROCESS) or not is_function(at) for at in targets):
        return list(checks)
    return [
        check for check in checks if any(ran == at or ran.startswith(f"{at}.") for at in targets for ran in impact[check.name])
    ]


def is_function(at: str) -> bool:
    """Whether a target of the zoo is a function, not a constant."""
    return type(find_definition(at)).__name__ in ("FunctionDef", "AsyncFunctionDef")

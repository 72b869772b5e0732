"""Which functions of the runtime each check runs: a check can't see a change in a function that it never calls.

Measured on the clean runtime, with Python's tracing hook. Only Python functions of this process count: what runs in another
process (a chat template's sandbox) or is not in a function (a table of a module) reaches every check, to be safe.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FrameType
from typing import Any

from conformance.checks import Check
from conformance.zoo.live import find_definition, forget_cached
from conformance.zoo.seeding import Bug

ELSEWHERE = ("nanollama.text.jinja_child:",)


def functions_run(run: Callable[[], None]) -> frozenset[str]:
    """The runtime's functions that run while `run` does, as "nanollama.layers:RMSNorm.forward"."""
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


def impacts(checks: Sequence[Check]) -> dict[str, frozenset[str]]:
    """The functions that each check runs, by the check's name."""
    return {check.name: functions_run(check.run) for check in checks}


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

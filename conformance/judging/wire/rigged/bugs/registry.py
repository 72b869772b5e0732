"""The list that every wrong method registers itself in."""

from collections.abc import Callable
from typing import Any

from conformance.judging.wire.rigged.server import RiggedServer

BUGS: dict[str, tuple[type[RiggedServer], str]] = {}  # by name: the server, and the requirement that must catch it


def bug(requirement: str, method: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as a server's method; its name says what is wrong."""

    def register(wrong: Callable[..., Any]) -> Callable[..., Any]:
        BUGS[wrong.__name__] = type("Wrong", (RiggedServer,), {method: wrong}), requirement
        return wrong

    return register


right = RiggedServer  # what a wrong method falls back on

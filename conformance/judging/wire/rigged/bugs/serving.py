"""Bugs in serving: refusals, and clients that leave."""

from collections.abc import Iterator
from typing import Any

from conformance.judging.wire.rigged.bugs.registry import bug, right
from conformance.judging.wire.rigged.fields import Bad
from conformance.judging.wire.rigged.server import RiggedServer
from conformance.judging.wire.rigged.writer import Json


@bug("WIRE-053", "frames")
def a_client_that_leaves_breaks_the_server(self: RiggedServer, request: Json) -> Iterator[bytes]:
    padding = b":" + b" " * 2_000_000 * (request["max_tokens"] > 100) + b"\n"  # more than fits into the sockets' buffers
    read_to_its_end = False
    try:
        for frame in right.frames(self, request):
            yield padding + frame
        read_to_its_end = True
    finally:
        if not read_to_its_end:
            self.model = None  # type: ignore[assignment]


@bug("WIRE-061", "read")
def bad_json_is_an_internal_error(self: RiggedServer, body: bytes, chat: bool) -> Json:
    try:
        return right.read(self, body, chat)
    except Bad as bad:
        raise Bad(500, bad.message) from bad


@bug("WIRE-061", "refusal")
def errors_are_plain_text(self: RiggedServer, bad: Bad) -> bytes:
    return bad.message.encode()


@bug("WIRE-063", "check")
def types_are_not_checked(self: RiggedServer, request: Any, chat: bool) -> None:
    return None

"""Bugs in streams: framing, pieces, chunks."""

from collections.abc import Iterator
from typing import Any

from conformance.judging.wire.rigged.bugs.registry import bug, right
from conformance.judging.wire.rigged.server import RiggedServer
from conformance.judging.wire.rigged.writer import Json, Written


@bug("STOP-002", "pieces")
def what_began_a_stop_string_was_streamed_already(self: RiggedServer, written: Written) -> list[str]:
    return self.shortened([self.decode([id]) for id in written.ids], written.text + "?" * (written.reason == "stop"))


@bug("WIRE-042", "ending")
def done_is_missing(self: RiggedServer) -> list[bytes]:
    return []


@bug("WIRE-041", "frame")
def events_end_with_one_newline(self: RiggedServer, data: bytes) -> bytes:
    return b"data: " + data + b"\n"


@bug("WIRE-041", "ending")
def the_last_blank_line_is_missing(self: RiggedServer) -> list[bytes]:
    return [b"data: [DONE]"]


@bug("WIRE-050", "pieces")
def characters_are_split(self: RiggedServer, written: Written) -> list[str]:
    return [self.decode([id]) for id in written.ids]


@bug("STRM-001", "pieces")
def pieces_lose_their_spaces(self: RiggedServer, written: Written) -> list[str]:
    return [piece.strip() for piece in right.pieces(self, written)]


@bug("WIRE-044", "pieces")
def a_stream_is_one_piece(self: RiggedServer, written: Written) -> list[str]:
    return [written.text]


@bug("WIRE-043", "chunks")
def every_chunk_has_another_id(self: RiggedServer, request: Json) -> Iterator[Json]:
    return (chunk | {"id": str(self.number())} for chunk in right.chunks(self, request))


@bug("WIRE-045", "part")
def every_chunk_has_a_reason(self: RiggedServer, written: Written, *rest: Any) -> Json:
    return right.part(self, written, *rest) | {"finish_reason": written.reason}


@bug("WIRE-046", "delta")
def deltas_have_no_role(self: RiggedServer, written: Written, delta: Json, reason: str | None) -> Json:
    return right.delta(self, written, {name: value for name, value in delta.items() if name != "role"}, reason)


@bug("WIRE-047", "chunks")
def usage_is_not_streamed(self: RiggedServer, request: Json) -> Iterator[Json]:
    return right.chunks(self, request | {"stream_options": {}})


@bug("WIRE-048", "part")
def all_streamed_choices_have_index_0(self: RiggedServer, *rest: Any) -> Json:
    return right.part(self, *rest) | {"index": 0}


@bug("WIRE-049", "part")
def streams_have_no_log_probabilities(self: RiggedServer, *rest: Any) -> Json:
    return right.part(self, *rest) | {"logprobs": None}

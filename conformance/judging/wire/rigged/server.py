"""Streams and HTTP: the rigged server answers over real sockets, from threads, on a port of the loopback device."""

import codecs
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from conformance.judging.wire.rigged.answers import Answers
from conformance.judging.wire.rigged.fields import Bad, check_fields
from conformance.judging.wire.rigged.writer import Json, Written

ROOT = "/v1"


class RiggedServer(Answers):
    """The whole server."""

    def pieces(self, written: Written) -> list[str]:
        """The text in the pieces that tokens make, whole characters only, and nothing of a stop string."""
        decoder, found = codecs.getincrementaldecoder("utf-8")("replace"), list[str]()
        for place, id in enumerate(written.ids):
            found.append(decoder.decode(self.model.piece(id), final=place + 1 == len(written.ids)))
        return self.shortened(found, written.text)

    def shortened(self, pieces: Sequence[str], text: str) -> list[str]:
        """The pieces as far as the text goes."""
        found, room = list[str](), len(text)
        for piece in pieces:
            found.append(piece[:room])
            room -= len(found[-1])
        return found

    def chunks(self, request: Json) -> Iterator[Json]:
        """Every chunk of a stream."""
        head, choices = self.head(request, "chat.completion.chunk"), self.write_all(request)
        for written in choices:
            if "messages" in request:
                yield {**head, "choices": [self.delta(written, {"role": "assistant", "content": ""}, None)]}
            for place, piece in enumerate(self.pieces(written)):
                yield {**head, "choices": [self.part(written, request, piece, place)]}
            yield {**head, "choices": [self.last(written, request)]}
        if (request.get("stream_options") or {}).get("include_usage"):
            yield {**head, "choices": [], "usage": self.usage(choices, request)}

    def delta(self, written: Written, delta: Json, reason: str | None) -> Json:
        """A choice of a chat's chunk."""
        return {"index": written.index, "delta": delta, "finish_reason": reason}

    def part(self, written: Written, request: Json, piece: str, place: int) -> Json:
        """A choice of a chunk with text, and with what its token's log-probabilities are."""
        if "messages" in request:
            found = self.content_list(written, request)
            content = found and {"content": found["content"][place : place + 1]}
            return {**self.delta(written, {"content": piece}, None), "logprobs": content}
        lists = self.lists(written, request)
        mine = lists and {name: values[place : place + 1] for name, values in lists.items()}
        return {"index": written.index, "text": piece, "logprobs": mine, "finish_reason": None}

    def last(self, written: Written, request: Json) -> Json:
        """A choice's last chunk."""
        if "messages" in request:
            return self.delta(written, {}, self.reason(written))
        return {"index": written.index, "text": "", "logprobs": None, "finish_reason": self.reason(written)}

    def frames(self, request: Json) -> Iterator[bytes]:
        """A stream's bytes."""
        for chunk in self.chunks(request):
            yield self.frame(json.dumps(chunk, ensure_ascii=False).encode())
        yield from self.ending()

    def frame(self, data: bytes) -> bytes:
        """One event."""
        return b"data: " + data + b"\n\n"

    def ending(self) -> list[bytes]:
        """What ends a stream."""
        return [self.frame(b"[DONE]")]

    def read(self, body: bytes, chat: bool) -> Json:
        """A request from its bytes; raises Bad if it is invalid."""
        try:
            request = json.loads(body.decode("utf-8"))
        except ValueError as error:
            raise Bad(400, f"the body is no JSON: {error}") from error
        self.check(request, chat)
        return dict(request)

    def check(self, request: Any, chat: bool) -> None:
        """Refuse an invalid request."""
        check_fields(request, chat, self.name)

    def refusal(self, bad: Bad) -> bytes:
        """The body of an error."""
        error = {"message": bad.message, "type": "invalid_request_error", "param": None, "code": None}
        return json.dumps({"error": error}).encode()

    def respond(self, method: str, path: str, body: bytes) -> tuple[int, str, Iterator[bytes]]:
        """Status, Content-Type and body."""
        try:
            if (method, path) == ("GET", f"{ROOT}/models"):
                return 200, "application/json", iter([json.dumps(self.models()).encode()])
            if method != "POST" or path not in (f"{ROOT}/completions", f"{ROOT}/chat/completions"):
                raise Bad(404, f"there is no {method} {path}")
            request = self.read(body, "chat" in path)
            if request.get("stream"):
                self.check_room(self.prompts(request))
                return 200, "text/event-stream", self.frames(request)
            return 200, "application/json", iter([json.dumps(self.answer(request)).encode()])
        except Bad as bad:
            return bad.status, "application/json", iter([self.refusal(bad)])


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.0: every answer ends with its connection."""

    rigged: RiggedServer

    def do_GET(self) -> None:
        self.send(b"")

    def do_POST(self) -> None:
        self.send(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def send(self, body: bytes) -> None:
        """Answer a request; a client may leave at any time."""
        status, kind, blocks = self.rigged.respond(self.command, self.path, body)
        with suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            for block in blocks:
                self.wfile.write(block)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


class QuietServer(ThreadingHTTPServer):
    """A server whose threads don't outlive it, and that takes many clients at once."""

    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A server that breaks hangs up; its client sees nothing else."""


@contextmanager
def serving(rigged: RiggedServer) -> Iterator[str]:
    """A running server's base URL."""
    server = QuietServer(("127.0.0.1", 0), type("Bound", (Handler,), {"rigged": rigged}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{ROOT}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

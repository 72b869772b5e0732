"""A model hub on 127.0.0.1, just complete enough for the real `huggingface_hub` client to download from it.

It serves the routes that `snapshot_download` uses (repository info, file tree, HEAD and GET of a file with ETag and
Range), logs every request, and can fail on purpose: error answers, and a connection cut in the middle of a file.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """One repository, `model_id`, with `files` on the branch main; the fields below it are the faults."""

    model_id: str
    files: dict[str, bytes]
    endpoint: str = ""
    error: tuple[int, str] | None = None  # every request is answered by this status and X-Error-Code
    cut_once: dict[str, int] = field(default_factory=dict)  # file → bytes sent before the first GET is cut
    broken: set[str] = field(default_factory=set)  # files whose every GET is answered by 500
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, Range header

    def gets(self) -> list[tuple[str, str]]:
        """(file, Range header) of every GET of a file, in order of arrival."""
        start = f"/{self.model_id}/resolve/{COMMIT}/"
        gets = [(path, span) for method, path, span in self.requests if method == "GET" and path.startswith(start)]
        return [(path.removeprefix(start), span) for path, span in gets]


@contextmanager
def serve(hub: FakeHub) -> Iterator[FakeHub]:
    """Run `hub` in a thread and set its `endpoint`."""

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path, self.headers.get("Range", "")))
        name, file = re.escape(hub.model_id), ""
        if hub.error:
            self._send(hub.error[0], b"", {"X-Error-Code": hub.error[1]})
        elif found := re.fullmatch(rf"/api/models/{name}(/revision/(?P<revision>[^/]+))?", path):
            self._send_info(found["revision"] or "main")
        elif re.fullmatch(rf"/api/models/{name}/tree/{COMMIT}", path):
            self._send_json([_tree_entry(file, body) for file, body in hub.files.items()])
        elif (found := re.fullmatch(rf"/{name}/resolve/[^/]+/(.+)", path)) and (file := found[1]) in hub.files:
            self._send_file(file)
        else:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound" if file else "RepoNotFound"})

    def _send_info(self, revision: str) -> None:
        if revision not in ("main", COMMIT):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [{"rfilename": file} for file in self.hub.files]
        self._send_json({"id": self.hub.model_id, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})

    def _send_json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send_file(self, file: str) -> None:
        body, start = self.hub.files[file], 0
        headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if self.command == "GET" and file in self.hub.broken:
            self._send(500, b"", {})
            return
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(found[1])
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        cut = self.hub.cut_once.pop(file, None) if self.command == "GET" else None
        self._send(HTTPStatus.PARTIAL_CONTENT if start else 200, body[start:], headers, cut)

    def _send(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            with suppress(ConnectionError):  # the client may give up first
                self.wfile.write(body[:cut])  # a body shorter than Content-Length is a cut connection
        self.close_connection = True


def _tree_entry(file: str, body: bytes) -> dict[str, object]:
    return {"type": "file", "path": file, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}

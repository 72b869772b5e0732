"""Any server that speaks OpenAI's completions protocol, by URL: L0 text, and L1 where it gives log-probabilities.

Only what a client sees is used, with the standard library's client, so that every byte of an answer can be judged. A key, if
the server wants one, is taken from the environment variable NANOLLAMA_API_KEY. Fields that every request shall have beyond
OpenAI's stand in the URL, and which model is meant: `http://127.0.0.1:8000/v1?repeat_penalty=1.0&model=small`.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from conformance.engines.engine import Engine, Unsupported
from conformance.requirements.results import About
from nanollama.errors import NanollamaError

DONE = "[DONE]"
SECONDS = 300.0  # that a server may be silent; a large model on a small machine is slow, and nothing here is timed


class Refused(Exception):
    """The server answered with an error. `status` is HTTP's, `message` what it says."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status, self.message = status, message


@dataclass(frozen=True)
class Reply:
    """One answer, as it came over the wire; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON; ValueError if it is none."""
        return json.loads(self.body.decode("utf-8"))

    def message(self) -> str:
        """What an error says, in one line: OpenAI's error.message, else the body; not more than its beginning."""
        try:
            text = str(self.json()["error"]["message"])
        except (ValueError, KeyError, TypeError):
            text = self.body[:2000].decode("utf-8", "replace")
        return " ".join(text.split())[:150]


def events(body: bytes) -> list[str]:
    """The data of every event of a stream, by the rules of the specification of server-sent events (WHATWG HTML, 9.2.6).

    Lines end with LF, CR or both, those that begin with a colon are comments, several data lines of one event are joined, a
    blank line ends it, and an event that no blank line ends is dropped.
    """
    found, data = [], []
    for line in re.split("\r\n|\n|\r", body.decode("utf-8", "replace").removeprefix("\ufeff"))[:-1]:
        name, _, value = line.partition(":")
        if name == "data":
            data.append(value.removeprefix(" "))
        elif not line and data:
            found.append("\n".join(data))
            data = []
    return found


def json_or_text(value: str) -> Any:
    """The value that a text spells in JSON, else the text."""
    try:
        return json.loads(value)
    except ValueError:
        return value


class OpenAIServer(Engine):
    """A server whose base URL, such as http://127.0.0.1:8000/v1, has /models, /completions and /chat/completions below it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise NanollamaError(f"{url!r} is no URL of a server; expected one such as http://127.0.0.1:8000/v1")
        self.host, self.port, self.root = parts.hostname, port, parts.path.rstrip("/")
        self.secure, self.url = parts.scheme == "https", parts._replace(query="").geturl().rstrip("/")
        self.fields = {name: json_or_text(value) for name, value in parse_qsl(parts.query)}
        self._model: str | None = None
        self._about: About | None = None

    @property
    def model(self) -> str:
        """The one that the URL names, else the first that the server lists, else "default"."""
        if "model" in self.fields:
            return str(self.fields["model"])
        if self._model is None:
            reply = self.exchange("GET", "/models")
            try:
                self._model = str(reply.json()["data"][0]["id"])
            except (ValueError, KeyError, IndexError, TypeError):
                self._model = "default"
        return self._model

    def about(self) -> About:
        """What it offers, found out by asking for one token."""
        if self._about is None:
            ask = {"model": self.model, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
            chat = {"model": self.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
            offers = [name for name, request in (("completions", ask), ("chat", chat)) if self.answers(request)]
            levels: tuple[str, ...] = ("L0",) if offers else ()
            if self.answers({**ask, "logprobs": 1}) or self.answers({**chat, "logprobs": True, "top_logprobs": 1}):
                levels = ("L0", "L1")
            version = self.exchange("GET", "/models").headers.get("server", "")
            notes = f"offers {' and '.join(offers) or 'neither completions nor chat'}"
            name = str(self.model).rpartition("/")[2]  # servers call a model by its path
            self._about = About(f"{name} at {self.url}", version, levels, "unknown", "unknown", notes)
        return self._about

    def answers(self, request: Mapping[str, Any]) -> bool:
        """Whether a request is answered, with log-probabilities where it asks for them."""
        try:
            [answer] = self.complete(request)
            return "logprobs" not in request or bool(answer["choices"][0]["logprobs"])
        except (Refused, ValueError, KeyError, IndexError, TypeError):
            return False

    def load(self, folder: Path) -> None:
        """A server has its model already."""
        raise Unsupported(f"it serves the model that it was started with; start it with {folder} and give that as --model")

    def complete(self, request: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """The answer to a completions request, or with "messages" to a chat request; with "stream" its chunks, without [DONE].

        Refused for a status other than 200; ValueError for what is no JSON.
        """
        path = "/chat/completions" if "messages" in request else "/completions"
        reply = self.post(path, {**self.fields, **request})
        if reply.status != 200:
            raise Refused(reply.status, reply.message())
        if request.get("stream"):
            return [json.loads(event) for event in events(reply.body) if event != DONE]
        return [reply.json()]

    def post(self, path: str, fields: object) -> Reply:
        """A request with JSON as its body."""
        return self.exchange("POST", path, json.dumps(fields).encode())

    def exchange(self, method: str, path: str, body: bytes | None = None) -> Reply:
        """Any request and its whole answer; OSError if there is none."""
        with self.opened(method, path, body) as response:
            try:
                content = response.read()
            except HTTPException as error:
                raise ConnectionError(f"{method} {path}: the answer ended too early: {error!r}") from error
            return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, content)

    @contextmanager
    def opened(self, method: str, path: str, body: bytes | None = None) -> Iterator[HTTPResponse]:
        """An answer whose body has not been read yet; leaving hangs up."""
        connection = (HTTPSConnection if self.secure else HTTPConnection)(self.host, self.port, timeout=SECONDS)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if key := os.environ.get("NANOLLAMA_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        try:
            connection.request(method, self.root + path, body, headers)
            with connection.getresponse() as response:
                yield response
        except HTTPException as error:
            raise ConnectionError(f"{method} {path}: no HTTP answer: {error!r}") from error
        finally:
            connection.close()


ENGINE = OpenAIServer

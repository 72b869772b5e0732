"""Probes: each sends requests to a server and tests the answers against one requirement.

A probe is a plain function under `@probe("STOP-001", COMPLETIONS, CHAT)`; it takes the endpoint that it probes, and compares
through `Endpoint.hold` and `Endpoint.same`, which count. With `optional`, a server may refuse what the probe asks for, by a
status of 4xx: that is UNSUPPORTED with the server's message, as is a probe for which the served model writes no suitable
answer. An unspecified requirement is noted and never failed.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from conformance.engines.engine import Unsupported
from conformance.engines.protocols.openai_http import OpenAIServer, Refused, Reply, events
from conformance.judging.wire.truth.truth import Truth

COMPLETIONS, CHAT, SERVER = "completions", "chat", "server"
PATHS = {COMPLETIONS: "/completions", CHAT: "/chat/completions"}
PROMPT = "Once upon a time"
PROMPTS = (PROMPT, "The sky was", "One day, a girl", "I like")
T = TypeVar("T")


class Wrong(Exception):
    """The server violates the requirement; the message is what it did."""


class Undecided(Exception):
    """The answers don't show whether the requirement is met; the message is the reason."""


@dataclass
class Tally:
    """The comparisons of one probe: their number, how many were excused as ties, the largest error and its bar."""

    compared: int = 0
    excused: int = 0
    error: float | None = None
    bar: float | None = None
    detail: str = ""


@dataclass
class Endpoint:
    """One of a server's two endpoints for text, cached answers, and the tally of the running probe."""

    engine: OpenAIServer
    name: str
    truth: Truth | None = None
    tally: Tally = field(default_factory=Tally)
    known: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Below the base URL."""
        return PATHS[self.name]

    def request(self, prompt: Any = PROMPT, **fields: Any) -> dict[str, Any]:
        """A request for a greedy answer of at most 24 tokens; fields that are None are left out."""
        asked = {"messages": [{"role": "user", "content": prompt}]} if self.name == CHAT else {"prompt": prompt}
        whole = {**self.engine.fields, "model": self.engine.model, **asked, "max_tokens": 24, "temperature": 0, **fields}
        return {name: value for name, value in whole.items() if value is not None}

    def ask(self, prompt: Any = PROMPT, **fields: Any) -> dict[str, Any]:
        """The answer to a request; Refused, or Wrong if it is no JSON object."""
        reply = self.post(self.request(prompt, **fields))
        if reply.status != 200:
            raise Refused(reply.status, reply.message())
        return self.object_of(reply)

    def post(self, fields: object) -> Reply:
        """Any request to this endpoint."""
        return self.engine.post(self.path, fields)

    def object_of(self, reply: Reply) -> dict[str, Any]:
        """The JSON object that is the body."""
        try:
            answer = reply.json()
        except ValueError:
            raise Wrong(f"the body is no JSON: {reply.body[:80]!r}") from None
        if not isinstance(answer, dict):
            raise Wrong(f"the body is no JSON object: {reply.body[:80]!r}")
        return answer

    def stream(self, prompt: Any = PROMPT, **fields: Any) -> "Stream":
        """The same as a stream, read to its end."""
        reply = self.post(self.request(prompt, **{**fields, "stream": True}))
        if reply.status != 200:
            raise Refused(reply.status, reply.message())
        return Stream(self.name, reply)

    def texts(self, answer: Mapping[str, Any]) -> list[str]:
        """The texts of all choices, by index."""
        try:
            choices = sorted(answer["choices"], key=lambda choice: choice["index"])
            return [str(c["message"]["content"] or "") if self.name == CHAT else str(c["text"]) for c in choices]
        except (KeyError, TypeError) as error:
            raise Wrong(f"its choices have no index and text: {error!r}") from error

    def text(self, prompt: Any = PROMPT, **fields: Any) -> str:
        """The text of the first choice."""
        texts = self.texts(self.ask(prompt, **fields))
        if not texts:
            raise Wrong("an answer without choices")
        return texts[0]

    def once(self, name: str, make: Callable[[], T]) -> T:
        """A value that several probes need, computed once."""
        if name not in self.known:
            self.known[name] = make()
        found: T = self.known[name]
        return found

    def baseline(self) -> str:
        """The greedy answer to the first prompt: what stop strings and limits cut."""
        text = self.once("baseline", self.text)
        if len(text) < 12:
            raise Unsupported(f"the greedy answer to {PROMPT!r} is {text!r}: too short to cut")
        return text

    def hold(self, condition: bool, otherwise: str) -> None:
        """Count a comparison; raise Wrong if it fails."""
        self.tally.compared += 1
        if not condition:
            raise Wrong(otherwise)

    def same(self, got: object, want: object, what: str) -> None:
        """Hold that two things are equal."""
        self.hold(got == want and type(got) is type(want), f"{what} is {shown(got)}; expected {shown(want)}")


@dataclass(frozen=True)
class Stream:
    """A stream's bytes, and the events and texts that a client reads from them."""

    name: str
    reply: Reply

    @property
    def events(self) -> list[str]:
        """The data of every event, [DONE] included."""
        return events(self.reply.body)

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """Every event that is JSON."""
        found = []
        for event in self.events:
            try:
                found.append(json.loads(event))
            except ValueError:
                continue
        return [chunk for chunk in found if isinstance(chunk, dict)]

    def pieces(self, index: int = 0) -> list[str]:
        """The texts of one choice, in order."""
        found = []
        for choice in self.choices():
            if choice.get("index") == index:
                piece = (choice.get("delta") or {}).get("content") if self.name == CHAT else choice.get("text")
                found.append(piece or "")
        return found

    def choices(self) -> Iterable[dict[str, Any]]:
        """The choices of all chunks, in order."""
        return (choice for chunk in self.chunks for choice in chunk.get("choices") or [])

    def text(self, index: int = 0) -> str:
        """One choice's whole text."""
        return "".join(self.pieces(index))


def shown(value: object) -> str:
    """A value's repr for a message, shortened."""
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:120]}…{text[-30:]}"


@dataclass(frozen=True)
class Probe:
    """One function for one requirement at one endpoint."""

    requirement: str
    case: str
    run: Callable[[Endpoint], None]
    optional: bool

    @property
    def name(self) -> str:
        """The name in results."""
        return f"wire.{self.run.__module__.rpartition('.')[2]}.{self.run.__name__}"


Register = Callable[[Callable[[Endpoint], None]], Callable[[Endpoint], None]]
_registered: dict[str, list[Probe]] = {}  # by module


def probe(requirement: str, *cases: str, optional: bool = False) -> Register:
    """Register a function as a probe at these endpoints, at both if none is named."""

    def register(run: Callable[[Endpoint], None]) -> Callable[[Endpoint], None]:
        found = [Probe(requirement, case, run, optional) for case in cases or (COMPLETIONS, CHAT)]
        _registered.setdefault(run.__module__, []).extend(found)
        return run

    return register


def probes_of(modules: Sequence[str]) -> list[Probe]:
    """All probes of these modules, in order."""
    return [probe for module in modules for probe in _registered[module]]

"""Several clients at once, clients that leave, several prompts in one request: no client gets another's answer."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from conformance.engines.protocols.openai_http import events
from conformance.judging.wire.probe import COMPLETIONS, PROMPT, PROMPTS, Endpoint, Wrong, probe
from conformance.judging.wire.truth.ties import hold_same_or_tied

CLIENTS = 8
T = TypeVar("T")


@probe("WIRE-051")
def answers_at_once_are_those_of_one_at_a_time(end: Endpoint) -> None:
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(CLIENTS)]
    alone = [end.text(prompt) for prompt in prompts]
    at_once = together(end.text, prompts)
    for prompt, got, want in zip(prompts, at_once, alone, strict=True):
        hold_same_or_tied(end, prompt, got, want, f"the greedy answer to {prompt!r} with other clients at the same time")


@probe("WIRE-052")
def streams_at_once_do_not_mix(end: Endpoint) -> None:
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(CLIENTS)]
    alone = [end.text(prompt) for prompt in prompts]
    at_once = [stream.text() for stream in together(end.stream, prompts)]
    for prompt, got, want in zip(prompts, at_once, alone, strict=True):
        hold_same_or_tied(end, prompt, got, want, f"the greedy stream to {prompt!r} with other clients at the same time")


def together(ask: Callable[[str], T], prompts: Sequence[str]) -> list[T]:
    """The answers to clients that ask at once."""
    with ThreadPoolExecutor(len(prompts)) as pool:
        try:
            return list(pool.map(ask, prompts))
        except OSError as error:
            raise Wrong(f"of {len(prompts)} clients at once one is cut off: {error}") from error


@probe("WIRE-053")
def a_client_that_hangs_up_disturbs_nobody(end: Endpoint) -> None:
    before = end.text()
    for seen in (1, 60):
        leave_early(end, seen)
        for text, kind in ((end.text(), "answer"), (end.stream().text(), "stream")):
            hold_same_or_tied(end, PROMPT, text, before, f"after a client left after {seen} bytes, the next {kind}")


def leave_early(end: Endpoint, seen: int) -> None:
    """Ask for a long stream, read a few bytes, hang up."""
    body = json.dumps(end.request(max_tokens=200, stream=True)).encode()
    with end.engine.opened("POST", end.path, body) as response:
        response.read(seen)


@probe("WIRE-054")
def a_stream_read_byte_by_byte_is_the_same(end: Endpoint) -> None:
    body = json.dumps(end.request(stream=True)).encode()
    with end.engine.opened("POST", end.path, body) as response:
        slowly = b"".join(iter(lambda: response.read(1), b""))
    at_once = end.stream()
    end.same(len(events(slowly)), len(at_once.events), "the number of events of a stream that is read byte by byte")


@probe("WIRE-007", COMPLETIONS, optional=True)
def every_prompt_of_a_list_is_answered_in_order(end: Endpoint) -> None:
    alone = [end.text(prompt, max_tokens=8) for prompt in PROMPTS]
    answer = end.ask(list(PROMPTS), max_tokens=8)
    end.same(sorted(choice["index"] for choice in answer["choices"]), [0, 1, 2, 3], "the indices")
    end.same(end.texts(answer), alone, "the answers")

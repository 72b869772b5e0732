"""Streams: their framing byte by byte, the fields of every chunk, and the same text as an answer in one piece."""

import json
from collections.abc import Iterator
from typing import Any

from conformance.engines.engine import Unsupported
from conformance.engines.protocols.openai_http import DONE
from conformance.judging.wire.probe import CHAT, Endpoint, Stream, probe
from conformance.judging.wire.probes.shape import usage_of

KINDS = {"completions": "text_completion", "chat": "chat.completion.chunk"}
FOREIGN = ("日本語で話しましょう。", "Ελληνικά και 😀 😃 😄", "naïve café — déjà vu", "Привет, как дела?")
FIELDS = (b"data", b"event", b"id", b"retry", b"")


@probe("WIRE-040")
def a_stream_is_announced_as_one(end: Endpoint) -> None:
    kind = end.stream(max_tokens=4).reply.headers.get("content-type", "")
    end.same(kind.partition(";")[0].strip(), "text/event-stream", "Content-Type")


@probe("WIRE-041")
def every_line_is_a_field_a_comment_or_blank(end: Endpoint) -> None:
    body = end.stream().reply.body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    end.hold(
        body.endswith(b"\n\n"), f"the stream ends with {body[-30:]!r}; expected a blank line, for a client drops what it lacks"
    )
    for line in body.split(b"\n"):
        end.hold(not line or line.partition(b":")[0] in FIELDS, f"a line is {line[:80]!r}; expected data: and the like")


@probe("WIRE-042")
def done_comes_last_and_once(end: Endpoint) -> None:
    for settings in ({}, {"max_tokens": 1}):
        found = end.stream(**settings).events
        end.same(found[-1:], [DONE], "the last event")
        end.same(found.count(DONE), 1, f"how often {DONE} comes")


@probe("WIRE-043")
def every_chunk_is_json_of_one_answer(end: Endpoint) -> None:
    stream = end.stream()
    parsed = [json.loads(event) for event in stream.events if event != DONE]
    end.hold(len(parsed) > 0, "a stream without chunks")
    for chunk in parsed:
        end.same(chunk.get("object"), KINDS[end.name], "object of a chunk")
        for name in ("id", "model", "created"):
            end.hold(bool(chunk.get(name)), f"a chunk has no {name}: {sorted(chunk)}")
            end.same(chunk[name], parsed[0][name], f"{name} of a later chunk")
    other = end.stream(max_tokens=1).chunks
    end.hold(other[0]["id"] != parsed[0]["id"], f"two streams have the same id {other[0]['id']!r}")


@probe("STRM-001")
def the_pieces_are_the_text(end: Endpoint) -> None:
    for settings in ({}, {"max_tokens": 1}, {"max_tokens": 7}, {"temperature": 1.0, "seed": 9}):
        end.same(end.stream(**settings).text(), end.text(**settings), f"with {settings} the streamed text")


@probe("WIRE-044")
def a_stream_comes_in_pieces(end: Endpoint) -> None:
    pieces = [piece for piece in end.stream().pieces() if piece]
    end.hold(len(pieces) > 1, f"an answer of 24 tokens is streamed as {pieces}")


@probe("WIRE-045")
def the_reason_comes_once_with_the_last_chunk_of_its_choice(end: Endpoint) -> None:
    for settings, want in (({"max_tokens": 3}, "length"), ({"stop": [end.baseline()[2:5]]}, "stop")):
        reasons = [choice.get("finish_reason") for choice in end.stream(**settings).choices()]
        end.same(reasons[-1:], [want], f"with {settings} the last finish_reason")
        end.same([reason for reason in reasons[:-1] if reason is not None], [], "the earlier ones")


@probe("WIRE-046", CHAT)
def the_role_comes_first(end: Endpoint) -> None:
    roles = [(choice.get("delta") or {}).get("role") for choice in end.stream().choices()]
    end.same(roles[:1], ["assistant"], "the role in the first delta")


@probe("WIRE-047", optional=True)
def usage_comes_in_a_chunk_of_its_own_when_asked_for(end: Endpoint) -> None:
    plain = end.stream(max_tokens=6).chunks
    end.hold(all(chunk.get("usage") is None for chunk in plain), "chunks have usage though nobody asked for it")
    chunks = end.stream(max_tokens=6, stream_options={"include_usage": True}).chunks
    end.hold(bool(chunks[-1].get("usage")), "stream_options.include_usage is accepted, but the last chunk has no usage")
    end.same(chunks[-1].get("choices"), [], "choices of the chunk with usage")
    end.same(usage_of(chunks[-1]), usage_of(end.ask(max_tokens=6)), "usage of a stream")
    end.hold(all(chunk.get("usage") is None for chunk in chunks[:-1]), "an earlier chunk has usage as well")


@probe("WIRE-048", optional=True)
def streamed_choices_keep_their_index(end: Endpoint) -> None:
    settings: dict[str, Any] = {"n": 2, "seed": 7, "temperature": 1.5, "max_tokens": 8}
    whole = end.texts(end.ask(**settings))
    if len(whole) != 2:
        raise Unsupported("n gives one choice")
    stream = end.stream(**settings)
    end.same([stream.text(0), stream.text(1)], whole, "the streamed texts of two choices")


@probe("WIRE-049", optional=True)
def streamed_tokens_have_log_probabilities_too(end: Endpoint) -> None:
    asked: dict[str, Any] = {"logprobs": True, "top_logprobs": 2} if end.name == CHAT else {"logprobs": 2}
    whole = end.ask(max_tokens=6, **asked)["choices"][0].get("logprobs")
    if not whole:
        raise Unsupported("it gives no log-probabilities")
    parts = [choice["logprobs"] for choice in end.stream(max_tokens=6, **asked).choices() if choice.get("logprobs")]
    want = [token["token"] for token in whole["content"]] if end.name == CHAT else whole["tokens"]
    got = (
        [t["token"] for part in parts for t in part["content"]] if end.name == CHAT else [t for p in parts for t in p["tokens"]]
    )
    end.same(got, want, "the tokens of the streamed log-probabilities")


def in_many_scripts(end: Endpoint) -> Iterator[tuple[dict[str, Any], str]]:
    """Requests whose answers have characters of several bytes, and the answers."""
    for prompt in FOREIGN:
        for settings in ({}, {"temperature": 1.0, "seed": 1}, {"temperature": 2.0, "seed": 2}):
            request: dict[str, Any] = {"prompt": prompt, "max_tokens": 40, **settings}
            text = end.text(**request)
            if any(ord(character) > 127 and character != "\ufffd" for character in text):
                yield request, text


@probe("WIRE-050")
def no_character_is_split(end: Endpoint) -> None:
    for request, text in in_many_scripts(end):
        stream = end.stream(**request)
        whole_characters(end, stream)
        end.same(stream.text(), text, "a streamed text with characters of several bytes")
    if end.tally.compared == 0:
        raise Unsupported("its model wrote no character of several bytes in 12 answers")


def whole_characters(end: Endpoint, stream: Stream) -> None:
    """Every event is UTF-8 by itself, and no piece has half of a surrogate pair."""
    for block in stream.reply.body.replace(b"\r\n", b"\n").split(b"\n\n"):
        end.hold(is_utf8(block), f"an event is no UTF-8 by itself: {block[:100]!r}")
    for piece in stream.pieces():
        end.hold(not any(0xD800 <= ord(character) < 0xE000 for character in piece), f"a piece has half a character: {piece!r}")


def is_utf8(data: bytes) -> bool:
    """Whether bytes are whole characters."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True

"""Invalid requests are refused with a status of 4xx and a JSON error with a message."""

from typing import Any

from conformance.engines.protocols.openai_http import Reply
from conformance.judging.wire.probe import CHAT, COMPLETIONS, SERVER, Endpoint, Wrong, probe


def hold_refused(end: Endpoint, reply: Reply, what: str) -> None:
    """Hold that an answer is an error in OpenAI's form, {"error": {"message": …}}, with a status of 4xx."""
    end.hold(reply.status >= 400, f"{what} is accepted, with status {reply.status}")
    end.hold(reply.status < 500, f"{what} is answered by {reply.status}, as if it were the server's fault: {reply.message()}")
    end.hold(has_message(reply), f"{what} is refused ({reply.status}) without error.message: {reply.body[:160]!r}")


def has_message(reply: Reply) -> bool:
    """Whether a body is an error that clients can show."""
    try:
        message = reply.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return False
    return isinstance(message, str) and message != ""


def each_refused(end: Endpoint, *cases: tuple[str, Any]) -> None:
    """Hold that a request is refused with each of these values; all that are not are named."""
    wrong = []
    for name, value in cases:
        try:
            hold_refused(end, end.post({**end.request(max_tokens=4), name: value}), f"{name} {value!r}")
        except Wrong as found:
            wrong.append(str(found))
        except OSError as error:
            wrong.append(f"{name} {value!r} breaks the connection ({error})")
    if wrong:
        raise Wrong("; ".join(wrong))


@probe("WIRE-061")
def a_body_that_is_no_json_is_refused(end: Endpoint) -> None:
    for body in (b"{", b"", b"\xff\xfe", b"[]", b'"text"', b'{"prompt": "a", "prompt"'):
        hold_refused(end, end.engine.exchange("POST", end.path, body), f"the body {body!r}")


@probe("WIRE-062", CHAT)
def a_chat_without_messages_is_refused(end: Endpoint) -> None:
    hold_refused(end, end.post({"model": end.engine.model, "max_tokens": 2}), "a chat without messages")
    each_refused(end, ("messages", []), ("messages", [{"content": "Hello"}]), ("messages", ["Hello"]))


@probe("WIRE-063")
def a_wrong_type_is_refused(end: Endpoint) -> None:
    content = ("messages", "Hello") if end.name == CHAT else ("prompt", {"text": "Hello"})
    wrong = (content, ("max_tokens", "many"), ("temperature", "hot"), ("stop", 5), ("stream", "perhaps"), ("n", "two"))
    each_refused(end, *wrong, ("logit_bias", [1, 2]), ("seed", "luck"))


@probe("WIRE-064")
def a_value_out_of_range_is_refused(end: Endpoint) -> None:
    each_refused(end, ("max_tokens", -7), ("temperature", -1), ("top_p", -0.5), ("top_p", 1.5), ("n", 0), ("n", -1))


@probe("WIRE-071")
def a_bias_for_a_token_that_does_not_exist_is_refused(end: Endpoint) -> None:
    each_refused(end, ("logit_bias", {"999999999": 5}), ("logit_bias", {"a": 5}), ("logit_bias", {"5": "much"}))


@probe("WIRE-065")
def values_beyond_openais_ranges(end: Endpoint) -> None:
    each_refused(end, ("temperature", 1e9), ("presence_penalty", 9), ("frequency_penalty", -9), ("stop", list("abcdefgh")))


@probe("WIRE-066")
def an_unknown_model(end: Endpoint) -> None:
    each_refused(end, ("model", "no-such-model-7c1e"))


@probe("WIRE-067")
def a_stream_is_refused_before_it_begins(end: Endpoint) -> None:
    reply = end.post(end.request(stream=True, temperature="hot"))
    hold_refused(end, reply, "a stream with temperature 'hot'")


@probe("LIMT-004")
def a_prompt_longer_than_the_context_is_refused(end: Endpoint) -> None:
    reply = end.post(end.request("word " * 300_000, max_tokens=1))
    hold_refused(end, reply, "a prompt of 300000 words")


@probe("WIRE-068", SERVER)
def an_unknown_path_is_not_found(end: Endpoint) -> None:
    reply = end.engine.exchange("GET", "/no-such-path-7c1e")
    end.same(reply.status, 404, "the status of an unknown path")


@probe("WIRE-069", COMPLETIONS)
def an_empty_stop_string_is_refused_or_stops_nothing(end: Endpoint) -> None:
    reply = end.post(end.request(stop=[""]))
    if reply.status == 200:
        end.same(end.texts(end.object_of(reply)), [end.baseline()], "with an empty stop string the texts")
    else:
        hold_refused(end, reply, "an empty stop string")


@probe("WIRE-070")
def after_all_refusals_answers_are_as_before(end: Endpoint) -> None:
    before = end.baseline()
    for fields in ({"temperature": "hot"}, {"max_tokens": -7}, {"logit_bias": {"999999999": 5}}, {"stop": 5}):
        end.post(end.request(**fields))
        end.same(end.text(), before, f"after a request with {fields} the answer")

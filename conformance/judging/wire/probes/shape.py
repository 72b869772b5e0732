"""Is an answer of the shape that a client reads: fields, types, ids, and the arithmetic of usage."""

from typing import Any

from conformance.engines.engine import Unsupported
from conformance.judging.wire.probe import CHAT, COMPLETIONS, SERVER, Endpoint, Undecided, Wrong, probe

REASONS = ("stop", "length", "content_filter", "tool_calls", "function_call")


def is_count(value: object) -> bool:
    """A whole number, 0 or more, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def usage_of(answer: dict[str, Any]) -> dict[str, int]:
    """The three counts of an answer."""
    usage = answer.get("usage")
    if usage is None:
        raise Unsupported("its answers have no usage")
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    if not isinstance(usage, dict) or not all(is_count(usage.get(name)) for name in names):
        raise Wrong(f"usage is {usage!r}; expected whole numbers for {', '.join(names)}")
    return {name: usage[name] for name in names}


@probe("WIRE-001", SERVER)
def models_are_listed(end: Endpoint) -> None:
    reply = end.engine.exchange("GET", "/models")
    end.same(reply.status, 200, "the status of GET /models")
    listing = end.object_of(reply)
    end.same(listing.get("object"), "list", "object")
    models = listing.get("data")
    end.hold(isinstance(models, list) and len(models) > 0, f"data is {models!r}; expected at least one model")
    for model in listing["data"]:
        end.same(model.get("object"), "model", "object of a model")
        end.hold(isinstance(model.get("id"), str) and model["id"] != "", f"the id of a model is {model.get('id')!r}")


@probe("WIRE-002", COMPLETIONS)
def a_completion_has_its_fields(end: Endpoint) -> None:
    answer = end.ask()
    common_fields(end, answer, "text_completion")
    end.hold(isinstance(answer["choices"][0].get("text"), str), f"text is {answer['choices'][0].get('text')!r}")


@probe("WIRE-003", CHAT)
def a_chat_answer_has_its_fields(end: Endpoint) -> None:
    answer = end.ask()
    common_fields(end, answer, "chat.completion")
    message = answer["choices"][0].get("message") or {}
    end.same(message.get("role"), "assistant", "role")
    end.hold(isinstance(message.get("content"), str), f"content is {message.get('content')!r}; expected a text")


def common_fields(end: Endpoint, answer: dict[str, Any], kind: str) -> None:
    """What both kinds of answers have."""
    end.same(answer.get("object"), kind, "object")
    for name in ("id", "model"):
        end.hold(isinstance(answer.get(name), str) and answer[name] != "", f"{name} is {answer.get(name)!r}; expected a text")
    end.hold(
        is_count(answer.get("created")) and answer["created"] > 0, f"created is {answer.get('created')!r}; expected seconds"
    )
    end.same(len(answer.get("choices") or []), 1, "the number of choices")
    [choice] = answer["choices"]
    end.same(choice.get("index"), 0, "index")
    end.hold(choice.get("finish_reason") in REASONS, f"finish_reason is {choice.get('finish_reason')!r}")


@probe("WIRE-004")
def every_answer_has_an_id_of_its_own(end: Endpoint) -> None:
    ids = [end.ask(max_tokens=1)["id"] for _ in range(3)]
    end.same(len(set(ids)), 3, f"of three answers with the ids {ids} the number of different ones")


@probe("WIRE-005")
def usage_adds_up(end: Endpoint) -> None:
    for tokens in (1, 5):
        usage = usage_of(end.ask(max_tokens=tokens))
        end.same(usage["prompt_tokens"] + usage["completion_tokens"], usage["total_tokens"], f"the sum of {usage}")


@probe("LIMT-006")
def usage_counts_every_sampled_token(end: Endpoint) -> None:
    for tokens in (1, 2, 7):
        answer = end.ask(max_tokens=tokens)
        usage = usage_of(answer)
        if answer["choices"][0]["finish_reason"] == "length":
            end.same(usage["completion_tokens"], tokens, f"completion_tokens of an answer cut after {tokens}")
    if end.tally.compared == 0:
        raise Undecided("no answer was cut by max_tokens 1, 2 or 7")


@probe("WIRE-006")
def usage_counts_the_prompt_whatever_was_asked_before(end: Endpoint) -> None:
    counts = [
        usage_of(end.ask(prompt, max_tokens=2))["prompt_tokens"] for prompt in ("One", "One", "One two three four", "One")
    ]
    end.hold(counts[0] > 0, "a prompt of no tokens")
    end.same(counts[1], counts[0], "prompt_tokens of the same prompt")
    end.hold(counts[2] > counts[0], f"a longer prompt counts {counts[2]}, the shorter {counts[0]}")
    end.same(counts[3], counts[0], "prompt_tokens of the same prompt, later")


@probe("WIRE-008", CHAT)
def a_message_in_parts_is_the_same_message(end: Endpoint) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "Once upon a time"}]}]
    end.same(end.texts(end.ask(messages=parts)), [end.text("Once upon a time")], "the answer to the same text in parts")


@probe("WIRE-009", CHAT, optional=True)
def every_message_of_a_conversation_counts(end: Endpoint) -> None:
    user, system = {"role": "user", "content": "Hello there"}, {"role": "system", "content": "You are a pirate who sings"}
    answer, again = {"role": "assistant", "content": "Ahoy, my dear friend"}, {"role": "user", "content": "And now?"}
    conversations = [[user], [system, user], [user, answer, again], [system, user, answer, again]]
    counts = [usage_of(end.ask(messages=messages, max_tokens=1))["prompt_tokens"] for messages in conversations]
    end.hold(counts[2] > counts[0], f"a conversation of three messages has {counts[2]} tokens, its first alone {counts[0]}")
    end.hold(counts[1] > counts[0], f"with a system message a prompt has {counts[1]} tokens, without it {counts[0]}")
    end.hold(counts[3] > counts[2], f"four messages have {counts[3]} tokens, three of them {counts[2]}")


@probe("WIRE-060", SERVER)
def the_answer_names_the_model(end: Endpoint) -> None:
    end.same(end.ask(max_tokens=1).get("model"), end.engine.model, "the model of an answer")

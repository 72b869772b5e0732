"""The fields of a request: types and ranges by OpenAI's specification. Any other field is refused by name."""

from collections.abc import Callable
from typing import Any


class Bad(Exception):
    """A request that is refused, with HTTP's status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def number(low: float, high: float) -> Callable[[Any], bool]:
    """A number within a range."""
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def whole(low: int, high: int = 2**63) -> Callable[[Any], bool]:
    """A whole number within a range."""
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def truth(value: Any) -> bool:
    """true or false."""
    return isinstance(value, bool)


def texts(value: Any) -> bool:
    """Some texts, none of them empty, or nothing."""
    return (
        value is None or (isinstance(value, str) and value != "") or is_list(value, lambda s: isinstance(s, str) and s != "", 4)
    )


def is_list(value: Any, each: Callable[[Any], bool], most: int = 2048) -> bool:
    """A list of at most so many."""
    return isinstance(value, list) and len(value) <= most and all(map(each, value))


def prompt(value: Any) -> bool:
    """A text or texts."""
    return isinstance(value, str) or (is_list(value, lambda text: isinstance(text, str)) and value != [])


def messages(value: Any) -> bool:
    """A conversation, not empty."""
    return is_list(value, message) and value != []


def message(value: Any) -> bool:
    """A role that is known, and a content that is a text or parts of one."""
    if not isinstance(value, dict) or value.get("role") not in ("system", "user", "assistant"):
        return False
    content = value.get("content")
    return isinstance(content, str) or is_list(content, lambda part: part.get("type") == "text")


def biases(value: Any) -> bool:
    """Token ids in texts, and numbers."""
    return isinstance(value, dict) and all(
        key.isdigit() and int(key) < 257 and number(-100, 100)(v) for key, v in value.items()
    )


SHARED = {
    "model": lambda value: isinstance(value, str),
    "max_tokens": whole(0),
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "n": whole(1, 128),
    "seed": whole(-(2**63)),
    "stop": texts,
    "stream": truth,
    "stream_options": lambda value: isinstance(value, dict) and set(value) <= {"include_usage"},
    "logit_bias": biases,
    "presence_penalty": number(-2, 2),
    "frequency_penalty": number(-2, 2),
}
COMPLETION = SHARED | {"prompt": prompt, "echo": truth, "logprobs": whole(0, 5)}
CONVERSATION = SHARED | {"messages": messages, "logprobs": truth, "top_logprobs": whole(0, 20)}


def check_fields(request: Any, chat: bool, model: str) -> None:
    """Raise Bad for the first field that is not as it must be."""
    if not isinstance(request, dict):
        raise Bad(400, "the body is no JSON object")
    known = CONVERSATION if chat else COMPLETION
    needed = "messages" if chat else "prompt"
    if needed not in request:
        raise Bad(400, f"{needed} is missing")
    for name, value in request.items():
        if name not in known:
            raise Bad(400, f"there is no field {name!r}")
        if not known[name](value):
            raise Bad(400, f"{name} is {value!r}, which is not of its type or range")
    if request.get("model", model) != model:
        raise Bad(404, f"there is no model {request['model']!r}")

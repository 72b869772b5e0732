"""A conversation, checked and prepared as transformers' `apply_chat_template` does it before a template sees it.

Source: transformers 5, tokenization_utils_base.py (`apply_chat_template`) and utils/chat_template_utils.py
(`render_jinja_template`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nanollama.errors import NanollamaError

Message = dict[str, Any]

REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""The names under which a message's reasoning is passed; templates read the first, some the second."""

CONTINUE_TAG = "CONTINUE_FINAL_MESSAGE_TAG "
"""Put after the message to continue, to find its end in the rendered text; the space shows whether the template trims."""


def plain_data(value: Any, where: str) -> Any:
    """A copy in JSON's types only, the only types that a template gets; `where` names the value in an error."""
    try:
        return _copy(value, where)
    except RecursionError:
        raise NanollamaError(f"{where} is nested too deeply, or contains itself") from None


def _copy(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise NanollamaError(f"{where} has the key {wrong[0]!r:.80}; keys must be strings")
        return {key: _copy(item, f"{where}[{key!r:.80}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise NanollamaError(f"{where} is a {type(value).__name__}; expected text, numbers, lists and dicts, as in JSON")


def checked_dicts(items: Any, where: str, expected: str) -> list[dict[str, Any]] | None:
    """A copy of a list of dicts, or None."""
    if items is None:
        return None
    if isinstance(items, str | Mapping) or not isinstance(items, Sequence):
        raise NanollamaError(f"{where} is a {type(items).__name__}; expected a list")
    for index, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise NanollamaError(f"{where}[{index}] is a {type(item).__name__}; expected {expected}")
    return list(plain_data(items, where))


def checked_messages(messages: Any) -> list[Message]:
    """A copy of the conversation, without the fields that are None: templates would print them as the word `None`."""
    chat = checked_dicts(messages, "messages", "a dict such as {'role': 'user', 'content': 'Hi'}")
    if not chat:
        raise NanollamaError("messages is empty; a conversation needs at least one message")
    for index, message in enumerate(chat):
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str):
            raise NanollamaError(f"messages[{index}] has the role {role!r:.80}; expected a string such as 'user'")
        if isinstance(content, list):
            checked_dicts(content, f"messages[{index}]['content']", "a part such as {'type': 'text', 'text': 'Hi'}")
        elif content is not None and not isinstance(content, str):
            kind = type(content).__name__
            raise NanollamaError(f"messages[{index}]['content'] is a {kind}; expected a string, a list of parts, or None")
    return [{key: value for key, value in message.items() if value is not None} for message in chat]


def with_reasoning_names(chat: list[Message]) -> list[Message]:
    """Give a message's reasoning the names that templates read, from whichever of REASONING_FIELDS it has."""
    named = []
    for message in chat:
        reasoning = next((message[field] for field in REASONING_FIELDS if field in message), None)
        if reasoning is not None:
            message = {"thinking": reasoning, **message, "reasoning_content": reasoning}
        named.append(message)
    return named


def tag_final_message(chat: list[Message], field: bool | str, source: str) -> str:
    """Append the tag to the text to be continued, in place, and return that text (of a list of parts: the last text)."""
    field = field if isinstance(field, str) else "content"
    final = chat[-1].get(field)
    same = [name for name in REASONING_FIELDS if chat[-1].get(name) == final] if field in REASONING_FIELDS else [field]
    if not any(name in source for name in same):
        raise NanollamaError(f"continue_final_message: the chat template never mentions {field!r}")
    if isinstance(final, list):
        texts = [part for part in final if isinstance(part, dict) and isinstance(part.get("text"), str)]
        holders = [(part, "text") for part in texts[-1:]]
    else:
        holders = [(chat[-1], name) for name in same] if isinstance(final, str) else []
    if not holders:
        raise NanollamaError(f"continue_final_message: the last message has no text in {field!r} to continue")
    text = str(holders[0][0][holders[0][1]])
    for holder, name in holders:
        holder[name] = text + CONTINUE_TAG
    return text


def cut_at_tag(text: str, ending: str) -> str:
    """The rendered text up to the tag; if the template trimmed the tag's space, the message's end is trimmed too."""
    tag = CONTINUE_TAG.strip()
    if text.count(tag) != 1 or ending.strip() not in text:
        raise NanollamaError(
            "continue_final_message: the last message does not appear in the rendered chat as it is and once, so the "
            f"template changes, drops or repeats it: {ending.strip()!r:.80}"
        )
    end = text.index(tag)
    return text[:end] if text.startswith(CONTINUE_TAG, end) else text[:end].rstrip()

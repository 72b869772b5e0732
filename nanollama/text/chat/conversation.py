"""A conversation of user and assistant, the part of it that fits the context, and its file."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanollama.checkpoint.files import read_json
from nanollama.errors import NanollamaError, quote

Message = dict[str, str]
Encode = Callable[[list[Message]], list[int]]


@dataclass
class Conversation:
    """A system prompt or None, and turns: (user's message, answer).

    dropped: the number of oldest turns that no longer fit the context; the model does not see them, the file keeps them.
    """

    system: str | None = None
    turns: list[tuple[str, str]] = field(default_factory=list)
    dropped: int = 0

    def messages(self, dropped: int = 0, newest: str | None = None) -> list[Message]:
        """The messages for a template, without the first `dropped` turns, with a new user message at the end."""
        chat = [] if self.system is None else [{"role": "system", "content": self.system}]
        for user, assistant in self.turns[dropped:]:
            chat += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
        return chat if newest is None else [*chat, {"role": "user", "content": newest}]

    def fit(self, newest: str, encode: Encode, context: int, reserve: int) -> list[int]:
        """The ids of the conversation and a new message, with as many of the latest turns as leave room for an answer.

        context, reserve: tokens of the context, and of the room for the answer. Dropped turns stay dropped. If even the system
        prompt and the message leave less than `reserve`, the answer gets the rest; NanollamaError if there is no rest.
        """

        def fits(dropped: int) -> bool:
            return len(encode(self.messages(dropped, newest))) <= context - reserve

        if not fits(self.dropped):
            self.dropped = bisect_left(range(len(self.turns)), True, lo=min(self.dropped + 1, len(self.turns)), key=fits)
        ids = encode(self.messages(self.dropped, newest))
        if len(ids) >= context:
            alone = "the message" if self.system is None else "the system prompt and the message"
            raise NanollamaError(
                f"{alone} make {len(ids)} tokens, which leaves no room for an answer in a context of {context}; shorten them, "
                "or begin with a larger --context, if the model allows more"
            )
        return ids


def to_json(conversation: Conversation) -> dict[str, Any]:
    """The whole conversation, dropped turns included, as the content of a file."""
    return {"messages": conversation.messages()}


def load_conversation(path: Path) -> Conversation:
    """Read the file of a conversation: {"messages": [...]}, an optional system message, then user and assistant in turn."""
    chat = read_json(path)
    messages = chat.get("messages")
    if set(chat) != {"messages"} or not isinstance(messages, list):
        raise NanollamaError(f'{path} has the keys {quote(sorted(chat))}; expected {{"messages": [...]}}, as /save writes it')
    for index, message in enumerate(messages):
        check_message(f"{path}: messages[{index}]", message)
    roles = [message["role"] for message in messages]
    start = int(roles[:1] == ["system"])
    for index, role in enumerate(roles[start:], start):
        wanted = "user" if (index - start) % 2 == 0 else "assistant"
        if role != wanted:
            raise NanollamaError(f"{path}: messages[{index}] is of {quote(role)}; expected {wanted!r}: they take turns")
    if (len(roles) - start) % 2:
        raise NanollamaError(f"{path}: the last message has no answer; expected one from 'assistant'")
    texts = [message["content"] for message in messages]
    turns = list(zip(texts[start::2], texts[start + 1 :: 2], strict=True))
    return Conversation(texts[0] if start else None, turns)


def check_message(where: str, message: Any) -> None:
    """Raise NanollamaError unless this is {"role": text, "content": text}."""
    if not isinstance(message, dict) or set(message) != {"role", "content"}:
        raise NanollamaError(f"{where} is {quote(message)}; expected an object with role and content")
    for key, text in message.items():
        if not isinstance(text, str) or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise NanollamaError(f"{where}: {key} is {quote(text)}; expected text")

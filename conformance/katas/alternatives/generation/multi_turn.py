"""Other right ways to fit a conversation into the context."""

from nanollama.errors import NanollamaError
from nanollama.text.chat.conversation import Conversation, Encode, Message


def Conversation_messages__append(self: Conversation, dropped: int = 0, newest: str | None = None) -> list[Message]:
    """one message after the other"""
    chat: list[Message] = []
    if self.system is not None:
        chat.append({"role": "system", "content": self.system})
    for index in range(dropped, len(self.turns)):
        for role, content in zip(("user", "assistant"), self.turns[index], strict=True):
            chat.append({"role": role, "content": content})
    if newest is not None:
        chat.append({"role": "user", "content": newest})
    return chat


def Conversation_fit__one_by_one(self: Conversation, newest: str, encode: Encode, context: int, reserve: int) -> list[int]:
    """one turn after the other is dropped, until it fits or none is left"""
    ids = encode(self.messages(self.dropped, newest))
    while len(ids) + reserve > context and self.dropped < len(self.turns):
        self.dropped += 1
        ids = encode(self.messages(self.dropped, newest))
    if context - len(ids) > 0:
        return ids
    what = "the message" if self.system is None else "the system prompt and the message"
    raise NanollamaError(f"{what} make {len(ids)} tokens, too many for a context of {context}")


def Conversation_fit__the_first_that_fits(
    self: Conversation, newest: str, encode: Encode, context: int, reserve: int
) -> list[int]:
    """every number of turns is tried, from the one dropped already to all of them"""
    for dropped in range(self.dropped, len(self.turns) + 1):
        self.dropped = dropped
        ids = encode(self.messages(dropped, newest))
        if len(ids) <= context - reserve:
            break
    if len(ids) >= context:
        alone = "the message" if self.system is None else "the system prompt and the message"
        raise NanollamaError(f"{alone} make {len(ids)} tokens; a context of {context} has no room for an answer then")
    return ids

"""A conversation that is too long, written again: a letter is a token here, so that lengths are easy to count."""

from conformance.katas.testing.compare import agree, refuses
from nanollama.errors import NanollamaError
from nanollama.text.chat.conversation import Conversation, Message

TURNS = [("a", "A"), ("b", "B"), ("c", "C")]


def encode(messages: list[Message]) -> list[int]:
    """Every letter of every message is a token; there are no other tokens."""
    return [ord(letter) for message in messages for letter in message["content"]]


def spelled(ids: list[int]) -> str:
    """The letters again."""
    return "".join(map(chr, ids))


def talk(system: str | None = None, turns: list[tuple[str, str]] = TURNS) -> Conversation:
    """A new conversation for each test."""
    return Conversation(system, list(turns))


def roles(messages: list[Message]) -> list[str]:
    """Role and content, one word each."""
    return [f"{message['role']}:{message['content']}" for message in messages]


def fitted(chat: Conversation, newest: str, context: int, reserve: int = 0) -> str:
    """The letters that the model gets."""
    return spelled(chat.fit(newest, encode, context, reserve))


def test_user_and_assistant_take_turns() -> None:
    """Two turns are four messages."""
    want = ["user:a", "assistant:A", "user:b", "assistant:B"]
    agree("the messages", roles(talk(turns=TURNS[:2]).messages()), want)


def test_the_system_prompt_comes_first_and_once() -> None:
    """Without turns it is the only message."""
    agree(
        "the messages", roles(talk("s", TURNS[:2]).messages()), ["system:s", "user:a", "assistant:A", "user:b", "assistant:B"]
    )
    agree("the messages of no turn", roles(talk("s", []).messages()), ["system:s"])


def test_an_empty_system_prompt_is_one() -> None:
    """ "" is a system prompt, None is not."""
    agree("the messages", talk("", []).messages(), [{"role": "system", "content": ""}])
    agree("the messages without", talk(None, []).messages(), [])


def test_a_new_message_is_the_users_and_comes_last() -> None:
    """Also an empty one."""
    agree("the messages", roles(talk(turns=TURNS[:1]).messages(newest="n")), ["user:a", "assistant:A", "user:n"])
    agree("the messages", roles(talk(turns=[]).messages(newest="")), ["user:"])


def test_the_oldest_turns_are_left_out() -> None:
    """One dropped: b B c C; all three: nothing but the system prompt and the new message."""
    agree("the messages, 1 dropped", roles(talk().messages(1)), ["user:b", "assistant:B", "user:c", "assistant:C"])
    agree("the messages, 3 dropped", roles(talk("s").messages(3, "n")), ["system:s", "user:n"])


def test_the_conversation_itself_stays() -> None:
    """The messages are new; the turns are unchanged."""
    chat = talk("s")
    chat.messages(2, "n")
    agree("the turns", chat.turns, TURNS)


def test_a_conversation_that_fits_is_unchanged() -> None:
    """7 tokens in a context of 8, and nothing reserved."""
    chat = talk()
    agree("what the model sees", fitted(chat, "n", 8), "aAbBcCn")
    agree("dropped", chat.dropped, 0)


def test_an_exact_fit_drops_nothing() -> None:
    """7 tokens, 3 reserved, a context of 10: an exact fit."""
    agree("what the model sees", fitted(talk(), "n", 10, 3), "aAbBcCn")


def test_one_token_too_many_costs_a_whole_turn() -> None:
    """7 tokens, 3 reserved, a context of 9: a and A are dropped together, or an answer would come first."""
    chat = talk()
    agree("what the model sees", fitted(chat, "n", 9, 3), "bBcCn")
    agree("dropped", chat.dropped, 1)


def test_no_more_turns_are_dropped_than_needed() -> None:
    """Room for 5 tokens: two turns and the message. For 3: one turn. For 1: the message."""
    agree("room for 5", fitted(talk(), "n", 5 + 9, 9), "bBcCn")
    agree("room for 4", fitted(talk(), "n", 4 + 9, 9), "cCn")
    agree("room for 3", fitted(talk(), "n", 3 + 9, 9), "cCn")
    agree("room for 2", fitted(talk(), "n", 2 + 9, 9), "n")


def test_the_system_prompt_is_never_dropped() -> None:
    """Room for 4: s, one turn, the message."""
    agree("what the model sees", fitted(talk("s"), "n", 4 + 2, 2), "scCn")


def test_turns_once_dropped_stay_dropped() -> None:
    """A long message drops two turns. A short one after it would have room for all three, but two stay dropped."""
    chat = talk()
    agree("with a long message", fitted(chat, "nnnn", 6 + 9, 9), "cCnnnn")
    agree("with a short one", fitted(chat, "n", 7 + 9, 9), "cCn")
    agree("dropped", chat.dropped, 2)


def test_a_longer_message_drops_more_turns() -> None:
    """One turn is dropped already; the next message drops one more."""
    chat = talk()
    chat.dropped = 1
    agree("what the model sees", fitted(chat, "nn", 5 + 9, 9), "cCnn")
    agree("dropped", chat.dropped, 2)


def test_long_turns_are_counted_by_their_tokens() -> None:
    """The first turn has 2 tokens, the second 20: with room for 6, both are dropped and the third is kept."""
    chat = talk(turns=[("a", "A"), ("b" * 10, "B" * 10), ("c", "C")])
    agree("what the model sees", fitted(chat, "n", 6 + 9, 9), "cCn")


def test_the_rest_of_the_context_may_be_less_than_the_reserve() -> None:
    """The message alone has 5 tokens, 4 are reserved of 8: the answer gets the 3 that are left."""
    agree("what the model sees", fitted(talk(), "nnnnn", 8, 4), "nnnnn")
    agree("what the model sees, without turns", fitted(talk("s", []), "nnnn", 8, 4), "snnnn")


def test_without_any_room_for_an_answer_there_is_an_error() -> None:
    """7 tokens in a context of 7, and of 6: the error names the 7. With a system prompt it mentions that too."""
    for context in (7, 6):
        refuses(talk().fit, "nnnnnnn", encode, context, 1, error=NanollamaError, naming="7")
    refuses(talk("s").fit, "nnnnnnn", encode, 8, 1, error=NanollamaError, naming="system prompt")

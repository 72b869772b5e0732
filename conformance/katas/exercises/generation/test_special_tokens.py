"""Special tokens as text, written again: typed text must stay text, while the template's tokens stay tokens."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from conformance.katas.testing.compare import agree, answers, refuses
from nanollama.errors import NanollamaError
from nanollama.text.chat.encode import encode_as_text, map_strings, mark_first_characters, unused_character

SPECIAL = {"<s>": 300, "<end>": 301, "[X]": 302, "[X]!": 303}


class Letters:
    """A letter's id is its code point; the special tokens follow from 300 on."""

    special_ids, bos_id = frozenset(SPECIAL.values()), None

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        pieces = re.split("(<s>|<end>|\\[X\\]!?)", text) if parse_special else [text]
        return [i for piece in pieces for i in ([SPECIAL[piece]] if piece in SPECIAL and parse_special else map(ord, piece))]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return "".join(self.id_to_token(i) for i in ids)

    def id_to_token(self, token_id: int) -> str:
        return next((token for token, i in SPECIAL.items() if i == token_id), chr(token_id))

    def token_to_id(self, token: str) -> int | None:
        return SPECIAL.get(token)


class Spaced(Letters):
    """Adds a space before a text, as SentencePiece does, but not after a special token."""

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        starts_special = parse_special and text.startswith(tuple(SPECIAL))
        return super().encode(text if starts_special else " " + text, parse_special=parse_special)


class Plain:
    """A minimal template: <s>, the content, <end>; a tool's name between [X] and [X]."""

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Any = None, documents: Any = None, title: str = "", end: str = ""
    ) -> str:
        text = "".join(f"<s>{message['content']}<end>" for message in messages)
        return title + "".join(f"[X]{tool['name']}[X]" for tool in tools or []) + text + end


class Clever(Plain):
    """Inspects the content: only the text after "</think>" is kept."""

    def render(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        shorter = [{"content": message["content"].split("</think>")[-1]} for message in messages]
        return super().render(shorter, **options)


def ids(*parts: str) -> list[int]:
    """The ids of these parts, special tokens if a part is one, else letters: "<s>" is 300, but "<" "s>" is three letters."""
    return [i for part in parts for i in ([SPECIAL[part]] if part in SPECIAL else map(ord, part))]


def encoded(*contents: str, template: Any = None, tokenizer: Any = None, **options: Any) -> list[int] | None:
    """A chat of these contents."""
    template = template or Plain()
    inputs = {"messages": [{"content": content} for content in contents], **options}
    return encode_as_text(tokenizer or Letters(), template, template.render(**inputs), inputs)


def test_every_string_is_changed_wherever_it_is() -> None:
    """In lists and dicts, the keys too; numbers, booleans and None stay."""
    answers(map_strings, "ab", str.upper, want="AB")
    answers(map_strings, ["a", 1, None, True], str.upper, want=["A", 1, None, True])
    answers(map_strings, {"a": {"b": ["c", 2.5]}}, str.upper, want={"A": {"B": ["C", 2.5]}})


def test_a_tuple_becomes_a_list() -> None:
    """JSON knows lists only."""
    answers(map_strings, {"a": ("b", ("c",))}, str.upper, want={"A": ["B", ["C"]]})


def test_the_mark_stands_behind_the_first_character_of_a_token() -> None:
    """<s> begins with "<", [X] with "[": each of them is marked, inside a token or not."""
    mark = mark_first_characters(["<s>", "<end>", "[X]"], "~")
    agree("a < b [1]", mark("a < b [1]"), "a <~ b [~1]")
    agree("<s>", mark("<s>"), "<~s>")
    agree("no such character", mark("s> X]"), "s> X]")
    agree("twice", mark("<<"), "<~<~")


def test_a_first_character_may_mean_something_in_a_pattern() -> None:
    """ "." is a full stop, not any character; without tokens nothing is marked."""
    agree("a.b", mark_first_characters([".x", "|y"], "~")("a.b|c"), "a.~b|~c")
    agree("without tokens", mark_first_characters([], "~")("a<b"), "a<b")


def test_a_mark_is_a_character_that_the_text_lacks() -> None:
    """The first Yi syllable is U+A000; if the text contains it, the next one, even if it is written as an escape: \\ua000."""
    answers(unused_character, "abc", want="\ua000")
    answers(unused_character, "a\ua000b", want="\ua001")
    answers(unused_character, "a\ua000\ua001", want="\ua002")
    answers(unused_character, "a\\ua000b", want="\ua001")
    answers(unused_character, "ua000", want="\ua000")


def test_if_every_mark_is_taken_there_is_an_error() -> None:
    """All 1165 syllables in one message."""
    everything = "".join(map(chr, range(0xA000, 0xA48D)))
    refuses(unused_character, everything, error=NanollamaError, naming="parse_content=True")
    answers(unused_character, everything[:-1], want="\ua48c")


def test_an_innocent_chat_needs_nothing() -> None:
    """No special token in the content: None, and the caller encodes the text as it is."""
    agree("the ids", encoded("hi", "1 < 2"), None)
    agree("the ids of no text", encoded(""), None)


def test_a_token_that_a_user_types_is_text() -> None:
    """ "a<end>b" between the template's own <s> and <end>: the inner one is five letters."""
    agree("the ids", encoded("a<end>b"), ids("<s>", "a", "<", "end>", "b", "<end>"))


def test_a_message_may_be_a_single_typed_token() -> None:
    """ "<s>" in <s> and <end>: 300, three letters, 301."""
    agree("the ids", encoded("<s>"), ids("<s>", "<", "s>", "<end>"))


def test_the_template_s_own_tokens_stay_tokens() -> None:
    """Two messages, the second with a typed <s>: four tokens and three letters."""
    agree("the ids", encoded("hi", "<s>!"), ids("<s>", "hi", "<end>", "<s>", "<", "s>!", "<end>"))


def test_two_messages_together_are_no_token() -> None:
    """ "<" in one message and "s>" in the next, with the template's tokens between: no typed token."""
    agree("the ids", encoded("<", "s>"), None)


def test_tools_and_their_names_are_content_too() -> None:
    """A tool named "[X]" between the template's [X] and [X]."""
    got = encoded("hi", tools=[{"name": "[X]"}])
    agree("the ids", got, ids("[X]", "[", "X]", "[X]", "<s>", "hi", "<end>"))


def test_the_callers_variables_are_trusted() -> None:
    """A title is not content: its <s> is a token, unlike the typed one in the message."""
    agree("the ids", encoded("<s>", title="<s>"), ids("<s>", "<s>", "<", "s>", "<end>"))


def test_of_two_tokens_that_begin_alike_the_longer_is_meant() -> None:
    """The caller's "[X]!" is one token, not [X] and an exclamation mark."""
    agree("the ids", encoded("<s>", title="[X]!"), ids("[X]!", "<s>", "<", "s>", "<end>"))


def test_text_after_a_token_is_encoded_as_such() -> None:
    """This tokenizer adds a space at the beginning of the text: before the title only."""
    got = encoded("<s>", " ", tokenizer=Spaced(), title="t", end="!")
    agree("the ids", got, ids(" t", "<s>", "<", "s>", "<end>", "<s>", " ", "<end>", "!"))
    got = encoded("<s>", tokenizer=Spaced())
    agree("the ids without a title", got, ids("<s>", "<", "s>", "<end>"))


def test_a_mark_that_was_typed_stays_text() -> None:
    """U+A000 in a message is an ordinary letter, and is not removed with the marks."""
    agree("the ids", encoded("\ua000<s>"), ids("<s>", "\ua000<", "s>", "<end>"))


def test_a_template_may_inspect_the_content() -> None:
    """The template removes "</think>", which marks after every "<" would prevent: whole tokens are marked instead."""
    agree("the ids", encoded("a</think><end>b", template=Clever()), ids("<s>", "<", "end>b", "<end>"))


def test_the_conversation_is_not_changed() -> None:
    """The marks are inserted into copies."""
    messages = [{"content": "<s>"}]
    encode_as_text(Letters(), Plain(), Plain().render(messages), {"messages": messages})  # type: ignore[arg-type]
    agree("the messages", messages, [{"content": "<s>"}])

"""The rules of tokenizers through the public functions: added tokens against the library `tokenizers`, prompts, limits."""

import datetime
import itertools
import random
from typing import Any

import tokenizers

from conformance.checks import check
from conformance.checks.assertions import at, expect, expect_equal, expect_refused
from conformance.checks.chat.template_input import template
from conformance.checks.chat.to_ids import Letters, ids_of
from conformance.checks.generation.rigged import Pieces
from nanollama.generation.row import TextStream
from nanollama.text import added_tokens
from nanollama.text.added_tokens import AddedToken
from nanollama.text.chat import encode as chat

CONTENTS = ("<a>", "<ab>", "<b", "ab", "é>", "12", "_")
LETTERS = " \tab<>é1_2\u3000."
CASES = 400


def by_the_library(tokens: list[AddedToken], text: str) -> list[int | str]:
    """Ids of added tokens and the texts between them, by the library `tokenizers`."""
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[rest]": 0}, unk_token="[rest]"))
    names = {}
    for token in tokens:
        sides = {"lstrip": token.lstrip, "rstrip": token.rstrip, "single_word": token.single_word}
        library.add_tokens([tokenizers.AddedToken(token.content, normalized=False, **sides)])
        names[library.token_to_id(token.content)] = token.id
    found = library.encode(text, add_special_tokens=False)
    return [names.get(id, text[begin:end]) for id, (begin, end) in zip(found.ids, found.offsets, strict=True)]


@check("TOKN-021", "TOKN-022", area="tokenization")
def any_added_tokens_are_found_as_the_library_finds_them() -> None:
    r = random.Random(5)
    for _ in range(CASES):
        chosen = r.sample(CONTENTS, r.randrange(1, 5))
        flags = [[r.random() < 0.4 for _ in range(3)] for _ in chosen]
        tokens = [AddedToken(name, 9 + id, r.random() < 0.5, *flags[id]) for id, name in enumerate(chosen)]
        pieces = [r.choice([*chosen, *LETTERS]) for _ in range(r.randrange(1, 12))]
        text = "".join(pieces)
        for special in (True, False):
            want = by_the_library([token for token in tokens if special or not token.special], text)
            with at("text.added_tokens.AddedTokens"):
                got = list(added_tokens.AddedTokens(tokens).split(text, special))
            expect_equal("text.added_tokens.AddedTokens", got, want, f"{text!r} with {tokens}, special {special}")


@check("TMPL-008", "ERRS-008", area="chat_template")
def a_template_is_given_nothing_unchecked() -> None:
    subject, hi = template("{{ messages }}{{ tools }}{{ documents }}{{ extra }}"), [{"role": "user", "content": "hi"}]
    for options, part in (
        ({"tools": "x"}, "tools"),
        ({"tools": [1]}, "tools[0]"),
        ({"tools": [{"a": {1}}]}, "tools"),
        ({"documents": {"title": "x"}}, "documents"),
        ({"documents": ["x"]}, "documents[0]"),
        ({"extra": object()}, "extra"),
        ({"extra": [b"x"]}, "extra"),
    ):
        given: dict[str, Any] = options
        expect_refused("text.chat.template.ChatTemplate", lambda given=given: subject.render(hi, **given), part, f"{options}")  # type: ignore[misc]
    for messages in ([], [{"role": 1, "content": "x"}], [{"role": "user", "content": object()}], "x"):
        expect_refused("text.chat.messages.checked_messages", lambda m=messages: subject.render(m), "", f"messages {messages}")  # type: ignore[misc]


@check("CHAT-010", area="chat_template")
def all_renderings_of_a_chat_show_the_same_time() -> None:
    ticks = itertools.count()
    subject = template("{{ strftime_now('%S') }}<s>{{ messages[0].content }}{{ strftime_now('%S') }}")
    subject.clock = lambda: datetime.datetime(2026, 1, 2, 3, 4, next(ticks))
    with at("text.chat.encode.encode_chat"):
        got = chat.encode_chat(Letters(), subject, [{"role": "user", "content": "<s>"}])
    first = next(ticks)  # how often the clock was asked
    want = [*map(ord, "00"), *ids_of("<s>"), *map(ord, "<s>00")]
    expect_equal("text.chat.encode.encode_chat", got, want, "a chat that shows the time, and a special token as text")
    expect("text.chat.encode.encode_chat", first == 1, f"the clock was asked {first} times")


@check("STRM-006", area="streaming")
def an_answer_continues_the_prompts_last_tokens() -> None:
    """For any prompt length, half a character at its end is completed, and a space that begins the answer stays."""
    tokenizer = Pieces([b"a", b"\xc3", b"\xa9", b" b"], strips=True)
    for length in (1, 3, 16, 17, 40):
        for end, answer, want in (([1], [2, 3], "é b"), ([0], [3, 0], " ba"), ([0], [1, 2, 3], "é b")):
            prompt = [*[0] * (length - 1), *end]
            stream = TextStream(tokenizer, prompt, ())
            text = "".join([*map(stream.push, answer), stream.flush()])
            expect_equal(
                "generation.row.TextStream", text, want, f"{answer} after a prompt of {length} tokens that ends in {end}"
            )

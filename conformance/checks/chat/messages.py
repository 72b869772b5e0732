"""Conversations for templates: plain data, checked, with every name that templates read."""

# mypy: disable-error-code="misc"
# tables mix good and bad arguments

from typing import Any

from conformance.checks import check
from conformance.checks.assertions import expect, expect_equal, expect_refused
from nanollama.text.chat import messages


@check("TMPL-008", "ERRS-008", area="chat_template")
def conversations_are_plain_data() -> None:
    place = "text.chat.messages.plain_data"
    value = {"a": [1, 2.5, None, True, ("x",)], "b": {"c": "d"}}
    got = messages.plain_data(value, "x")
    expect_equal(place, got, {"a": [1, 2.5, None, True, ["x"]], "b": {"c": "d"}}, "a copy")
    expect(place, got is not value and got["b"] is not value["b"], "the copy shares parts with the original")
    endless: list[Any] = []
    endless.append(endless)
    for bad, part in (
        ({"a": {1}}, "x['a']"),
        ([b"x"], "x[0]"),
        ({1: 2}, "key 1"),
        (endless, "too deeply"),
        (object(), "object"),
    ):
        expect_refused(place, lambda bad=bad: messages.plain_data(bad, "x"), part, f"{part}")
    place = "text.chat.messages.checked_dicts"
    expect_equal(
        place,
        (messages.checked_dicts(None, "t", "e"), messages.checked_dicts(({"a": 1},), "t", "e")),
        (None, [{"a": 1}]),
        "lists of dicts",
    )
    for bad in ("x", {"a": 1}, 3):
        expect_refused(place, lambda bad=bad: messages.checked_dicts(bad, "tools", "e"), "tools", f"{bad}")
    expect_refused(place, lambda: messages.checked_dicts([{}, 1], "tools", "a schema"), "tools[1]", "a number in a list")
    place = "text.chat.messages.checked_messages"
    chat = [
        {"role": "user", "content": [{"type": "text", "text": "a"}], "name": None},
        {"role": "assistant", "content": None, "tool_calls": []},
    ]
    wanted = [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "tool_calls": []}]
    expect_equal(place, messages.checked_messages(chat), wanted, "messages without what is None")
    for bad, part in (
        ([], "empty"),
        (None, "empty"),
        ([{"content": "x"}], "role"),
        ([{"role": 1}], "role"),
        ([{"role": "user", "content": 3}], "content"),
        ([{"role": "u", "content": ["x"]}], "content"),
    ):
        expect_refused(place, lambda bad=bad: messages.checked_messages(bad), part, f"{bad}")


@check("TMPL-009", area="chat_template")
def reasoning_has_every_name_that_templates_read() -> None:
    place = "text.chat.messages.with_reasoning_names"
    for name in ("reasoning_content", "thinking", "reasoning"):
        (got,) = messages.with_reasoning_names([{"role": "assistant", name: "why"}])
        wanted = {"role": "assistant", "reasoning_content": "why", "thinking": "why", name: "why"}
        expect_equal(place, got, wanted, f"a message with {name}")
    both = [{"role": "a", "reasoning_content": "1", "thinking": "2"}, {"role": "u"}]
    expect_equal(place, messages.with_reasoning_names(both), both, "messages with both, and with none")

"""The variables of a template, the choice among templates, and messages that are continued."""

# mypy: disable-error-code="arg-type,assignment,misc"
# tables mix good and bad arguments

import json
from typing import Any

from conformance.checks import check
from conformance.checks.assertions import expect_equal, expect_refused
from conformance.checks.chat.rendering import NOW
from conformance.checks.generation.rigged import fresh
from nanollama.errors import NanollamaError
from nanollama.text.chat import jinja_child
from nanollama.text.chat import template as templates


class SameProcess:
    """Replaces the sandbox: the same renderer in this process."""

    def render(self, source: str, variables: dict[str, Any], now: str) -> str:
        with fresh():
            reply = jinja_child.answer({"source": source, "variables": json.loads(json.dumps(variables)), "now": now})
        if "error" in reply:
            raise NanollamaError(f"chat template: {reply['error']}")
        return str(reply["text"])


def template(source: Any, **tokens: Any) -> templates.ChatTemplate:
    return templates.ChatTemplate(source, clock=lambda: NOW, sandbox=SameProcess(), **tokens)


SHARED = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
    "{{ tools | length if tools else '' }}{{ documents | length if documents else '' }}{{ extra }}"
)


@check("TMPL-011", "TMPL-012", "CHAT-003", area="chat_template")
def a_template_sees_the_conversation_tokens_and_options() -> None:
    place, hi = "text.chat.template.ChatTemplate", [{"role": "user", "content": "hi"}]
    subject = template(SHARED, bos_token="<s>", eos_token=None)
    for options, wanted in (
        ({}, "<s><user>hi<assistant>"),
        ({"add_generation_prompt": False}, "<s><user>hi"),
        ({"add_generation_prompt": True}, "<s><user>hi<assistant>"),
        ({"tools": [{}, {}], "documents": [{}]}, "<s><user>hi<assistant>21"),
        ({"extra": "!", "bos_token": "B"}, "B<user>hi<assistant>!"),
        ({"continue_final_message": True}, "<s><user>hi"),
    ):
        expect_equal(place, subject.render(hi, **options), wanted, f"rendered with {options}")
    named = template({"default": "d", "tool_use": "t{{ x }}", "rag": "r"})
    for options, wanted in (
        ({}, "d"),
        ({"tools": [{}]}, "t"),
        ({"tools": []}, "t"),
        ({"chat_template": "rag", "tools": [{}]}, "r"),
    ):
        expect_equal(place, named.render(hi, **options), wanted, f"the template for {options}")
    expect_equal(place, template({"default": "d"}).render(hi, tools=[{}]), "d", "tools without a template for them")
    expect_refused(place, lambda: named.render(hi, chat_template="x"), "'x'", "an unknown name")
    expect_refused(
        place, lambda: subject.render(hi, continue_final_message=True, add_generation_prompt=True), "exclude", "both at once"
    )
    expect_refused(place, lambda: template({"default": 3}), "default", "a template that is no text")
    expect_refused(place, lambda: template("x", bos_token=3), "bos_token", "a token that is no text")
    expect_equal(place, template("{{ strftime_now('%H:%M') }}").render(hi), "13:05", "the clock")
    expect_refused("text.chat.messages.plain_data", lambda: subject.render(hi, extra={1}), "set", "a set as a variable")


@check("TMPL-013", area="chat_template")
def a_message_can_be_continued() -> None:
    place = "text.chat.messages.cut_at_tag"
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "so "}]
    end = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>\n{% endfor %}"
    expect_equal(place, template(end).render(chat, continue_final_message=True), "<user>a<end>\n<assistant>so ", "as it is")
    expect_equal(
        place,
        template(end.replace("content", "content | trim")).render(chat, continue_final_message=True),
        "<user>a<end>\n<assistant>so",
        "trimmed",
    )
    parts = [
        {"role": "assistant", "content": [{"type": "text", "text": "x"}, {"type": "image"}, {"type": "text", "text": "y"}]}
    ]
    listed = "{% for p in messages[0].content %}{{ p.text }}|{% endfor %}"
    expect_equal(place, template(listed).render(parts, continue_final_message=True), "x||y", "the last text of a list of parts")
    thought = [{"role": "assistant", "thinking": "hm", "content": "c"}]
    source = "<t>{{ messages[0].reasoning_content }}</t>{{ messages[0].content }}"
    expect_equal(place, template(source).render(thought, continue_final_message="thinking"), "<t>hm", "another field")
    for source, message, field, part in (
        ("{{ messages[0].content | upper }}", {"content": "so"}, True, "'so'"),
        ("{{ messages[0].content * 2 }}", {"content": "so"}, True, "once"),
        ("{{ messages[0].content }}", {"content": None}, True, "no text"),
        ("{{ messages[0].content }}", {"content": "so"}, "thinking", "thinking"),
    ):
        given = [{"role": "assistant", **message}]
        expect_refused(
            "text.chat.messages.tag_final_message",
            lambda s=source, g=given, f=field: template(s).render(g, continue_final_message=f),
            part,
            source,
        )

"""The variables of a chat template, written again: a fake sandbox records its arguments."""

import copy
import json
from datetime import datetime
from typing import Any

from conformance.katas.testing.compare import agree, answers, refuses
from nanollama.errors import NanollamaError
from nanollama.text.chat.template import ChatTemplate

HI = [{"role": "user", "content": "Hi"}]
MORE = [*HI, {"role": "assistant", "content": "Well, "}]


class Box:
    """A fake sandbox: it records its arguments; its text is the messages' contents in brackets."""

    def __init__(self, before: str = "", after: str = "") -> None:
        self.before, self.after = before, after
        self.source, self.variables, self.now = "", dict[str, Any](), ""

    def render(self, source: str, variables: dict[str, Any], now: str) -> str:
        self.source, self.variables, self.now = source, copy.deepcopy(variables), now
        text = "".join(f"[{message.get('content')}]" for message in variables["messages"])
        return self.before + text + self.after


def template(box: Box, source: Any = "content", **tokens: str) -> ChatTemplate:
    """A template rendered in this fake sandbox at 12:15."""
    return ChatTemplate(source, clock=lambda: datetime(2024, 2, 29, 12, 15), sandbox=box, **tokens)  # type: ignore[arg-type]


def seen(
    messages: Any = HI, *, source: Any = "content", tokens: dict[str, str] | None = None, **options: Any
) -> dict[str, Any]:
    """The template's variables."""
    box = Box()
    template(box, source, **(tokens or {})).render(messages, **options)
    return box.variables


def chosen(sources: dict[str, str], name: str | None = None, tools: Any = None) -> str:
    """Which of several templates is used."""
    return template(Box(), sources).source(name, tools)


def refused(naming: str, messages: Any = HI, **options: Any) -> None:
    """Rendering must be refused, with this in the message."""

    def render(messages: Any) -> str:
        return template(Box()).render(messages, **options)

    refuses(render, messages, error=NanollamaError, naming=naming)


def test_without_a_word_the_default_is_used() -> None:
    """It is used with or without other templates."""
    answers(chosen, {"rag": "r", "default": "d"}, want="d")


def test_with_tools_their_own_template_is_used() -> None:
    """If it exists; an empty list of tools counts as given."""
    both = {"default": "d", "tool_use": "t"}
    answers(chosen, both, None, None, want="d")
    answers(chosen, both, None, [{"name": "add"}], want="t")
    answers(chosen, both, None, [], want="t")
    answers(chosen, {"default": "d"}, None, [{"name": "add"}], want="d")


def test_a_template_may_be_named() -> None:
    """A named template is used, with or without tools."""
    three = {"default": "d", "tool_use": "t", "rag": "r"}
    answers(chosen, three, "rag", want="r")
    answers(chosen, three, "default", [{"name": "add"}], want="d")


def test_a_name_that_is_not_there_is_refused_with_those_that_are() -> None:
    """There is "default"; there is no "rag". And there may be none called "default"."""
    refuses(chosen, {"default": "d"}, "rag", error=NanollamaError, naming="rag")
    refuses(chosen, {"default": "d"}, "rag", error=NanollamaError, naming="default")
    refuses(chosen, {"rag": "r"}, error=NanollamaError, naming="rag")


def test_the_rendered_text_comes_back_as_it_is() -> None:
    """Spaces and newlines at the ends too: the model was trained with them."""
    agree("render", template(Box(" \n", "\n ")).render(HI), " \n[Hi]\n ")


def test_the_template_sees_the_messages() -> None:
    """As plain data."""
    agree("messages", seen(({"role": "user", "content": "Hi"},))["messages"], HI)


def test_the_answer_s_header_is_asked_for() -> None:
    """Unless it is false."""
    agree("add_generation_prompt", seen()["add_generation_prompt"], True)
    agree("add_generation_prompt=True", seen(add_generation_prompt=True)["add_generation_prompt"], True)
    agree("add_generation_prompt=False", seen(add_generation_prompt=False)["add_generation_prompt"], False)


def test_special_tokens_are_variables() -> None:
    """ "<s>" as bos_token; a token that is None is left out."""
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    agree("bos_token and eos_token", [seen(tokens=tokens)[name] for name in tokens], ["<s>", "</s>"])


def test_more_variables_may_be_passed() -> None:
    """enable_thinking=False; they override special tokens, but not render's variables."""
    agree("enable_thinking", seen(enable_thinking=False)["enable_thinking"], False)
    agree("bos_token", seen(tokens={"bos_token": "<s>"}, bos_token="<t>")["bos_token"], "<t>")
    agree("messages", seen(tokens={"messages": "<m>"})["messages"], HI)


def test_tools_and_documents_are_passed_on() -> None:
    """None if there are none: templates test for it."""
    tools, documents = [{"name": "add"}], [{"title": "t", "text": "x"}]
    got = seen(tools=tools, documents=documents)
    agree("tools and documents", [got["tools"], got["documents"]], [tools, documents])
    agree("without", [seen()["tools"], seen()["documents"]], [None, None])
    agree("no tools, in a list", seen(tools=[])["tools"], [])


def test_the_moment_is_passed_in_iso_format() -> None:
    """In ISO format."""
    box = Box()
    template(box).render(HI)
    agree("now", box.now, "2024-02-29T12:15:00")


def test_the_chosen_template_is_the_one_that_is_rendered() -> None:
    """By its name, or by the tools."""
    sources = {"default": "content d", "tool_use": "content t", "rag": "content r"}
    for options, want in (
        ({"chat_template": "rag"}, "content r"),
        ({"tools": [{"name": "add"}]}, "content t"),
        ({}, "content d"),
    ):
        box = Box()
        template(box, sources).render(HI, **options)
        agree(f"what is rendered with {options or 'nothing'}", box.source, want)


def test_a_message_may_be_continued() -> None:
    """[Hi][Well, ] ends inside the second bracket, after the space: the model continues there."""
    agree("render", template(Box("<", ">")).render(MORE, continue_final_message=True), "<[Hi][Well, ")


def test_a_continued_message_has_no_header_after_it() -> None:
    """No header is added; a request for both is refused."""
    agree("add_generation_prompt", seen(MORE, continue_final_message=True)["add_generation_prompt"], False)
    refused("add_generation_prompt", MORE, continue_final_message=True, add_generation_prompt=True)


def test_another_field_may_be_continued() -> None:
    """A string names it: the reasoning, which this template writes too."""

    class Thinking(Box):
        def render(self, source: str, variables: dict[str, Any], now: str) -> str:
            message = variables["messages"][-1]
            return f"<think>{message['reasoning_content']}</think>{message['content']}"

    chat = [*HI, {"role": "assistant", "content": "Well", "reasoning_content": "Hm"}]
    box = Thinking()
    got = template(box, "reasoning_content content").render(chat, continue_final_message="reasoning_content")
    agree("render", got, "<think>Hm")


def test_reasoning_has_the_names_that_templates_read() -> None:
    """The key is "reasoning"; templates read reasoning_content or thinking."""
    [message] = seen([{"role": "assistant", "content": "a", "reasoning": "r"}])["messages"]
    agree("its names", [message[name] for name in ("reasoning", "reasoning_content", "thinking")], ["r", "r", "r"])


def test_only_plain_data_gets_in() -> None:
    """A Python object has methods, and a template is an untrusted program. Each error names the type."""
    thing = object()
    refused("messages[0]['content'] is a object", [{"role": "user", "content": thing}])
    refused("tools is a str", tools="add")
    refused("tools[0]", tools=[{"name": thing}])
    refused("documents[0]", documents=[thing])
    refused("the template's variables", colour=thing)


def test_without_messages_there_is_nothing_to_render() -> None:
    """An empty list; and a message without a role."""
    refused("messages is empty", [])
    refused("has the role None", [{"content": "Hi"}])


def test_the_given_messages_are_not_changed() -> None:
    """The tag of a continued message and the keys for reasoning are written to copies."""
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well", "reasoning": "r"}]
    before = json.dumps(chat)
    template(Box()).render(chat, continue_final_message=True)
    agree("the messages", json.dumps(chat), before)

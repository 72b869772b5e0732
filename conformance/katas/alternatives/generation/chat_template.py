"""Other right ways to give a template what it needs."""

from collections.abc import Mapping, Sequence
from typing import Any

from nanollama.errors import NanollamaError
from nanollama.text.chat.messages import (
    checked_dicts,
    checked_messages,
    cut_at_tag,
    plain_data,
    tag_final_message,
    with_reasoning_names,
)
from nanollama.text.chat.template import ChatTemplate


def ChatTemplate_render__update(
    self: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool | None = None,
    continue_final_message: bool | str = False,
    chat_template: str | None = None,
    **variables: Any,
) -> str:
    """one dict is filled step by step, and the two endings are separated at the end"""
    if continue_final_message and add_generation_prompt:
        raise NanollamaError("add_generation_prompt and continue_final_message exclude each other")
    source = self.source(chat_template, tools)
    chat = checked_messages(messages)
    chat = with_reasoning_names(chat)
    scope: dict[str, Any] = dict(self.special_tokens)
    scope.update(plain_data(variables, "the template's variables"))
    scope["messages"] = chat
    scope["tools"] = checked_dicts(tools, "tools", "a JSON schema")
    scope["documents"] = checked_dicts(documents, "documents", "a dict")
    if continue_final_message:
        ending = tag_final_message(chat, continue_final_message, source)
        scope["add_generation_prompt"] = False
        return cut_at_tag(self.sandbox.render(source, scope, self.clock().isoformat()), ending)
    scope["add_generation_prompt"] = True if add_generation_prompt is None else add_generation_prompt
    return self.sandbox.render(source, scope, self.clock().isoformat())


def ChatTemplate_source__in_turn(self: ChatTemplate, name: str | None, tools: Sequence[Mapping[str, Any]] | None) -> str:
    """the names that come into question, the first that is there"""
    wanted = [name] if name is not None else ["default"]
    if name is None and tools is not None:
        wanted.insert(0, "tool_use")
    for each in wanted:
        if each in self.sources:
            return self.sources[each]
    raise NanollamaError(f"no chat template is named {wanted[-1]!r}; there are {sorted(self.sources)}")

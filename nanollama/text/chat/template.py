"""Chat templates: they render a conversation as the text that the model was trained on.

Templates are Jinja2 programs from the checkpoint, and so untrusted: they run in a separate process (sandbox.py) with
limits on time and memory, and get only plain data (messages.py). encode.py turns the text into ids.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from nanollama.checkpoint.files import read_bytes, read_json_if_present
from nanollama.errors import NanollamaError, unknown_name
from nanollama.text.chat.messages import (
    checked_dicts,
    checked_messages,
    cut_at_tag,
    plain_data,
    tag_final_message,
    with_reasoning_names,
)
from nanollama.text.chat.sandbox import Sandbox


class ChatTemplate:
    """One chat template, or several by name (`default`, `tool_use`, `rag` …).

    source: the template's text, or a dict of name → text. special_tokens: the values of `bos_token`, `eos_token` … .
    clock: the time that `strftime_now` formats. sandbox: the process that renders; by default a new one.
    """

    def __init__(
        self,
        source: str | Mapping[str, str],
        *,
        clock: Callable[[], datetime] = datetime.now,
        sandbox: Sandbox | None = None,
        **special_tokens: str | None,
    ) -> None:
        self.sources = {"default": source} if isinstance(source, str) else dict(source)
        self.special_tokens = {name: token for name, token in special_tokens.items() if token is not None}
        for name, text in [*self.sources.items(), *self.special_tokens.items()]:
            if not isinstance(text, str):
                raise NanollamaError(f"chat template: {name} is {text!r:.80}; expected a string")
        self.clock, self.sandbox = clock, sandbox or Sandbox()

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool | str = False,
        chat_template: str | None = None,
        **variables: Any,
    ) -> str:
        """The conversation as text.

        messages: dicts with a `role` and a `content` (a string, a list of parts, or None). tools: JSON schemas.
        add_generation_prompt: end with the header of the answer; None means yes, unless a message is continued.
        continue_final_message: end inside the last message (a string names another field of it than `content`).
        chat_template: the name of the template; by default `tool_use` if tools are given and it exists, else `default`.
        variables: further variables of the template, such as `enable_thinking`; they override special tokens.
        """
        if add_generation_prompt is None:
            add_generation_prompt = not continue_final_message
        if continue_final_message and add_generation_prompt:
            raise NanollamaError("continue_final_message and add_generation_prompt exclude each other; pass one of them")
        source = self.source(chat_template, tools)
        chat = with_reasoning_names(checked_messages(messages))
        ending = tag_final_message(chat, continue_final_message, source) if continue_final_message else None
        given = {
            "messages": chat,
            "tools": checked_dicts(tools, "tools", "the JSON schema of a function"),
            "documents": checked_dicts(documents, "documents", "a dict such as {'title': ..., 'text': ...}"),
            "add_generation_prompt": add_generation_prompt,
        }
        variables = self.special_tokens | plain_data(variables, "the template's variables") | given
        text = self.sandbox.render(source, variables, self.clock().isoformat())
        return text if ending is None else cut_at_tag(text, ending)

    def source(self, name: str | None, tools: Sequence[Mapping[str, Any]] | None) -> str:
        """The text of the template: the named one, else `tool_use` if tools are given and it exists, else `default`."""
        if name is None:
            name = "tool_use" if tools is not None and "tool_use" in self.sources else "default"
        if name not in self.sources:
            raise unknown_name("chat template", name, sorted(self.sources), "pass chat_template=NAME")
        return self.sources[name]


def load_template(folder: Path) -> ChatTemplate | None:
    """The chat template of a checkpoint's folder, with its special tokens; None if it has none.

    In this order, as transformers: `chat_template.jinja` and `additional_chat_templates/NAME.jinja`; `chat_template` in
    `tokenizer_config.json`, a text or a list of `{name, template}`; `chat_template.json`.
    """
    config = read_json_if_present(folder / "tokenizer_config.json")
    main = folder / "chat_template.jinja"
    files = {"default": main} if main.exists() else {}
    files |= {path.stem: path for path in (folder / "additional_chat_templates").glob("*.jinja")}
    found: Any = {name: read_text(path) for name, path in files.items()}
    found = found or config.get("chat_template")
    found = found or read_json_if_present(folder / "chat_template.json").get("chat_template")
    if isinstance(found, list):
        try:
            found = {entry["name"]: entry["template"] for entry in found}
        except (TypeError, KeyError):
            raise NanollamaError(f"{folder}: chat_template must be a text or a list of {{name, template}}") from None
    if not found:
        return None
    if not isinstance(found, str | dict):
        raise NanollamaError(f"{folder}: chat_template is a {type(found).__name__}; expected a text or a list")
    template = ChatTemplate(found)
    template.special_tokens = special_tokens(config, read_json_if_present(folder / "special_tokens_map.json"))
    return template


def special_tokens(config: dict[str, Any], token_map: dict[str, Any]) -> dict[str, str]:
    """The named special tokens, name to text: `bos_token` and others, each a text or an object with `content`.

    config: tokenizer_config.json. token_map: special_tokens_map.json, which older folders have and which wins there.
    """
    merged = config if "added_tokens_decoder" in config else config | token_map
    named = {key: value for key, value in merged.items() if key.endswith("_token")}
    for group in ("extra_special_tokens", "model_specific_special_tokens"):
        if isinstance(merged.get(group), dict):
            named |= merged[group]
    texts = {key: value.get("content") if isinstance(value, dict) else value for key, value in named.items()}
    return {key: text for key, text in texts.items() if isinstance(text, str)}


def read_text(path: Path) -> str:
    """The text of a template's file."""
    try:
        return read_bytes(path, expected="a chat template").decode("utf-8")
    except UnicodeDecodeError as error:
        raise NanollamaError(f"{path} is not UTF-8 text: {error}") from None

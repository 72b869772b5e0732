"""Chat templates: a conversation goes in, the text that the model was trained to read comes out.

Templates are Jinja2 programs from the checkpoint. Here the conversation is checked and prepared as transformers'
`apply_chat_template` does it (transformers 5: tokenization_utils_base.py, utils/chat_template_utils.py); the program runs
in a process of its own, with limits on time and memory (sandbox.py). How the text becomes ids is in chat.py.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from nanollama.checkpoint.files import open_plain
from nanollama.errors import NanollamaError
from nanollama.text.sandbox import Sandbox

Message = dict[str, Any]

REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""The names under which a message's reasoning is passed; templates read the first, some the second."""

CONTINUE_TAG = "CONTINUE_FINAL_MESSAGE_TAG "
"""Put behind the message to continue, to find its end in the rendered text; the space shows whether the template trims."""

MAX_FILE = 64 * 2**20
"""The largest template or tokenizer_config.json in bytes; real ones have a few megabytes at most."""


class ChatTemplate:
    """One chat template, or several by name (`default`, `tool_use`, `rag` …).

    source: the template's text, or a dict of name → text. special_tokens: what it sees as `bos_token`, `eos_token` … .
    clock: the moment that `strftime_now` formats. sandbox: where templates run; its own by default.
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
        chat_template: the name of the template; by default `tool_use` where tools are given and it exists, else `default`.
        variables: what else the template may ask for, such as `enable_thinking`; they override special tokens.
        """
        if add_generation_prompt is None:
            add_generation_prompt = not continue_final_message
        if continue_final_message and add_generation_prompt:
            raise NanollamaError("continue_final_message and add_generation_prompt exclude each other; pass one of them")
        source = self.source(chat_template, tools)
        chat = with_reasoning_names(checked_messages(messages))
        ending = tag_final_message(chat, continue_final_message, source) if continue_final_message else None
        text = self.sandbox.render(
            source,
            {
                **self.special_tokens,
                **json_copy(variables, "the template's variables"),
                "messages": chat,
                "tools": checked_dicts(tools, "tools", "the JSON schema of a function"),
                "documents": checked_dicts(documents, "documents", "a dict such as {'title': ..., 'text': ...}"),
                "add_generation_prompt": add_generation_prompt,
            },
            self.clock().isoformat(),
        )
        return text if ending is None else cut_at_tag(text, ending)

    def source(self, name: str | None, tools: Sequence[Mapping[str, Any]] | None) -> str:
        """The text of the template to use: the named one, else `tool_use` where tools are given, else `default`."""
        if name is None:
            name = "tool_use" if tools is not None and "tool_use" in self.sources else "default"
        if name not in self.sources:
            raise NanollamaError(f"no chat template is named {name!r}; pass chat_template=, one of {sorted(self.sources)}")
        return self.sources[name]


def json_copy(value: Any, where: str) -> Any:
    """A copy made of plain JSON types only, which is all that a template gets to see; `where` names the value in an error."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise NanollamaError(f"{where} has the key {wrong[0]!r:.80}; keys must be strings")
        return {key: json_copy(item, f"{where}[{key!r:.80}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_copy(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise NanollamaError(f"{where} is a {type(value).__name__}; expected text, numbers, lists and dicts, as in JSON")


def checked_dicts(items: Any, where: str, expected: str) -> list[dict[str, Any]] | None:
    """A copy of a list of dicts, or None."""
    if items is None:
        return None
    if isinstance(items, str | Mapping) or not isinstance(items, Sequence):
        raise NanollamaError(f"{where} is a {type(items).__name__}; expected a list")
    for index, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise NanollamaError(f"{where}[{index}] is a {type(item).__name__}; expected {expected}")
    try:
        return list(json_copy(items, where))
    except RecursionError:
        raise NanollamaError(f"{where} is nested too deeply, or contains itself") from None


def checked_messages(messages: Any) -> list[Message]:
    """A copy of the conversation, without the fields that are None: templates would print them as the word `None`."""
    chat = checked_dicts(messages, "messages", "a dict such as {'role': 'user', 'content': 'Hi'}")
    if not chat:
        raise NanollamaError("messages is empty; a conversation needs at least one message")
    for index, message in enumerate(chat):
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str):
            raise NanollamaError(f"messages[{index}] has the role {role!r:.80}; expected a string such as 'user'")
        if isinstance(content, list):
            checked_dicts(content, f"messages[{index}]['content']", "a part such as {'type': 'text', 'text': 'Hi'}")
        elif content is not None and not isinstance(content, str):
            kind = type(content).__name__
            raise NanollamaError(f"messages[{index}]['content'] is a {kind}; expected a string, a list of parts, or None")
    return [{key: value for key, value in message.items() if value is not None} for message in chat]


def with_reasoning_names(chat: list[Message]) -> list[Message]:
    """Give a message's reasoning the name that templates read, whichever of its names it came under."""
    named = []
    for message in chat:
        reasoning = next((message[field] for field in REASONING_FIELDS if field in message), None)
        if reasoning is not None:
            message = {"thinking": reasoning, **message, "reasoning_content": reasoning}
        named.append(message)
    return named


def tag_final_message(chat: list[Message], field: bool | str, source: str) -> str:
    """Append the tag to the text to be continued, in place, and return that text (of a list of parts: the last text)."""
    field = field if isinstance(field, str) else "content"
    final = chat[-1].get(field)
    same = [name for name in REASONING_FIELDS if chat[-1].get(name) == final] if field in REASONING_FIELDS else [field]
    if not any(name in source for name in same):
        raise NanollamaError(f"continue_final_message: the chat template never mentions {field!r}")
    if isinstance(final, list):
        texts = [part for part in final if isinstance(part, dict) and isinstance(part.get("text"), str)]
        holders = [(part, "text") for part in texts[-1:]]
    else:
        holders = [(chat[-1], name) for name in same] if isinstance(final, str) else []
    if not holders:
        raise NanollamaError(f"continue_final_message: the last message has no text in {field!r} to continue")
    text = str(holders[0][0][holders[0][1]])
    for holder, name in holders:
        holder[name] = text + CONTINUE_TAG
    return text


def cut_at_tag(text: str, ending: str) -> str:
    """The rendered text up to the tag; where the template trimmed the tag's space, the message's own is trimmed too."""
    tag = CONTINUE_TAG.strip()
    if tag not in text or ending.strip() not in text:
        raise NanollamaError(
            "continue_final_message: the last message does not appear in the rendered chat, so the template changes or "
            f"drops it: {ending.strip()!r:.80}"
        )
    end = text.rindex(tag)
    return text[:end] if text.startswith(CONTINUE_TAG, end) else text[:end].rstrip()


def load_template(folder: Path) -> ChatTemplate | None:
    """The chat template of a checkpoint's folder, with its special tokens; None if it has none.

    In this order, as transformers: `chat_template.jinja` and `additional_chat_templates/NAME.jinja`; `chat_template` in
    `tokenizer_config.json`, a text or a list of `{name, template}`; `chat_template.json`.
    """
    config = read_object(folder / "tokenizer_config.json")
    files = {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if (folder / "chat_template.jinja").exists():
        files["default"] = folder / "chat_template.jinja"
    found: Any = {name: read_text(path) for name, path in files.items()}
    found = found or config.get("chat_template") or read_object(folder / "chat_template.json").get("chat_template")
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
    template.special_tokens = special_tokens(config, read_object(folder / "special_tokens_map.json"))
    return template


def special_tokens(config: dict[str, Any], token_map: dict[str, Any]) -> dict[str, str]:
    """The named special tokens: `bos_token` and its like, each a text or an object with `content`.

    config: tokenizer_config.json. token_map: special_tokens_map.json, which older folders have and which then wins.
    """
    merged = config if "added_tokens_decoder" in config else config | token_map
    named = {key: value for key, value in merged.items() if key.endswith("_token")}
    for group in ("extra_special_tokens", "model_specific_special_tokens"):
        if isinstance(merged.get(group), dict):
            named |= merged[group]
    texts = {key: value.get("content") if isinstance(value, dict) else value for key, value in named.items()}
    return {key: text for key, text in texts.items() if isinstance(text, str)}


def read_text(path: Path) -> str:
    """A small text file."""
    with open_plain(path) as file:
        raw = file.read(MAX_FILE + 1)
    if len(raw) > MAX_FILE:
        raise NanollamaError(f"{path} is larger than {MAX_FILE:,} bytes; expected a small text file")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NanollamaError(f"{path} is not UTF-8 text: {error}") from None


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no such file. Numbers may be long: `model_max_length` is often int(1e30)."""
    if not path.exists():
        return {}
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NanollamaError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise NanollamaError(f"{path} holds a JSON {type(value).__name__}; expected an object in braces")
    return value

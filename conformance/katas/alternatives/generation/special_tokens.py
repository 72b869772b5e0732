"""Other right ways to keep typed tokens text."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from nanollama.errors import NanollamaError
from nanollama.text.chat.encode import encode_section, map_strings, marked_chat, unused_character, without
from nanollama.text.chat.template import ChatTemplate
from nanollama.text.tokenizer import TokenizerLike


def map_strings__by_type(value: Any, change: Callable[[str], str]) -> Any:
    """containers first"""
    if isinstance(value, Mapping):
        return {change(key): map_strings(value[key], change) for key in value}
    if isinstance(value, (list, tuple)):
        return [map_strings(each, change) for each in value]
    return change(value) if isinstance(value, str) else value


def mark_first_characters__letter_by_letter(tokens: list[str], mark: str) -> Callable[[str], str]:
    """no pattern: every letter is tested"""
    firsts = {token[:1] for token in tokens}
    return lambda text: "".join(letter + mark if letter in firsts else letter for letter in text)


def unused_character__next(text: str) -> str:
    """the first one that is neither in the text nor in it as an escape"""
    for code in range(0xA000, 0xA48D):
        if chr(code) not in text and f"\\u{code:04x}" not in text:
            return chr(code)
    raise NanollamaError("every mark is taken; pass parse_content=True")


def encode_as_text__one_by_one(
    tokenizer: TokenizerLike, template: ChatTemplate, text: str, inputs: dict[str, Any]
) -> list[int] | None:
    """the marked chat is walked through, token by token"""
    tokens = sorted(map(tokenizer.id_to_token, tokenizer.special_ids), key=lambda token: -len(token))
    mark = unused_character(text + json.dumps(inputs, default=repr, ensure_ascii=False))
    chat = marked_chat(template, text, inputs, tokens, mark)
    pattern = re.compile("|".join(map(re.escape, tokens)) or "(?!)")
    if [found[0] for found in pattern.finditer(chat)] == [found[0] for found in pattern.finditer(text)]:
        return None
    ids: list[int] = []
    done, before = 0, ""
    for found in [*pattern.finditer(chat), None]:
        section = without(mark, chat[done : found.start() if found else len(chat)])
        if section:
            ids.extend(encode_section(tokenizer, section, after=before))
        if found:
            before, done = found[0], found.end()
            token_id = tokenizer.token_to_id(before)
            if token_id is not None:
                ids.append(token_id)
    return ids

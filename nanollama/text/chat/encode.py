"""Encodes a conversation so that text from users never becomes the template's special tokens.

A rendered chat is one string: `<|im_end|>` may come from the template, where it must become one id, or from a user, where
it must stay text. So the chat is rendered again with a mark inside everything in the messages, tools and documents
that could be taken for a special token. If the marks change nothing else, a special token that is still whole is the
template's. transformers does the same on request (`sanitize_control_tokens=True`); here it is the default.

Limits: tokens that the tokenizer does not call special (`<think>`, DeepSeek's `<｜User｜>`) are ordinary vocabulary and
always recognised. Extra template variables come from the program and are trusted. A template that both searches the content
for `<` and cuts pieces out of it can assemble a token that is not detected.
"""

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from nanollama.errors import NanollamaError
from nanollama.text.chat.template import ChatTemplate
from nanollama.text.detokenizer import unfinished
from nanollama.text.tokenizer import TokenizerLike


def encode_chat(
    tokenizer: TokenizerLike,
    template: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
    *,
    parse_content: bool = False,
    add_bos: bool = False,
    **options: Any,
) -> list[int]:
    """The ids of a conversation; the same as transformers' `apply_chat_template` unless it holds special tokens as text.

    parse_content: recognise special tokens in the content too. add_bos: put BOS first if the tokenizer adds one and the
    template did not write it (transformers leaves it to the template). options: those of `ChatTemplate.render`.
    """
    template = copy.copy(template)
    moment = template.clock()
    template.clock = lambda: moment  # all renderings of one chat show the same time
    text = template.render(messages, **options)
    ids = None if parse_content else encode_as_text(tokenizer, template, text, {"messages": messages, **options})
    if ids is None:
        ids = tokenizer.encode(text, add_special=False, parse_special=True)
    bos = tokenizer.bos_id
    if add_bos and bos is not None and tokenizer.encode("")[:1] == [bos] != ids[:1]:
        ids = [bos, *ids]
    return ids


def encode_as_text(tokenizer: TokenizerLike, template: ChatTemplate, text: str, inputs: dict[str, Any]) -> list[int] | None:
    """The ids of a chat with special tokens in its content encoded as text; None if the content has none."""
    tokens = sorted((tokenizer.id_to_token(i) for i in tokenizer.special_ids), key=len, reverse=True)
    split = re.compile("(" + "|".join(map(re.escape, tokens)) + ")").split if tokens else lambda text: [text]
    mark = unused_character(text + json.dumps(inputs, ensure_ascii=False, default=repr))
    pieces = [without(mark, piece) for piece in split(marked_chat(template, text, inputs, tokens, mark))]
    if pieces == split(text):
        return None
    ids: list[int] = []
    for index, piece in enumerate(pieces):  # text, special token, text, special token, …, text
        if index % 2:
            ids += [i for i in [tokenizer.token_to_id(piece)] if i is not None]
        elif piece:
            ids += encode_section(tokenizer, piece, after=pieces[index - 1] if index else "")
    return ids


def marked_chat(template: ChatTemplate, text: str, inputs: dict[str, Any], tokens: list[str], mark: str) -> str:
    """The chat rendered from marked inputs, equal to `text` except for the marks; NanollamaError if the marks change more.

    First every character that begins a special token is marked, so no token can be assembled. A template that searches for
    such characters (`'</think>' in content`) renders differently then; for it only whole tokens are marked.
    """
    for marker in (mark_first_characters(tokens, mark), mark_whole_tokens(tokens, mark)):
        marked = inputs | {key: map_strings(inputs.get(key), marker) for key in ("messages", "tools", "documents")}
        if all(marked[key] == inputs.get(key) for key in marked):
            return text
        with suppress(NanollamaError):
            chat = template.render(**marked)
            if without(mark, chat) == text:
                return chat
    raise NanollamaError(
        "the chat template rewrites content that holds a special token, so it can't be told from the template's own; "
        f"take such tokens ({tokens[-1]!r} and the like) out of the content, or pass parse_content=True"
    )


def mark_first_characters(tokens: list[str], mark: str) -> Callable[[str], str]:
    """A function that puts the mark after every character with which a token begins."""
    firsts = re.compile("|".join(re.escape(first) for first in {token[0] for token in tokens}) or "(?!)")
    return lambda text: firsts.sub(rf"\g<0>{mark}", text)


def mark_whole_tokens(tokens: list[str], mark: str) -> Callable[[str], str]:
    """A function that puts the mark into every token, in any letter case, and into one that begins at the text's end.

    The next string may hold its rest: the template may join two parts of one message.
    """
    whole = re.compile("|".join(f"{re.escape(t[0])}(?={re.escape(t[1:])})" for t in tokens) or "(?!)", re.IGNORECASE)

    def marker(text: str) -> str:
        begin = unfinished(text, tokens)
        if begin < len(text):
            text = text[: begin + 1] + mark + text[begin + 1 :]
        return whole.sub(rf"\g<0>{mark}", text)

    return marker


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of JSON-like data with every string changed, the keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): map_strings(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [map_strings(item, change) for item in value]
    return value


def unused_character(text: str) -> str:
    """A mark that nobody can forge: a character that is not in the text; a Yi syllable, which no filter changes."""
    for mark in map(chr, range(0xA000, 0xA48D)):
        if mark not in text and json.dumps(mark)[1:-1] not in text:
            return mark
    raise NanollamaError("the conversation uses every character that could mark its special tokens; pass parse_content=True")


def without(mark: str, text: str) -> str:
    """The text without the mark and without its escape, which `tojson(ensure_ascii=True)` writes."""
    return text.replace(mark, "").replace(json.dumps(mark)[1:-1], "")


def encode_section(tokenizer: TokenizerLike, text: str, after: str) -> list[int]:
    """The ids of the text that follows a special token (of the first text, after is ""), without special tokens in it.

    Some tokenizers put their prefix space before such text, as if it began a document; others don't. For the others it is
    encoded after a newline, which is then cut off.
    """

    def encode(text: str, special: bool = False) -> list[int]:
        return tokenizer.encode(text, add_special=False, parse_special=special)

    ids, newline = encode(text), encode("\n")
    if after and encode(after + "x", special=True)[1:] != encode("x"):
        longer = encode("\n" + text)
        ids = longer[len(newline) :] if longer[: len(newline)] == newline else ids
    if found := tokenizer.special_ids.intersection(ids):
        names = sorted(map(tokenizer.id_to_token, found))
        raise NanollamaError(f"this tokenizer reads {names} in plain text as special tokens; take them out of the content")
    return ids

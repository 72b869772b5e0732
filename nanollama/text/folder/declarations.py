"""Reads the JSON files of a tokenizer: its class, its special tokens, and whether BOS and EOS are added."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanollama.checkpoint.files import read_json_if_present
from nanollama.errors import NanollamaError, quote
from nanollama.text.added_tokens import AddedToken

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
EXTRA = ("additional_special_tokens", "extra_special_tokens")
NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
FLAGS = ("add_bos_token", "add_eos_token", "add_prefix_space", "legacy")


@dataclass(frozen=True)
class Declarations:
    """The parts of tokenizer_config.json, special_tokens_map.json, added_tokens.json and the configs that tokenizers need.

    tokenizer_class: without "Fast". named: "bos_token" and others, to the token, or None if the file has null or ""; names
    that the files lack are absent. extra: further special tokens. added: tokens declared with their ids. flags:
    add_bos_token, add_eos_token, add_prefix_space and legacy, as far as stated. config_ids: "bos_token" and "eos_token", to
    the id in generation_config.json or config.json.
    """

    tokenizer_class: str | None = None
    model_type: str | None = None
    named: dict[str, str | None] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    added: tuple[AddedToken, ...] = ()
    flags: dict[str, bool] = field(default_factory=dict)
    config_ids: dict[str, int] = field(default_factory=dict)

    def special_contents(self) -> set[str]:
        """Every token that the files name or list as special."""
        return {token for token in self.named.values() if token is not None} | set(self.extra)


def read_declarations(folder: Path) -> Declarations:
    """Read the JSON files of a checkpoint folder, as far as they exist.

    special_tokens_map.json and added_tokens.json are older and count only if tokenizer_config.json has no
    `added_tokens_decoder`, as in transformers.
    """
    names = ("tokenizer_config.json", "config.json", "generation_config.json")
    tokenizer, config, generation = (read_json_if_present(folder / name) for name in names)
    old = "added_tokens_decoder" not in tokenizer
    merged = tokenizer | read_json_if_present(folder / "special_tokens_map.json") if old else tokenizer
    named = {name: _named(merged[name], name) for name in NAMES if name in merged}
    extra = tuple(dict.fromkeys(token for key in EXTRA for token in _extra(merged.get(key), key)))
    special = {token for token in named.values() if token} | set(extra)
    added = _from_contents(read_json_if_present(folder / "added_tokens.json"), special) if old else _from_ids(tokenizer)
    ids = {name: _first_id(generation, f"{name}_id", config) for name in ("bos_token", "eos_token")}
    tokenizer_class = _typed(tokenizer, "tokenizer_class", str)
    return Declarations(
        tokenizer_class=tokenizer_class and tokenizer_class.removesuffix("Fast"),
        model_type=_typed(config, "model_type", str),
        named=named,
        extra=extra,
        added=tuple(added),
        flags={name: value for name in FLAGS if (value := _typed(tokenizer, name, bool)) is not None},
        config_ids={name: id for name, id in ids.items() if id is not None},
    )


def _typed(values: dict[str, Any], key: str, kind: type) -> Any:
    value = values.get(key)
    if value is not None and not isinstance(value, kind):
        raise NanollamaError(f"{key} is {quote(value)}; expected a {kind.__name__} or null")
    return value


def _named(value: Any, name: str) -> str | None:
    return None if value is None or value == "" else _content(value, name)


def _content(value: Any, what: str) -> str:
    """The text of a token, stored as a string or as an object with `content`."""
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, str) or not content or LONE_SURROGATE.search(content):
        raise NanollamaError(f"{what} is {quote(value)}; expected a token: a string, or an object with content")
    return content


def _extra(value: Any, key: str) -> list[str]:
    """A list of tokens, or an object whose values are tokens."""
    if value is None:
        return []
    if not isinstance(value, list | dict):
        raise NanollamaError(f"{key} is {quote(value)}; expected a list of tokens")
    return [_content(token, key) for token in (value.values() if isinstance(value, dict) else value)]


def _from_ids(tokenizer: dict[str, Any]) -> Iterable[AddedToken]:
    """Yields the tokens of `added_tokens_decoder`: id, as a string, to an object."""
    for key, value in (_typed(tokenizer, "added_tokens_decoder", dict) or {}).items():
        if not key.isascii() or not key.isdigit() or len(key) > 9 or not isinstance(value, dict):
            raise NanollamaError(f"added_tokens_decoder has {quote(key)}: {quote(value)}; expected an id and an object")
        options = {name: _typed(value, name, bool) or False for name in ("special", "lstrip", "rstrip", "single_word")}
        yield AddedToken(_content(value, "a token of added_tokens_decoder"), int(key), **options)


def _from_contents(values: dict[str, Any], special: set[str]) -> Iterable[AddedToken]:
    """Yields the tokens of added_tokens.json: token to id, special if another file names the token."""
    for content, id in values.items():
        if not content or not isinstance(id, int) or isinstance(id, bool) or not 0 <= id < 10**9:
            raise NanollamaError(f"added_tokens.json gives {quote(content)} the id {quote(id)}; expected a number from 0 up")
        yield AddedToken(content, id, content in special)


def _first_id(generation: dict[str, Any], key: str, config: dict[str, Any]) -> int | None:
    """The first token id under `key` in generation_config.json, else in config.json; None if there is none."""
    value = config.get(key) if generation.get(key) is None else generation[key]
    first = value[0] if isinstance(value, list) and value else value
    if first is None or first == []:
        return None
    if not isinstance(first, int) or isinstance(first, bool) or not 0 <= first < 1 << 31:
        raise NanollamaError(f"{key} is {quote(value)}; expected a token id or a list of them")
    return first

"""The tokenizer and chat template of a GGUF file, as files of a folder: `folder_files(metadata)`.

The folder gives the ids that llama.cpp gives with the file, not those of the model that was once converted: parts of it that
GGUF can't hold (composing text, other classes of capitals) are not in the file. These differences remain:

- Special tokens that overlap: llama.cpp finds the longest first, tokenizers and transformers the leftmost.
- White space that belongs to special tokens is Unicode's in a folder, ASCII's in llama.cpp.
- A token of the type user-defined whose letters could all stand for bytes (DeepSeek's `ø`) is decoded to these bytes.
- Bytes that have no token (StarCoder lacks some) are left out before merges in tokenizers, after them in llama.cpp.
- "llama": characters without tokens, if the vocabulary has no bytes, become the unknown token; llama.cpp aborts there.

"llama" becomes a tokenizer.json, for transformers and nanollama, and a tokenizer.model for other programs. The second never
turns plain text that spells a control or unknown token into that token (llama.cpp may), and it has no space before a text that
follows a special token. If tokens share a score, merges have no order, and only the tokenizer.model is written: then
transformers 5 differs, as with every tokenizer.model (see text/tokenizer.py).

Sources: the format of tokenizer.json is that of the library tokenizers; added_tokens_decoder is transformers'.
"""

import json
from collections.abc import Mapping
from typing import Any

from nanollama.errors import NanollamaError
from nanollama.text.added_tokens import AddedToken
from nanollama.text.convert.tokenizer_json_writer import Json, byte_level_json, described, shared_json, spaced_json
from nanollama.text.llamacpp.special import special_tokens
from nanollama.text.llamacpp.tokens import KEY, GgufTokens, flag, read_scores, read_tokens, value
from nanollama.text.llamacpp.vocabulary import NO_VOCABULARY, gguf_end_ids, load_gguf_template, load_gguf_tokenizer
from nanollama.text.sentencepiece.model import PieceType, SentencePieceModel
from nanollama.text.sentencepiece.writer import sentencepiece_bytes

KINDS = ("gpt2", "llama")
NAMED = ("bos", "eos", "unk", "pad", "sep", "mask")


def folder_files(metadata: Mapping[str, Any]) -> dict[str, bytes]:
    """The files by name. NanollamaError for a vocabulary that they can't express."""
    kind, template = value(metadata, KEY + "model", str), template_of(metadata)
    if kind in NO_VOCABULARY:
        return {"tokenizer_config.json": written(template)} if template else {}
    tokenizer = load_gguf_tokenizer(metadata)
    if kind not in KINDS or tokenizer is None:
        raise NanollamaError(f"{KEY}model {kind!r} can't be written as files of a folder; known: {', '.join(KINDS)}")
    found, pre = read_tokens(metadata, kind), value(metadata, KEY + "pre", str) or "default"
    added = list(special_tokens(found.tokens, found.types, value(metadata, "general.name", str) or "", pre))
    before, after = tokenizer.before, tokenizer.after
    shared = shared_json(found, added, before, after)
    if kind == "llama":
        scores, prefix = read_scores(metadata, len(found.tokens)), flag(metadata, "add_space_prefix", True)
        files = {"tokenizer.model": sentencepiece_bytes(sentencepiece_of(found, scores, prefix), found.roles)}
        content = spaced_json(found, scores, prefix, shared)
    else:
        files, content = {}, byte_level_json(metadata, found, pre, shared)
    config = tokenizer_config(found, added, before, after) | template
    if content is None:
        config |= {"tokenizer_class": "LlamaTokenizer", "legacy": True}
    else:
        files["tokenizer.json"] = written(content, indent=None)
    return {**files, "tokenizer_config.json": written(config), **generation_config(metadata, found)}


def written(value: Json, indent: int | None = 2) -> bytes:
    """The bytes of a JSON file."""
    return (json.dumps(value, indent=indent, ensure_ascii=False) + "\n").encode("utf-8")


def template_of(metadata: Mapping[str, Any]) -> Json:
    """`chat_template` of tokenizer_config.json: a text, or a list of name and text for several."""
    template = load_gguf_template(metadata)
    if template is None:
        return {}
    if set(template.sources) == {"default"}:
        return {"chat_template": template.sources["default"]}
    return {"chat_template": [{"name": name, "template": text} for name, text in template.sources.items()]}


def generation_config(metadata: Mapping[str, Any], found: GgufTokens) -> dict[str, bytes]:
    """generation_config.json with all ids that end an answer, the usual one first."""
    ends = gguf_end_ids(metadata)
    first = [id for id in (found.roles.get("eos"),) if id in ends]
    ids = {"bos_token_id": found.roles.get("bos"), "eos_token_id": first + [id for id in ends if id not in first] or None}
    known = {key: id for key, id in ids.items() if id is not None}
    return {"generation_config.json": written(known)} if known else {}


def tokenizer_config(found: GgufTokens, added: list[AddedToken], before: list[int], after: list[int]) -> Json:
    """tokenizer_config.json without the chat template. before, after: the ids before and after a text.

    A token with a role is named only if it is special or added to texts: transformers takes every named token for special,
    and in some files the padding is an ordinary word.
    """
    special = {token.id for token in added if token.special} | {*before, *after}
    roles = {name: id for name in NAMED if (id := found.roles.get(name)) in special and id is not None}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{name}_token": found.tokens[id] for name, id in roles.items()},
        "add_bos_token": bool(before),
        "add_eos_token": bool(after),
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {str(token.id): described(token) for token in added},
    }


def sentencepiece_of(found: GgufTokens, scores: list[float], prefix: bool) -> SentencePieceModel:
    """The SentencePiece model that gives the same ids.

    Tokens that llama.cpp finds in plain text are control pieces, since SentencePiece would find user-defined ones without the
    space that follows; added_tokens_decoder lists which are not special.
    """
    plain = (PieceType.NORMAL, PieceType.BYTE, PieceType.UNUSED)
    types = [type if type in plain else PieceType.CONTROL for type in found.types]
    candidates = [found.roles.get("unk"), *(id for id, type in enumerate(found.types) if type is PieceType.UNKNOWN)]
    unknown = next((id for id in candidates if id is not None and types[id] is PieceType.CONTROL), None)
    if unknown is None:
        raise NanollamaError("no token of the file is of type unknown, which a SentencePiece tokenizer.model must have")
    types[unknown] = PieceType.UNKNOWN
    return SentencePieceModel(
        kind="bpe",
        pieces=tuple(found.tokens),
        scores=tuple(scores),
        types=tuple(types),
        byte_fallback=PieceType.BYTE in types,
        unk_surface="",  # as in llama.cpp
        add_dummy_prefix=prefix,
        remove_extra_whitespaces=False,
    )

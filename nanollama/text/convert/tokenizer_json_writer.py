"""A GGUF file's vocabulary as the content of a tokenizer.json, the format of the library tokenizers."""

from collections.abc import Mapping, Sequence
from typing import Any

from nanollama.text.added_tokens import AddedToken
from nanollama.text.convert.pretokenizer_names import BYTE_LEVEL, pre_tokenizer_of
from nanollama.text.convert.spaced_bpe import PREPEND, REPLACE, merges_of
from nanollama.text.llamacpp.pretokenizers import WHOLE_WORDS
from nanollama.text.llamacpp.tokens import GgufTokens, read_merges
from nanollama.text.sentencepiece.model import PieceType
from nanollama.text.sentencepiece.normalize import SPACE

Json = dict[str, Any]

STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def byte_level_json(metadata: Mapping[str, Any], found: GgufTokens, pre: str, shared: Json) -> Json:
    """A byte-level BPE. Merges with a part that is no token never happen and are left out."""
    vocab = used(found)
    merges = [merge.split(" ") for merge in read_merges(metadata, found.ids)]
    merges = [pair for pair in merges if {*pair, "".join(pair)} <= vocab.keys()]
    return {
        **shared,
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer_of(pre),
        "post_processor": shared["post_processor"] or BYTE_LEVEL,
        "decoder": BYTE_LEVEL,
        "model": bpe(vocab, merges, whole_words=pre in WHOLE_WORDS),
    }


def spaced_json(found: GgufTokens, scores: Sequence[float], prefix: bool, shared: Json) -> Json | None:
    """SentencePiece's BPE; None if no list of merges is equivalent to the scores."""
    vocab = used(found)
    pairs = merges_of({token: scores[id] for token, id in vocab.items()})
    if pairs is None:
        return None
    unknown = next((token for token, id in vocab.items() if id == found.roles.get("unk")), None)
    decoders = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
    return {
        **shared,
        "normalizer": {"type": "Sequence", "normalizers": [PREPEND, REPLACE] if prefix else [REPLACE]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [*decoders, STRIP] if prefix else decoders},
        "model": bpe(vocab, pairs, unknown=unknown, bytes_for_rest=PieceType.BYTE in found.types),
    }


def used(found: GgufTokens) -> dict[str, int]:
    """Token to id, without the tokens that only fill the embedding's rows."""
    return {token: id for token, id in found.ids.items() if found.types[id] is not PieceType.UNUSED}


def bpe(
    vocab: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    *,
    whole_words: bool = False,
    unknown: str | None = None,
    bytes_for_rest: bool = False,
) -> Json:
    """The `model`."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": bytes_for_rest,
        "byte_fallback": bytes_for_rest,
        "ignore_merges": whole_words,
        "vocab": vocab,
        "merges": merges,
    }


def shared_json(found: GgufTokens, added: Sequence[AddedToken], before: Sequence[int], after: Sequence[int]) -> Json:
    """The parts that do not depend on the model: the added tokens, and the ids before and after a text."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": token.id, **described(token)} for token in added],
        "post_processor": around(found.tokens, before, after),
    }


def described(token: AddedToken) -> Json:
    """An added token in the form of tokenizer.json and tokenizer_config.json."""
    flags = {"lstrip": token.lstrip, "rstrip": token.rstrip, "single_word": False}
    return {"content": token.content, **flags, "normalized": False, "special": token.special}


def around(tokens: Sequence[str], before: Sequence[int], after: Sequence[int]) -> Json | None:
    """The post-processor that adds ids before and after a text, None if there are none."""
    if not before and not after:
        return None

    def text(*names: str) -> list[Json]:
        left, right = ([{"SpecialToken": {"id": tokens[id], "type_id": 0}} for id in ids] for ids in (before, after))
        return [*left, *({"Sequence": {"id": name, "type_id": place}} for place, name in enumerate(names)), *right]

    special = {tokens[id]: {"id": tokens[id], "ids": [id], "tokens": [tokens[id]]} for id in (*before, *after)}
    return {"type": "TemplateProcessing", "single": text("A"), "pair": text("A", "B"), "special_tokens": special}

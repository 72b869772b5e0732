"""A folder's vocabulary files as the keys of a GGUF file: kind, pre-tokenizer, merges or scores."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tokenizers

from nanollama.errors import NanollamaError, quote
from nanollama.text.bpe.files import read_merges, read_tiktoken
from nanollama.text.convert.pretokenizer_names import case_warnings, pre_name
from nanollama.text.convert.spaced_bpe import halves, merges_of, scores_of, space_prefix
from nanollama.text.folder.declarations import Declarations
from nanollama.text.folder.tokenizer_json import library_errors
from nanollama.text.folder.vocabulary import BASE64, MERGES_CLASSES, MERGES_MODELS, read_vocabulary
from nanollama.text.sentencepiece.model import PieceType
from nanollama.text.sentencepiece.reader import read_sentencepiece

PRE_OF_MERGES = {"gpt2": "gpt-2", "qwen2": "qwen2"}
NO_BYTES = "this vocabulary lacks bytes; llama.cpp aborts at characters that are no token, where this one gives <unk>"
NOT_COMPOSED = "this tokenizer composes text (NFC), which a GGUF file can't ask for: text that is not composed gets other ids"
METASPACE = "llama.cpp puts a space before every text, this tokenizer (Metaspace) only before one that has none"
OTHER_MERGES = "no scores do what the merges of tokenizer.json do; those of tokenizer.model give other ids for some texts"

Sides = tuple[bool, bool, bool]


@dataclass(frozen=True)
class GgufModel:
    """The facts of the files that a `Tokenizer` does not hold.

    keys: of the metadata, without "tokenizer.ggml.". types: of ids that are not plain text. scores: by id, empty if there
    are merges. sides: of the added tokens of a tokenizer.json, whether they have lstrip, rstrip and single_word. warnings:
    differences that a GGUF file can't avoid.
    """

    keys: dict[str, Any]
    types: dict[int, PieceType] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)
    sides: dict[str, Sides] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_model(folder: Path, declared: Declarations) -> GgufModel:
    """The model of a folder that `load_tokenizer` reads; NanollamaError for one that GGUF can't express."""
    if (folder / "tokenizer.json").exists():
        return from_tokenizer_json(read_vocabulary(folder / "tokenizer.json"), folder)
    if (folder / "tokenizer.model").exists():
        data = read_vocabulary(folder / "tokenizer.model")
        return from_tiktoken(data) if data[:1] and data[0] in BASE64 else from_sentencepiece(data, declared)
    return from_merges(folder, declared)


def byte_bpe(pre: str, merges: list[str], types: dict[int, PieceType] | None = None) -> GgufModel:
    """A byte-level BPE. merges: two tokens with a space between them, in order."""
    return GgufModel({"model": "gpt2", "pre": pre, "merges": merges}, types or {})


def from_merges(folder: Path, declared: Declarations) -> GgufModel:
    """A vocab.json with its merges.txt."""
    kind = MERGES_CLASSES.get(declared.tokenizer_class or "") or MERGES_MODELS[declared.model_type or ""]
    if declared.flags.get("add_prefix_space"):
        raise NanollamaError(
            "add_prefix_space is true in tokenizer_config.json; llama.cpp puts no space before a byte-level text. Export as a "
            "folder instead"
        )
    made = byte_bpe(PRE_OF_MERGES[kind], [f"{a} {b}" for a, b in read_merges(read_vocabulary(folder / "merges.txt"))])
    return replace(made, warnings=(NOT_COMPOSED,)) if kind == "qwen2" else made


def from_tiktoken(data: bytes) -> GgufModel:
    """A tiktoken tokenizer.model: any two tokens that make a third merge, with the rank of the third.

    The merges are sorted by that rank, then by the ranks of the left and the right part, as in transformers
    (convert_slow_tokenizer.py).
    """
    ranks = read_tiktoken(data)
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        pairs = sorted(halves(token, ranks), key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [f"{left} {right}" for left, right in pairs]
    return byte_bpe("llama-bpe", merges)


def from_sentencepiece(data: bytes, declared: Declarations) -> GgufModel:
    """A SentencePiece tokenizer.model of the kind BPE."""
    model = read_sentencepiece(data)
    prefix = declared.flags.get("add_prefix_space", model.add_dummy_prefix)
    if model.kind != "bpe" or not model.escape_whitespaces or model.whitespace_as_suffix:
        raise NanollamaError(
            f"tokenizer.model is of the kind {model.kind}, escape_whitespaces {model.escape_whitespaces}, "
            f"whitespace_as_suffix {model.whitespace_as_suffix}; a GGUF file can hold bpe, True, False. Export as a "
            "folder instead"
        )
    warnings: tuple[str, ...] = () if model.byte_fallback else (NO_BYTES,)
    if model.charsmap or model.remove_extra_whitespaces:
        what = "its characters (precompiled_charsmap)" if model.charsmap else "its spaces (remove_extra_whitespaces)"
        warnings += (f"this tokenizer normalises text, {what}, and llama.cpp does not: text that is not normal gets other ids",)
    types: dict[int, PieceType] = {id: type for id, type in enumerate(model.types) if type is not PieceType.NORMAL}
    flags = {"add_space_prefix": prefix, "remove_extra_whitespaces": model.remove_extra_whitespaces}
    keys = {"model": "llama", "pre": "default", **flags}
    return GgufModel(keys, types, dict(enumerate(model.scores)), warnings=warnings)


def from_tokenizer_json(data: bytes, folder: Path) -> GgufModel:
    """A tokenizer.json with a BPE."""
    with library_errors("tokenizer.json is not usable"):
        content = json.loads(tokenizers.Tokenizer.from_buffer(data).to_str())
    model = content["model"]
    odd = {key: model[key] for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(key)}
    if model["type"] != "BPE" or odd:
        raise NanollamaError(
            f"tokenizer.json has a model of type {model['type']} {odd or ''}; a GGUF file can hold a plain BPE. Export as a "
            "folder instead"
        )
    added = content["added_tokens"]
    types = {token["id"]: PieceType.USER_DEFINED for token in added}
    made = from_spaced(content, types, folder) if model["byte_fallback"] else from_byte_level(content, types)
    return replace(made, sides={t["content"]: (t["lstrip"], t["rstrip"], t["single_word"]) for t in added})


def from_byte_level(content: dict[str, Any], types: dict[int, PieceType]) -> GgufModel:
    """A tokenizer.json with a byte-level BPE."""
    model = content["model"]
    composes = composes_text(content["normalizer"])
    pre = pre_name(content["pre_tokenizer"], composes=composes, whole_words=model["ignore_merges"])
    if spaced := next((pair for pair in model["merges"] if " " in "".join(pair)), None):
        raise NanollamaError(
            f"tokenizer.json has the merge {quote(spaced)}; a GGUF file can't hold tokens with spaces in merges"
        )
    made = byte_bpe(pre, [f"{left} {right}" for left, right in model["merges"]], types)
    return replace(made, warnings=case_warnings(content["pre_tokenizer"]) + ((NOT_COMPOSED,) if composes else ()))


def composes_text(normalizer: dict[str, Any] | None) -> bool:
    """Whether text is composed (NFC) before it is cut; NanollamaError for any other normaliser."""
    steps = (normalizer or {"normalizers": []}).get("normalizers", [normalizer])
    if wrong := next((step for step in steps if step["type"] != "NFC"), None):
        raise NanollamaError(
            f"tokenizer.json has the normalizer {quote(wrong)}; llama.cpp has none. Export as a folder instead"
        )
    return bool(steps)


def from_spaced(content: dict[str, Any], types: dict[int, PieceType], folder: Path) -> GgufModel:
    """A tokenizer.json with SentencePiece's BPE: characters, and bytes for characters that are no token.

    Metaspace, which puts a space before a text only if it has none, gets the key of a space that is always put.
    """
    vocab, prefix = content["model"]["vocab"], space_prefix(content)
    types |= {vocab[f"<0x{byte:02X}>"]: PieceType.BYTE for byte in range(256) if f"<0x{byte:02X}>" in vocab}
    if (unknown := vocab.get(content["model"]["unk_token"])) is not None:
        types[unknown] = PieceType.UNKNOWN
    warnings: tuple[str, ...] = (METASPACE,) if prefix and content["pre_tokenizer"] else ()
    if list(types.values()).count(PieceType.BYTE) < 256:
        warnings += (NO_BYTES,)
    text = {token: id for token, id in vocab.items() if types.get(id, PieceType.NORMAL) is PieceType.NORMAL}
    keys = {"model": "llama", "pre": "default", "add_space_prefix": prefix}
    scores, more = merge_scores(text, content["model"]["merges"], tokenizer_model_scores(text, folder))
    return GgufModel(keys, types, scores, warnings=warnings + more)


def tokenizer_model_scores(text: Mapping[str, int], folder: Path) -> dict[int, float]:
    """The scores of the folder's tokenizer.model, by id; empty if there is none with these tokens."""
    path = folder / "tokenizer.model"
    data = read_vocabulary(path) if path.is_file() else b""
    if not data or data[0] in BASE64:
        return {}
    model = read_sentencepiece(data)
    ids = {piece: id for id, piece in enumerate(model.pieces)}
    return dict(enumerate(model.scores)) if all(ids.get(token) == id for token, id in text.items()) else {}


def merge_scores(
    text: Mapping[str, int], merges: Sequence[Sequence[str]], known: dict[int, float]
) -> tuple[dict[int, float], tuple[str, ...]]:
    """Scores, by id, that join what the merges join, and warnings. Known scores serve if they rank the tokens alike.

    If no scores do, the known ones are taken with a warning: llama.cpp's converter looks at nothing else.
    """
    ranked = merges_of({token: known[id] for token, id in text.items()}) if known else None
    order = list(dict.fromkeys(left + right for left, right in merges if left + right in text))
    if ranked is not None and order == list(dict.fromkeys(left + right for left, right in ranked)):
        return known, ()
    try:
        return scores_of(text, merges), ()
    except NanollamaError:
        if not known:
            raise
        return known, (OTHER_MERGES,)

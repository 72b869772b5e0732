"""The tokenizer and chat template of a folder, as metadata of a GGUF file: `folder_metadata(folder, config, ends)`.

llama.cpp defines the meaning of the metadata (llamacpp/vocabulary.py), so these texts get other ids than with the folder:

- Text after a special token: with `tokenizer.ggml.model` "llama" a space is put before it, which SentencePiece does not do.
- Text that begins with a space, if a tokenizer.json has Metaspace, which then adds none (warning).
- Text with a run of spaces, or a space at its ends, if a SentencePiece model removes extra white space (warning).
- Text that is not composed, if a tokenizer.json or Qwen2's class composes it first (NFC; warning).
- Text that spells a control token, if merges lead there: llama.cpp then takes that token.
- Text that spells a token by which llama.cpp identifies the end of an answer: it is always special there, as `</s>`, which is
  an ordinary token of Qwen's.
- Text in which special tokens overlap: llama.cpp finds the longest first, not the leftmost.
- Repeated letters, if two ways to make one token compete (`xx x` and `x xx` in `xxxxx`): a GGUF file has one score per token,
  tiktoken one rank, but a list of merges ranks both ways. llama.cpp's converter ignores the difference too.
- White space that belongs to special tokens (`lstrip`, `rstrip`; warning), and tokens that must be whole words.

Differences in how text is cut into words are listed in pretokenizer_names.py. Sources of the keys: docs/gguf.md of
github.com/ggml-org/ggml; of their values: llama.cpp, conversion/base.py, and gguf-py, vocab.py.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nanollama.checkpoint.gguf.values import ARRAY, STRING, ValueType
from nanollama.errors import NanollamaError, quote
from nanollama.model.config import ModelConfig
from nanollama.text.chat.template import load_template
from nanollama.text.convert.to_gguf_model import GgufModel, Sides, read_model
from nanollama.text.folder.declarations import Declarations, read_declarations
from nanollama.text.llamacpp.special import special_tokens
from nanollama.text.llamacpp.tokens import KEY, ROLE_KEYS, read_tokens
from nanollama.text.llamacpp.vocabulary import TEMPLATE, TEMPLATES, gguf_end_ids, load_gguf_tokenizer
from nanollama.text.sentencepiece.model import PieceType
from nanollama.text.tokenizer import Tokenizer, load_tokenizer

Metadata = dict[str, Any]


class GgufText(NamedTuple):
    """Keys of a GGUF file's text, the types of values that `type_of` would store otherwise, and warnings for the user."""

    metadata: Metadata
    types: dict[str, ValueType]
    warnings: tuple[str, ...] = ()


VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")
NAMED_ROLES = ("unk", "pad", "sep", "mask")
NO_END = "no token that ends a text is named; llama.cpp then takes id 11, or 2 with SentencePiece"
ADDED_SCORE, PADDING_SCORE = -1000.0, -10000.0  # of llama.cpp's converter; text can't become these tokens


def folder_metadata(folder: Path, config: ModelConfig, eos_token_ids: Sequence[int]) -> GgufText:
    """The `tokenizer.*` keys of a folder. NanollamaError for a tokenizer that they can't express."""
    template = template_keys(folder)
    if not any((folder / name).is_file() for name in VOCABULARIES):
        return GgufText({KEY + "model": "none", **template}, {})  # llama.cpp then takes the size from ARCHITECTURE.vocab_size
    tokenizer, declared = load_tokenizer(folder), read_declarations(folder)
    model = read_model(folder, declared)
    values = {**model.keys, **token_keys(tokenizer, declared, model, config.vocab_size), **around_keys(tokenizer)}
    roles = role_ids(tokenizer, declared, model, eos_token_ids)
    values |= {f"{role}_token_id": id for role, id in roles.items()}
    metadata = {KEY + key: value for key, value in values.items()} | template
    add_end_ids(metadata, eos_token_ids)
    check_readable(metadata, tokenizer)
    declared_sides = {token.content: (token.lstrip, token.rstrip, token.single_word) for token in declared.added}
    warnings = model.warnings + (() if "eos" in roles else (NO_END,))
    warnings += side_warnings(metadata, folder, model.sides | declared_sides)
    return GgufText(metadata, {KEY + "merges": ValueType(ARRAY, STRING)} if "merges" in values else {}, warnings)


def token_keys(tokenizer: Tokenizer, declared: Declarations, model: GgufModel, rows: int) -> Metadata:
    """Tokens, types and, if the model has scores, scores by id. rows: of the embedding; padding tokens fill the rest."""
    if tokenizer.vocab_size > rows:
        raise NanollamaError(
            f"the tokenizer has ids up to {tokenizer.vocab_size - 1:,}, but the embedding has {rows:,} rows; these files "
            "do not belong together"
        )
    unknown = {id for id, type in model.types.items() if type is PieceType.UNKNOWN}
    types = model.types | {token.id: PieceType.USER_DEFINED for token in declared.added if token.id not in unknown}
    types |= dict.fromkeys(tokenizer.special_ids - unknown, PieceType.CONTROL)
    tokens, scores = [], []
    for id in range(rows):
        token = token_of(tokenizer, id)
        score = PADDING_SCORE if token is None else ADDED_SCORE
        if token is None:
            token, types[id] = f"[PAD{id}]", PieceType.UNUSED
        elif model.scores and types.get(id) is PieceType.USER_DEFINED:
            token = token.replace("▁", " ")  # they are found in plain text
        tokens.append(token)
        scores.append(model.scores.get(id, score))
    numbers = [int(types.get(id, PieceType.NORMAL)) for id in range(rows)]
    return {"tokens": tokens, **({"scores": scores} if model.scores else {}), "token_type": numbers}


def token_of(tokenizer: Tokenizer, id: int) -> str | None:
    """The token of an id, None if it has none."""
    try:
        return tokenizer.id_to_token(id)
    except NanollamaError:
        return None


def around_keys(tokenizer: Tokenizer) -> Metadata:
    """The flags for BOS before and EOS after a text; NanollamaError for other ids, which a GGUF file can't ask for."""
    before, after = tokenizer.before, tokenizer.after
    for ids, id, name in ((before, tokenizer.bos_id, "bos_token"), (after, tokenizer.eos_id, "eos_token")):
        if ids not in ([], [id]):
            raise NanollamaError(
                f"the tokenizer puts the ids {ids} at an end of every text; a GGUF file can only ask for {name}, {id}. Export "
                "as a folder instead"
            )
    return {"add_bos_token": bool(before), "add_eos_token": bool(after)}


def role_ids(tokenizer: Tokenizer, declared: Declarations, model: GgufModel, ends: Sequence[int]) -> dict[str, int]:
    """Role, in GGUF's spelling, to id."""
    unknown = next((id for id, type in model.types.items() if type is PieceType.UNKNOWN), None)
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "unknown": unknown}
    if tokenizer.eos_id is None and ends:
        ids["eos"] = ends[0]
    for name in NAMED_ROLES:
        role, token = ROLE_KEYS[name], declared.named.get(f"{name}_token")
        ids[role] = ids.get(role) if token is None else tokenizer.token_to_id(token)
    return {role: id for role, id in ids.items() if id is not None}


def template_keys(folder: Path) -> Metadata:
    """The chat templates, unchanged: the default one and others by name."""
    template = load_template(folder)
    if template is None:
        return {}
    others = [name for name in template.sources if name != "default"]
    keys: Metadata = {TEMPLATES: others} if others else {}
    for name, text in template.sources.items():
        keys[TEMPLATE if name == "default" else f"{TEMPLATE}.{name}"] = text
    return keys


def add_end_ids(metadata: Metadata, ends: Sequence[int]) -> None:
    """Add keys for ids that end an answer, unless llama.cpp identifies them by their text."""
    count = len(metadata[KEY + "tokens"])
    known = gguf_end_ids(metadata)
    missing = [id for id in ends if id not in known and id < count]
    keys = ("eot_token_id", "eom_token_id")
    if len(missing) > len(keys):
        raise NanollamaError(
            f"the ids {missing} end an answer besides eos_token; a GGUF file can name two. Name fewer as eos_token_id in "
            "generation_config.json or config.json"
        )
    metadata |= {KEY + key: id for key, id in zip(keys, missing, strict=False)}


def check_readable(metadata: Metadata, tokenizer: Tokenizer) -> None:
    """Raise if the metadata can't be read back, or add other ids before and after a text."""
    read = load_gguf_tokenizer(metadata)
    if read is None or read.encode("") != tokenizer.encode(""):
        raise NanollamaError(
            f"a GGUF file would add {read and read.encode('')} to a text in place of {tokenizer.encode('')}; export as a "
            "folder instead"
        )


def side_warnings(metadata: Metadata, folder: Path, sides: Mapping[str, Sides]) -> tuple[str, ...]:
    """A warning if special tokens take other white space than in the folder; llama.cpp goes by the model's name."""
    found = read_tokens(metadata, metadata[KEY + "model"])
    name, pre = folder.resolve().stem, metadata[KEY + "pre"]
    known = special_tokens(found.tokens, found.types, name, pre)
    there = {token.content: (token.lstrip, token.rstrip, token.single_word) for token in known}
    wrong = [token for token, flags in sides.items() if there.get(token, (False, False, False)) != flags]
    if not wrong:
        return ()
    return (
        f"in a GGUF file {len(wrong)} special tokens, {quote(wrong[0])} among them, do not treat neighbouring text as in the "
        "folder (lstrip, rstrip, single_word)",
    )

"""Opens the vocabulary files of a checkpoint folder, whichever kind it holds.

The order of the kinds and every policy is explained in text/tokenizer.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from nanollama.checkpoint.files import read_bytes, read_json
from nanollama.errors import NanollamaError, quote
from nanollama.text.added_tokens import AddedToken, ModelVocabulary
from nanollama.text.bpe.byte_level import ByteBpe, merge_ranks
from nanollama.text.bpe.files import read_merges, read_tiktoken, read_vocab
from nanollama.text.folder.declarations import Declarations
from nanollama.text.folder.tokenizer_json import LibraryVocabulary
from nanollama.text.sentencepiece.model import PieceType, SentencePiece, SentencePieceModel
from nanollama.text.sentencepiece.reader import read_sentencepiece

BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
ANY_CLASS = {None, "PreTrainedTokenizer", "TokenizersBackend"}  # classes without rules
SENTENCEPIECE_CLASSES = ANY_CLASS | {"LlamaTokenizer", "GemmaTokenizer"}
TIKTOKEN_CLASSES = ANY_CLASS | {"LlamaTokenizer"}
MERGES_CLASSES = {"GPT2Tokenizer": "gpt2", "Qwen2Tokenizer": "qwen2"}
MERGES_MODELS = {"gpt2": "gpt2", "qwen2": "qwen2", "qwen2_moe": "qwen2", "qwen3": "qwen2", "qwen3_moe": "qwen2"}
END_OF_TEXT = "<|endoftext|>"
LLAMA3_NAMES = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    "<|image|>",
    *(f"<|reserved_special_token_{number}|>" for number in range(2, 246)),
)
"""Llama 3's 256 special tokens, which follow its ranks. Source: meta-llama/llama-models, models/llama3/tokenizer.py."""


Vocabulary = LibraryVocabulary | ModelVocabulary


@dataclass(frozen=True)
class OpenedVocabulary:
    """An opened vocabulary and its kind's defaults for BOS and EOS.

    bos_id, eos_id, adds_bos: used unless the JSON files state others. before, after: the ids before and after every text, if
    the vocabulary file defines them.
    """

    vocabulary: Vocabulary
    bos_id: int | None = None
    eos_id: int | None = None
    adds_bos: bool = False
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


def open_vocabulary(folder: Path, declared: Declarations) -> OpenedVocabulary:
    """Open the vocabulary of a checkpoint folder: tokenizer.json, else tokenizer.model, else vocab.json and merges.txt."""
    if (folder / "tokenizer.json").exists():
        return open_library(read_vocabulary(folder / "tokenizer.json"), declared)
    if (folder / "tokenizer.model").exists():
        data = read_vocabulary(folder / "tokenizer.model")
        return open_tiktoken(data, declared) if data[:1] and data[0] in BASE64 else open_sentencepiece(data, declared)
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        return open_merges(read_vocab(read_json(folder / "vocab.json")), read_vocabulary(folder / "merges.txt"), declared)
    raise NanollamaError(
        f"{folder} has no tokenizer; expected tokenizer.json, or tokenizer.model, or vocab.json with merges.txt"
    )


def read_vocabulary(path: Path) -> bytes:
    """The bytes of a vocabulary file."""
    return read_bytes(path, expected="a vocabulary")


def open_library(data: bytes, declared: Declarations) -> OpenedVocabulary:
    """A tokenizer.json."""
    vocabulary = LibraryVocabulary(data, declared.added, declared.special_contents())
    before, after = vocabulary.before, vocabulary.after
    return OpenedVocabulary(
        vocabulary,
        bos_id=before[0] if before else None,
        eos_id=after[-1] if after else None,
        before=tuple(before),
        after=tuple(after),
    )


def open_sentencepiece(data: bytes, declared: Declarations) -> OpenedVocabulary:
    """A SentencePiece tokenizer.model. Its control pieces and its unknown piece are special tokens."""
    _check_class(declared, SENTENCEPIECE_CLASSES, "a SentencePiece tokenizer.model")
    model = read_sentencepiece(data)
    if "add_prefix_space" in declared.flags:
        model = replace(model, add_dummy_prefix=declared.flags["add_prefix_space"])
    return sentencepiece_vocabulary(model, declared)


def sentencepiece_vocabulary(model: SentencePieceModel, declared: Declarations) -> OpenedVocabulary:
    """The vocabulary of a SentencePiece model and of the tokens declared in JSON files."""
    ids = {piece: id for id, piece in enumerate(model.pieces)}
    builtin = [AddedToken(piece, ids[piece], True) for piece in model.of_type(PieceType.CONTROL, PieceType.UNKNOWN)]
    added = _with_declared(builtin, declared, ids.get)
    types = list(model.types)
    for token in added:
        if token.id < len(types) and _takes_over(token, model):
            types[token.id] = PieceType.CONTROL
    model = replace(model, types=tuple(types))
    found_by_model = {ids[piece] for piece in model.of_type(PieceType.USER_DEFINED)}
    control = {piece: ids[piece] for piece in model.of_type(PieceType.CONTROL)}
    return OpenedVocabulary(
        ModelVocabulary(
            SentencePiece(model),
            [token for token in added if token.id not in found_by_model],
            prefix_every_text=declared.flags.get("legacy", False),
        ),
        bos_id=control.get(model.bos_piece),
        eos_id=control.get(model.eos_piece),
        adds_bos=True,
    )


def _takes_over(token: AddedToken, model: SentencePieceModel) -> bool:
    """Whether the token replaces the piece of its id, so that the model must not find that piece in text.

    A declared token may have the id of another piece, but not of one that text needs (NanollamaError).
    """
    type = model.types[token.id]
    if model.pieces[token.id] == token.content:
        return type is PieceType.USER_DEFINED and token.special
    if type in (PieceType.NORMAL, PieceType.BYTE, PieceType.UNKNOWN):
        raise NanollamaError(
            f"the files declare {quote(token.content)} as id {token.id}, which is the piece "
            f"{quote(model.pieces[token.id])} of tokenizer.model; do these files belong together?"
        )
    return True


def open_tiktoken(data: bytes, declared: Declarations) -> OpenedVocabulary:
    """A tiktoken tokenizer.model, with Llama 3's pre-tokenizer, and its special tokens unless others are declared."""
    _check_class(declared, TIKTOKEN_CLASSES, "a tiktoken tokenizer.model")
    if declared.model_type not in (None, "llama"):
        raise NanollamaError(f"a tiktoken tokenizer.model of model_type {declared.model_type!r} is not known; known: llama")
    ranks = read_tiktoken(data)
    if declared.added:
        builtin = []
    elif max(ranks.values()) == len(ranks) - 1:
        builtin = [AddedToken(name, len(ranks) + place, True) for place, name in enumerate(LLAMA3_NAMES)]
    else:
        raise NanollamaError(f"tokenizer.model has {len(ranks):,} ranks up to {max(ranks.values()):,}; expected no gaps")
    model = ByteBpe(ranks, lambda left, right: ranks.get(left + right), "llama3", whole_words=True)
    vocabulary = ModelVocabulary(model, _with_declared(builtin, declared, ranks.get))
    bos_id, eos_id = vocabulary.token_to_id("<|begin_of_text|>"), vocabulary.token_to_id("<|end_of_text|>")
    return OpenedVocabulary(vocabulary, bos_id, eos_id, adds_bos=True)


def open_merges(vocab: dict[str, int], merges: bytes, declared: Declarations) -> OpenedVocabulary:
    """A vocab.json with its merges.txt, of GPT-2's or Qwen2's kind."""
    kind = _merges_kind(declared)
    model = ByteBpe(
        vocab,
        merge_ranks(read_merges(merges), vocab),
        kind,
        prefix_space=declared.flags.get("add_prefix_space", False),
    )
    end = vocab.get(END_OF_TEXT, model.size if kind == "qwen2" else None)  # it follows the last id of Qwen's vocab.json
    builtin = [] if end is None else [AddedToken(END_OF_TEXT, end, True)]
    vocabulary = ModelVocabulary(model, _with_declared(builtin, declared, vocab.get))
    end = vocabulary.token_to_id(END_OF_TEXT)
    return OpenedVocabulary(vocabulary, bos_id=end if kind == "gpt2" else None, eos_id=end)


def _merges_kind(declared: Declarations) -> str:
    if declared.tokenizer_class in MERGES_CLASSES:
        return MERGES_CLASSES[declared.tokenizer_class]
    _check_class(declared, ANY_CLASS | MERGES_CLASSES.keys(), "vocab.json with merges.txt")
    if declared.model_type in MERGES_MODELS:
        return MERGES_MODELS[declared.model_type]
    raise NanollamaError(
        f"vocab.json with merges.txt needs a tokenizer_class in tokenizer_config.json ({', '.join(MERGES_CLASSES)}) or a "
        f"model_type in config.json ({', '.join(MERGES_MODELS)}); found {declared.model_type!r}"
    )


def _check_class(declared: Declarations, known: set[str | None], what: str) -> None:
    if declared.tokenizer_class not in known:
        names = ", ".join(sorted(name for name in known if name))
        raise NanollamaError(
            f"{what} with tokenizer_class {quote(declared.tokenizer_class)} is not implemented; known: {names}. A "
            "tokenizer.json would work: save the tokenizer with transformers' save_pretrained"
        )


def _with_declared(
    builtin: list[AddedToken], declared: Declarations, id_in_model: Callable[[str], int | None]
) -> list[AddedToken]:
    """The added tokens of a vocabulary: builtin ones, declared ones, and those that the files call special."""
    tokens = {token.id: token for token in builtin}
    for token in declared.added:
        if (id := id_in_model(token.content)) not in (None, token.id):
            raise NanollamaError(f"the files declare {quote(token.content)} as id {token.id}; the vocabulary has it as {id}")
        tokens[token.id] = token
    by_content = {token.content: token for token in tokens.values()}
    for content in sorted(declared.special_contents()):
        id = by_content[content].id if content in by_content else id_in_model(content)
        if id is not None:
            by_content[content] = replace(by_content.get(content, AddedToken(content, id, True)), special=True)
        elif content in declared.extra:
            raise NanollamaError(f"the special token {quote(content)} has no id; expected it in the vocabulary or declared")
    return list(by_content.values())

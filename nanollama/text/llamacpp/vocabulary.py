"""The tokenizer and the chat template that a GGUF file carries in its metadata: `load_gguf_tokenizer(metadata)`.

llama.cpp defines the meaning of a GGUF file, so the ids are those of its `llama_tokenize`, also where tokenizers of
Hugging Face give others for the same model: see pretokenizers.py (how text is cut), special.py (which tokens are
special, and how they are found) and models.py. More such facts, decided here:

- With `tokenizer.ggml.model` "llama", a space is put before every text that begins the input or follows a special token.
- Tokens of the type user-defined are always found in text, control and unknown ones only with `parse_special`.
- BOS comes first if `add_bos_token` is true; without that key with "llama", with "gemma4", and if the pre-tokenizer
  is one of Llama 3's, "tekken" or "chameleon". With "gemma4" it comes first even if the key is false.
- A byte that has no token is left out of "gpt2" and "gemma4" texts, as in tokenizers: StarCoder's vocabulary lacks four
  that rare characters need. With "llama" it is an error, because llama.cpp aborts there.
- Tokens of the type unused decode to nothing.
- Decoding leaves special tokens out before it drops the space at the start. llama_detokenize drops that space only if
  the first id of all has it, so that `<s>▁Hello` is " Hello" there. It also removes spaces before punctuation
  (`clean_spaces`) with some pre-tokenizers; here that is never done, because it is wrong for code.

Damage that llama.cpp accepts (ids out of range, merges of unknown tokens) is an error here. Keys that it does not read for
these models, such as `tokenizer.huggingface.json`, are ignored.
Source: llama.cpp, src/llama-vocab.cpp; docs/gguf.md of github.com/ggml-org/ggml for the keys.
"""

from collections.abc import Mapping
from typing import Any

from nanollama.errors import NanollamaError, quote
from nanollama.text.added_tokens import ModelVocabulary, TextModel
from nanollama.text.bpe.byte_level import ByteBpe
from nanollama.text.chat.template import ChatTemplate
from nanollama.text.llamacpp.models import CharacterBpe, ScoredMerges
from nanollama.text.llamacpp.pretokenizers import ADDS_BOS, WHOLE_WORDS, words_of
from nanollama.text.llamacpp.special import LongestFirst, special_tokens
from nanollama.text.llamacpp.tokens import (
    KEY,
    GgufTokens,
    flag,
    read_merges,
    read_roles,
    read_scores,
    read_tokens,
    strings,
    value,
)
from nanollama.text.sentencepiece.model import PieceType
from nanollama.text.tokenizer import Tokenizer

NO_VOCABULARY = (None, "none", "no_vocab")
MODELS = ("llama", "gpt2", "gemma4")
CHARACTER_PRES = ("gemma4", "granite-embed-multi-311m", "sarvam-moe")
"""Pre-tokenizers whose merges are of characters, over whole lines."""
TEMPLATE, TEMPLATES = "tokenizer.chat_template", "tokenizer.chat_templates"


def load_gguf_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer that a GGUF file carries; None if it carries none.

    metadata: as `read_gguf` returns it. Raises NanollamaError for a kind that is not implemented and for damaged metadata.
    """
    kind = value(metadata, KEY + "model", str)
    if kind in NO_VOCABULARY:
        return None
    if kind not in MODELS:
        raise NanollamaError(f"{KEY}model is {quote(kind)}, which is not implemented; known: {', '.join(MODELS)}")
    pre = value(metadata, KEY + "pre", str) or "default"
    if kind == "gemma4":
        pre = "gemma4"
    found = read_tokens(metadata, kind)
    model = _scored_merges(metadata, found) if kind == "llama" else _bpe(metadata, found, pre)
    special = special_tokens(found.tokens, found.types, value(metadata, "general.name", str) or "", pre)
    unused = frozenset(id for id, type in enumerate(found.types) if type is PieceType.UNUSED)
    before, after = _around(metadata, kind, pre)
    return Tokenizer(
        ModelVocabulary(model, LongestFirst(special), prefix_every_text=True, unused=unused),
        bos_id=found.roles.get("bos"),
        eos_id=found.roles.get("eos"),
        before=[_id(found, "bos")] if before else [],
        after=[_id(found, "eos")] if after else [],
    )


def _scored_merges(metadata: Mapping[str, Any], found: GgufTokens) -> TextModel:
    scores = read_scores(metadata, len(found.tokens))
    flag(metadata, "remove_extra_whitespaces", False)  # it must be a boolean, but llama.cpp does not use it here
    return ScoredMerges(found.tokens, found.ids, found.types, scores, prefix_space=flag(metadata, "add_space_prefix", True))


def _bpe(metadata: Mapping[str, Any], found: GgufTokens, pre: str) -> TextModel:
    words = None if pre in CHARACTER_PRES else words_of(pre)
    ranks = read_merges(metadata, found.ids)
    if words is None:
        return CharacterBpe(found.tokens, found.ids, found.types, ranks, whole_lines=pre != "sarvam-moe")

    def rank(left: str, right: str) -> int | None:
        return ranks.get(f"{left} {right}")

    return ByteBpe(found.ids, rank, words, whole_words=pre in WHOLE_WORDS, drops_bytes=True)


def _around(metadata: Mapping[str, Any], kind: str, pre: str) -> tuple[bool, bool]:
    """Whether BOS is put before a text, and EOS after it."""
    before = flag(metadata, "add_bos_token", kind == "llama" or pre in ADDS_BOS)
    always = kind != "llama" and pre in CHARACTER_PRES and pre != "sarvam-moe"
    return before or always, flag(metadata, "add_eos_token", False)


def _id(found: GgufTokens, name: str) -> int:
    if name not in found.roles:
        raise NanollamaError(
            f"{KEY}add_{name}_token is true or the rule for this vocabulary, but {KEY}{name}_token_id names none; "
            "expected an id"
        )
    return found.roles[name]


def load_gguf_template(metadata: Mapping[str, Any]) -> ChatTemplate | None:
    """The chat template that a GGUF file carries, or several by name, with its special tokens; None if it has none.

    `tokenizer.chat_template` is the default one, `tokenizer.chat_template.NAME` another; `tokenizer.chat_templates` lists
    the names. The template gets `bos_token` and others as the file names them.
    """
    names = strings(metadata, TEMPLATES) if TEMPLATES in metadata else []
    keys = {key.removeprefix(f"{TEMPLATE}."): key for key in metadata if key.startswith(f"{TEMPLATE}.")}
    keys |= {name: f"{TEMPLATE}.{name}" for name in names if name != "default"}
    if TEMPLATE in metadata:
        keys["default"] = TEMPLATE
    sources: dict[str, str] = {}
    for name, key in keys.items():
        source = value(metadata, key, str)
        if source is None:
            raise NanollamaError(f"{TEMPLATES} lists {quote(name)}, but there is no {key}; expected its text")
        sources[name] = source
    if not sources:
        return None
    template = ChatTemplate(sources)
    template.special_tokens = _named_tokens(metadata)
    return template


def _named_tokens(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Role, such as `bos_token`, to the text of its token."""
    if KEY + "tokens" not in metadata:
        return {}
    tokens, kind = strings(metadata, KEY + "tokens"), value(metadata, KEY + "model", str)
    return {f"{name}_token": tokens[id] for name, id in read_roles(metadata, kind, len(tokens)).items()}


def gguf_end_ids(metadata: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids at which llama.cpp ends an answer: those that the file names and those that it identifies by their text.

    (With "gpt2" and no `eos_token_id`, llama.cpp takes 11, which was Falcon's; here there is none.)
    """
    kind = value(metadata, KEY + "model", str)
    return tuple(sorted(read_tokens(metadata, kind).ends)) if kind in MODELS else ()

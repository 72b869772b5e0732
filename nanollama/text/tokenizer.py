"""Text to token ids and back: `load_tokenizer(folder)`.

Decided here, and only here:

- **Which file counts.** `tokenizer.json`; else `tokenizer.model`, by its content SentencePiece (a protocol buffer) or
  tiktoken (base64 text); else `vocab.json` with `merges.txt`. transformers prefers tokenizer.json too.
- **A GGUF file** carries its own vocabulary, and llama.cpp defines its ids: see llamacpp/vocabulary.py.
- **Reference for the ids.** For tokenizer.json the library tokenizers (where transformers 5 has a class of its own, as
  LlamaTokenizer, it rebuilds the rules and ignores those in the file); for SentencePiece the library sentencepiece (0.2.3);
  for tiktoken the library tiktoken; for vocab.json and merges.txt transformers. On SentencePiece files transformers 5
  differs from sentencepiece: it ignores their normalizer_spec, puts no dummy space before a text that begins with a space,
  cuts runs of spaces differently, and drops unknown characters.
- **BOS and EOS.** If the post-processor of tokenizer.json adds ids, those are added. Else `add_bos_token` and
  `add_eos_token` of tokenizer_config.json decide; where they are silent, SentencePiece and tiktoken files get BOS and
  no EOS (LlamaTokenizer's and Meta's policy; transformers 5 reads such a folder without BOS), the others neither.
- **Special tokens in text** stay text unless `parse_special`. Tokens that the files add but do not call special (runs of
  spaces, `<think>`) are always found, as in transformers. Next to a special token a SentencePiece model adds no dummy
  space, unless tokenizer_config.json says `legacy: true`; llama.cpp adds one after every special token.
- **Decoding** never applies `clean_up_tokenization_spaces`: it is not invertible, wrong for code, and would take back
  text that was already streamed. transformers 5 ignores it too, for BPE. An id without a token (the padded rows of an
  embedding) decodes to nothing, as in transformers. The unknown piece decodes to `unk_surface`, as in sentencepiece; with
  `skip_special=False` it is spelled, as in transformers.
- **Text with an unpaired surrogate** has no UTF-8 and is an error.
"""

from collections.abc import Sequence
from operator import index
from pathlib import Path
from typing import Protocol

from nanollama.errors import NanollamaError, quote
from nanollama.text.folder.declarations import Declarations, read_declarations
from nanollama.text.folder.vocabulary import OpenedVocabulary, Vocabulary, open_vocabulary


class TokenizerLike(Protocol):
    """The interface of `Tokenizer` that streaming, chat and the generation loop use; other tokenizers may stand in."""

    @property
    def special_ids(self) -> frozenset[int]: ...
    @property
    def bos_id(self) -> int | None: ...
    def encode(self, text: str, /, *, add_special: bool = True, parse_special: bool = False) -> list[int]: ...
    def decode(self, ids: Sequence[int], /, *, skip_special: bool = True) -> str: ...
    def token_to_id(self, token: str, /) -> int | None: ...
    def id_to_token(self, token_id: int, /) -> str: ...


class Tokenizer:
    """Text to ids and back.

    before, after: the ids that `add_special` puts before and after a text. bos_id, eos_id: None if the files name none; they
    hold whether or not they are added. vocab_size: the highest id plus one; the model's may be larger.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        bos_id: int | None = None,
        eos_id: int | None = None,
        before: Sequence[int] = (),
        after: Sequence[int] = (),
    ) -> None:
        self._vocabulary = vocabulary
        self.bos_id, self.eos_id = bos_id, eos_id
        self.before, self.after = list(before), list(after)
        self.vocab_size = vocabulary.size
        self.special_ids = vocabulary.special_ids

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """The ids of `text`.

        add_special: add BOS, EOS or other ids that the files ask for. parse_special: text that spells a special token
        becomes that token; else it stays text, as text from a user must.
        """
        if not isinstance(text, str):
            raise NanollamaError(f"text to encode is a {type(text).__name__}; expected a str")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise NanollamaError(
                f"character {error.start} of the text is U+{ord(text[error.start]):04X}, half of a surrogate pair, which "
                "is no character; decode the text's bytes again, with the right encoding"
            ) from None
        ids = self._vocabulary.encode(text, parse_special)
        return self.before + ids + self.after if add_special else ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD. skip_special: leave special tokens out, else they are
        spelled."""
        return self._vocabulary.decode([_checked(id) for id in ids], skip_special)

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it, None if there is no such token."""
        return self._vocabulary.token_to_id(token)

    def id_to_token(self, id: int) -> str:
        """The token of an id as the vocabulary spells it."""
        token = self._vocabulary.id_to_token(_checked(id))
        if token is None:
            raise NanollamaError(f"id {id} has no token; the vocabulary has the ids 0 to {self.vocab_size - 1}")
        return token


def _checked(id: int) -> int:
    try:
        value = index(id)
    except TypeError:
        raise NanollamaError(f"token id {quote(id)} is a {type(id).__name__}; expected an int") from None
    if value < 0:
        raise NanollamaError(f"token id {value} is negative; expected 0 or more")
    return value


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder, with the BOS and EOS policy of its files.

    Raises NanollamaError for a folder without a tokenizer, a kind that is not implemented, and damaged files.
    """
    declared = read_declarations(folder)
    opened = open_vocabulary(folder, declared)
    bos_id = special_id("bos_token", opened.bos_id, opened, declared)
    eos_id = special_id("eos_token", opened.eos_id, opened, declared)
    before, after = list(opened.before), list(opened.after)
    if not before and not after:
        before = added_id("bos_token", bos_id, opened.adds_bos, declared)
        after = added_id("eos_token", eos_id, False, declared)
    return Tokenizer(opened.vocabulary, bos_id=bos_id, eos_id=eos_id, before=before, after=after)


def special_id(name: str, default: int | None, opened: OpenedVocabulary, declared: Declarations) -> int | None:
    """The id of "bos_token" or "eos_token": from the tokenizer's JSON files, else from the vocabulary, else the configs."""
    if name in declared.named:
        token = declared.named[name]
        if token is None:
            return None
        id = opened.vocabulary.token_to_id(token)
        if id is None:
            raise NanollamaError(f"{name} is {quote(token)}, which has no id; expected a token of the vocabulary")
        return id
    id = declared.config_ids.get(name) if default is None else default
    if id is not None and opened.vocabulary.id_to_token(id) is None:
        raise NanollamaError(f"{name}_id is {id} in the config, but that id has no token in the vocabulary")
    return id


def added_id(name: str, id: int | None, default: bool, declared: Declarations) -> list[int]:
    """The ids added at one end of a text: [id] or []. `add_bos_token` (or `add_eos_token`) decides, else the default."""
    asked = declared.flags.get(f"add_{name}")
    if asked and id is None:
        raise NanollamaError(
            f"add_{name} is true in tokenizer_config.json, but no {name} is named; name one or set it to false"
        )
    return [id] if id is not None and (default if asked is None else asked) else []

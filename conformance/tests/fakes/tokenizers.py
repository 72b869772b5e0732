"""Tokenizers for tests of the text layer: a byte-wise one to redo by hand, and thin covers over the peer libraries.

All have the interface of `nanollama.text.tokenizer.Tokenizer`, and share none of its code.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import sentencepiece
import tokenizers
from tokenizers import decoders, models

from nanollama.errors import NanollamaError


class ByteTokenizer:
    """Token = byte, id = its value; special tokens follow from 256 on, the first of them is BOS. Higher ids have no text."""

    def __init__(self, *special: str, adds_bos: bool = False) -> None:
        self.special = special
        self.special_ids = frozenset(range(256, 256 + len(special)))
        self.adds_bos = adds_bos
        self.bos_id = 256 if special else None
        self.decoded = 0  # how many ids decode() was given in all

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        tokens = "|".join(map(re.escape, sorted(self.special, key=len, reverse=True)))
        ids = [256] if add_special and self.adds_bos else []
        for piece in re.split(f"({tokens})", text) if parse_special and tokens else [text]:
            ids += [256 + self.special.index(piece)] if parse_special and piece in self.special else piece.encode()
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        self.decoded += len(ids)
        vocabulary = [bytes([byte]) for byte in range(256)]
        vocabulary += [b"" if skip_special else token.encode() for token in self.special]
        return b"".join(vocabulary[i] for i in ids if i < len(vocabulary)).decode("utf-8", errors="replace")

    def id_to_token(self, token_id: int) -> str:
        if token_id >= 256 + len(self.special):
            raise NanollamaError(f"no token {token_id}")
        return self.special[token_id - 256] if token_id > 255 else f"byte {token_id}"

    def token_to_id(self, token: str) -> int | None:
        return 256 + self.special.index(token) if token in self.special else None


class HubTokenizer:
    """The library `tokenizers`."""

    def __init__(self, peer: tokenizers.Tokenizer, bos: str | None = None) -> None:
        self.peer = peer
        self.vocab_size = peer.get_vocab_size()
        self.special_ids = frozenset(i for i, token in peer.get_added_tokens_decoder().items() if token.special)
        self.bos_id = None if bos is None else peer.token_to_id(bos)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        self.peer.encode_special_tokens = not parse_special
        return list(self.peer.encode(text, add_special_tokens=add_special).ids)

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return str(self.peer.decode(list(ids), skip_special_tokens=skip_special))

    def id_to_token(self, token_id: int) -> str:
        token = self.peer.id_to_token(token_id)
        if token is None:
            raise NanollamaError(f"no token {token_id}")
        return str(token)

    def token_to_id(self, token: str) -> int | None:
        found: int | None = self.peer.token_to_id(token)
        return found


class SentencePieceTokenizer:
    """The library `sentencepiece`; control tokens are left out before the rest is decoded, as in transformers."""

    def __init__(self, path: Path) -> None:
        self.peer = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.vocab_size = int(self.peer.vocab_size())
        self.special_ids = frozenset(i for i in range(self.vocab_size) if self.peer.is_control(i))
        self.bos_id = int(self.peer.bos_id())

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        if add_special or parse_special:
            raise NotImplementedError
        return list(self.peer.encode(text))

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return str(self.peer.decode([i for i in ids if i not in self.special_ids]))

    def id_to_token(self, token_id: int) -> str:
        return str(self.peer.id_to_piece(token_id))

    def token_to_id(self, token: str) -> int | None:
        found = int(self.peer.piece_to_id(token))
        return found if self.peer.id_to_piece(found) == token else None


def byte_fallback(pieces: Sequence[str]) -> HubTokenizer:
    """A Llama-style tokenizer: `<unk> <s> </s>`, the 256 byte tokens (byte b has id 3 + b), then these pieces.

    Its decoder is the one that transformers makes for Llama: `▁` is a space, a run of byte tokens is UTF-8 or else shown
    as U+FFFD for every byte, and one space at the start is dropped.
    """
    vocab = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    peer = tokenizers.Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(vocab)}, [], byte_fallback=True, unk_token="<unk>")
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    peer.decoder = decoders.Sequence(steps)
    peer.add_special_tokens(vocab[:3])
    return HubTokenizer(peer, bos="<s>")

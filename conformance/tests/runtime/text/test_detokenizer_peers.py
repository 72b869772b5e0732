"""Streaming over real tokenizers: what comes out in pieces equals what the tokenizer decodes at once.

The tokenizers are the libraries `tokenizers` (byte-level BPE, byte fallback with Llama's and with Metaspace's decoder) and
`sentencepiece`, and the runtime's own. Ids are drawn at random, with a taste for byte tokens, halves of characters,
spaces, special tokens and the rows that pad an embedding.
"""

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders

from conformance.tests.fakes.tokenizers import HubTokenizer, SentencePieceTokenizer, byte_fallback
from nanollama.text.detokenizer import Detokenizer
from nanollama.text.tokenizer import Tokenizer, load_tokenizer

Peer = HubTokenizer | SentencePieceTokenizer | Tokenizer
CASES = int(os.environ.get("NANOLLAMA_FUZZ_CASES", "300"))


def llama(folder: Path) -> HubTokenizer:
    """Llama 2's vocabulary with the decoder that transformers gives it."""
    peer = sentencepiece.SentencePieceProcessor(model_file=str(folder / "llama2.tokenizer.model"))
    return byte_fallback([peer.id_to_piece(i) for i in range(259, peer.vocab_size())])


def metaspace(folder: Path) -> HubTokenizer:
    """The same with the Metaspace decoder, which strips the space of the first token."""
    tokenizer = llama(folder)
    tokenizer.peer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return tokenizer


def own(tokenizer_class: str = "", **files: str) -> Callable[[Path], Tokenizer]:
    """The runtime's own tokenizer of a folder with these files; `tokenizer__model="x"` is x under the name tokenizer.model."""

    def load(source: Path) -> Tokenizer:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if tokenizer_class:
                (folder / "tokenizer_config.json").write_text(f'{{"tokenizer_class": "{tokenizer_class}"}}')
            for target, file in files.items():
                shutil.copy(source / file, folder / target.replace("__", "."))
            return load_tokenizer(folder)

    return load


PEERS: dict[str, Callable[[Path], Peer]] = {
    "gpt2": lambda folder: HubTokenizer(tokenizers.Tokenizer.from_file(str(folder / "gpt2.tokenizer.json"))),
    "neox": lambda folder: HubTokenizer(tokenizers.Tokenizer.from_file(str(folder / "gpt-neox-olmo.tokenizer.json"))),
    "llama": llama,
    "metaspace": metaspace,
    "sentencepiece-llama": lambda folder: SentencePieceTokenizer(folder / "llama2.tokenizer.model"),
    "sentencepiece-mistral": lambda folder: SentencePieceTokenizer(folder / "mistral.tokenizer.model.v3"),
    "sentencepiece-512": lambda folder: SentencePieceTokenizer(folder / "tok512.model"),
    "own-gpt2": own(tokenizer__json="gpt2.tokenizer.json"),
    "own-qwen2": own("Qwen2Tokenizer", vocab__json="qwen2.vocab.json", merges__txt="qwen2.merges.txt"),
    "own-llama2": own(tokenizer__model="llama2.tokenizer.model"),
    "own-llama3": own(tokenizer__model="llama3.tokenizer.model"),
    "own-mistral": own(tokenizer__model="mistral.tokenizer.model.v3"),
    "own-512": own(tokenizer__model="tok512.model"),
}


@cache
def load(name: str, folder: Path) -> Peer:
    return PEERS[name](folder)


@cache
def pools(name: str, folder: Path) -> list[list[int]]:
    """Ids by kind: any, half a character, bytes, blank, special, and (where decoding allows it) without a token."""
    peer = load(name, folder)
    texts = {i: peer.decode([i], skip_special=False) for i in range(peer.vocab_size)}
    halves = [i for i, text in texts.items() if "�" in text]
    byte_ids = [i for i in map(peer.token_to_id, (f"<0x{byte:02X}>" for byte in range(256))) if i is not None]
    blank = [i for i, text in texts.items() if not text.strip()]
    padding = [] if isinstance(peer, SentencePieceTokenizer) else [peer.vocab_size, peer.vocab_size + 7]
    kinds = [list(texts), halves, byte_ids, blank, sorted(peer.special_ids), padding]
    return [kind for kind in kinds if kind]


def stream(peer: Peer, ids: list[int]) -> str:
    detokenizer = Detokenizer(peer)
    return "".join([*(detokenizer.push(i) for i in ids), detokenizer.flush()])


@pytest.mark.parametrize("name", PEERS)
def test_random_ids_stream_to_what_the_peer_decodes(name: str, data_dir: Path) -> None:
    folder = data_dir / "tokenizers"
    peer, kinds = load(name, folder), pools(name, folder)
    generator = random.Random(0)
    for _ in range(CASES):
        weights = [generator.choice([0, 1, 3]) for _ in kinds]
        weights[0] += not any(weights)
        length = generator.choice([1, 2, 3, 5, 8, 20, 40])
        ids = [generator.choice(kind) for kind in generator.choices(kinds, weights, k=length)]
        assert stream(peer, ids) == peer.decode(ids), ids


@pytest.mark.parametrize("name", PEERS)
@given(text=st.lists(st.sampled_from(["a", " ", "é", "你", "👩‍👩‍👧", "क्षि", "�", "\U0010ffff", "\n", "Hi", "\0"])).map("".join))
@settings(max_examples=CASES // 3)
def test_encoded_text_streams_back_to_what_the_peer_decodes(name: str, text: str, data_dir: Path) -> None:
    peer = load(name, data_dir / "tokenizers")
    ids = peer.encode(text, add_special=False)
    assert stream(peer, ids) == peer.decode(ids)

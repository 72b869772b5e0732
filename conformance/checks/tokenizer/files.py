"""The files of tokenizers: tables of ranks and merges, SentencePiece, their configuration; damage."""

# mypy: disable-error-code="arg-type,assignment,dict-item,misc,str-bytes-safe"
# tables mix good and bad arguments

import base64
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conformance.checks import check
from conformance.checks.assertions import expect_equal, expect_refused
from conformance.checks.tokenizer.models import MERGES, PIECES, proto
from nanollama.text import tokenizer as own
from nanollama.text.bpe import files as bytebpe_file
from nanollama.text.folder import declarations
from nanollama.text.sentencepiece import reader as sentencepiece_file

MERGES_TXT = "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in MERGES)


@contextmanager
def folder(**files: Any) -> Iterator[Path]:
    """A folder with these files; "__" in a name is a dot; values other than text and bytes are written as JSON."""
    with tempfile.TemporaryDirectory() as path:
        for name, content in files.items():
            text = content if isinstance(content, str | bytes) else json.dumps(content)
            (Path(path) / name.replace("__", ".")).write_bytes(text if isinstance(text, bytes) else text.encode())
        yield Path(path)


def spelled(tokenizer: own.Tokenizer, text: str, **options: bool) -> list[str]:
    return [tokenizer.id_to_token(i) for i in tokenizer.encode(text, **options)]


class Echo:
    """A vocabulary whose ids are the characters."""

    special_ids, size = frozenset({1}), 200

    def encode(self, text: str, parse_special: bool) -> list[int]:
        return [*map(ord, text)] + [1] * parse_special

    def decode(self, ids: list[int], skip_special: bool) -> str:
        return f"{list(ids)} {skip_special} , . ! 2 's"

    def token_to_id(self, token: str) -> int | None:
        return {"a": 97}.get(token)

    def id_to_token(self, id: int) -> str | None:
        return chr(id) if id < 150 else None


@check("TOKN-024", "TOKN-008", "ERRS-001", "DETO-002", area="tokenization")
def a_tokenizer_adds_bos_and_eos_and_checks_its_input() -> None:
    place = "text.tokenizer.Tokenizer"
    echo: Any = Echo()
    subject = own.Tokenizer(echo, bos_id=5, eos_id=6, before=[5, 5], after=[6])
    expect_equal(place, subject.encode("ab"), [5, 5, 97, 98, 6], "a text")
    expect_equal(place, subject.encode("ab", add_special=False), [97, 98], "a text without special tokens round it")
    expect_equal(place, subject.encode("a", add_special=False, parse_special=True), [97, 1], "a text with special tokens in it")
    facts = (
        subject.bos_id,
        subject.eos_id,
        subject.vocab_size,
        subject.special_ids,
        subject.token_to_id("a"),
        subject.token_to_id("b"),
    )
    expect_equal(place, facts, (5, 6, 200, frozenset({1}), 97, None), "facts")
    got = subject.decode([1, 2]), subject.decode([1, 2], skip_special=False), subject.id_to_token(97)
    expect_equal(place, got, ("[1, 2] True , . ! 2 's", "[1, 2] False , . ! 2 's", "a"), "decoding")
    expect_refused(place, lambda: subject.encode(b"a"), "bytes", "bytes to encode")
    expect_refused(place, lambda: subject.encode("a\ud800"), "U+D800", "half a surrogate pair")
    expect_refused(place, lambda: subject.id_to_token(199), "199", "an id without a token")
    for bad, part in ((-1, "-1"), ("1", "'1'"), (1.0, "1.0"), (None, "None")):
        expect_refused("text.tokenizer._checked", lambda bad=bad: subject.decode([bad]), part, f"id {bad!r}")
        expect_refused("text.tokenizer._checked", lambda bad=bad: subject.id_to_token(bad), part, f"id {bad!r}")


@check("TOKN-050", "ERRS-002", area="tokenization")
def tables_of_byte_level_bpe_are_read() -> None:
    def line(token: bytes, rank: object) -> bytes:
        return base64.b64encode(token) + f" {rank}\n".encode()

    place = "text.bpe.files.read_tiktoken"
    expect_equal(place, bytebpe_file.read_tiktoken(line(b" a", 0) + b"\n" + line(b"\xc3", 7)), {"Ġa": 0, "Ã": 7}, "ranks")
    good = line(b"a", 0)
    for bad in (
        b"",
        b"\n",
        good + b"!!! 1",
        good + line(b"a", 1),
        good + line(b"b", 0),
        line(b"a", -1),
        line(b"a", "1x"),
        b"YQ==\n",
        b" 0\n",
        line(b"a", "1" * 10),
    ):
        expect_refused(place, lambda bad=bad: bytebpe_file.read_tiktoken(bad), "tokenizer.model", f"{bad!r}")
    place = "text.bpe.files.read_merges"
    expect_equal(
        place, bytebpe_file.read_merges(b"#version: 0.2\na b\nab c\r\n# d\n"), [("a", "b"), ("ab", "c"), ("#", "d")], "merges"
    )
    expect_equal(place, bytebpe_file.read_merges(b""), [], "merges of an empty file")
    for bad in (b"a\n", b"a b c\n", b"a b\n\nc d", b"\xff a\n"):
        expect_refused(place, lambda bad=bad: bytebpe_file.read_merges(bad), "merges.txt", f"{bad!r}")
    expect_equal("text.bpe.files.read_vocab", bytebpe_file.read_vocab({"a": 0, "b": 2}), {"a": 0, "b": 2}, "a vocabulary")
    for bad in ({"a": -1}, {"a": "0"}, {"a": 1.0}, {"a": True}, {"a": 0, "b": 0}, {}, {"a": 1 << 31}):
        expect_refused("text.bpe.files.read_vocab", lambda bad=bad: bytebpe_file.read_vocab(bad), "vocab.json", f"{bad}")


@check("TOKN-051", "ERRS-002", area="tokenization")
def a_sentencepiece_file_is_read_field_by_field() -> None:
    place = "text.sentencepiece.reader.read_sentencepiece"
    model = sentencepiece_file.read_sentencepiece(
        proto("bpe", True, unk_surface="?", bos_piece="<x>", eos_piece="<y>", add_dummy_prefix=False)
    )
    got = model.kind, model.byte_fallback, model.unk_surface, model.bos_piece, model.eos_piece, model.add_dummy_prefix
    expect_equal(place, got, ("bpe", True, "?", "<x>", "<y>", False), "settings")
    count = len(PIECES)
    pieces = [(p, s, t) for p, s, t in zip(model.pieces[:count], model.scores, model.types, strict=False)]
    expect_equal(place, pieces, PIECES, "pieces, scores and types")
    raw = proto("unigram")
    others = b"\xa1\x06" + bytes(8) + b"\xa5\x06" + bytes(4) + b"\xa2\x06\x03abc" + b"\xa0\x06\x05"  # of field 100
    read = sentencepiece_file.read_sentencepiece(others + raw + others)
    expect_equal(
        "text.sentencepiece.reader.fields", read, sentencepiece_file.read_sentencepiece(raw), "with fields that nobody knows"
    )
    expect_equal(place, sentencepiece_file.read_sentencepiece(raw).kind, "unigram", "the kind")
    for cut in (1, 2, 5, len(raw) // 2, len(raw) - 1):
        expect_refused(
            place, lambda cut=cut: sentencepiece_file.read_sentencepiece(raw[:cut]), "", f"a file cut after {cut} bytes"
        )
    for bad, part in (
        (b"", "0 pieces"),
        (b"\x0a\x05\x0a\x01", "5 bytes"),
        (b"\x0b", "wire type 3"),
        (b"\x00\x01", "field number 0"),
        (b"\x08" + b"\xff" * 11, "10 bytes"),
        (b"\x08\x01", "wire type 0"),
        (raw + b"\x12\x02\x18\x03", "word"),
        (raw + b"\x2a\x04\x12\x02ab", "denormalizer"),
        (raw + b"\x0a\x03\x0a\x01a", "occurs twice"),
        (raw + b"\x0a\x05\x0a\x01z\x18\x09", "piece"),
        (raw + b"\x0a\x04\x0a\x02\xff\xff", "piece"),
        (raw + b"\x0a\x05\x0a\x01z\x18\x02", "unknown pieces"),
        (raw + b"\x0a\x08\x0a\x01z\x15\x00\x00\xc0\x7f", "finite"),
    ):
        expect_refused(place, lambda bad=bad: sentencepiece_file.read_sentencepiece(bad), part, f"damage {part}")
    for value in (0, 1, 127, 128, 300, 2**32, 2**63):
        coded = bytearray()
        rest = value
        while rest > 127:
            coded.append(rest & 127 | 128)
            rest >>= 7
        expect_equal(
            "text.sentencepiece.reader._varint",
            sentencepiece_file._varint(bytes([9, *coded, rest, 9]), 1, "x"),
            (value, 2 + len(coded)),
            "a varint",
        )


@check("TOKN-052", area="tokenization")
def declarations_next_to_a_vocabulary_count() -> None:
    place = "text.folder.declarations.read_declarations"
    new = {
        "tokenizer_class": "LlamaTokenizerFast",
        "bos_token": "<s>",
        "eos_token": {"content": "</s>"},
        "pad_token": None,
        "unk_token": "",
        "add_bos_token": False,
        "legacy": True,
    }
    new |= {
        "added_tokens_decoder": {"3": {"content": "<t>", "special": True, "lstrip": True}, "4": {"content": "<u>"}},
        "extra_special_tokens": {"x": "<x>"},
        "additional_special_tokens": ["<y>", "<x>"],
    }
    config = {"model_type": "llama", "bos_token_id": 9, "eos_token_id": [7, 8]}
    with folder(
        tokenizer_config__json=new,
        special_tokens_map__json={"bos_token": "no"},
        config__json=config,
        generation_config__json={"bos_token_id": 5},
    ) as path:
        got = declarations.read_declarations(path)
    expect_equal(place, (got.tokenizer_class, got.model_type), ("LlamaTokenizer", "llama"), "kinds")
    expect_equal(
        place, got.named, {"bos_token": "<s>", "eos_token": "</s>", "pad_token": None, "unk_token": None}, "named tokens"
    )
    expect_equal(
        place,
        (sorted(got.extra), got.flags, got.config_ids),
        (["<x>", "<y>"], {"add_bos_token": False, "legacy": True}, {"bos_token": 5, "eos_token": 7}),
        "the rest",
    )
    expect_equal(
        place,
        [(t.content, t.id, t.special, t.lstrip, t.rstrip) for t in got.added],
        [("<t>", 3, True, True, False), ("<u>", 4, False, False, False)],
        "added tokens",
    )
    expect_equal(place, got.special_contents(), {"<s>", "</s>", "<x>", "<y>"}, "what is special")
    with folder(
        tokenizer_config__json={"bos_token": "<a>"},
        special_tokens_map__json={"bos_token": "<b>", "eos_token": "<e>"},
        added_tokens__json={"<e>": 7, "<f>": 8},
    ) as path:
        old = declarations.read_declarations(path)
    expect_equal(
        place,
        (old.named, [(t.content, t.id, t.special) for t in old.added]),
        ({"bos_token": "<b>", "eos_token": "<e>"}, [("<e>", 7, True), ("<f>", 8, False)]),
        "older files",
    )
    for bad, part in (
        ({"added_tokens_decoder": {"x": {"content": "a"}}}, "'x'"),
        ({"added_tokens_decoder": {"1": "a"}}, "'1'"),
        ({"added_tokens_decoder": {"1": {"content": ""}}}, "content"),
        ({"added_tokens_decoder": []}, "added_tokens_decoder"),
        ({"bos_token": 3}, "bos_token"),
        ({"add_bos_token": "yes"}, "add_bos_token"),
        ({"additional_special_tokens": "x"}, "additional_special_tokens"),
    ):
        with folder(tokenizer_config__json=bad) as path:
            expect_refused(place, lambda path=path: declarations.read_declarations(path), part, f"{bad}")
    for bad in ({"a": "1"}, {"a": -1}, {"": 1}, {"a": True}):
        with folder(added_tokens__json=bad) as path:
            expect_refused(place, lambda path=path: declarations.read_declarations(path), "added_tokens.json", f"{bad}")
    with folder(config__json={"eos_token_id": -1}) as path:
        expect_refused(place, lambda: declarations.read_declarations(path), "eos_token_id", "a negative id")

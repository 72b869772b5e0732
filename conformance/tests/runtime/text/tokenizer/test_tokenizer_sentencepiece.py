"""SentencePiece models against the sentencepiece library: real ones, trained ones, and random ones."""

import io
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2

from conformance.tests.runtime.text.tokenizer.texts import CASES, cases, fewer_cases, texts
from nanollama.errors import NanollamaError
from nanollama.text.sentencepiece.model import SentencePiece
from nanollama.text.sentencepiece.reader import read_sentencepiece

PROTOCOL: Any = sentencepiece_model_pb2  # its classes are made at run time
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
REAL = {
    "llama2": "tokenizers/llama2.tokenizer.model",
    "mistral v1": "tokenizers/mistral.tokenizer.model.v1",
    "mistral v3": "tokenizers/mistral.tokenizer.model.v3",
    "tok512": "tokenizers/tok512.model",
    "tok105": "weights/tok105.model",
}
KINDS = [
    f"{kind} {rule} {bytes}" for kind in ("unigram", "bpe") for rule in ("nmt_nfkc", "identity") for bytes in (False, True)
]
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "all spaces kept": {"remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True},
    "no dummy prefix": {"add_dummy_prefix": False, "split_digits": True},
    "space at the end": {"treat_whitespace_as_suffix": True},
    "symbols": {"user_defined_symbols": ["foo", "<x>", "ab", "▁he", " a b"], "control_symbols": ["[INST]"], "unk_surface": "?"},
    "symbols of spaces": {"user_defined_symbols": ["  ", "\n", "ll"], "remove_extra_whitespaces": False},
    "pieces over spaces": {"split_by_whitespace": False},
}


def corpus() -> Iterator[str]:
    """Some 900 lines: English of a small vocabulary, and a few other scripts."""
    rng = random.Random(20)
    sentence = "the hello of and foo world a to in is tell shell well her he said don't quick-brown fox 2023 12 lab cab"
    words = sentence.split()
    for _ in range(800):
        yield " ".join(rng.choices(words, k=rng.randrange(1, 12))) + rng.choice([".", "!", "", "?"])
    for line in ("né e\u0301t Å ﬁ ½ ß", "日本語 カタカナ ｶﾞﾟ", "한국어 각", "привет мир", "😀 ❤\ufe0f 👨\u200d👩\u200d👧"):
        yield from [line] * 20


@cache
def trained(kind: str, variant: str) -> bytes:
    """A model of about 400 pieces."""
    model_type, rule, byte_fallback = kind.split()
    model = io.BytesIO()
    options = dict(
        VARIANTS[variant], model_type=model_type, normalization_rule_name=rule, byte_fallback=byte_fallback == "True"
    )
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=corpus(), model_writer=model, vocab_size=420, hard_vocab_limit=False, character_coverage=0.99,
        num_threads=1, minloglevel=2, **options,
    )  # fmt: skip
    return model.getvalue()


def both(data: bytes) -> tuple[SentencePiece, sentencepiece.SentencePieceProcessor]:
    peer = sentencepiece.SentencePieceProcessor()
    peer.LoadFromSerializedProto(data)
    return SentencePiece(read_sentencepiece(data)), peer


def build(pieces: list[tuple[str, float, int]], **spec: Any) -> bytes:
    """A model file, written by the peer. spec: fields of normalizer_spec, and of trainer_spec."""
    model = PROTOCOL.ModelProto()
    for piece, score, type in pieces:
        model.pieces.add(piece=piece, score=score, type=type)
    model.normalizer_spec.name = "identity"
    for name, value in spec.items():
        holder = model.normalizer_spec if hasattr(model.normalizer_spec, name) else model.trainer_spec
        setattr(holder, name, value)
    return bytes(model.SerializeToString())


SMALL: list[tuple[str, float, int]] = [
    ("<unk>", 0, UNKNOWN), ("<s>", 0, CONTROL), ("</s>", 0, CONTROL),
    ("▁", -1, NORMAL), ("a", -2, NORMAL), ("b", -3, NORMAL), ("▁a", -4, NORMAL), ("▁ab", -5, NORMAL), ("▁▁", -6, NORMAL),
]  # fmt: skip
BYTES: list[tuple[str, float, int]] = [(f"<0x{byte:02X}>", 0, BYTE) for byte in range(256)]


def pieces_of(text: str, **spec: Any) -> list[str]:
    """The pieces of `text` in the BPE model SMALL."""
    model = SentencePiece(read_sentencepiece(build(SMALL, model_type=2, **spec)))
    return [model.model.pieces[id] for id in model.encode(text)]


def test_text_gets_a_space_in_front_and_spaces_become_pieces() -> None:
    assert pieces_of("ab a") == ["▁ab", "▁a"]


def test_without_a_dummy_prefix_text_begins_as_it_is() -> None:
    assert pieces_of("ab a", add_dummy_prefix=False) == ["a", "b", "▁a"]


def test_extra_spaces_are_removed_only_if_the_model_says_so() -> None:
    assert pieces_of("  a  a ") == ["▁a", "▁a"]
    assert pieces_of("  a  a ", remove_extra_whitespaces=False) == ["▁▁", "▁a", "▁", "▁a", "▁"]


def test_nothing_but_spaces_is_no_text() -> None:
    assert pieces_of("   ") == pieces_of("") == []


def test_a_run_of_unknown_characters_is_one_unknown_piece() -> None:
    assert pieces_of("axyzb") == ["▁a", "<unk>", "b"]


def test_the_name_of_a_control_piece_in_text_is_text() -> None:
    assert pieces_of("<s>a") == ["▁", "<unk>", "a"]


def test_with_byte_fallback_an_unknown_character_becomes_its_bytes() -> None:
    model = SentencePiece(read_sentencepiece(build([*SMALL, *BYTES], model_type=2, byte_fallback=True)))
    assert model.encode("é") == [3, 9 + 0xC3, 9 + 0xA9]
    assert model.decode([3, 9 + 0xC3, 9 + 0xA9]) == "é"


def test_every_byte_that_is_no_utf8_decodes_to_one_replacement_character() -> None:
    model = SentencePiece(read_sentencepiece(build([*SMALL, *BYTES], model_type=2, byte_fallback=True)))
    assert model.decode([9 + 0xF0, 9 + 0x9F, 9 + 0x98, 4, 9 + 0x80, 9 + 0x41]) == "\ufffd\ufffd\ufffda\ufffdA"


def test_only_the_space_of_the_dummy_prefix_is_dropped_in_decoding() -> None:
    kept = SentencePiece(read_sentencepiece(build(SMALL, model_type=2, remove_extra_whitespaces=False)))
    assert kept.decode([8, 6]) == "  a"
    assert kept.decode([3, 6]) == " a"
    assert kept.decode([4, 6]) == "a a"
    bare = SentencePiece(read_sentencepiece(build(SMALL, add_dummy_prefix=False, remove_extra_whitespaces=False)))
    assert bare.decode([6, 6]) == " a a"


def test_an_unknown_piece_decodes_to_its_surface() -> None:
    assert SentencePiece(read_sentencepiece(build(SMALL))).decode([6, 0, 4]) == "a ⁇ a"


def test_a_user_defined_piece_is_found_in_any_text_and_the_longest_wins() -> None:
    data = build([*SMALL, ("aa", 0, USER_DEFINED), ("aab", 0, USER_DEFINED)], model_type=2)
    model = SentencePiece(read_sentencepiece(data))
    assert [model.model.pieces[id] for id in model.encode("aaab")] == ["▁", "aa", "a", "b"]
    assert [model.model.pieces[id] for id in model.encode("baab")] == ["▁", "b", "aab"]


@pytest.mark.parametrize("name", REAL)
@cases
@given(text=texts)
def test_a_real_model_gives_the_ids_and_texts_of_sentencepiece(data_dir: Path, name: str, text: str) -> None:
    ours, peer = loaded(data_dir / REAL[name])
    assert ours.encode(text) == peer.encode(text)
    assert ours.decode(peer.encode(text)) == peer.decode(peer.encode(text))


@cache
def loaded(path: Path) -> tuple[SentencePiece, sentencepiece.SentencePieceProcessor]:
    return both(path.read_bytes())


@pytest.mark.parametrize("name", REAL)
@cases
@given(data=st.data())
def test_any_ids_of_a_real_model_decode_as_in_sentencepiece(data_dir: Path, name: str, data: st.DataObject) -> None:
    ours, peer = loaded(data_dir / REAL[name])
    size = peer.get_piece_size()
    ids = data.draw(st.lists(st.integers(0, size - 1) | st.integers(0, min(size, 300) - 1), max_size=12))
    ids = [id for id in ids if not peer.is_control(id)]
    assert ours.decode(ids) == peer.decode(ids)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_model_gives_the_ids_and_texts_of_sentencepiece(kind: str, variant: str) -> None:
    ours, peer = both(trained(kind, variant))

    @fewer_cases
    @given(text=texts)
    def check(text: str) -> None:
        assert ours.encode(text) == peer.encode(text)
        assert ours.decode(peer.encode(text)) == peer.decode(peer.encode(text))

    check()


@st.composite
def models(draw: st.DrawFn) -> bytes:
    """Random pieces of few letters, of every type, with scores that often tie."""
    letters = draw(st.lists(st.text("abé▁", min_size=1, max_size=5), min_size=2, max_size=25, unique=True))
    types = st.sampled_from([NORMAL, NORMAL, NORMAL, USER_DEFINED, UNUSED])
    scores = st.sampled_from([-1.0, -2.0, -3.0]) | st.floats(-9, 3, width=32)
    pieces = [(piece, draw(scores), NORMAL if piece == letters[0] else draw(types)) for piece in letters]
    byte_fallback = draw(st.booleans())
    return build(
        [("<unk>", 0, UNKNOWN), ("<s>", 0, CONTROL), *pieces, *(BYTES if byte_fallback else [])],
        model_type=draw(st.sampled_from([1, 2])),
        byte_fallback=byte_fallback,
        add_dummy_prefix=draw(st.booleans()),
        remove_extra_whitespaces=draw(st.booleans()),
        escape_whitespaces=draw(st.booleans()),
        treat_whitespace_as_suffix=draw(st.booleans()),
    )


@cases
@given(data=models(), some=st.lists(st.text("abé▁ x", max_size=40), min_size=1, max_size=5))
def test_a_random_model_gives_the_ids_and_texts_of_sentencepiece(data: bytes, some: list[str]) -> None:
    ours, peer = both(data)
    for text in some:
        assert ours.encode(text) == peer.encode(text)
        assert ours.decode(peer.encode(text)) == peer.decode(peer.encode(text))


@pytest.mark.parametrize("kind", KINDS[::2])
def test_a_text_whose_sum_of_scores_passes_100000_gives_the_same_ids(kind: str) -> None:
    ours, peer = both(trained(kind, "all spaces kept"))
    rng = random.Random(7)
    lines = list(corpus())
    text = "\n".join(rng.choice(lines)[rng.randrange(9) :] for _ in range(4000))
    assert ours.encode(text) == peer.encode(text)


@pytest.mark.parametrize("name", ["llama2", "tok512"])
def test_long_texts_without_a_place_to_cut_give_the_same_ids(data_dir: Path, name: str) -> None:
    ours, peer = loaded(data_dir / REAL[name])
    letters = "".join(random.Random(3).choices("etaoinshrdlu", k=50_000))
    for text in ("a" * 50_000, " " * 50_000, letters, "😀" * 20_000):
        assert ours.encode(text) == peer.encode(text)


def test_a_corpus_gives_the_same_ids(data_dir: Path) -> None:
    ours, peer = loaded(data_dir / REAL["llama2"])
    text = (data_dir / "corpora/wikitext-2.test.txt").read_text(encoding="utf-8")[: 10_000 * max(1, CASES // 100)]
    assert ours.encode(text) == peer.encode(text)
    assert ours.decode(ours.encode(text)) == text


BROKEN = {
    "empty": (b"", "0 pieces"),
    "a length beyond the end": (b"\x0a\xff\xff\xff\x2f", "claims 100,663,295 bytes"),
    "a number without end": (b"\x0a" + b"\x80" * 12, "more than 10 bytes"),
    "cut in a number": (b"\x0a\x80", "ends within a number"),
    "a group": (b"\x0b", "wire type 3"),
    "field 0": (b"\x02\x00", "field number 0"),
    "a piece that is a number": (b"\x08\x01", "wire type 0"),
    "no unknown piece": (build(SMALL[1:]), "0 unknown pieces"),
    "two unknown pieces": (build([*SMALL, ("<u>", 0, UNKNOWN)]), "2 unknown pieces"),
    "a piece twice": (build([*SMALL, ("a", 0, NORMAL)]), "occurs twice"),
    "an empty piece": (build([*SMALL, ("", 0, NORMAL)]), "piece 9 is ''"),
    "a piece with NUL": (build([*SMALL, ("\0", 0, NORMAL)]), "no NUL"),
    "a piece of 8000 bytes": (build([*SMALL, ("é" * 4000, 0, NORMAL)]), "1 to 7999 bytes"),
    "a score that is no number": (build([*SMALL, ("c", float("nan"), NORMAL)]), "score nan"),
    "an infinite score": (build([*SMALL, ("c", float("-inf"), NORMAL)]), "score -inf"),
    "a type of its own": (build(SMALL) + b"\x0a\x05\x0a\x01c\x18\x09", "9 is not a valid PieceType"),
    "a piece that is no UTF-8": (build(SMALL) + b"\x0a\x03\x0a\x01\xff", "piece is not readable"),
    "bytes without fallback": (build([*SMALL, *BYTES]), "expected all 256 or none"),
    "fallback without a byte": (build([*SMALL, *BYTES[:255]], byte_fallback=True), "'<0xFF>' is missing"),
    "a model of words": (build(SMALL, model_type=3), "'word' is not implemented"),
    "rules without rules": (build(SMALL, precompiled_charsmap=b"\0\0\0\0"), "precompiled_charsmap of 4 bytes"),
    "rules beyond the end": (build(SMALL, precompiled_charsmap=b"\xff" * 8), "4,294,967,295"),
    "rules of noise": (build(SMALL, precompiled_charsmap=b"\0\4\0\0" + b"\xff\xff\xff\x7f" * 256 + b"x\0"), "unit 0 points"),
    "rules that are no UTF-8": (build(SMALL, precompiled_charsmap=b"\0\4\0\0" + bytes(1024) + b"\xff\0"), "not UTF-8"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_model_is_refused_with_its_reason(name: str) -> None:
    data, message = BROKEN[name]
    with pytest.raises(NanollamaError, match=message.replace("(", r"\(")):
        SentencePiece(read_sentencepiece(data))


def test_denormalizer_rules_are_refused_by_name() -> None:
    model = PROTOCOL.ModelProto.FromString(build(SMALL))
    model.denormalizer_spec.precompiled_charsmap = b"x"
    with pytest.raises(NanollamaError, match="denormalizer"):
        read_sentencepiece(model.SerializeToString())

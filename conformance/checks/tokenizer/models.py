"""Whole text models: byte-level BPE and SentencePiece against their libraries, GGUF's pre-tokenizers by hand."""

# mypy: disable-error-code="arg-type,assignment,attr-defined,misc"
# tables mix good and bad arguments

import itertools
from collections.abc import Sequence
from typing import Any

import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import decoders, models, pre_tokenizers

from conformance.checks import check
from conformance.checks.assertions import expect_equal, expect_refused
from conformance.checks.generation.rigged import fresh
from nanollama.text.bpe import byte_level as bytebpe
from nanollama.text.llamacpp import pretokenizers
from nanollama.text.sentencepiece import model as own
from nanollama.text.sentencepiece import reader as sentencepiece_file
from nanollama.text.sentencepiece.model import PieceType

N, U, C, D, X, B = (PieceType[name] for name in ("NORMAL", "UNKNOWN", "CONTROL", "USER_DEFINED", "UNUSED", "BYTE"))
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("Ġ", "w"), ("hell", "o"), ("Ġw", "o"), ("Ã", "©"), ("1", "2"), ("Ġ", "Ġ")]
VOCAB = {token: i for i, token in enumerate([*ALPHABET, *(a + b for a, b in MERGES)])}
TEXTS = (
    "hello world",
    "  hello   wo é1234 12",
    "don't HE'LL he'd\n\n x\r\n",
    "日本語 🙂!?",
    "a\u0301 ͏x\u3000y",
    "",
    " ",
    "\n",
    "hell" * 12,
    "é" * 40,
)


def peer(name: str, *, prefix_space: bool = False, whole: bool = False) -> tokenizers.Tokenizer:
    """The library's tokenizer with the same vocabulary and merges."""
    library = tokenizers.Tokenizer(models.BPE(vocab=VOCAB, merges=MERGES, ignore_merges=whole))
    if name == "gpt2":
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=True)
    else:
        cut = pre_tokenizers.Split(tokenizers.Regex(bytebpe.PRE_TOKENIZERS[name]), "isolated")
        steps = [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        library.pre_tokenizer = pre_tokenizers.Sequence(steps)
    library.decoder = decoders.ByteLevel()
    return library


@check("TOKN-001", area="tokenization")
def bytes_are_spelled_as_printable_letters() -> None:
    data = bytes(range(256))
    spelled = bytebpe.spell(data)
    expect_equal("text.bpe.byte_level.spell", sorted(spelled), ALPHABET, "the letters of all bytes")
    known = {0x20: "Ġ", 0x0A: "Ċ", 0x09: "ĉ", 0x41: "A", 0xC3: "Ã", 0xA9: "©", 0xAD: "Ń", 0x00: "Ā", 0x7F: "ġ"}
    expect_equal("text.bpe.byte_level.spell", {byte: spelled[byte] for byte in known}, known, "some letters")


@check("TOKN-002", "TOKN-011", area="tokenization")
def merges_rank_by_their_place_and_must_fit_the_vocabulary() -> None:
    place, vocab = "text.bpe.byte_level.merge_ranks", {"a": 0, "b": 1, "ab": 2, "aba": 3, "ba": 4}
    rank = bytebpe.merge_ranks([("a", "b"), ("ab", "a")], vocab)
    got = [rank(*pair) for pair in (("a", "b"), ("ab", "a"), ("a", "ba"), ("b", "a"))]
    expect_equal(place, got, [0, 1, None, None], "ranks: of the pair, not of what it makes")
    for merges, part in (([("a", "x")], "'x'"), ([("x", "a")], "'x'"), ([("b", "b")], "'bb'"), ([("a", "b")] * 2, "twice")):
        expect_refused(place, lambda merges=merges: bytebpe.merge_ranks(merges, vocab), part, f"merges {merges}")


@check("TOKN-003", "TOKN-005", "TOKN-006", "TOKN-009", area="tokenization", each=("gpt2", "llama3", "qwen2"))
def byte_level_bpe_gives_the_ids_of_the_library(name: str) -> None:
    place = "text.bpe.byte_level.ByteBpe"
    words = bytebpe.library_words(name)
    expect_equal(
        "text.bpe.byte_level.library_words", "".join(words("a b 12\n\nc's")), "a b 12\n\nc's", "the words put together"
    )
    wanted = {"gpt2": ["a", " 1234"], "llama3": ["a", " ", "123", "4"], "qwen2": ["a", " ", *"1234"]}[name]
    expect_equal("text.bpe.byte_level.library_words", words("a 1234"), wanted, f"words by {name}")
    for whole, prefix in ((False, False), (True, False), *([(False, True)] if name == "gpt2" else [])):
        subject = bytebpe.ByteBpe(VOCAB, bytebpe.merge_ranks(MERGES, VOCAB), name, whole_words=whole, prefix_space=prefix)
        library = peer(name, prefix_space=prefix, whole=whole)
        for text in TEXTS:
            given = text.replace("a\u0301", "á") if name == "qwen2" else text  # normalised to NFC first
            got = subject.encode(text)
            expect_equal(place, got, library.encode(given).ids, f"ids of {text!r} by {name}")
            expect_equal(place, subject.decode(got), library.decode(got), f"text of the ids of {text!r}")
            expect_equal(
                place,
                subject.decode(got).removeprefix(" " * prefix),
                given.removeprefix(" " * prefix),
                f"{text!r}, there and back",
            )
    expect_refused(
        "text.bpe.byte_level.library_words", lambda: bytebpe.library_words("gpt9"), "gpt9", "an unknown pre-tokenizer"
    )


@check("TOKN-003", "TOKN-007", "DETO-004", "ERRS-001", area="tokenization")
def the_edges_of_byte_level_bpe() -> None:
    place, rank = "text.bpe.byte_level.ByteBpe", bytebpe.merge_ranks(MERGES, VOCAB)
    subject = bytebpe.ByteBpe({**VOCAB, "<odd é>": 400}, rank, "gpt2")
    expect_equal(
        place,
        (subject.size, subject.token_to_id("he"), subject.token_to_id("x y"), subject.unknown_id),
        (401, 256, None, None),
        "facts",
    )
    expect_equal(place, (subject.id_to_token(256), subject.id_to_token(399)), ("he", None), "tokens by id")
    ids = [VOCAB["Ã"], "text é", VOCAB["©"], VOCAB["Ã"], VOCAB["©"], 400]
    expect_equal(place, subject.decode(ids), "\ufffdtext é\ufffdé<odd é>", "ids with text between them")
    whole = {**VOCAB, "xyz": 300}
    taken = bytebpe.ByteBpe(whole, rank, "gpt2", whole_words=True)
    expect_equal(
        place, (taken.encode("xyz"), taken.encode("xyzz")), ([300], [VOCAB[c] for c in "xyzz"]), "a word that is a token"
    )
    expect_equal(
        place,
        bytebpe.ByteBpe(whole, rank, "gpt2").encode("xyz"),
        [VOCAB[c] for c in "xyz"],
        "a word that is a token, by merges",
    )
    lacking = {token: id for token, id in VOCAB.items() if token != "z"}
    expect_refused(place, lambda: bytebpe.ByteBpe(lacking, rank, "gpt2").encode("az"), "'z'", "a byte without a token")
    drops = bytebpe.ByteBpe(lacking, rank, "gpt2", drops_bytes=True)
    expect_equal(place, drops.encode("aza"), [VOCAB["a"]] * 2, "a byte without a token that is left out")
    cut = bytebpe.ByteBpe(VOCAB, rank, lambda text: list(text))
    expect_equal(place, cut.encode("he"), [VOCAB["h"], VOCAB["e"]], "words that a function cuts")


@check("TOKN-015", "TOKN-016", area="tokenization")
def gguf_pre_tokenizers_cut_in_stages() -> None:
    place, three = "text.llamacpp.pretokenizers.words_of", pretokenizers.DigitTriples("[0-9]+", after=True)
    expect_equal(
        "text.llamacpp.pretokenizers.DigitTriples",
        [list(three.places(2, end)) for end in (3, 5, 6, 8)],
        [[3], [5], [3, 6], [5, 8]],
        "after threes",
    )
    three = pretokenizers.DigitTriples("[0-9]+", after=False)
    expect_equal(
        "text.llamacpp.pretokenizers.DigitTriples",
        [list(three.places(2, end)) for end in (2, 4, 5, 6, 8)],
        [[], [], [2], [3], [2, 5]],
        "before threes",
    )
    with fresh():
        for name, text, wanted in (
            ("gpt-2", "a  b12's", ["a", " ", " b", "12", "'s"]),
            ("llama-bpe", "a  b1234'S", ["a", " ", " b", "123", "4", "'S"]),
            ("qwen2", "a 12é!\n\nx", ["a", " ", "1", "2", "é", "!\n\n", "x"]),
            ("starcoder", "a 12", ["a", " ", "1", "2"]),
            ("default", "a, 1234", ["a", ",", " ", "123", "4"]),
            ("falcon", "ab 12345", ["ab", " ", "123", "45"]),
            ("deepseek-v3", "a1234文b", ["a", "123", "4", "文", "b"]),
            ("superbpe", "a1234567 b", ["a", "1", "234", "567", " b"]),
            ("tiny_aya", "a1234567", ["a", "1", "234", "567"]),
            ("bloom", "a b, c", ["a", " b", ",", " c"]),
            ("tekken", "HELLOworld ab1", ["HELLOworld", " ab", "1"]),
            ("gpt-4o", "Ab's 1234", ["Ab's", " ", "123", "4"]),
            ("qwen2", "a\u3000\u3000b", ["a", "\u3000", "\u3000b"]),
            ("jais-2", "a     b", ["a", "    ", " b"]),
        ):
            got = pretokenizers.words_of(name)(text)
            expect_equal(place, got, wanted, f"{text!r} by {name}")
        for name in pretokenizers.PRE_TOKENIZERS:
            text = "Ab1  é文12345.\n\n\tx's \u3000'LL 🙂\u0301 "
            expect_equal(place, "".join(pretokenizers.words_of(name)(text)), text, f"the words of {name} put together")
        for name in ("gpt-2", "llama-bpe", "qwen2"):
            theirs = bytebpe.library_words({"gpt-2": "gpt2", "llama-bpe": "llama3", "qwen2": "qwen2"}[name])
            for text in (*TEXTS, "x½ 𝟘²a文b\u0301c\u00a0d"):
                expect_equal(
                    place, pretokenizers.words_of(name)(text), theirs(text), f"words of {text!r} by {name} and by its pattern"
                )
        expect_refused(place, lambda: pretokenizers.words_of("gpt-9"), "gpt-9", "an unknown name")


PIECES: list[tuple[str, float, PieceType]] = [("<unk>", 0.0, U), ("<s>", 0.0, C), ("</s>", 0.0, C), ("▁", -4.0, N)]
PIECES += [(letter, -5.0 - i, N) for i, letter in enumerate("abcé")]
PIECES += [
    ("ab", -2.0, N),
    ("bc", -1.5, N),
    ("▁a", -3.0, N),
    ("▁ab", -3.5, N),
    ("abc", -4.0, N),
    ("<w>", 0.0, D),
    ("ba", -2.5, X),
    ("▁▁", -6.0, N),
]
BYTES = [(f"<0x{byte:02X}>", 0.0, B) for byte in range(256)]


def proto(kind: str, bytes_: bool = False, **options: Any) -> bytes:
    """A tokenizer.model, by the library's own classes."""
    model: Any = sentencepiece_model_pb2.ModelProto()
    for piece, score, type_ in [*PIECES, *(BYTES if bytes_ else [])]:
        model.pieces.add(piece=piece, score=score, type=int(type_))
    model.trainer_spec.model_type = {"unigram": 1, "bpe": 2}[kind]
    model.trainer_spec.byte_fallback = bytes_
    model.normalizer_spec.add_dummy_prefix = model.normalizer_spec.remove_extra_whitespaces = True
    for name, value in options.items():
        spec = model.normalizer_spec if hasattr(model.normalizer_spec, name) else model.trainer_spec
        setattr(spec, name, value)
    return bytes(model.SerializeToString())


OPTIONS: Sequence[dict[str, Any]] = (
    {},
    {"bytes_": True},
    {"add_dummy_prefix": False},
    {"remove_extra_whitespaces": False},
    {"add_dummy_prefix": False, "remove_extra_whitespaces": False, "bytes_": True},
    {"treat_whitespace_as_suffix": True},
    {"escape_whitespaces": False},
    {"unk_surface": "?"},
)


@check("TOKN-012", "TOKN-013", "TOKN-004", "TOKN-033", "DETO-005", area="tokenization", each=("bpe", "unigram"))
def sentencepiece_models_give_the_ids_and_texts_of_the_library(kind: str) -> None:
    place = "text.sentencepiece.model.SentencePiece"
    texts = [" ".join(words) for words in itertools.product(("abc", "", "ba<w>ab"), repeat=3)]
    texts += ["é", "zz 日a", "a\u0301", "abcabc" * 8, "▁a ▁", "", "   ", "<s>a"]
    for options in OPTIONS:
        raw = proto(kind, **options)
        library = sentencepiece.SentencePieceProcessor(model_proto=raw)
        subject = own.SentencePiece(sentencepiece_file.read_sentencepiece(raw))
        for text in texts:
            expect_equal(place, subject.encode(text), library.encode(text), f"ids of {text!r}, {kind}, {options}")
        count = len(PIECES)
        for ids in itertools.product((0, 3, 4, 8, 10, 12, count - 1), repeat=3):
            expect_equal(place, subject.decode(ids), library.decode(list(ids)), f"text of {ids}, {options}")
        if options.get("bytes_"):
            for bytes_ in ("é", "🙂a"):
                ids = [count + byte for byte in bytes_.encode()]
                for part in range(len(ids) + 1):
                    expect_equal(
                        place,
                        subject.decode([4, *ids[:part], 4]),
                        library.decode([4, *ids[:part], 4]),
                        f"text of bytes {ids[:part]}",
                    )


@check("TOKN-013", "TOKN-004", area="tokenization")
def an_unknown_character_scores_far_below_every_piece() -> None:
    model: Any = sentencepiece_model_pb2.ModelProto()
    for piece, score, type_ in (
        ("<unk>", 0.0, U),
        ("ab", -4.0, N),
        ("c", -4.0, N),
        ("bc", -0.5, N),
        ("ccc", -1.0, N),
        ("de", 0.0, D),
    ):
        model.pieces.add(piece=piece, score=score, type=int(type_))
    model.normalizer_spec.add_dummy_prefix = False
    raw = model.SerializeToString()
    library = sentencepiece.SentencePieceProcessor(model_proto=raw)
    subject = own.SentencePiece(sentencepiece_file.read_sentencepiece(raw))
    for letters in itertools.product("abcd", repeat=4):
        text = "".join(letters) + "e"
        expect_equal("text.sentencepiece.model._segmenter", subject.encode(text), library.encode(text), f"ids of {text!r}")

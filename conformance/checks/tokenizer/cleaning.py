"""Normalisation of text: character classes, spaces, and the replacement rules of a SentencePiece model."""

# mypy: disable-error-code="arg-type,attr-defined,misc"
# tables mix good and bad arguments

import re

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from conformance.checks import check
from conformance.checks.assertions import expect_equal, expect_refused
from conformance.checks.generation.rigged import fresh
from nanollama.text.llamacpp import codepoints
from nanollama.text.sentencepiece import normalize


@check("TOKN-014", area="tokenization")
def characters_have_the_classes_of_unicode() -> None:
    with fresh():
        wanted = {
            "a": "a",
            "é": "Ł",
            "文": "漢",
            "٣": "№",
            "\u0301": "◌",
            "—": "¶",
            "€": "©",
            "\u3000": "\v",
            "\u200b": "¿",
            "\x85": "\v",
        }
        wanted |= {"\U0001fae9": "¿", "\U0001e030": "Ł", "\U00031350": "Ł", "\u2ffc": "©", "\U0002a6df": "漢"}
        got = {letter: codepoints.classes(letter) for letter in wanted}
        expect_equal("text.llamacpp.codepoints.classes", got, wanted, "classes")
        expect_equal("text.llamacpp.codepoints.classes", codepoints.classes("aé 文!"), "aŁ 漢!", "the classes of a text")
        expect_equal(
            "text.llamacpp.codepoints.plain_white", codepoints.plain_white("a\u3000é\xa0b\u2028 "), "a\vé\vb\v ", "white space"
        )
        expect_equal("text.llamacpp.codepoints.plain_white", codepoints.plain_white("a b"), "a b", "white space of ASCII")


@check("TOKN-030", "TOKN-031", area="tokenization")
def spaces_are_normalised_as_the_model_says() -> None:
    place = "text.sentencepiece.normalize.Normalizer"
    for options, text, wanted in (
        ({}, " a  b ", "▁a▁b"),
        ({"add_dummy_prefix": False}, "  a  b  ", "a▁b"),
        ({"remove_extra_whitespaces": False}, " a  b ", "▁▁a▁▁b▁"),
        ({"remove_extra_whitespaces": False, "add_dummy_prefix": False}, " a ", "▁a▁"),
        ({"escape_whitespaces": False}, " a b", " a b"),
        ({"whitespace_as_suffix": True}, " a b ", "a▁b▁"),
        ({}, "", ""),
        ({}, "   ", ""),
        ({"remove_extra_whitespaces": False}, "", ""),
        ({"kept": re.compile("<  >")}, "a <  > b", "▁a▁<▁▁>▁b"),
        ({"kept": re.compile("b")}, "a  b", "▁a▁b"),
    ):
        expect_equal(place, normalize.Normalizer(**options).normalize(text), wanted, f"{text!r} with {options}")
    plain = normalize.Normalizer()
    for first, last, wanted in ((False, True, "▁a▁b"), (True, False, "▁a▁b▁"), (False, False, "▁a▁b▁")):
        expect_equal(
            place,
            plain.normalize("  a  b  ", first=first, last=last),
            wanted,
            f"next to special tokens: first {first}, last {last}",
        )
    suffix = normalize.Normalizer(whitespace_as_suffix=True)
    expect_equal(place, suffix.normalize("a", last=False), "a", "no dummy space before a special token")
    expect_equal(place, plain.normalize("a", first=False), "a", "no dummy space after a special token")


@check("TOKN-032", "WGHT-009", area="tokenization")
def replacement_rules_are_those_of_the_library() -> None:
    place = "text.sentencepiece.normalize.Charsmap"
    for rule in ("nmt_nfkc", "nfkc_cf"):
        plain = {"add_dummy_prefix": False, "escape_whitespaces": False, "remove_extra_whitespaces": False}
        library = sentencepiece.SentencePieceNormalizer(rule_name=rule, **plain)
        spec = sentencepiece_model_pb2.ModelProto()
        spec.ParseFromString(library.serialized_model_proto())
        blob = spec.normalizer_spec.precompiled_charsmap
        ours = normalize.Normalizer(normalize.Charsmap(blob), **plain)
        for text in ("ﬁﬂ ①Ⅷ", "ＡＢｃ　ガ", "A\u0300é", "ΑΣ", "a\x00b\x01\n", "½ ™ …", "㍿", "", "가각", "ẛ̣"):
            expect_equal(place, ours.normalize(text), library.normalize(text), f"{text!r} by {rule}")
    good = blob[: 4 + int.from_bytes(blob[:4], "little")]
    cases = [blob[:3], b"\0\0\0\0\0", (1024).to_bytes(4, "little") + bytes(1024), blob[:-1] + b"x", good, good + b"\xff\0"]
    cases += [(1000).to_bytes(4, "little") + blob[4:], good + b"a" * 70 + b"\0"]
    cases.append((1024).to_bytes(4, "little") + b"\xff\xff\xff\x7f" * 256 + b"a\0")
    for number, bad in enumerate(cases):
        expect_refused(place, lambda bad=bad: normalize.Charsmap(bad), "precompiled_charsmap", f"damaged rules {number}")

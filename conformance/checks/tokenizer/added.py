"""Added tokens, which are found before text is split, and their vocabulary together with a text model."""

# mypy: disable-error-code="arg-type,assignment"
# tables mix good and bad arguments

from collections.abc import Iterator, Sequence

from conformance.checks import check
from conformance.checks.assertions import expect_equal
from nanollama.text import added_tokens
from nanollama.text.added_tokens import AddedToken
from nanollama.text.llamacpp import special as gguf_special


def splits(tokens: Sequence[AddedToken], kind: type[added_tokens.AddedTokens], text: str, special: bool) -> list[int | str]:
    return list(kind(tokens).split(text, special))


@check("TOKN-020", "TOKN-021", "TOKN-022", area="tokenization")
def added_tokens_are_found_in_text() -> None:
    place = "text.added_tokens.AddedTokens"
    tokens = [
        AddedToken("<s>", 1, True),
        AddedToken("<s>s", 2, True),
        AddedToken("<t>", 3, False),
        AddedToken("<l>", 4, False, lstrip=True),
        AddedToken("<r>", 5, False, rstrip=True),
        AddedToken("<w>", 6, False, single_word=True),
        AddedToken("<lr>", 7, True, lstrip=True, rstrip=True),
    ]
    for text, special, wanted in (
        ("a<s>b", True, ["a", 1, "b"]),
        ("a<s>b", False, ["a<s>b"]),
        ("<s>sx", True, [2, "x"]),
        ("<s><s>", True, [1, 1]),
        ("x<t>y<s>", False, ["x", 3, "y<s>"]),
        ("a \n<l> b", False, ["a", 4, " b"]),
        ("a <r> \t\u3000b", False, ["a ", 5, "b"]),
        ("a<w>", False, ["a<w>"]),
        ("<w>_", False, ["<w>_"]),
        ("é<w>", False, ["é<w>"]),
        (" <w>.", False, [" ", 6, "."]),
        ("5<w> <w>", False, ["5<w> ", 6]),
        ("<r>  <l>", False, [5, 4]),
        ("a <lr> <lr> b", True, ["a", 7, 7, "b"]),
        ("", True, []),
        ("abc", True, ["abc"]),
    ):
        expect_equal(place, splits(tokens, added_tokens.AddedTokens, text, special), wanted, f"{text!r}, special {special}")
    expect_equal(place, splits([], added_tokens.AddedTokens, "<s>", True), ["<s>"], "no added tokens")
    for letter, wanted in (
        ("a", True),
        ("_", True),
        ("٣", True),
        ("Ⅷ", True),
        ("\u200d", True),
        ("\u0301", True),
        ("½", False),
        ("-", False),
        ("²", False),
    ):
        expect_equal(
            "text.added_tokens._in_word", added_tokens._in_word(letter), wanted, f"whether {letter!r} belongs to a word"
        )


@check("TOKN-023", area="tokenization")
def gguf_finds_the_longest_tokens_first() -> None:
    place = "text.llamacpp.special.LongestFirst"
    tokens = [
        AddedToken("<a>", 1, False),
        AddedToken(">bcd", 2, False),
        AddedToken("<s>", 3, True),
        AddedToken("<l>", 4, False, lstrip=True),
        AddedToken("<r>", 5, False, rstrip=True),
        AddedToken("éé", 6, False),
        AddedToken("abc", 7, False),
    ]
    for text, special, wanted in (
        ("<a>bcd", False, ["<a", 2]),
        ("x<a>bc", False, ["x", 1, "bc"]),
        ("a<s>b", False, ["a<s>b"]),
        ("a<s>b", True, ["a", 3, "b"]),
        ("a \t<l> b", False, ["a", 4, " b"]),
        ("a <r> \n b", False, ["a ", 5, "b"]),
        ("<r>  <l>", False, [5, 4]),
        ("<a> <l>", False, [1, 4]),
        ("ééé", False, [6, "é"]),
        ("<a><a>", True, [1, 1]),
        ("", True, []),
    ):
        expect_equal(place, splits(tokens, gguf_special.LongestFirst, text, special), wanted, f"{text!r}, special {special}")
    expect_equal(place, splits([], gguf_special.LongestFirst, "<s>", True), ["<s>"], "no tokens")


class Doubling:
    """A text model whose ids show its input: [length, first, last]."""

    size, unknown_id = 40, 0

    def encode(self, text: str, *, first: bool, last: bool) -> list[int]:
        return [30 + len(text), int(first), int(last)]

    def decode(self, parts: Iterator[int | str]) -> str:
        return "|".join(map(str, parts))

    def token_to_id(self, token: str) -> int | None:
        return {"x": 7}.get(token)

    def id_to_token(self, id: int) -> str | None:
        return f"t{id}" if id < 40 and id != 13 else None


@check("TOKN-020", "TOKN-024", "DETO-001", "DETO-002", area="tokenization")
def a_vocabulary_is_a_model_and_the_tokens_around_it() -> None:
    place, tokens = (
        "text.added_tokens.ModelVocabulary",
        [AddedToken("<s>", 41, True), AddedToken("<t>", 5, False), AddedToken("<unk>", 0, True)],
    )
    subject = added_tokens.ModelVocabulary(Doubling(), tokens, unused=frozenset({9}))
    expect_equal(place, (subject.size, set(subject.special_ids)), (42, {41}), "size and special ids")
    for text, special, wanted in (
        ("ab", True, [32, 1, 1]),
        ("ab<s>c", True, [32, 1, 0, 41, 31, 0, 1]),
        ("ab<s>c", False, [36, 1, 1]),
        ("<t>ab<t>", False, [5, 32, 0, 0, 5]),
    ):
        expect_equal(place, subject.encode(text, special), wanted, f"{text!r}, special {special}")
    every = added_tokens.ModelVocabulary(Doubling(), tokens, prefix_every_text=True)
    expect_equal(place, every.encode("ab<s>c", True), [32, 1, 0, 41, 31, 1, 1], "every text begins the input")
    ids = [7, 41, 5, 9, 13, 99, 0, 7]
    expect_equal(place, subject.decode(ids, True), "7|<t>|0|7", "decoded without special tokens")
    expect_equal(place, subject.decode(ids, False), "7|<s>|<t>|<unk>|7", "decoded with special tokens")
    got = [subject.token_to_id(t) for t in ("<s>", "x", "y")], [subject.id_to_token(i) for i in (41, 5, 7, 13, 99)]
    expect_equal(place, got, ([41, 7, None], ["<s>", "<t>", "t7", None, None]), "names and ids")

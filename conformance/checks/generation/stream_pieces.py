"""Text that arrives in pieces: stop strings over every cut of every short text, characters over every cut of their bytes."""

# mypy: disable-error-code="assignment,misc,var-annotated"
# tables mix good and bad arguments

import itertools
import random
from collections.abc import Iterator, Sequence

from conformance.checks import check
from conformance.checks.assertions import expect, expect_equal, expect_refused
from conformance.checks.generation.rigged import Pieces
from nanollama.text import detokenizer as stream

STOPS = (
    ["b"],
    ["ab"],
    ["aab", "b"],
    ["aba", "b"],
    ["abb", "ba"],
    ["aa", "a"],
    ["bab", "abab", "aa"],
    ["bb", "abc"],
    ["abc", "ab"],
    [],
)


def texts(letters: str, longest: int) -> Iterator[str]:
    for length in range(longest + 1):
        yield from map("".join, itertools.product(letters, repeat=length))


def cuts(text: str) -> Iterator[list[str]]:
    """Every way to cut a text into pieces, one of them with an empty piece in it."""
    for marks in itertools.product((False, True), repeat=max(0, len(text) - 1)):
        bounds = [0, *(i + 1 for i, mark in enumerate(marks) if mark), len(text)]
        yield [text[a:b] for a, b in itertools.pairwise(bounds)]
    yield ["", *text, ""]


def first(text: str, stops: Sequence[str]) -> tuple[int, str | None]:
    """Where the first stop string begins, the shorter of two that begin together."""
    for begin in range(len(text)):
        found = sorted((stop for stop in stops if text[begin:].startswith(stop)), key=len)
        if found:
            return begin, found[0]
    return len(text), None


def held(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end may still become a stop string."""
    ends = (n for n in range(len(text), 0, -1) if any(s.startswith(text[-n:]) and len(s) > n for s in stops))
    return next(ends, 0)


@check("STOP-001", "STOP-003", area="stop")
def the_first_stop_string_is_found() -> None:
    for stops in STOPS:
        for text in texts("ab", 6):
            expect_equal(
                "text.detokenizer.first_stop",
                stream.first_stop(text, stops),
                first(text, stops),
                f"the first of {stops} in {text!r}",
            )


@check("STOP-001", area="stop")
def stop_strings_are_found_letter_by_letter() -> None:
    for stops in (["Ab"], ["ab", "A"], ["é"], ["a.b"]):
        for text in (*texts("aAb", 4), "aéb", "éé", "axb", "a.b", "E\u0301"):
            expect_equal(
                "text.detokenizer.first_stop",
                stream.first_stop(text, stops),
                first(text, stops),
                f"the first of {stops} in {text!r}",
            )


@check("STOP-004", area="stop")
def a_beginning_of_a_stop_string_is_recognised() -> None:
    for stops in STOPS:
        for text in texts("abc", 5):
            if any(stop in text for stop in stops):
                continue
            wanted = len(text) - held(text, stops)
            expect_equal(
                "text.detokenizer.unfinished",
                stream.unfinished(text, stops),
                wanted,
                f"where {text!r} may become one of {stops}",
            )


@check("STOP-001", "STOP-002", "STOP-003", area="stop")
def stop_strings_end_the_text_however_it_is_cut() -> None:
    place = "text.detokenizer.StopStrings"
    for stops in STOPS:
        for text in texts("ab", 5):
            begin, stop = first(text, stops)
            for pieces in cuts(text):
                subject = stream.StopStrings(stops)
                out = "".join(map(subject.push, pieces)) + subject.flush()
                expect_equal(place, (out, subject.stopped), (text[:begin], stop), f"{pieces} with stop strings {stops}")


def stops_at_once(text: str, stops: Sequence[str]) -> None:
    """A text ends as soon as no stop string that begins earlier can still come."""
    subject = stream.StopStrings(stops)
    for count, letter in enumerate(text, 1):
        subject.push(letter)
        begin, stop = first(text[:count], stops)
        if stop is not None and begin <= count - held(text[:count], stops):
            expect_equal(
                "text.detokenizer.StopStrings", subject.stopped, stop, f"the stop string in {text[:count]!r} with {stops}"
            )
            return


@check("STOP-004", "STRM-003", area="stop")
def text_is_held_back_only_while_it_may_become_a_stop_string() -> None:
    place = "text.detokenizer.StopStrings"
    for stops in STOPS:
        for text in texts("abc", 4):
            if any(stop in text for stop in stops):
                stops_at_once(text, stops)
                continue
            subject, out = stream.StopStrings(stops), ""
            for place_, letter in enumerate(text):
                out += subject.push(letter)
                seen = text[: place_ + 1]
                expect_equal(place, out, seen[: len(seen) - held(seen, stops)], f"what is out after {seen!r} with {stops}")
            expect_equal(place, out + subject.flush(), text, f"{text!r} with {stops}, to the end")
            expect_equal(place, (subject.stopped, subject.flush()), (None, ""), "after the end")
    subject = stream.StopStrings(["xyz"])
    expect_equal(place, [subject.push("1xyz2"), subject.push("3xyz"), subject.flush()], ["1", "", ""], "after a stop string")


@check("ERRS-005", area="stop")
def stop_strings_are_checked() -> None:
    for bad in ("abc", [""], ["a", ""], [1], None, {"a"}):
        expect_refused(
            "text.detokenizer.StopStrings", lambda bad=bad: stream.StopStrings(bad), "stop string", f"stop strings {bad!r}"
        )


def judge_pieces(tokenizer: Pieces, ids: Sequence[int], skip_special: bool = True) -> None:
    """The pieces joined must be the whole text; pieces are final, and only unfinished characters are held back."""
    place = "text.detokenizer.Detokenizer"
    subject, out = stream.Detokenizer(tokenizer, skip_special=skip_special), ""
    whole = tokenizer.decode(ids, skip_special=skip_special)
    for count, token in enumerate(ids, 1):
        out += subject.push(token)
        seen = tokenizer.decode(ids[:count], skip_special=skip_special)
        expect(place, whole.startswith(out), f"{out!r} came out of {list(ids)}, which is {whole!r}")
        bytes_end = tokenizer.byte_from is not None and any(i >= tokenizer.byte_from for i in ids[:count][-2:])
        special = token in tokenizer.special_ids
        if not (seen.endswith("\ufffd") or bytes_end or special):
            expect_equal(place, out, seen, f"what is out after {list(ids[:count])}")
    expect_equal(place, out + subject.flush(), whole, f"the text of {list(ids)}")
    expect_equal(place, subject.flush(), "", "a second flush")


CHARACTERS = [
    b"a",
    b" ",
    b" b",
    "é".encode(),
    b"\xc3",
    b"\xa9",
    b"\xe2",
    b"\x82",
    b"\xac",
    b"\xf0\x9f",
    b"\x99",
    b"\x82x",
    b"<s>",
    b" \xe2",
]


@check("STRM-001", "STRM-002", "DETO-003", area="streaming")
def characters_come_out_whole_however_their_bytes_are_cut() -> None:
    for strips in (False, True):
        tokenizer = Pieces(CHARACTERS, special_ids=frozenset({12}), bos_id=12, strips=strips)
        for ids in itertools.product((2, 4, 5, 12) if strips else (0, 2, 7, 8, 12, 13, 14), repeat=3):
            judge_pieces(tokenizer, ids)
        random_ = random.Random(5)
        for _ in range(50):
            judge_pieces(tokenizer, [random_.randrange(13) for _ in range(12)], skip_special=random_.random() < 0.7)
        judge_pieces(tokenizer, [6, 7, *[14] * 6, 8, 0])  # ids without a token, in the middle of a character
        for text in ("aé€🙂", " 🙂🙂", "€ €"):
            ids = [CHARACTERS.index(bytes([b])) for b in text.encode() if bytes([b]) in CHARACTERS]
            judge_pieces(tokenizer, ids)


@check("STRM-002", "TOKN-004", "DETO-004", area="streaming")
def byte_tokens_come_out_as_the_decoder_shows_the_whole_run() -> None:
    tokenizer = Pieces([b"a", b" b", b"<s>", b" \xe2"], special_ids=frozenset({2}), byte_from=3, strips=True)
    choices = [0, 1, 2, *(3 + byte for byte in (0x61, 0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0x20))]
    for ids in itertools.product(choices, repeat=3):
        judge_pieces(tokenizer, ids)
    random_ = random.Random(6)
    for _ in range(100):
        judge_pieces(tokenizer, random_.choices(choices, k=9), skip_special=random_.random() < 0.7)
    for text in ("🙂 a€", "é🙂é"):
        judge_pieces(tokenizer, [3 + byte for byte in text.encode()])


@check("STRM-004", area="streaming")
def a_long_text_costs_the_same_for_each_token() -> None:
    tokenizer = Pieces(CHARACTERS)
    subject = stream.Detokenizer(tokenizer)
    for text in ("a text", "the text after a flush"):
        for token in [1, 0] * 300:
            subject.push(token)
        worst = max(tokenizer.decoded)
        expect("text.detokenizer.Detokenizer", worst <= 32, f"{text}: a push decoded {worst} tokens again")
        subject.flush()


@check("STRM-005", area="streaming")
def after_a_flush_a_new_text_begins() -> None:
    tokenizer = Pieces(CHARACTERS, strips=True)
    subject = stream.Detokenizer(tokenizer)
    got = [subject.push(2), subject.push(4), subject.flush(), subject.push(2), subject.push(2), subject.flush()]
    expect_equal("text.detokenizer.Detokenizer", got, ["b", "", "\ufffd", "b", " b", ""], "two texts, one after the other")
    silent = stream.Detokenizer(Pieces([b"", b" one"], strips=True))
    for text in ("first", "second"):
        got = [silent.push(token) for token in (0, 0, *[1] * 9)]
        wanted = ["", "", "one", *[" one"] * 8]
        expect_equal("text.detokenizer.Detokenizer", got, wanted, f"the {text} text, which begins with tokens that have none")
        silent.flush()
    words = stream.Detokenizer(Pieces([b"one", b" two"], strips=True))
    got = [words.push(0), words.flush(), words.push(1), words.push(0), words.flush()]
    expect_equal("text.detokenizer.Detokenizer", got, ["one", "", "two", "one", ""], "two texts of words")

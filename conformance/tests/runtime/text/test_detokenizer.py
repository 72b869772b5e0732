"""Streaming text: no half characters, no stop strings, and never another text than one look at the whole would give."""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.tests.fakes.tokenizers import ByteTokenizer, byte_fallback
from nanollama.errors import NanollamaError
from nanollama.text.detokenizer import Detokenizer, StopStrings
from nanollama.text.tokenizer import TokenizerLike

CASES = int(os.environ.get("NANOLLAMA_FUZZ_CASES", "300"))


def stream(tokenizer: TokenizerLike, ids: Sequence[int], **options: bool) -> list[str]:
    """What each push gives, and then flush."""
    detokenizer = Detokenizer(tokenizer, **options)
    return [*(detokenizer.push(i) for i in ids), detokenizer.flush()]


def splits(text: str) -> Iterator[list[str]]:
    """Every way to cut the text into pieces: 2 ** (len - 1)."""
    for cuts in range(2 ** max(0, len(text) - 1)):
        places = [0, *(i + 1 for i in range(len(text) - 1) if cuts >> i & 1), len(text)]
        yield [text[begin:end] for begin, end in pairwise(places)]


def stopped_stream(stops: Sequence[str], pieces: Sequence[str]) -> tuple[str, str | None]:
    """All text that gets through, and the stop string."""
    stream = StopStrings(stops)
    text = "".join(stream.push(piece) for piece in pieces) + stream.flush()
    return text, stream.stopped


def stopped_whole(stops: Sequence[str], text: str) -> tuple[str, str | None]:
    """The oracle: look at every place of the whole text, and there at the stops from short to long."""
    for begin in range(len(text)):
        for stop in sorted(stops, key=len):
            if text[begin : begin + len(stop)] == stop:
                return text[:begin], stop
    return text, None


def test_a_character_comes_out_with_its_last_byte() -> None:
    assert stream(ByteTokenizer(), "aé你😀".encode()) == ["a", "", "é", "", "", "你", "", "", "", "😀", ""]


def test_an_unfinished_character_comes_out_as_decode_shows_it_when_the_stream_ends() -> None:
    assert stream(ByteTokenizer(), [65, 0xE4, 0xBD]) == ["A", "", "", "�"]


def test_an_invalid_byte_comes_out_with_the_next_token() -> None:
    assert stream(ByteTokenizer(), [0xFF, 65]) == ["", "�A", ""]
    assert stream(ByteTokenizer(), [0xE4, 65]) == ["", "�A", ""]
    assert stream(ByteTokenizer(), [0xFF, 0xFF, 0xFF]) == ["", "�", "�", "�"]


def test_a_replacement_character_that_the_model_really_wrote_is_kept() -> None:
    assert "".join(stream(ByteTokenizer(), "a\ufffdb\ufffd".encode())) == "a\ufffdb\ufffd"


def test_special_tokens_are_left_out_even_inside_a_character() -> None:
    tokenizer = ByteTokenizer("<s>", "</s>")
    assert stream(tokenizer, [256, 0xC3, 257, 0xA9, 65]) == ["", "", "", "é", "A", ""]


def test_special_tokens_are_shown_when_asked() -> None:
    tokenizer = ByteTokenizer("<s>", "</s>")
    assert stream(tokenizer, [256, 65, 257], skip_special=False) == ["<s>", "A", "</s>", ""]


def test_ids_without_a_token_are_left_out_even_inside_a_character() -> None:
    assert stream(ByteTokenizer(), [65, 0xE4, 999, 999, 999, 999, 0xBD, 999, 0xA0]) == ["A", *[""] * 7, "你", ""]
    assert stream(byte_fallback(["▁a"]), [3 + 0xC3, 999, 3 + 0xA9, 259]) == ["", "", "", "é a", ""]


def test_only_the_first_space_is_stripped() -> None:
    tokenizer = byte_fallback(["▁a", "▁", "b"])
    assert stream(tokenizer, [259, 259, 260, 261]) == ["a", " a", " ", "b", ""]
    assert stream(tokenizer, [260, 260, 259]) == ["", " ", " a", ""]


def test_byte_tokens_wait_for_the_end_of_their_run_because_one_invalid_byte_changes_all_of_it() -> None:
    tokenizer = byte_fallback(["▁a"])
    e, acute = 3 + 0xC3, 3 + 0xA9
    assert tokenizer.decode([e, acute, 3 + 0xFF]) == "���"
    assert stream(tokenizer, [e, acute, 259]) == ["", "", "é a", ""]
    assert stream(tokenizer, [e, acute, 3 + 0xFF, 259]) == ["", "", "", "��� a", ""]
    assert stream(tokenizer, [e, acute]) == ["", "", "é"]


class Stripping(ByteTokenizer):
    """Drops all spaces at the beginning, as sentencepiece does for models that remove extra whitespace."""

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return super().decode(ids, skip_special=skip_special).lstrip(" ")


def test_spaces_are_kept_in_the_middle_even_if_all_are_dropped_at_the_beginning() -> None:
    assert stream(Stripping(), b"    a      b") == [*[""] * 4, "a", *[" "] * 6, "b", ""]


def test_after_flush_a_new_text_begins() -> None:
    tokenizer = byte_fallback(["▁a"])
    detokenizer = Detokenizer(tokenizer)
    texts = [detokenizer.push(259), detokenizer.push(259), detokenizer.flush(), detokenizer.push(259), detokenizer.flush()]
    assert texts == ["a", " a", "", "a", ""]


def test_flushing_nothing_gives_nothing() -> None:
    assert Detokenizer(ByteTokenizer()).flush() == ""


@pytest.mark.parametrize("ids", [[65] * 2000, [0xFF] * 2000, [0x80] * 2000, [0xE4, 0xBD] * 1000], ids=str)
def test_the_work_per_token_does_not_grow_with_the_text(ids: list[int]) -> None:
    tokenizer = ByteTokenizer()
    assert len("".join(stream(tokenizer, ids))) >= 1000
    assert tokenizer.decoded <= 12 * len(ids)


byte_ids = st.one_of(
    st.integers(0, 259),
    st.sampled_from([0x80, 0xBF, 0xC2, 0xC3, 0xE0, 0xE4, 0xED, 0xF0, 0xF4, 0xF5, 0xFF, 0x9F, 0x98, 256]),
)
byte_lists = st.lists(
    st.one_of(st.lists(byte_ids, max_size=6), st.characters(codec="utf-8").map(lambda c: list(c.encode()))), max_size=12
).map(lambda parts: [i for part in parts for i in part])
fallback_ids = st.one_of(byte_ids.map(lambda i: 3 + i), st.integers(0, 2), st.sampled_from(range(259, 265)))


def check_stream(tokenizer: TokenizerLike, ids: list[int], has_run: Callable[[int], bool] = lambda i: False) -> None:
    """Together the decoded text; and whenever that text is whole so far, all of it is out."""
    pieces = stream(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids)
    for count in range(1, len(ids) + 1):
        whole = tokenizer.decode(ids[:count])
        shown = "".join(pieces[:count])
        last = next((i for i in reversed(ids[:count]) if tokenizer.decode([i]) or has_run(i)), None)
        if last is not None and not has_run(last):
            assert shown == whole.removesuffix("�")


@given(byte_lists)
@settings(max_examples=CASES)
def test_streamed_bytes_equal_decoded_bytes(ids: list[int]) -> None:
    check_stream(ByteTokenizer("<s>", "</s>", "<é>"), ids)
    assert "".join(stream(ByteTokenizer("<s>", "</s>", "<é>"), ids, skip_special=False)) == ByteTokenizer(
        "<s>", "</s>", "<é>"
    ).decode(ids, skip_special=False)


FALLBACK = byte_fallback(["▁a", "▁", "b", "�", "▁▁"])


@given(st.lists(fallback_ids, max_size=20))
@settings(max_examples=CASES)
def test_streamed_byte_fallback_tokens_equal_decoded_ones(ids: list[int]) -> None:
    check_stream(FALLBACK, ids, has_run=lambda i: 3 <= i < 259)


def test_text_before_a_stop_string_gets_through_and_nothing_after() -> None:
    assert stopped_stream(["STOP"], ["Hello ST", "OP more", " text"]) == ("Hello ", "STOP")


def test_a_stop_string_split_over_tokens_is_removed() -> None:
    stops = StopStrings(["</s>"])
    assert [stops.push(piece) for piece in ["a<", "/", "s", ">b"]] == ["a", "", "", ""]
    assert stops.stopped == "</s>"
    assert stops.push("c") == stops.flush() == ""


def test_what_only_looked_like_a_stop_string_is_given_back() -> None:
    stops = StopStrings(["</s>"])
    assert [stops.push(piece) for piece in ["a<", "/", "b", "<"]] == ["a", "", "</b", ""]
    assert stops.flush() == "<"
    assert stops.stopped is None


def test_only_what_can_still_become_a_stop_string_is_held_back() -> None:
    assert StopStrings(["aab"]).push("xaaa") == "xa"
    assert StopStrings(["\n\nUser:"]).push("one\ntwo\n") == "one\ntwo"


def test_the_stop_string_that_begins_first_wins() -> None:
    assert stopped_stream(["b", "abc"], ["abc"]) == ("", "abc")
    assert stopped_stream(["b", "abc"], ["a", "b", "c"]) == ("", "abc")
    assert stopped_stream(["b", "abc"], ["a", "b", "d"]) == ("a", "b")


def test_of_two_that_begin_together_the_shorter_wins() -> None:
    assert stopped_stream(["ab", "abc"], ["xabc"]) == ("x", "ab")


def test_a_stop_string_ends_the_text_at_once_though_a_longer_one_begins_with_it() -> None:
    stops = StopStrings(["ab", "abc"])
    assert stops.push("xab") == "x"
    assert stops.stopped == "ab"


def test_a_stop_string_can_turn_out_to_be_the_first_only_at_the_end() -> None:
    stops = StopStrings(["b", "abc"])
    assert stops.push("xab") == "x"
    assert stops.stopped is None
    assert stops.flush() == "a"
    assert stops.stopped == "b"


def test_without_stop_strings_everything_gets_through_at_once() -> None:
    assert StopStrings([]).push("abc") == "abc"


@pytest.mark.parametrize("stops", ["abc", [""], ["a", ""], [b"a"], [1], [None], None, 3])
def test_bad_stop_strings_are_refused(stops: Sequence[str]) -> None:
    with pytest.raises(NanollamaError, match="stop string"):
        StopStrings(stops)


@pytest.mark.parametrize(
    "text",
    ["abababcab", "aaaaaab", "xxabcxx", "abcabcabc", "a\n\nUser:", "</s></s>", "éa你ab", "bbbbbbbb"],
)
@pytest.mark.parametrize(
    "stops",
    [["ab"], ["abc", "b"], ["aab", "ab"], ["aaab", "bc"], ["\n\nUser:", "\n"], ["</s>"], ["ab", "abc", "abcd"], ["你a"], []],
    ids=str,
)
def test_every_split_of_a_text_gives_the_same(text: str, stops: list[str]) -> None:
    expected = stopped_whole(stops, text)
    for pieces in splits(text):
        assert stopped_stream(stops, pieces) == expected


@given(st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=4), st.lists(st.text("ab\n", max_size=5), max_size=8))
@settings(max_examples=CASES)
def test_random_splits_give_what_the_whole_text_gives(stops: list[str], pieces: list[str]) -> None:
    assert stopped_stream(stops, pieces) == stopped_whole(stops, "".join(pieces))


@given(st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.text("ab", max_size=10))
@settings(max_examples=CASES)
def test_everything_held_back_begins_a_stop_string(stops: list[str], text: str) -> None:
    stream = StopStrings(stops)
    held = text.removeprefix(stream.push(text))
    assert stream.stopped or not held or any(stop.startswith(held[: len(stop)]) for stop in stops)


@given(byte_lists, st.lists(st.text("aé<s>你", min_size=1, max_size=3), max_size=3))
@settings(max_examples=CASES)
def test_detokenizer_and_stop_strings_together_equal_both_on_the_whole(ids: list[int], stops: list[str]) -> None:
    tokenizer = ByteTokenizer("<s>", "</s>", "<x>")
    assert stopped_stream(stops, stream(tokenizer, ids)) == stopped_whole(stops, tokenizer.decode(ids))

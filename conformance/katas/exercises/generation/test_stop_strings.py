"""Stop strings, written again: text comes in pieces, and the possible beginning of a stop string is held back."""

import itertools

from conformance.katas.testing.compare import agree, answers
from nanollama.text.detokenizer import StopStrings, first_stop, unfinished


def streamed(stops: list[str], *pieces: str) -> list[str]:
    """The text after each piece and after the end."""
    stream = StopStrings(stops)
    return [*map(stream.push, pieces), stream.flush()]


def test_the_stop_string_that_begins_first_is_found() -> None:
    """In "a.b!" the full stop is at 1, the exclamation mark at 3; the order of the list does not matter."""
    answers(first_stop, "a.b!", ("!", "."), want=(1, "."))


def test_without_one_the_end_of_the_text_is_given() -> None:
    """Four characters: 4, and no stop string."""
    answers(first_stop, "a.b!", ("?",), want=(4, None))
    answers(first_stop, "", (), want=(0, None))


def test_a_stop_string_that_comes_twice_counts_where_it_is_first() -> None:
    """ "--" begins at 1, and again at 4."""
    answers(first_stop, "a--b--", ("--",), want=(1, "--"))


def test_of_two_that_begin_together_the_shorter_is_found() -> None:
    """ "END" and "ENDING" both begin at 0."""
    answers(first_stop, "ENDING", ("ENDING", "END"), want=(0, "END"))


def test_capitals_are_other_characters() -> None:
    """ "end" is no "END"."""
    answers(first_stop, "the end", ("END",), want=(7, None))


def test_the_beginning_of_a_stop_string_at_the_end_is_unfinished() -> None:
    """ "ab\\n" ends with the first character of "\\nUser:": it begins at 2."""
    answers(unfinished, "ab\n", ("\nUser:",), want=2)


def test_the_longest_such_end_counts() -> None:
    """ "xaba" ends with "aba" and with "a", both beginnings of "abac": the longer begins at 1."""
    answers(unfinished, "xaba", ("abac",), want=1)


def test_a_text_that_ends_in_no_beginning_is_finished() -> None:
    """All four characters may be returned."""
    answers(unfinished, "abcd", ("abc", "x"), want=4)
    answers(unfinished, "abcd", (), want=4)


def test_all_but_the_last_character_may_be_waiting() -> None:
    """The text ends with "sto" of "stop": everything is held back."""
    answers(unfinished, "sto", ("stop",), want=0)


def test_text_goes_out_up_to_the_stop_string_and_without_it() -> None:
    """ "Hello STOP world": "Hello " is returned, the rest never."""
    agree("the pieces", streamed(["STOP"], "Hello STOP world"), ["Hello ", ""])


def test_a_stop_string_may_come_in_pieces() -> None:
    """ "S", "TO", "P": nothing of it is returned, although no piece contains the stop string."""
    agree("the pieces", streamed(["STOP"], "Hello S", "TO", "P", "!"), ["Hello ", "", "", "", ""])


def test_text_held_back_in_vain_is_returned() -> None:
    """ "STO" and then "RE": no stop string after all. At the end the rest is returned too."""
    agree("the pieces", streamed(["STOP"], "STO", "RE", " ST"), ["", "STORE", " ", "ST"])


def test_an_earlier_start_that_is_still_possible_wins() -> None:
    """ "ab" might become "abcd", which begins before the stop string "b": the text is held back, and then ends before "ab"."""
    agree("the pieces", streamed(["abcd", "b"], "xab", "cd"), ["x", "", ""])


def test_if_the_earlier_one_does_not_come_the_later_one_stops() -> None:
    """The same, but "abx": then "b" is the stop string, and "a" is text."""
    agree("the pieces", streamed(["abcd", "b"], "xab", "x"), ["x", "a", ""])


def test_a_stop_string_that_is_there_does_not_wait_for_a_longer_one() -> None:
    """ "ab" is complete; that it may begin "abcd" does not matter."""
    stream = StopStrings(["abcd", "ab"])
    agree("the piece, and the stop string", [stream.push("xab"), stream.stopped], ["x", "ab"])


def test_it_remembers_which_one_it_was() -> None:
    """`stopped` is the stop string, and None before."""
    stream = StopStrings(["no", "yes"])
    agree("stopped, before anything", stream.stopped, None)
    stream.push("oh yes")
    agree("stopped, after 'oh yes'", stream.stopped, "yes")


def test_every_way_to_cut_a_text_gives_the_same() -> None:
    """All 64 ways to split "ababcab" into pieces: up to "abc", which begins at 2."""
    text = "ababcab"
    for cuts in itertools.product((False, True), repeat=len(text) - 1):
        pieces, start = [], 0
        for at in [i + 1 for i, cut in enumerate(cuts) if cut] + [len(text)]:
            pieces.append(text[start:at])
            start = at
        agree(f"the text of {pieces}", "".join(streamed(["abc"], *pieces)), "ab")

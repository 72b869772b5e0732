"""Stop strings: cut from the greedy answer, so that the end of the text is known in advance."""

from collections.abc import Iterator, Sequence

from conformance.engines.engine import Unsupported
from conformance.judging.wire.probe import PROMPT, Endpoint, probe
from conformance.judging.wire.truth.limits import reason_of

LENGTHS = (1, 2, 3, 5, 8)
NEVER = "}{@~"  # no model writes this, every vocabulary can


def substrings(text: str) -> Iterator[str]:
    """Stop strings of several lengths at several places: they begin and end within tokens, at their borders and across them."""
    for length in LENGTHS:
        for begin in range(1, min(len(text) - length, 13), 4):
            yield text[begin : begin + length]


def check_stop(end: Endpoint, stop: str | Sequence[str], text: str, whole: str, stops: Sequence[str]) -> None:
    """The text is what precedes the first stop string."""
    places = [whole.find(each) for each in stops if each in whole]
    end.same(
        text, whole[: min(places)] if places else whole, f"with stop {stop!r}, where the answer would be {whole!r}, the text"
    )


@probe("STOP-001")
def the_text_ends_before_a_stop_string(end: Endpoint) -> None:
    whole = end.baseline()
    for stop in substrings(whole):
        check_stop(end, stop, end.text(stop=stop), whole, [stop])


@probe("STOP-002")
def no_part_of_a_stop_string_is_streamed(end: Endpoint) -> None:
    whole = end.baseline()
    for stop in list(substrings(whole))[::2]:
        check_stop(end, stop, end.stream(stop=[stop]).text(), whole, [stop])


@probe("WIRE-012")
def a_list_of_stop_strings_stops_at_any(end: Endpoint) -> None:
    whole = end.baseline()
    early, late = whole[2:4], whole[5:8]
    for stops in ([early], [late, NEVER], [NEVER, late], [NEVER, NEVER[::-1], late, "~~~}"]):
        check_stop(end, stops, end.text(stop=stops), whole, stops)


@probe("STOP-004")
def what_only_began_like_a_stop_string_comes_out(end: Endpoint) -> None:
    whole = end.baseline()
    for begin in (1, 4, len(whole) - 2):  # the last: held back until the answer ends
        stop = whole[begin : begin + 2] + NEVER
        end.same(end.text(stop=[stop]), whole, f"with stop {stop!r}, which never occurs, the text")
        end.same(end.stream(stop=[stop]).text(), whole, f"with stop {stop!r}, which never occurs, the streamed text")


@probe("WIRE-013")
def a_stop_string_in_the_prompt_stops_nothing(end: Endpoint) -> None:
    whole = end.baseline()
    stops = [word for word in (*PROMPT.split(), PROMPT[-1] + whole[:1]) if word not in whole]
    if not stops:
        raise Unsupported(f"every word of the prompt occurs in the answer {whole!r}")
    end.same(end.text(stop=stops[:4]), whole, f"with stop {stops[:4]}, which only the prompt has, the text")


@probe("WIRE-014")
def of_stop_strings_that_overlap_the_first_to_begin_counts(end: Endpoint) -> None:
    whole = end.baseline()
    for outer, inner in ((whole[2:8], whole[4:6]), (whole[1:7], whole[3:4])):
        stops = [inner, outer]
        if whole.find(inner) >= whole.find(outer):
            check_stop(end, stops, end.text(stop=stops), whole, stops)
    if end.tally.compared == 0:
        raise Unsupported(f"the answer {whole!r} has no two stop strings of which one lies within the other")


@probe("WIRE-015")
def stop_null_and_an_empty_list_stop_nothing(end: Endpoint) -> None:
    whole = end.baseline()
    asked = end.request()
    empty: list[object] = [None, []]
    for stop in empty:
        reply = end.post({**asked, "stop": stop})
        end.hold(reply.status == 200, f"stop {stop!r} is answered by {reply.status}: {reply.message()}")
        end.same(end.texts(end.object_of(reply)), [whole], f"with stop {stop!r} the texts")


@probe("WIRE-016", optional=True)
def a_stopped_answer_is_counted_as_stopped(end: Endpoint) -> None:
    whole = end.baseline()
    stop = whole[3:5]
    answer = end.ask(stop=[stop], max_tokens=200)
    end.same(reason_of(answer), "stop", "finish_reason")
    tokens = (answer.get("usage") or {}).get("completion_tokens", 0)
    end.hold(tokens <= 24, f"an answer that stops after {whole.find(stop)} characters counts {tokens} tokens")

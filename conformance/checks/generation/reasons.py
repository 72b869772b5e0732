"""The end of an answer: end tokens, stop strings, max_tokens, the context; pieces, usage and times."""

# mypy: disable-error-code="misc"
# tables mix good and bad arguments

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from conformance.checks import check
from conformance.checks.assertions import expect, expect_equal, expect_refused
from conformance.checks.generation.loop import GREEDY, SIZE, model, request, request_rows
from conformance.checks.generation.rigged import Pieces, RiggedModel, scripted
from nanollama.generation import loop
from nanollama.generation.request import Request, Usage
from nanollama.generation.sampling import SamplingParams

LETTERS = Pieces([b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h", b"i", b"j", b"<end>"], special_ids=frozenset({10}))


def scripted_result(
    script: Sequence[int], tokenizer: Any = LETTERS, eos: tuple[int, ...] = (), context: int = 20, **fields: Any
) -> tuple[Any, ...]:
    """(ids, text, finish reason, completion tokens) of a scripted answer to the prompt [0, 1, 0]."""
    subject: Any = RiggedModel(scripted([*script, *[9] * 30], SIZE, prompt=3), SIZE, context=context, eos=eos)
    each = Request([0, 1, 0], **{"params": GREEDY, **fields})
    pieces = list(loop.generate(subject, tokenizer, [each], defaults=subject.defaults))
    expect("generation.loop.run", len(pieces) > 0, f"a request with {fields} gave no piece")
    last = pieces[-1]
    expect(
        "generation.row.Row",
        all(p.finish_reason is None and p.usage is None for p in pieces[:-1]),
        "a piece before the last has an end",
    )
    expect("generation.row.Row", last.usage is not None and last.usage.prompt_tokens == 3, f"the usage is {last.usage}")
    ids = [p.token_id for p in pieces if p.token_id is not None]
    return ids, "".join(map(str, pieces)), last.finish_reason, last.usage.completion_tokens if last.usage else None


@check("LIMT-001", "LIMT-002", "LIMT-003", area="generation")
def the_budget_is_max_tokens_or_the_room_that_is_left() -> None:
    for prompt, most, context, wanted in (
        (3, 4, 20, (4, "length")),
        (3, None, 20, (17, "context")),
        (3, 17, 20, (17, "length")),
        (3, 18, 20, (17, "context")),
        (3, 0, 20, (0, "length")),
        (20, 5, 20, (0, "context")),
        (20, None, 20, (0, "context")),
        (20, 0, 20, (0, "length")),
    ):
        (row,) = request_rows(model(context=context), [request([1] * prompt, max_tokens=most)])
        expect_equal(
            "generation.row.Row", (row.budget, row.limit), wanted, f"prompt {prompt}, max_tokens {most}, context {context}"
        )


@check("EOSX-001", "EOSX-004", "LIMT-001", area="eos")
def an_answer_ends_for_the_right_reason() -> None:
    place = "generation.row.Row"
    for arguments, wanted in (
        ({"max_tokens": 3}, ([2, 3, 4], "cde", "length", 3)),
        ({"max_tokens": 1}, ([2], "c", "length", 1)),
        ({"max_tokens": 0}, ([], "", "length", 0)),
        ({"context": 7}, ([2, 3, 4, 5], "cdef", "context", 4)),
        ({"context": 3}, ([], "", "context", 0)),
        ({"context": 7, "max_tokens": 4}, ([2, 3, 4, 5], "cdef", "length", 4)),
        ({"eos": (4,)}, ([2, 3, 4], "cd", "stop", 3)),
        ({"eos": (8, 4)}, ([2, 3, 4], "cd", "stop", 3)),
        ({"eos": (0, 1, 4)}, ([2, 3, 4], "cd", "stop", 3)),  # end tokens in the prompt end nothing
        ({"eos": (4,), "max_tokens": 3}, ([2, 3, 4], "cd", "stop", 3)),  # an end token wins over the limit
        ({"eos": (4,), "max_tokens": 2}, ([2, 3], "cd", "length", 2)),
        ({"eos": (4,), "ignore_eos": True, "max_tokens": 4}, ([2, 3, 4, 5], "cdef", "length", 4)),
        ({"stop_ids": [3], "ignore_eos": True}, ([2, 3], "c", "stop", 2)),
        ({"stop": ["de"]}, ([2, 3, 4], "c", "stop", 3)),
        ({"stop": ["e"], "max_tokens": 3}, ([2, 3, 4], "cd", "stop", 3)),
        ({"stop": ["ef"], "max_tokens": 3}, ([2, 3, 4], "cde", "length", 3)),  # text that was held back comes out
        ({"stop": ["<end>"]}, ([2, 3, 4, 5, 10], "cdef", "stop", 5)),
        ({"stop": ["ef"], "eos": (5,)}, ([2, 3, 4, 5], "cde", "stop", 4)),
        ({"tokenizer": None, "max_tokens": 2}, ([2, 3], "", "length", 2)),
    ):
        expect_equal(place, scripted_result([2, 3, 4, 5, 10, 6], **arguments), wanted, f"{arguments}")


@check("EOSX-005", "DETO-003", area="eos")
def special_tokens_that_do_not_end_have_no_text() -> None:
    expect_equal(
        "generation.row.Row",
        scripted_result([2, 10, 3], max_tokens=3),
        ([2, 10, 3], "cd", "length", 3),
        "an answer with a special token in it",
    )
    half = Pieces([b"a", b"b", b"\xe2", b"\x82", b"\xac"], special_ids=frozenset())
    expect_equal(
        "generation.row.Row",
        scripted_result([2, 3, 4], half, max_tokens=3),
        ([2, 3, 4], "€", "length", 3),
        "three tokens",
    )
    expect_equal(
        "generation.row.Row",
        scripted_result([0, 2, 3], half, max_tokens=3),
        ([0, 2, 3], "a\ufffd", "length", 3),
        "a character cut by max_tokens",
    )
    expect_equal(
        "generation.row.Row",
        scripted_result([0, 2, 4], half, eos=(4,)),
        ([0, 2, 4], "a\ufffd", "stop", 3),
        "a character cut by an end token",
    )


@check("GENR-006", "BATCH-012", area="batching")
def each_request_of_a_batch_ends_by_itself() -> None:
    subject: Any = RiggedModel(lambda ids: [9.0 if t == (ids[-1] + 1) % SIZE else 0.0 for t in range(SIZE)], SIZE, eos=(9,))
    requests = [
        request([5], max_tokens=None),
        request([0, 1], max_tokens=2),
        request([3], max_tokens=0),
        request([4], stop=["h"], max_tokens=9),
        request([0] * 64, max_tokens=3),
        request([1, 2, 3], max_tokens=4),
    ]
    pieces = list(loop.generate(subject, LETTERS, requests, defaults=subject.defaults))
    wanted = [([6, 7, 8, 9], "ghi", "stop"), ([2, 3], "cd", "length"), ([], "", "length"), ([5, 6, 7], "fg", "stop")]
    wanted += [([], "", "context"), ([4, 5, 6, 7], "efgh", "length")]
    for i, each in enumerate(wanted):
        own = [p for p in pieces if p.index == i]
        ids = [p.token_id for p in own if p.token_id is not None]
        got = ids, "".join(p.text for p in own), own[-1].finish_reason if own else "no piece"
        expect_equal("generation.loop.run", got, each, f"request {i} of the batch")
        counts = [(p.usage.prompt_tokens, p.usage.completion_tokens) for p in own if p.usage]
        expect_equal("generation.loop.run", counts, [(len(requests[i].prompt_ids), len(each[0]))], f"the usage of request {i}")
    order = [p.index for p in pieces if p.token_id is not None]
    expect_equal("generation.loop.run", order, [0, 1, 3, 5, 0, 1, 3, 5, 0, 3, 5, 0, 5], "whose turn it was")
    expect_equal("generation.loop.run", list(loop.generate(subject, LETTERS, [])), [], "the pieces of no requests")
    before = len(subject.calls)
    list(loop.generate(subject, LETTERS, [request([1], max_tokens=0)]))
    expect_equal("generation.loop.run", len(subject.calls), before, "how often the model runs for max_tokens 0")


def ticking(steps: Sequence[float]) -> Callable[[], float]:
    return itertools.accumulate([100.0, *steps]).__next__


@check("LIMT-005", area="generation")
def the_times_are_those_of_the_model_alone() -> None:
    subject = model()
    clock = ticking([1.0, 50.0, 2.0, 50.0, 4.0, 50.0, 8.0, 50.0])  # 50: between a piece and the next step
    pieces = list(loop.generate(subject, None, [request([1], max_tokens=3), request([2], max_tokens=1)], clock=clock))
    for index, wanted in ((0, (1, 3, 1.0, 6.0)), (1, (1, 1, 1.0, 0.0))):
        (usage,) = [p.usage for p in pieces if p.index == index and p.usage] or [Usage(0, 0, 0, 0.0, 0.0)]
        got = usage.prompt_tokens, usage.completion_tokens, usage.prefill_seconds, float(usage.decode_seconds)
        expect_equal("generation.loop.run", got, wanted, f"the usage of request {index}")


@check("ERRS-006", "LIMT-002", area="generation")
def options_are_checked_before_anything_runs() -> None:
    place, subject = "generation.loop.generate", model(context=8)
    for name, bad in (
        ("context", 0),
        ("context", 9),
        ("context", 2.0),
        ("context", True),
        ("prefill_chunk", 0),
        ("prefill_chunk", 1.5),
    ):
        expect_refused(
            place, lambda name=name, bad=bad: loop.generate(subject, None, [request([1])], **{name: bad}), name, f"{name} {bad}"
        )
    expect_refused(
        "generation.request.check_ids",
        lambda: loop.generate(subject, None, [request([1]), request([])]),
        "request 1",
        "an empty prompt",
    )
    expect_refused(
        "generation.request.check_ids",
        lambda: loop.generate(subject, None, [request([1] * 5)], context=4),
        "5 tokens",
        "a long prompt",
    )
    expect_equal(place, subject.calls, [], "the calls of the model before a piece is asked for")
    for context, count in ((8, 7), (None, 7), (4, 3), (1, 0)):
        got = len(
            [
                p
                for p in loop.generate(subject, None, [request([1], max_tokens=None)], context=context)
                if p.token_id is not None
            ]
        )
        expect_equal(place, got, count, f"how many tokens fit a context of {context}")


@check("GENR-007", area="generation")
def another_forward_is_called_in_place_of_the_model() -> None:
    subject, other = model(), model()
    pieces = list(loop.generate(subject, None, [request([1, 2, 3], max_tokens=3)], forward=other))
    expect_equal("generation.loop.run", (len(pieces), subject.calls, len(other.calls)), (3, [], 3), "pieces, and calls of both")
    expect_equal("generation.loop.run", [call[:2] for call in other.calls], [(1, 3), (1, 1), (1, 1)], "the shapes of ids")


@check("ERRS-009", "NUMR-005", area="generation")
def logits_that_are_no_numbers_end_with_an_error() -> None:
    for t in (0.0, 1.0):
        subject = model(lambda ids: [float("nan")] * SIZE if len(ids) > 3 else [1.0] * SIZE)
        pieces = loop.generate(subject, None, [request([1, 2], params=SamplingParams(temperature=t, seed=1))])
        expect_refused("generation.loop.choose", lambda pieces=pieces: list(pieces), "token 3", "NaN logits")

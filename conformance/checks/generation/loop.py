"""The generation loop, driven by rigged models: the model's input, the choice of tokens, and the independence of rows."""

# mypy: disable-error-code="func-returns-value,misc"
# tables mix good and bad arguments

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch

from conformance.checks import check
from conformance.checks.assertions import expect, expect_equal, expect_refused
from conformance.checks.generation.rigged import Pieces, RiggedModel, Rule, greedy_answer, hashed
from nanollama.generation import loop
from nanollama.generation import request as requests
from nanollama.generation.request import Piece, Request
from nanollama.generation.row import Row, TextStream
from nanollama.generation.sampling import SamplingParams, uniform

GREEDY = SamplingParams(temperature=0.0)
SIZE = 11
PROMPTS = ([1], [2, 3, 4, 5, 6], [7, 8, 9], [0, 10, 1, 2])


def model(rule: Rule | None = None, **options: Any) -> Any:
    return RiggedModel(rule or hashed(SIZE), SIZE, **options)


def request(prompt: Sequence[int], **fields: Any) -> Request:
    return Request(prompt, **{"params": GREEDY, "max_tokens": 5, **fields})


def answers(pieces: Sequence[Piece], count: int) -> list[list[int]]:
    return [[p.token_id for p in pieces if p.index == i and p.token_id is not None] for i in range(count)]


def request_rows(subject: Any, requests: Sequence[Request], tokenizer: Any = None) -> list[Row]:
    size, context = subject.config.vocab_size, subject.config.max_position_embeddings
    return [Row(i, each, subject.defaults, tokenizer, size, context) for i, each in enumerate(requests)]


@check("GENR-001", "BATCH-011", area="generation")
def prefill_feeds_each_prompt_once_and_returns_its_last_logits() -> None:
    for chosen in (PROMPTS[:1], PROMPTS[1:2], PROMPTS):
        width = max(map(len, chosen))
        for chunk in range(1, width + 2):
            subject = model()
            rows = request_rows(subject, [request(prompt) for prompt in chosen])
            cache = subject.new_cache(batch=len(rows), max_len=20)
            got = loop.prefill(subject, cache, rows, chunk)
            expect_equal(
                "generation.loop.prefill", cache.rows, [list(p) for p in chosen], f"what the rows were fed in chunks of {chunk}"
            )
            expect_equal(
                "generation.loop.prefill", got.tolist(), [subject.rule(list(p)) for p in chosen], f"logits in chunks of {chunk}"
            )
            widths = [call[1] for call in subject.calls]
            expect("generation.loop.prefill", max(widths) <= 2 * chunk, f"chunks of {chunk} are {widths}")
            expect(
                "generation.loop.prefill",
                all(call[2] for call in subject.calls),
                "prefill asks for the logits of whole prompts",
            )


@check("GENR-002", area="generation")
def decode_feeds_the_newest_token_at_its_place() -> None:
    subject = model()
    rows = request_rows(subject, [request(prompt) for prompt in PROMPTS])
    cache = subject.new_cache(batch=4, max_len=20)
    loop.prefill(subject, cache, rows, 4)
    answered: list[list[int]] = [[], [], [], []]
    for step in range(3):
        rows[2].done = step > 0
        for i, row in enumerate(rows):
            if not row.done:
                answered[i].append((i + 3 * step) % SIZE)
                row.generated.append(answered[i][-1])
        got = loop.decode(subject, cache, rows)
        fed = [[*p, *s] for p, s in zip(PROMPTS, answered, strict=True)]
        for i, row in enumerate(rows):
            if not row.done:
                expect_equal("generation.loop.decode", cache.rows[i], fed[i], f"what row {i} was fed in step {step}")
                expect_equal(
                    "generation.loop.decode", got[i].tolist(), subject.rule(fed[i]), f"logits of row {i} in step {step}"
                )


@check("GENR-003", "ERRS-009", area="generation")
def every_row_that_runs_chooses_by_its_own_logits() -> None:
    place, subject = "generation.loop.choose", model()
    strong, weak = (SamplingParams(temperature=0.0, presence_penalty=penalty) for penalty in (2.0, 0.25))
    rows = request_rows(subject, [request([1], params=each) for each in (strong, weak, strong, strong)])
    rows[1].generated.append(4)
    rows[2].generated.append(4)
    rows[3].done = True
    logits = torch.zeros(4, SIZE, dtype=torch.float64)
    logits[:3, 4], logits[:3, 6], logits[3] = 3.0, 2.0, math.nan
    expect_equal(place, loop.choose(logits, rows), [4, 4, 6, 0], "the choices")
    rows[0].generated += [1, 2]
    logits[0] = math.nan
    for part in ("request 0", "token 3", f"{SIZE} NaN"):
        expect_refused(place, lambda: loop.choose(logits, rows), part, "logits of NaN")
    logits[0], logits[1] = 0.0, -math.inf
    for part in ("request 1", "token 2", f"0 NaN, 0 +inf and {SIZE} -inf"):
        expect_refused(place, lambda: loop.choose(logits, rows), part, "a second row that allows no choice")


@check("EOSX-001", "EOSX-002", "EOSX-003", "STOP-005", area="eos")
def the_ids_that_end_an_answer() -> None:
    place, subject = "generation.request.end_ids", model(eos=(4, 5))
    tokenizer = Pieces([b"a", b"b", b"<e>", b"<s>"], special_ids=frozenset({2, 3}))
    for fields, wanted in (
        ({}, {4, 5}),
        ({"stop_ids": [7, 8]}, {4, 5, 7, 8}),
        ({"ignore_eos": True}, set()),
        ({"ignore_eos": True, "stop_ids": [4]}, {4}),
        ({"stop": ["<e>"]}, {2, 4, 5}),  # a special token has no text to be found in
        ({"stop": ["b", "c", "<e>x"], "ignore_eos": True}, set()),
    ):
        got = requests.end_ids(request([1], **fields), subject.defaults, tokenizer)
        expect_equal(place, set(got), wanted, f"the ids that end {fields}")
    expect_refused(
        place,
        lambda: requests.end_ids(request([1], stop=["a"]), subject.defaults, None),
        "tokenizer",
        "a stop string without a tokenizer",
    )


@check("ERRS-004", "LIMT-004", area="generation")
def prompts_and_ids_are_checked() -> None:
    place = "generation.request.check_ids"
    for fields, part in (
        ({"prompt_ids": []}, "empty prompt"),
        ({"prompt_ids": [1, SIZE]}, "prompt_ids"),
        ({"prompt_ids": [-1]}, "prompt_ids"),
        ({"prompt_ids": [1.0]}, "prompt_ids"),
        ({"prompt_ids": [True]}, "prompt_ids"),
        ({"prompt_ids": [1], "stop_ids": [SIZE]}, "stop_ids"),
        ({"prompt_ids": [1], "params": SamplingParams(logit_bias={SIZE: 1.0})}, "logit_bias"),
        ({"prompt_ids": [1] * 9}, "9 tokens"),
    ):
        expect_refused(place, lambda fields=fields: requests.check_ids(6, Request(**fields), SIZE, 8), part, f"{fields}")
        expect_refused(place, lambda fields=fields: requests.check_ids(6, Request(**fields), SIZE, 8), "request 6", f"{fields}")
    good = Request([0, SIZE - 1] * 4, stop_ids=[0, SIZE - 1], params=SamplingParams(logit_bias={SIZE - 1: 1.0}))
    expect_equal(place, requests.check_ids(0, good, SIZE, 8), None, "a prompt that fills the context")


@check("ERRS-004", area="generation")
def requests_are_checked() -> None:
    place = "generation.request.Request"
    for field, bad in (
        ("prompt_ids", "12"),
        ("prompt_ids", 3),
        ("prompt_ids", None),
        ("stop", "abc"),
        ("stop", [""]),
        ("stop", [1]),
        ("stop_ids", 5),
        ("params", {"temperature": 1}),
        ("max_tokens", -1),
        ("max_tokens", 1.0),
        ("max_tokens", True),
    ):
        expect_refused(
            place, lambda field=field, bad=bad: Request(**{"prompt_ids": [1], field: bad}), field, f"{field} {bad!r}"
        )
    ids = [1, 2]
    made = Request(ids, max_tokens=0, stop=["a", "b"], stop_ids=iter([3]))
    ids.append(3)
    expect_equal(
        place,
        (made.prompt_ids, made.max_tokens, made.stop, made.stop_ids),
        ((1, 2), 0, ("a", "b"), frozenset({3})),
        "a request",
    )


@check("STRM-006", "STOP-002", area="streaming")
def text_continues_the_prompt_and_ends_before_a_stop_string() -> None:
    place = "generation.row.TextStream"
    tokenizer = Pieces([b"<s>", b" a", b"b", b"\xc3", b"\xa9", b" st", b"op", b"."], special_ids=frozenset({0}), strips=True)

    def text(prompt: Sequence[int], ids: Sequence[int], *stops: str) -> tuple[list[str], bool]:
        subject = TextStream(tokenizer, prompt, stops)
        return [*map(subject.push, ids), subject.flush()], subject.stopped

    expect_equal(place, text([0], [1, 1]), (["a", " a", ""], False), "text right after BOS")
    expect_equal(place, text([0, 2], [1, 1]), ([" a", " a", ""], False), "text after a prompt")
    expect_equal(place, text([0, *[2] * 40], [1]), ([" a", ""], False), "text after a long prompt")
    expect_equal(place, text([0, 2], [3, 4, 2]), (["", "é", "b", ""], False), "a character in two tokens")
    expect_equal(place, text([0, 2], [2, 3]), (["b", "", "\ufffd"], False), "half a character at the end")
    expect_equal(place, text([0, 2], [2, 5, 6, 7], "stop"), (["b", " ", "", "", ""], True), "a stop string in two tokens")
    expect_equal(place, text([0, 2, 5], [6, 7], "stop"), (["op", ".", ""], False), "a stop string that begins in the prompt")
    expect_equal(place, text([0, 2], [2, 5], "stop"), (["b", " ", "st"], False), "what never became a stop string")
    expect_equal(place, text([0, 2], [2, 3], "\ufffd"), (["b", "", ""], True), "a stop string found at the end")
    nothing = TextStream(None, [1], ())
    expect_equal(place, (nothing.push(3), nothing.flush(), nothing.stopped), ("", "", False), "text without a tokenizer")


@check("GENR-004", "BATCH-010", area="generation")
def the_answer_is_the_models_whatever_the_batch_and_the_chunks() -> None:
    place = "generation.loop.run"
    for chunk, chosen in itertools.product((1, 3, 512), (PROMPTS[:1], PROMPTS, PROMPTS[::-1])):
        lengths = [3 + i for i in range(len(chosen))]
        subject = model()
        requests = [request(p, max_tokens=n) for p, n in zip(chosen, lengths, strict=True)]
        pieces = list(loop.generate(subject, None, requests, prefill_chunk=chunk))
        wanted = [greedy_answer(subject.rule, p, n) for p, n in zip(chosen, lengths, strict=True)]
        expect_equal(place, answers(pieces, len(chosen)), wanted, f"answers to {len(chosen)} prompts in chunks of {chunk}")
        fed = [[*p, *w[:-1]] for p, w in zip(chosen, wanted, strict=True)]
        expect_equal(place, subject.caches[0].rows[-1], fed[-1], "what the row was fed that goes on longest")
        expect_equal(
            place, subject.caches[0].limits, [len(p) + n for p, n in zip(chosen, lengths, strict=True)], "the cache's limits"
        )


@check("GENR-005", "DRAW-004", "BATCH-010", area="generation")
def sampled_answers_depend_on_the_seed_alone() -> None:
    place = "generation.loop.run"

    def answer(seeds: Sequence[int | None], which: int) -> tuple[list[int], int | None]:
        requests = [request([1, 2], params=SamplingParams(temperature=0.3, seed=seed), max_tokens=12) for seed in seeds]
        pieces = list(loop.generate(model(), None, requests))
        usage = [p.usage for p in pieces if p.index == which and p.usage]
        return answers(pieces, len(seeds))[which], usage[0].seed

    alone = answer([5], 0)
    expect_equal(place, alone[1], 5, "the seed that is reported")
    ids, generator = [1, 2], torch.Generator().manual_seed(5)
    for _ in range(12):  # the first token at which the sums of probabilities reach the next number of the seed's generator
        sums = (torch.tensor(hashed(SIZE)(ids), dtype=torch.float64) / 0.3).softmax(-1).cumsum(-1)
        ids.append(int((sums >= uniform(generator)).nonzero()[0, 0]))
    expect_equal(place, alone[0], ids[2:], "the answer of seed 5")
    expect_equal(place, [answer([0], 0)[1], answer([0], 0)[0]], [0, answer([0], 0)[0]], "the seed 0, used and reported")
    expect_equal(place, answer([9, 5, 5], 1)[0], alone[0], "a seeded answer in a batch, first copy")
    expect_equal(place, answer([9, 5, 5], 2)[0], alone[0], "a seeded answer in a batch, second copy")
    expect(place, answer([6], 0)[0] != alone[0], "another seed gives the same answer")
    free, seed = answer([None], 0)
    expect(place, isinstance(seed, int) and 0 <= seed < 2**32, f"a request without a seed reports {seed}")
    expect_equal(place, answer([seed], 0)[0], free, "the answer replayed with the seed that was reported")
    expect(place, answer([None], 0)[1] != seed, "two requests without a seed have the same")

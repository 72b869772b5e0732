"""Every way of feeding a sequence gives the same logits: whole, in chunks, token by token, in ragged batches, by either
implementation of attention; and a cache shows every query exactly the keys that it may see."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import nanollama.model.kv_cache
from conformance.checks import Failed, check, place_of
from conformance.checks.assertions import expect, expect_refused
from conformance.checks.model.feeding import Calls, cache_faults, chunks, error_of, fed, late, paused, ragged, truths_of
from conformance.checks.model.parts import attend_steps
from conformance.checks.model.steps import all_faults
from conformance.checks.model.turning import differences
from conformance.models.fixtures import FIXTURES
from conformance.truth.cases import Case, case
from conformance.truth.compare import row_error
from conformance.truth.rotation import cos_sin
from nanollama.model.transformer import Transformer

CACHE_BAR = 1e-12  # float64, the same sums in another order
LONG = 70  # more than one bucket of 64 slots, fourteen windows of 5
LENGTHS = (13, 2, 29, 1)
FAMILIES = tuple(FIXTURES)
LENGTH_DEPENDENT = ("Phi3ForCausalLM", "llama: dynamic", "llama: longrope")
WAYS: dict[str, Calls] = {
    "whole": chunks(LONG),
    "one by one": chunks(*[1] * 23),
    "window by window": chunks(5, 5, 1, 5, 5, 9),
    "around the window": chunks(4, 1, 6, 1, 1, 3, 7),
    "around a bucket": chunks(63, 1, 1, 5),
    "a bucket and a rest": chunks(64, 6),
    "ragged, padded right": ragged(LENGTHS, "right", 7),
    "ragged, padded left": ragged(LENGTHS, "left", 7),
    "rows that pause": paused(),
    "a row that comes late": late(),
}


def rows_for(this: Case, calls: Calls) -> list[Tensor]:
    """A different prompt for each row, as long as its last position."""
    return [this.long(1 + max(int(c[row].max()) for c in calls), seed=row) for row in range(len(calls[0]))]


def locate(model: Transformer, this: Case, calls: Calls, max_len: int, limits: Sequence[int]) -> Failed | None:
    """The function that makes a cached run differ from a right run without a cache."""
    found = cache_faults(model.config, max_len, calls)
    found = found or counting_faults(model) or padding_faults() or place_faults(model, this, calls)
    found = found or length_faults(model, this, max_len, limits)
    if not found:
        ids, positions = this.prompt("near")
        trace, layers = this.truth.run(ids, positions), range(this.spec.layers)
        attends: list[Any] = [layer.self_attn.attend for layer in model.layers]  # type: ignore[union-attr]
        found = [f for i in layers for f in all_faults(attend_steps(attends[i], this.truth, i, positions, trace))]
    return found[0] if found else None


def counting_faults(model: Transformer) -> list[Failed]:
    """Positions that the model counts must continue each row; a common shift is allowed."""
    cache = model.new_cache(3, 20)
    for tokens in (1, 2):
        begins = []
        for lengths in ([0, 0, 0], [3, 0, 7]):
            cache.lengths = lengths
            begins.append(model.place(torch.zeros(3, tokens, dtype=torch.int64), cache, None))
        moved, want = begins[1] - begins[0], torch.tensor([[3], [0], [7]]).expand(3, tokens)
        counts = begins[0] - begins[0][:1, :1]
        if not torch.equal(moved, want) or not torch.equal(counts, torch.arange(tokens).expand(3, -1)):
            return [Failed("model.transformer.Transformer.place", f"rows of [3, 0, 7] tokens go on at {begins[1].tolist()}")]
    return []


def padding_faults() -> list[Failed]:
    """A query of padding must see a key: a softmax over nothing is NaN."""
    padded = torch.tensor([[-1, -1, 0]])
    if nanollama.model.kv_cache.visible(padded, padded, 2).any(-1).all():
        return []
    return [Failed("model.kv_cache.visible", "a query of padding sees no key at all")]


def place_faults(model: Transformer, this: Case, calls: Calls) -> list[Failed]:
    """The embedding at positions that do not begin with 0."""
    for positions in calls:
        if (positions[0] >= 0).all():
            ids = this.long(positions.shape[1])
            got = model.embed(ids.expand(len(positions), -1), positions)[0]
            if row_error(got, this.truth.embed(ids, positions[0])) > CACHE_BAR:
                return [Failed("model.transformer.Transformer.embed", f"wrong at positions {positions[0].tolist()[:5]}")]
    return []


def length_faults(model: Transformer, this: Case, max_len: int, limits: Sequence[int]) -> list[Failed]:
    """Length-dependent frequencies must follow the row's limit for the whole life of a cache."""
    cache, ropes = model.new_cache(len(limits), max_len, limits), [rope for rope in this.spec.ropes if rope]
    kinds = [rope for i, rope in enumerate(ropes) if rope not in ropes[:i]]
    for end in (8, min(max_len, 40)):
        positions = torch.arange(0, end, 3).expand(len(limits), -1)
        tables: list[Any] = [rotary(positions, list(limits)) for rotary in model.rotary]
        places = [("rotary", tables[n], rope) for n, rope in enumerate(kinds) if n < len(tables)]
        rotations = model.rotations(positions, cache)
        places += [
            ("model.transformer.Transformer.rotations", rotations[i], rope) for i, rope in enumerate(this.spec.ropes) if rope
        ]
        for place, got, rope in places:
            for row, limit in enumerate(limits):
                mine = [part.expand(len(limits), -1, -1, -1)[row] for part in got]
                if row_error(differences(*mine), differences(*cos_sin(rope, positions[row], limit))) > CACHE_BAR:
                    return [Failed(place, f"row {row} is not turned by the frequencies of {limit} tokens")]
    return []


def judge_calls(
    model: Transformer, this: Case, calls: Calls, way: str, max_len: int = LONG, limits: Sequence[int] = (), **options: Any
) -> None:
    """The calls through a fresh cache must give the logits of every row alone."""
    rows, lengths = rows_for(this, calls), limits or (max_len,) * len(calls[0])
    truths = truths_of(this, rows, lengths)
    cache = model.new_cache(len(rows), max_len, limits or None)
    try:
        error = error_of(fed(model, rows, calls, cache, **options), truths)
        detail, place = f"{way}: off by {error:.1e} (bar {CACHE_BAR:.0e})", "model.transformer.Transformer.forward"
    except Exception as raised:
        error, place = torch.inf, place_of(raised.__traceback__)
        detail = f"{way}: {type(raised).__name__}: {str(raised)[:200]}"
    if error > CACHE_BAR:
        if any(tensor.dtype != model.dtype for layer in cache.layers for tensor in (layer.k, layer.v)):
            raise Failed(
                "model.transformer.Transformer.new_cache", f"the cache of a model in {model.dtype} keeps another dtype"
            )
        raise attempt(lambda: locate(model, this, calls, max_len, lengths)) or Failed(place, detail)


def attempt(find: Callable[[], Failed | None]) -> Failed | None:
    """A localisation; the fault may make it raise too."""
    try:
        return find()
    except Exception as raised:
        return Failed(place_of(raised.__traceback__), f"{type(raised).__name__}: {str(raised)[:200]}")


@contextmanager
def attention_by(model: Transformer, name: str) -> Iterator[None]:
    """Use this implementation of attention inside, if the model can choose."""
    attends: list[Any] = [layer.self_attn.attend for layer in model.layers]  # type: ignore[union-attr]
    before = [attend.implementation for attend in attends]
    for attend in attends:
        attend.implementation = name
    try:
        yield
    finally:
        for attend, implementation in zip(attends, before, strict=True):
            attend.implementation = implementation


@check("CACHE-001", "CACHE-002", "CACHE-010", "MASK-001", area="kv_cache")
def a_query_sees_exactly_the_keys_it_may() -> None:
    config = case("Gemma2ForCausalLM").load().config  # layers with and without a window
    schedules = [*WAYS.values(), chunks(*[7] * 10), chunks(1, 69), chunks(*[1] * 12, 40, 1, 1)]
    schedules.append([*chunks(20), *chunks(3, start=30)])
    for window in (1, 2, 5, 16, 64, 65, 100):
        changed = replace(config, windows=(window, None))
        for calls in schedules if window == 5 else schedules[2:6]:
            for fault in cache_faults(changed, LONG, calls):
                raise fault
    for fault in cache_faults(config, LONG, schedules[0]):
        raise fault


@check("CACHE-003", "CACHE-004", "WIND-001", "WIND-003", area="kv_cache", each=FAMILIES)
def every_way_of_feeding_gives_the_same(family: str) -> None:
    this = case(family)
    model = this.load()
    for way, calls in WAYS.items():
        judge_calls(model, this, calls, way, counted=True)


@check("CACHE-003", "ROPE-010", area="kv_cache", each=LENGTH_DEPENDENT)
def frequencies_go_by_the_limit_of_each_row(name: str) -> None:
    this = case(name)
    model = this.load()
    judge_calls(model, this, chunks(3, 1, 8, 1, 3), "shorter than the trained length", max_len=16)
    judge_calls(model, this, chunks(3, 1, 30, 1, 1), "longer than the trained length", max_len=600)
    judge_calls(model, this, ragged((9, 4, 12), "left", 3), "rows of different limits", LONG, (16, LONG, 40))


@check("ATTN-010", area="attention", each=("LlamaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "GPT2LMHeadModel"))
def both_implementations_of_attention_are_the_definition(family: str) -> None:
    this = case(family)
    model = this.load()
    for name in ("eager", "sdpa") if this.spec.attention_cap is None else ("eager",):
        with attention_by(model, name):
            for way in ("one by one", "around the window", "ragged, padded left", "rows that pause"):
                judge_calls(model, this, WAYS[way], f"{name}, {way}")
            ids = this.long(20)
            error = row_error(model(ids[None])[0].log_softmax(-1), truths_of(this, [ids], [20])[0])
            expect("self_attn.attend", error <= CACHE_BAR, f"{name} without a cache: off by {error:.1e}")


@check("CACHE-005", "BATCH-001", area="batching", each=("LlamaForCausalLM", "MistralForCausalLM", "Gemma3ForCausalLM"))
def the_last_logits_are_those_of_each_rows_last_token(family: str) -> None:
    this = case(family)
    model = this.load()
    for way in ("whole", "ragged, padded right", "ragged, padded left", "rows that pause"):
        calls = [call for call in WAYS[way] if (call >= 0).any(1).all()] if way != "rows that pause" else WAYS[way][:2]
        judge_calls(model, this, calls, f"last_only, {way}", last_only=True)


@check("BATCH-002", "BATCH-003", area="batching", each=FAMILIES)
def rows_of_a_batch_without_a_cache_are_independent(family: str) -> None:
    this = case(family)
    model = this.load()
    for side in ("left", "right"):
        calls = ragged((9, 1, 14), side, 0)
        rows = rows_for(this, calls)
        error = error_of(fed(model, rows, calls, None), truths_of(this, rows, [len(row) for row in rows]))
        expect("model.transformer.Transformer.forward", error <= CACHE_BAR, f"padded {side}, no cache: off by {error:.1e}")


@check("CACHE-006", "CACHE-007", area="kv_cache", each=("LlamaForCausalLM", "Gemma2ForCausalLM", "GPT2LMHeadModel"))
def a_cache_can_be_filled_to_the_last_slot_and_no_further(family: str) -> None:
    this = case(family)
    model = this.load()
    for calls in (chunks(9, 7), chunks(16), chunks(*[1] * 16), chunks(2, 14)):
        judge_calls(model, this, calls, "exactly full", max_len=16)
    cache, ids = model.new_cache(1, 16), this.long(17)
    for _ in fed(model, [ids], chunks(9, 7), cache):
        pass
    expect_refused(
        "model.transformer.Transformer.place", lambda: model(ids[None, 16:], cache=cache), "16", "a token beyond a full cache"
    )
    expect("model.transformer.Transformer.place", cache.lengths == [16], f"a refused call left lengths {cache.lengths}")
    expect_refused(
        "model.transformer.Transformer.place",
        lambda: model(ids[None].expand(2, -1), cache=model.new_cache(3, 20)),
        "2",
        "other rows",
    )


@check("ERRS-001", "SAFE-002", "EMBD-004", area="kv_cache")
def calls_that_can_not_be_meant_are_refused() -> None:
    model = case("GPT2LMHeadModel").load()
    place, init = "model.transformer.Transformer.place", "model.kv_cache.KVCache.__init__"
    for batch, max_len, limits in ((0, 5, None), (1, 0, None), (-1, 5, None), (2, 5, [5, 6]), (2, 5, [0, 5]), (2, 5, [5])):
        expect_refused(init, partial(model.new_cache, batch, max_len, limits), "cache" if limits is None else "limits")
    expect(init, model.new_cache(1, 1, [1]).limits == [1], "the smallest cache has another limit than 1")
    expect(init, model.new_cache(2, 3).limits == [3, 3], "without limits, every row has the whole length")
    whole = [torch.zeros(shape, dtype=torch.int64) for shape in ((3,), (1, 0), (1, 2, 1))]
    for ids in (*whole, torch.zeros(1, 2)):
        expect_refused(place, partial(model, ids), "ids", f"ids of shape {list(ids.shape)}, {ids.dtype}")
    one = torch.ones(1, 1, dtype=torch.int64)
    expect_refused(
        place, lambda: model(one, positions=torch.tensor([[4200]])), "4200", "a position that the model has not learned"
    )
    expect(place, bool(model(one, positions=torch.tensor([[4199]])).isfinite().all()), "the last learned position is refused")


@check("CACHE-008", area="kv_cache", each=("LlamaForCausalLM", "Gemma3ForCausalLM", "Phi3ForCausalLM", "llama: dynamic"))
def one_call_leaves_no_state_for_the_next(name: str) -> None:
    this = case(name)
    model, short = this.load(), WAYS["around the window"]
    judge_calls(model, this, short, "at first", max_len=30)
    for calls, length in ((WAYS["whole"], LONG), (WAYS["rows that pause"], 600)):
        judge_calls(model, this, calls, "another sequence", max_len=length)
    ids = this.long(12)
    for _ in range(2):
        error = row_error(model(ids[None])[0].log_softmax(-1), truths_of(this, [ids], [12])[0])
        expect("model.transformer.Transformer.forward", error <= CACHE_BAR, f"after other sequences: off by {error:.1e}")
    judge_calls(model, this, short, "after others", max_len=30)


@check("CACHE-009", "ROPE-011", area="kv_cache", each=("LlamaForCausalLM", "MistralForCausalLM", "Gemma3ForCausalLM"))
def far_positions_work_in_a_cache(family: str) -> None:
    this = case(family)
    model = this.load()
    ids, positions = this.prompt("far")
    truth = this.truth.run(ids, positions, 4200)["logits"].log_softmax(-1)
    cache, got = model.new_cache(1, 4200), []
    for part in torch.arange(len(ids)).split([6, 1, 5, 1, 1, 4]):
        got.append(model(ids[None, part], cache=cache, positions=positions[None, part])[0].log_softmax(-1))
    error = row_error(torch.cat(got), truth)
    if error > CACHE_BAR:
        found = attempt(lambda: locate(model, this, [p[None] for p in positions.split([6, 1, 5, 1, 1, 4])], 4200, [4200]))
        raise found or Failed("model.transformer.Transformer.forward", f"positions beyond 4096 in a cache: off by {error:.1e}")
    expect("model.kv_cache.KVCache.advance", cache.lengths == [4109], f"the row ends at {cache.lengths}, and not at 4109")

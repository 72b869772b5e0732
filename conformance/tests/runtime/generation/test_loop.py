"""The generation loop, driven by rigged models whose right answer is known in closed form.

A rigged model answers with `rule(all ids of the row so far)`, keeps its own record of what was fed to it, and refuses
gaps, wrong positions and overflow, so a wrong loop fails loudly. Padding gets NaN: using it shows.
"""

import gc
import itertools
import math
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sentencepiece
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from conformance.models.fixtures import fixture_config, write_fixture
from nanollama.errors import NanollamaError
from nanollama.generation.loop import generate
from nanollama.generation.request import NO_DEFAULTS, GenerationDefaults, Piece, Request, Usage
from nanollama.generation.sampling import SamplingParams
from nanollama.lm import load_model

INF, NAN = math.inf, math.nan
GREEDY = SamplingParams(temperature=0.0)
Rule = Callable[[list[int]], list[float]]


class RiggedCache:
    """What each row was fed, in order of position."""

    def __init__(self, batch: int, max_len: int) -> None:
        self.rows: list[list[int]] = [[] for _ in range(batch)]
        self.max_len = max_len


class RiggedModel:
    """The model's contract over a rule; `shapes` records the ids' shape of every call."""

    def __init__(self, rule: Rule, vocab_size: int, context: int = 64, eos: tuple[int, ...] = ()) -> None:
        self.rule, self.shapes = rule, list[tuple[int, ...]]()
        self.caches: list[weakref.ref[RiggedCache]] = []
        self.config = SimpleNamespace(vocab_size=vocab_size, max_position_embeddings=context)
        self.defaults = GenerationDefaults(eos_token_ids=eos)

    def new_cache(self, *, batch: int, max_len: int, limits: Sequence[int]) -> RiggedCache:
        assert max_len <= self.config.max_position_embeddings
        assert (len(limits), max(limits)) == (batch, max_len)
        cache = RiggedCache(batch, max_len)
        self.caches.append(weakref.ref(cache))
        return cache

    def __call__(self, ids: Tensor, *, cache: RiggedCache, positions: Tensor, last_only: bool = False) -> Tensor:
        assert ids.dtype == positions.dtype == torch.int64
        assert ids.shape == positions.shape
        assert torch.is_inference_mode_enabled()
        assert last_only or ids.shape[1] == 1  # the logits of a whole prompt would take V numbers per token
        self.shapes.append(tuple(ids.shape))
        out = torch.full((*ids.shape, self.config.vocab_size), NAN, dtype=torch.float64)
        for b, row in enumerate(cache.rows):
            for t, (token, position) in enumerate(zip(ids[b].tolist(), positions[b].tolist(), strict=True)):
                if position != -1:
                    assert position == len(row) < cache.max_len
                    row.append(token)
                    out[b, t] = torch.tensor(self.rule(row), dtype=torch.float64)
        if last_only:
            last = [max(itertools.chain([0], *(p >= 0).nonzero().tolist())) for p in positions]
            out = out[torch.arange(len(out)), torch.tensor(last)][:, None]
        return out


def one_hot(token: int, size: int) -> list[float]:
    return [9.0 if i == token else 0.0 for i in range(size)]


def counting(vocab_size: int, **options: Any) -> Any:
    """After token n comes token n + 1 (mod V)."""
    return RiggedModel(lambda ids: one_hot((ids[-1] + 1) % vocab_size, vocab_size), vocab_size, **options)


def scripted(script: Sequence[int], vocab_size: int, prompt: int = 1, **options: Any) -> Any:
    """After a prompt of `prompt` tokens, says the script, whatever it is fed."""
    return RiggedModel(lambda ids: one_hot(script[max(0, len(ids) - prompt)], vocab_size), vocab_size, **options)


def hashed(vocab_size: int, **options: Any) -> Any:
    """Random logits that depend on every id before: one id wrong, missing or doubled changes everything after it."""

    def rule(ids: list[int]) -> list[float]:
        own = torch.Generator().manual_seed(zlib.crc32(repr(ids).encode()))
        return (3 * torch.randn(vocab_size, generator=own)).tolist()

    return RiggedModel(rule, vocab_size, **options)


@dataclass
class PieceTokenizer:
    """Token i is the text pieces[i], and its name too; ids in special_ids have no text. `names` adds names to ids."""

    pieces: Sequence[bytes]
    special_ids: frozenset[int] = frozenset()
    names: dict[str, int] = field(default_factory=dict)
    bos_id: int | None = None

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        raise NotImplementedError("the loop takes ids")

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        kept = [self.pieces[i] for i in ids if not (skip_special and i in self.special_ids)]
        return b"".join(kept).decode("utf-8", errors="replace")

    def token_to_id(self, text: str) -> int | None:
        names = {piece.decode(errors="replace"): i for i, piece in enumerate(self.pieces)} | self.names
        return names.get(text)

    def id_to_token(self, token_id: int) -> str:
        return self.pieces[token_id].decode("utf-8", errors="replace")


class WordTokenizer(PieceTokenizer):
    """As SentencePiece: words carry the space before them, and decode strips it from the first."""

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return super().decode(ids, skip_special=skip_special).removeprefix(" ")


LETTERS = PieceTokenizer([bytes([c]) for c in b"abcdefghijklmnopqrstuvwxyz"])


@dataclass
class Answer:
    """All pieces of one request put together."""

    ids: list[int]
    text: str
    reason: str | None
    usage: Usage | None


def answers(pieces: Iterator[Piece], count: int) -> list[Answer]:
    """Collect the pieces per request; checks that only a request's last piece carries reason and usage."""
    out = [Answer([], "", None, None) for _ in range(count)]
    for piece in pieces:
        answer = out[piece.index]
        assert answer.reason is None
        assert (piece.finish_reason is None) == (piece.usage is None)
        answer.ids += [] if piece.token_id is None else [piece.token_id]
        answer.text += piece.text
        answer.reason, answer.usage = piece.finish_reason, piece.usage
    assert all(answer.reason is not None for answer in out)
    return out


def ask(model: Any, tokenizer: Any, *requests: Request, **options: Any) -> list[Answer]:
    defaults = getattr(model, "defaults", NO_DEFAULTS)
    return answers(generate(model, tokenizer, requests, defaults=defaults, **options), len(requests))


def ids_of(model: Any, *requests: Request, **options: Any) -> list[list[int]]:
    return [answer.ids for answer in ask(model, None, *requests, **options)]


# --- one request


def test_greedy_follows_the_bigram_table() -> None:
    [answer] = ask(counting(26), LETTERS, Request([0, 1, 2], GREEDY, max_tokens=5))
    assert answer.ids == [3, 4, 5, 6, 7]
    assert answer.text == "defgh"
    assert answer.reason == "length"


def test_a_stream_is_one_piece_per_token_as_it_comes() -> None:
    model = counting(26)
    pieces = generate(model, LETTERS, [Request([0], GREEDY, max_tokens=3)])
    assert model.shapes == []  # nothing runs before it is asked for
    assert next(pieces) == Piece(0, 1, "b")
    assert model.shapes == [(1, 1)]
    assert str(next(pieces)) == "c"
    assert next(pieces).finish_reason == "length"
    assert model.shapes == [(1, 1)] * 3  # the last token is not fed: nothing follows it
    assert list(pieces) == []


@pytest.mark.parametrize("max_tokens", [0, 1, 2, 7])
def test_max_tokens_is_exact_and_usage_counts_every_sampled_id(max_tokens: int) -> None:
    [answer] = ask(counting(9), None, Request([1, 2], GREEDY, max_tokens=max_tokens))
    assert len(answer.ids) == max_tokens
    assert answer.reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, max_tokens)


def test_max_tokens_of_zero_does_not_run_the_model() -> None:
    model = counting(9)
    assert ids_of(model, Request([1, 2], max_tokens=0)) == [[]]
    assert model.shapes == []
    assert model.caches == []


@pytest.mark.parametrize("end", [3, 4, 6])
def test_each_of_several_eos_ids_ends_the_answer_and_has_no_text(end: int) -> None:
    model = scripted([0, 1, end, 5, 5], 7, eos=(3, 4, 6))
    [answer] = ask(model, LETTERS, Request([0], GREEDY))
    assert answer.ids == [0, 1, end]
    assert answer.text == "ab"
    assert answer.reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_an_eos_inside_the_prompt_ends_nothing() -> None:
    assert ids_of(counting(26, eos=(3,)), Request([3, 3, 4], GREEDY, max_tokens=2)) == [[5, 6]]


def test_stop_ids_come_on_top_of_the_eos_ids() -> None:
    stop_at_five = Request([0], GREEDY, stop_ids={5}, max_tokens=9)
    assert ids_of(counting(26, eos=(3,)), stop_at_five) == [[1, 2, 3]]
    assert ids_of(counting(26, eos=(7,)), stop_at_five) == [[1, 2, 3, 4, 5]]


def test_ignore_eos_goes_on_past_every_eos_id_but_not_past_stop_ids() -> None:
    request = Request([0], GREEDY, ignore_eos=True, max_tokens=9)
    assert ids_of(counting(26, eos=(3, 4)), request) == [list(range(1, 10))]
    assert ids_of(counting(26, eos=(3, 4)), replace(request, stop_ids=[4])) == [[1, 2, 3, 4]]


def test_an_eos_exactly_at_max_tokens_is_a_stop() -> None:
    [answer] = ask(counting(26, eos=(3,)), None, Request([0], GREEDY, max_tokens=3))
    assert (answer.ids, answer.reason) == ([1, 2, 3], "stop")


def test_without_max_tokens_the_answer_fills_the_context() -> None:
    [answer] = ask(counting(26, context=10), None, Request([0, 1, 2], GREEDY))
    assert (answer.ids, answer.reason) == ([3, 4, 5, 6, 7, 8, 9], "context")  # 3 + 7 = 10


@pytest.mark.parametrize(("max_tokens", "reason"), [(6, "length"), (7, "length"), (8, "context")])
def test_the_context_limit_is_told_from_max_tokens(max_tokens: int, reason: str) -> None:
    [answer] = ask(counting(26, context=10), None, Request([0, 1, 2], GREEDY, max_tokens=max_tokens))
    assert (len(answer.ids), answer.reason) == (min(max_tokens, 7), reason)


def test_a_smaller_context_can_be_asked_for() -> None:
    [answer] = ask(counting(26, context=64), None, Request([0, 1, 2], GREEDY), context=5)
    assert (answer.ids, answer.reason) == ([3, 4], "context")


def test_a_prompt_that_fills_the_context_gets_no_answer_and_says_why() -> None:
    [answer] = ask(counting(26, context=3), None, Request([0, 1, 2], GREEDY))
    assert (answer.ids, answer.reason) == ([], "context")


# --- text: stop strings, characters over several tokens


def splits(text: str) -> Iterator[list[str]]:
    """Every way to cut text into pieces: 2 ** (len(text) - 1) of them."""
    for cuts in itertools.product([False, True], repeat=len(text) - 1):
        bounds = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(text)]
        yield [text[a:b] for a, b in itertools.pairwise(bounds)]


def say(pieces: Sequence[bytes], *stop: str, **options: Any) -> tuple[list[str], Answer]:
    """A model says the pieces one by one: the texts streamed, and the whole answer."""
    model = scripted(range(len(pieces)), len(pieces))
    request = Request([0], GREEDY, stop=stop, max_tokens=len(pieces), **options)
    stream = list(generate(model, PieceTokenizer(pieces), [request]))
    return [piece.text for piece in stream], answers(iter(stream), 1)[0]


def test_a_stop_string_split_over_tokens_is_removed() -> None:
    for cut in splits("abSTOPcd"):
        texts, answer = say([piece.encode() for piece in cut], "STOP")
        assert answer.text == "ab"
        assert answer.reason == "stop"
        # it ends with the token that completes the stop string
        assert len(answer.ids) == next(n for n in range(len(cut) + 1) if "STOP" in "".join(cut[:n]))
        assert all("ab".startswith("".join(texts[:n])) for n in range(len(texts)))


def test_a_stop_string_that_never_completes_is_text() -> None:
    for cut in splits("abSTO"):
        _, answer = say([piece.encode() for piece in cut], "STOP")
        assert (answer.text, answer.reason) == ("abSTO", "length")


def test_text_is_held_back_only_while_it_may_become_a_stop_string() -> None:
    assert say([b"x", b"S", b"T", b"x", b"y"], "STOP")[0] == ["x", "", "", "STx", "y"]


def test_the_first_of_several_stop_strings_counts() -> None:
    assert say([b"a", b"b", b"c", b"d", b"e"], "de", "bc")[1].text == "a"


def test_a_stop_string_at_the_very_start_leaves_no_text() -> None:
    assert say([b"STOP", b"x"], "STOP")[1] == Answer([0], "", "stop", Usage(1, 1, *say_nothing()))


def say_nothing() -> tuple[Any, ...]:
    """Equal to whatever seed and seconds a run reports."""

    class Anything:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    return Anything(), Anything(), Anything()


def test_a_stop_string_that_completes_with_the_last_allowed_token_is_a_stop() -> None:
    assert say([b"a", b"S", b"T"], "ST")[1].reason == "stop"


def test_a_special_token_given_as_stop_string_stops_although_it_has_no_text() -> None:
    tokenizer = PieceTokenizer([b"a", b"b", b"<|end|>", b"c"], special_ids=frozenset({2}))
    [answer] = ask(scripted([0, 1, 2, 3], 4), tokenizer, Request([0], GREEDY, stop=["<|end|>"]))
    assert (answer.ids, answer.text, answer.reason) == ([0, 1, 2], "ab", "stop")


def test_a_stop_string_that_only_names_an_ordinary_token_is_searched_as_text() -> None:
    # byte-level vocabularies call the space "Ġ"; who stops at "Ġ" means that letter
    tokenizer = PieceTokenizer([b"a", b" ", "Ġ".encode(), b"c"], names={"Ġ": 1})
    [answer] = ask(scripted([0, 1, 2, 3], 4), tokenizer, Request([0], GREEDY, stop=["Ġ"]))
    assert (answer.ids, answer.text) == ([0, 1, 2], "a ")


def test_stop_strings_do_not_replace_stop_ids_or_eos_ids() -> None:
    for stop_ids, eos in (([2], ()), ([], (2,))):
        [answer] = ask(scripted([0, 1, 2, 3], 4, eos=eos), LETTERS, Request([0], GREEDY, stop=["d"], stop_ids=stop_ids))
        assert (answer.ids, answer.text) == ([0, 1, 2], "ab")


@pytest.mark.parametrize(
    ("prompt", "text"),
    [([0], "there was"), ([0, 1], " there was"), ([0, 1, 2] * 9, " there was"), ([0] * 20 + [1, 0, 0], " there was")],
)
def test_the_answer_joins_on_to_the_prompt_with_its_space_but_has_none_after_bos(prompt: list[int], text: str) -> None:
    tokenizer = WordTokenizer([b"<s>", b" time", b" upon", b" there", b" was"], special_ids=frozenset({0}))
    [answer] = ask(scripted([3, 4], 5, prompt=len(prompt)), tokenizer, Request(prompt, GREEDY, max_tokens=2))
    assert answer.text == text


def test_a_character_that_begins_in_the_prompt_comes_whole_with_the_answer() -> None:
    tokenizer = PieceTokenizer([b"a", "é".encode()[:1], "é".encode()[1:], b"b"])
    [answer] = ask(scripted([2, 3], 4, prompt=2), tokenizer, Request([0, 1], GREEDY, max_tokens=2))
    assert answer.text == "éb"


def test_a_character_over_several_tokens_comes_whole() -> None:
    flag = "né🙂".encode()
    texts, answer = say([bytes([byte]) for byte in flag])
    assert answer.text == "né🙂"
    assert [text for text in texts if text] == ["n", "é", "🙂"]


def test_half_a_character_at_the_end_is_shown_as_replacement() -> None:
    _, answer = say([b"a", "é".encode()[:1]])
    assert answer.text == "a\N{REPLACEMENT CHARACTER}"


def test_text_held_back_is_given_out_before_an_eos() -> None:
    tokenizer = PieceTokenizer([b"x", b"ST", b"</s>"], special_ids=frozenset({2}))
    [answer] = ask(scripted([0, 1, 2], 3, eos=(2,)), tokenizer, Request([0], GREEDY, stop=["STOP"]))
    assert (answer.text, answer.reason) == ("xST", "stop")


def test_without_a_tokenizer_there_are_ids_but_no_text() -> None:
    [answer] = ask(counting(9), None, Request([0], GREEDY, max_tokens=3))
    assert (answer.ids, answer.text) == ([1, 2, 3], "")


# --- batches

prompts = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=9), min_size=1, max_size=5)
settings_of_one = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.7, 1.0, 2.0]),
    top_k=st.sampled_from([0, 3]),
    top_p=st.sampled_from([0.8, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 2**32 - 1),
)


@given(prompts, st.data(), st.integers(1, 11))
def test_a_batch_of_ragged_requests_equals_each_alone(ragged: list[list[int]], data: Any, chunk: int) -> None:
    requests = [
        Request(prompt, data.draw(settings_of_one), max_tokens=data.draw(st.none() | st.integers(0, 6)), stop_ids=[5])
        for prompt in ragged
    ]
    model = hashed(13, context=16, eos=(3,))
    together = ids_of(model, *requests, prefill_chunk=chunk)
    assert together == [ids_of(model, request)[0] for request in requests]


@given(prompts, st.integers(1, 11))
def test_greedy_equals_a_plain_walk_over_the_rule(ragged: list[list[int]], chunk: int) -> None:
    model = hashed(13, context=16, eos=(3,))
    want = []
    for prompt in ragged:
        ids = list(prompt)
        while len(ids) < 16 and (len(ids) == len(prompt) or ids[-1] != 3):
            logits = model.rule(ids)
            ids.append(logits.index(max(logits)))
        want.append(ids[len(prompt) :])
    assert ids_of(model, *(Request(prompt, GREEDY) for prompt in ragged), prefill_chunk=chunk) == want


def test_requests_of_one_batch_keep_their_own_settings_and_reasons() -> None:
    tokenizer = PieceTokenizer([*LETTERS.pieces[:12]])
    got = ask(
        counting(12, context=20, eos=(9,)),
        tokenizer,
        Request([5], GREEDY),
        Request([0, 1, 2], GREEDY, max_tokens=2),
        Request([0], GREEDY, stop=["de"]),
        Request([7, 8], GREEDY, ignore_eos=True, max_tokens=30),
        Request([0], replace(GREEDY, logit_bias={3: 10.0}), max_tokens=4),
        Request([0], max_tokens=0),
    )
    assert [(answer.text, answer.reason) for answer in got] == [
        ("ghi", "stop"),
        ("de", "length"),
        ("bc", "stop"),
        ("jklabcdefghijklabc", "context"),
        ("dddd", "length"),
        ("", "length"),
    ]


def test_shapes_stay_the_same_in_decode_although_rows_finish() -> None:
    model = counting(26)
    ids_of(model, *(Request([0] * n, GREEDY, max_tokens=n) for n in (1, 4, 2)))
    assert model.shapes == [(3, 4), (3, 1), (3, 1), (3, 1)]


def test_rows_that_are_done_are_neither_fed_nor_sampled() -> None:
    model = counting(26)
    pieces = generate(model, None, [Request([0], GREEDY, max_tokens=1), Request([0], GREEDY, max_tokens=4)])
    indices = [next(pieces).index for _ in range(4)]
    assert indices == [0, 1, 1, 1]
    cache = model.caches[0]()
    assert cache is not None
    assert cache.rows == [[0], [0, 1, 2]]


@pytest.mark.parametrize("chunk", range(1, 9))
def test_prefill_goes_in_chunks_of_bounded_size(chunk: int) -> None:
    model = hashed(13)
    requests = [Request([1, 2, 3, 4, 5, 6, 7], GREEDY, max_tokens=2), Request([8, 9], GREEDY, max_tokens=2)]
    assert ids_of(model, *requests, prefill_chunk=chunk) == ids_of(hashed(13), *requests)
    *prefill, decode = model.shapes
    assert sum(width for _, width in prefill) == 7
    assert all(width <= chunk for _, width in prefill)
    assert decode == (2, 1)


def test_no_requests_give_no_pieces() -> None:
    assert list(generate(counting(9), None, [])) == []


# --- seeds


def test_a_request_without_a_seed_reports_the_one_it_drew_and_that_replays_it() -> None:
    model, request = hashed(50), Request([1, 2, 3], max_tokens=20)
    [first], [second] = ask(model, None, request), ask(model, None, request)
    assert first.usage is not None
    assert second.usage is not None
    assert first.usage.seed != second.usage.seed  # 1 in 2 ** 32 by chance
    assert first.ids != second.ids
    again = replace(request, params=SamplingParams(seed=first.usage.seed))
    assert ids_of(model, again) == [first.ids]


def test_requests_with_equal_seeds_agree_and_with_different_seeds_do_not() -> None:
    model = hashed(50)
    ids = ids_of(model, *(Request([1, 2, 3], SamplingParams(seed=seed), max_tokens=20) for seed in (4, 5, 4)))
    assert ids[0] == ids[2] != ids[1]


def test_the_global_generator_is_neither_used_nor_moved() -> None:
    request = Request([1], SamplingParams(seed=3), max_tokens=9)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    ids = ids_of(hashed(50), request)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert ids_of(hashed(50), request) == ids


# --- timings, early close, compiled forward


def test_timings_are_those_of_the_steps_and_not_of_the_caller() -> None:
    now = 0.0

    def rule(ids: list[int]) -> list[float]:
        nonlocal now
        now += 10.0  # every token fed takes the model ten seconds
        return one_hot((ids[-1] + 1) % 9, 9)

    def clock() -> float:
        return now

    usages = []
    model: Any = RiggedModel(rule, 9)
    for piece in generate(model, None, [Request([0, 1, 2], GREEDY, max_tokens=3)], clock=clock):
        now += 1000.0  # and the caller thinks for long
        usages.append(piece.usage)
    assert usages[:-1] == [None, None]
    assert usages[-1] == Usage(3, 3, usages[-1].seed, prefill_seconds=30.0, decode_seconds=20.0)  # type: ignore[union-attr]


def test_closing_the_iterator_early_frees_the_cache_and_runs_nothing_more() -> None:
    model = counting(26)
    pieces = generate(model, LETTERS, [Request([0], GREEDY), Request([1], GREEDY)])
    next(pieces)
    calls = len(model.shapes)
    pieces.close()  # type: ignore[attr-defined]
    gc.collect()
    assert [cache() for cache in model.caches] == [None]
    assert list(pieces) == []
    assert len(model.shapes) == calls


def test_inference_mode_does_not_leak_to_the_caller() -> None:
    for _ in generate(counting(9), None, [Request([0], GREEDY, max_tokens=3)]):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()


def test_a_forward_given_in_place_of_the_model_is_called_for_every_step() -> None:
    class Forward:
        calls = 0

        def __call__(self, *args: Any, **options: Any) -> Any:
            self.calls += 1
            return model(*args, **options)

        def __len__(self) -> int:
            raise TypeError("a compiled module has no length, so it can't be asked whether it is true")

    model, forward = counting(26), Forward()
    assert ids_of(model, Request([0, 1], GREEDY, max_tokens=3), forward=forward, prefill_chunk=1) == [[2, 3, 4]]
    assert forward.calls == 4


# --- errors


def refused(match: str, *requests: Request, model: Any = None, tokenizer: Any = None, **options: Any) -> None:
    """Refused when generate is called, before the model runs or memory is taken."""
    model = model or counting(9, context=8)
    with pytest.raises(NanollamaError, match=match):
        generate(model, tokenizer, requests, **options)
    assert model.shapes == []
    assert model.caches == []


def test_an_empty_prompt_is_refused() -> None:
    refused("request 1: an empty prompt; expected at least one token", Request([1]), Request([]))


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers() -> None:
    refused("request 0: the prompt has 9 tokens, the context only 8; shorten", Request([1] * 9))
    refused("the prompt has 5 tokens, the context only 4; shorten", Request([1] * 5), context=4)


@pytest.mark.parametrize("token", [-1, 9, True, 1.0, "a"])
def test_an_id_outside_the_vocabulary_is_refused(token: Any) -> None:
    refused(f"request 0: prompt_ids has {token!r}; expected ids from 0 to 8", Request([1, token]))
    refused(f"request 0: stop_ids has {token!r}; expected ids from 0 to 8", Request([1], stop_ids=[token]))


def test_a_logit_bias_outside_the_vocabulary_is_refused() -> None:
    params = SamplingParams(logit_bias={9: 1.0})
    refused("request 0: logit_bias has 9; expected ids from 0 to 8", Request([1], params))


@pytest.mark.parametrize("context", [0, 9, -1, True, 4.0])
def test_a_context_that_the_model_does_not_have_is_refused(context: Any) -> None:
    refused(f"context is {context!r}; expected from 1 to 8 tokens", Request([1]), context=context)


@pytest.mark.parametrize("chunk", [0, -1, True, 4.0])
def test_a_prefill_chunk_below_one_is_refused(chunk: Any) -> None:
    refused(f"prefill_chunk is {chunk!r}; expected", Request([1]), prefill_chunk=chunk)


def test_stop_strings_without_a_tokenizer_are_refused() -> None:
    refused("stop string 'x' needs a tokenizer", Request([1], stop=["x"]))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_tokens": -1}, "max_tokens is -1"),
        ({"max_tokens": True}, "max_tokens is True"),
        ({"max_tokens": 2.0}, "max_tokens is 2.0"),
        ({"stop": "abc"}, "stop is 'abc'; expected a list"),
        ({"stop": ["a", ""]}, "expected strings that are not empty"),
        ({"stop": [b"a"]}, "expected strings"),
        ({"stop": None}, "stop is None; expected a list"),
        ({"stop_ids": 3}, "stop_ids is 3; expected a list"),
        ({"prompt_ids": "abc"}, "prompt_ids is 'abc'; expected a list"),
        ({"prompt_ids": None}, "prompt_ids is None; expected a list"),
        ({"params": {"top_k": 3}}, "expected SamplingParams"),
    ],
)
def test_a_request_of_the_wrong_kind_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(NanollamaError) as caught:
        Request(**{"prompt_ids": [1], **options})
    assert named in str(caught.value)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("bad", "named"), [(NAN, "9 NaN"), (-INF, "9 -inf"), (INF, "9 +inf")])
def test_logits_without_a_finite_maximum_end_in_an_error_that_names_request_and_token(
    temperature: float, bad: float, named: str
) -> None:
    model: Any = RiggedModel(lambda ids: [bad] * 9 if len(ids) == 4 else one_hot(1, 9), 9)
    requests = [Request([1], SamplingParams(temperature), max_tokens=2), Request([1, 2], SamplingParams(temperature))]
    with pytest.raises(NanollamaError, match="request 1: token 3: no token can be chosen") as caught:
        list(generate(model, None, requests))
    assert named in str(caught.value)


def test_a_bias_that_bans_every_token_ends_in_an_error() -> None:
    params = SamplingParams(logit_bias=dict.fromkeys(range(9), -INF))
    with pytest.raises(NanollamaError, match="logit_bias bans or forces 9 tokens"):
        list(generate(counting(9), None, [Request([1], params)]))


# --- transformers as oracle


@pytest.fixture(scope="module")
def tiny_llama() -> Any:
    torch.manual_seed(0)
    sizes: Any = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=24, max_position_embeddings=64, initializer_range=1.0, **sizes)
    model: Any = LlamaForCausalLM(config)
    return model.double().eval()


@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("eos", [[], [0], [2, 11]])
def test_greedy_equals_transformers_generate(tiny_llama: Any, penalty: float, eos: list[int]) -> None:
    model = RiggedModel(lambda ids: tiny_llama(torch.tensor([ids])).logits[0, -1].tolist(), vocab_size=24, eos=tuple(eos))
    ragged = [[1, 2, 3], [4], [9, 8, 7, 6, 5], [20, 3]]
    requests = [Request(p, SamplingParams(0.0, repetition_penalty=penalty), max_tokens=24) for p in ragged]
    options: Any = {"do_sample": False, "max_new_tokens": 24, "repetition_penalty": penalty, "pad_token_id": 0}
    for prompt, ids in zip(ragged, ids_of(model, *requests, prefill_chunk=2), strict=True):
        want = tiny_llama.generate(torch.tensor([prompt]), eos_token_id=eos or None, **options)[0, len(prompt) :]
        assert ids == want.tolist()


# --- a real model


@pytest.fixture(scope="module")
def stories(data_dir: Path) -> Any:
    return load_model(data_dir / "weights/stories260K-hf", dtype="float64", device="cpu")


def test_a_real_model_tells_the_published_story(stories: Any, data_dir: Path) -> None:
    pieces = sentencepiece.SentencePieceProcessor(str(data_dir / "weights/stories260K-hf/tokenizer.model"))
    [ids] = ids_of(stories, Request([1], GREEDY, max_tokens=200))
    want = (data_dir / "weights/stories260K.expected_greedy_200.txt").read_text(encoding="utf-8")
    assert pieces.decode(ids) == want.strip()


@pytest.mark.parametrize("chunk", [3, 512])
def test_a_ragged_batch_of_a_real_model_equals_each_request_alone(stories: Any, chunk: int) -> None:
    ragged = [[1, 403, 407, 261, 378], [1], [1, 365, 312, 444, 459, 302, 277, 291, 395, 261, 298, 406], [1, 287, 338]]
    params = SamplingParams(temperature=0.8, top_p=0.9, repetition_penalty=1.1)
    requests = [
        Request(prompt, replace(params, seed=seed, temperature=0.0 if seed == 3 else 0.8), max_tokens=30 + 10 * seed)
        for seed, prompt in enumerate(ragged)
    ]
    assert ids_of(stories, *requests, prefill_chunk=chunk) == [ids_of(stories, request)[0] for request in requests]


def test_a_row_of_a_ragged_batch_keeps_the_frequencies_of_its_own_length(tmp_path: Path) -> None:
    # longrope: one list of frequencies for rows of up to 16 tokens, prompt and answer together, another beyond
    model = load_model(write_fixture(tmp_path, fixture_config("Phi3ForCausalLM")), dtype="float64", device="cpu")
    short, crossing, long = [5, 6, 7], list(range(40, 50)), list(range(60, 84))

    def request(prompt: list[int], max_tokens: int) -> Request:
        return Request(prompt, GREEDY, max_tokens, ignore_eos=True)

    [alone], [longer] = (ids_of(model, request(short, max_tokens)) for max_tokens in (13, 14))
    assert alone != longer[:13]  # 3 + 13 = 16 and 3 + 14 = 17: in this model the length matters
    for chunk in (4, 512):
        requests = [request(short, 13), request(crossing, 12), request(long, 9), request(short, 14)]
        together = ids_of(model, *requests, prefill_chunk=chunk)
        assert together == [ids_of(model, each, prefill_chunk=chunk)[0] for each in requests]
        assert (together[0], together[3]) == (alone, longer)

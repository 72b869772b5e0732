"""The one generation loop: prefill, then {logits → processors → pick → append → yield}.

A single prompt is a batch of one, a stream is the iterator itself, and a server runs the same steps. The loop owns no
mathematics: the model, the sampling functions, the detokeniser and the clock are all handed to it.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from nanollama.errors import NanollamaError
from nanollama.generation.sampling import SamplingParams, no_choice, pick
from nanollama.model.kv_cache import KVCache
from nanollama.model.transformer import Transformer
from nanollama.text.detokenizer import Detokenizer, StopStrings
from nanollama.text.tokenizer import TokenizerLike

# stop: an end token or a stop string; length: max_tokens; context: the window is full (OpenAI says "length" for both)
FinishReason = Literal["stop", "length", "context"]


@dataclass(frozen=True)
class Request:
    """One prompt and how to continue it.

    prompt_ids: token ids, at least one. max_tokens: ids to sample at most (0 samples none), None: up to the context
    limit. stop: the text ends before the first of these strings. stop_ids: end tokens besides the model's own, which
    `ignore_eos` turns off. Raises NanollamaError for values of the wrong kind.
    """

    prompt_ids: Sequence[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    stop_ids: Iterable[int] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        for name, kind in (("prompt_ids", tuple), ("stop", tuple), ("stop_ids", frozenset)):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise NanollamaError(f"{name} is {value!r}; expected a list")
            object.__setattr__(self, name, kind(value))
        if not all(isinstance(stop, str) and stop for stop in self.stop):
            raise NanollamaError(f"stop is {self.stop!r}; expected strings that are not empty")
        if not isinstance(self.params, SamplingParams):
            raise NanollamaError(f"params is {self.params!r}; expected SamplingParams")
        if self.max_tokens is not None and (type(self.max_tokens) is not int or self.max_tokens < 0):
            raise NanollamaError(f"max_tokens is {self.max_tokens!r}; expected a whole number of at least 0, or None")


@dataclass(frozen=True)
class Usage:
    """What a finished request took. Rates: prompt_tokens / prefill_seconds, (completion_tokens - 1) / decode_seconds.

    completion_tokens counts every sampled id, the end token included. `seed` replays the run, also where the request
    had none. Seconds are those of the whole batch until this request was done; the caller's own time isn't in them,
    and the first token belongs to prefill.
    """

    prompt_tokens: int
    completion_tokens: int
    seed: int
    prefill_seconds: float
    decode_seconds: float


@dataclass(frozen=True)
class Piece:
    """One step of one request: the id sampled (None if nothing was), and the text that is final now, maybe "".

    `index` is the request's place in the batch. The last piece of a request, and only that, has finish_reason and
    usage. The ids may say more than the text: end tokens and stop strings are never part of it.
    """

    index: int
    token_id: int | None
    text: str
    finish_reason: FinishReason | None = None
    usage: Usage | None = None

    def __str__(self) -> str:
        return self.text


class TextStream:
    """Ids in, text out that no later token takes back; without a tokenizer the text stays empty.

    The text continues the prompt's: a decoder strips the space before its very first word, which is right after BOS, but
    glues "time" and "there" together after a prompt. So the decoder sees the prompt's last ids first. Other camp:
    transformers' TextStreamer decodes the answer alone.
    """

    def __init__(self, tokenizer: TokenizerLike | None, prompt: Sequence[int], stops: Sequence[str]) -> None:
        self.stops = StopStrings(stops)
        self.detokenizer: Detokenizer | None = None
        if tokenizer is not None:
            self.detokenizer = Detokenizer(tokenizer)
            for token_id in prompt[-16:]:
                self.detokenizer.push(token_id)

    def push(self, token_id: int) -> str:
        """The text that one more id makes final."""
        return "" if self.detokenizer is None else self.stops.push(self.detokenizer.push(token_id))

    def flush(self) -> str:
        """The text held back until now: half characters, and beginnings of stop strings that never came."""
        return "" if self.detokenizer is None else self.stops.push(self.detokenizer.flush()) + self.stops.flush()

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met."""
        return self.stops.stopped is not None


class Row:
    """One request on its way through the loop."""

    def __init__(self, index: int, request: Request, model: Transformer, tokenizer: TokenizerLike | None, context: int) -> None:
        check_ids(index, request, model.config.vocab_size, context)
        self.index, self.request, self.params = index, request, request.params
        self.prompt, self.generated = list(request.prompt_ids), list[int]()
        self.end_ids = end_ids(request, model, tokenizer)
        self.text = TextStream(tokenizer, self.prompt, request.stop)
        self.seed = secrets.randbits(32) if request.params.seed is None else request.params.seed
        self.generator = torch.Generator().manual_seed(self.seed)
        room = context - len(self.prompt)
        self.budget = room if request.max_tokens is None else min(room, request.max_tokens)
        self.limit: FinishReason = "length" if self.budget == request.max_tokens else "context"
        self.done = False
        self.seconds: list[float] = []  # of the steps so far: the first is prefill

    def advance(self, token_id: int, seconds: float) -> Piece:
        """Take the next id; an end token wins over the limits, and a stop string over both."""
        self.generated.append(token_id)
        self.seconds.append(seconds)
        ended = token_id in self.end_ids
        text = "" if ended else self.text.push(token_id)
        reason = "stop" if ended else self.limit if len(self.generated) == self.budget else None
        return self.piece(token_id, text, reason)

    def piece(self, token_id: int | None, text: str, reason: FinishReason | None) -> Piece:
        """The piece to yield; a request that ends gives all the text it still holds back."""
        if reason is not None:
            text += self.text.flush()
        if self.text.stopped:
            reason = "stop"
        if reason is None:
            return Piece(self.index, token_id, text)
        self.done = True
        prefill, decode = sum(self.seconds[:1]), sum(self.seconds[1:])
        usage = Usage(len(self.prompt), len(self.generated), self.seed, prefill, decode)
        return Piece(self.index, token_id, text, reason, usage)


def check_ids(index: int, request: Request, vocab_size: int, context: int) -> None:
    """Raise NanollamaError unless the prompt has tokens, all ids are in the vocabulary, and it fits the context."""
    prompt = request.prompt_ids
    if not prompt:
        raise NanollamaError(f"request {index} has an empty prompt; expected at least one token, text or a BOS token")
    for kind, ids in (("prompt_ids", prompt), ("stop_ids", request.stop_ids), ("logit_bias", request.params.logit_bias)):
        for token in ids:
            if type(token) is not int or not 0 <= token < vocab_size:
                raise NanollamaError(
                    f"request {index}: {kind} has {token!r}; expected ids from 0 to {vocab_size - 1}, the model's vocabulary"
                )
    if len(prompt) > context:
        raise NanollamaError(
            f"request {index}: the prompt has {len(prompt)} tokens, the context only {context}; shorten the prompt "
            "or raise the context, if the model allows more"
        )


def end_ids(request: Request, model: Transformer, tokenizer: TokenizerLike | None) -> frozenset[int]:
    """The ids that end this request: the model's EOS ids, the request's, and stop strings that are special tokens.

    A special token has no text for a stop string to be found in, so "<|im_end|>" as a stop string means its id.
    """
    ends = set(request.stop_ids)
    if not request.ignore_eos:
        ends.update(model.config.eos_token_ids)
    for stop in request.stop:
        if tokenizer is None:
            raise NanollamaError(f"stop string {stop!r} needs a tokenizer; pass one, or use stop_ids")
        token_id = tokenizer.token_to_id(stop)
        if token_id is not None and token_id in tokenizer.special_ids:
            ends.add(token_id)
    return frozenset(ends)


def generate(
    model: Transformer,
    tokenizer: TokenizerLike | None,
    requests: Sequence[Request],
    *,
    context: int | None = None,
    prefill_chunk: int = 512,
    forward: Callable[..., Tensor] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Piece]:
    """Continue all requests together and yield a piece for every id sampled, and one for a request that samples none.

    Everything is checked before this returns; the model runs as pieces are asked for, and closing the iterator frees
    the cache. `context`: tokens of prompt and answer together, at most the model's limit. `prefill_chunk`: tokens per
    row and call in prefill, which bounds its memory. `forward`: called in place of the model (a compiled one); after
    prefill its ids are always [B, 1]. Raises NanollamaError for bad requests and for logits no token can be chosen from.
    """
    limit = model.config.max_position_embeddings
    if context is not None and (type(context) is not int or not 1 <= context <= limit):
        raise NanollamaError(f"context is {context!r}; expected from 1 to {limit} tokens, the model's limit")
    if type(prefill_chunk) is not int or prefill_chunk < 1:
        raise NanollamaError(f"prefill_chunk is {prefill_chunk!r}; expected a whole number of at least 1")
    rows = [Row(index, request, model, tokenizer, context or limit) for index, request in enumerate(requests)]
    return run(model, model if forward is None else forward, rows, prefill_chunk, clock)


def run(
    model: Transformer, forward: Callable[..., Tensor], rows: Sequence[Row], chunk: int, clock: Callable[[], float]
) -> Iterator[Piece]:
    """The loop. A row that is done keeps its place, so that shapes stay, but is padding to the model from then on."""
    yield from (row.piece(None, "", row.limit) for row in rows if row.budget == 0)
    rows = [row for row in rows if not row.done]
    if not rows:
        return
    started = clock()
    limits = [len(row.prompt) + row.budget for row in rows]
    cache = model.new_cache(batch=len(rows), max_len=max(limits), limits=limits)  # a row is as long as it would be alone
    logits = prefill(forward, cache, rows, chunk)
    while True:
        ids = choose(logits, rows)
        seconds = clock() - started
        for row, token_id in zip(rows, ids, strict=True):
            if not row.done:
                yield row.advance(token_id, seconds)
        if all(row.done for row in rows):
            return
        started = clock()
        logits = decode(forward, cache, rows)


@torch.inference_mode()  # on each step and not on the loop: a generator would leak the mode to its caller
def prefill(forward: Callable[..., Tensor], cache: KVCache, rows: Sequence[Row], chunk: int) -> Tensor:
    """Feed all prompts in chunks; logits [B, V] after each prompt's last token.

    Shorter prompts are padded on the left (position -1), so that all end in the last column of the last chunk.
    """
    width = max(len(row.prompt) for row in rows)
    ids = torch.tensor([[0] * (width - len(row.prompt)) + row.prompt for row in rows])
    lengths = torch.tensor([[len(row.prompt)] for row in rows])
    positions = (torch.arange(width) - (width - lengths)).clamp(min=-1)
    for start in range(0, width, chunk):
        part = slice(start, start + chunk)
        logits = forward(ids[:, part], cache=cache, positions=positions[:, part], last_only=True)
    return logits[:, -1]


@torch.inference_mode()
def decode(forward: Callable[..., Tensor], cache: KVCache, rows: Sequence[Row]) -> Tensor:
    """Feed each row's newest token at its own position; logits [B, V], meaningless in rows that are done."""
    ids = torch.tensor([[row.generated[-1]] for row in rows])
    places = [-1 if row.done else len(row.prompt) + len(row.generated) - 1 for row in rows]
    return forward(ids, cache=cache, positions=torch.tensor(places)[:, None])[:, -1]


@torch.inference_mode()
def choose(logits: Tensor, rows: Sequence[Row]) -> list[int]:
    """The next id of every row that isn't done (0 for the others). `tolist` is the step's only wait for the device."""
    picks = [
        logits.new_zeros(1, dtype=torch.int64)
        if row.done
        else pick(logits[b : b + 1], row.params, row.prompt, row.generated, row.generator)
        for b, row in enumerate(rows)
    ]
    ids: list[int] = torch.cat(picks).tolist()
    for b, row in enumerate(rows):
        if ids[b] < 0:
            problem = no_choice(logits[b : b + 1], row.params)
            raise NanollamaError(f"request {row.index}, token {len(row.generated) + 1}: {problem}")
    return ids

"""The one generation loop: prefill, then {logits → processors → pick → append → yield}.

A single prompt is a batch of one, a stream is the iterator itself, and a server runs the same steps. The loop has no
mathematics: the model, the sampling functions, the detokenizer and the clock are arguments or imports.
"""

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from nanollama.errors import NanollamaError
from nanollama.generation.request import NO_DEFAULTS, GenerationDefaults, Piece, Request, RequestError
from nanollama.generation.row import Row
from nanollama.generation.sampling import no_choice, pick
from nanollama.model.kv_cache import KVCache
from nanollama.model.transformer import Transformer
from nanollama.text.tokenizer import TokenizerLike


def generate(
    model: Transformer,
    tokenizer: TokenizerLike | None,
    requests: Sequence[Request],
    *,
    defaults: GenerationDefaults = NO_DEFAULTS,
    context: int | None = None,
    prefill_chunk: int = 512,
    forward: Callable[..., Tensor] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Piece]:
    """Continue all requests together and yield a piece for every id sampled, and one for a request that samples none.

    Everything is checked before this returns; the model runs as pieces are asked for, and closing the iterator frees
    the cache. `defaults`: the ids that end every answer (`LM.stream` passes the checkpoint's). `context`: tokens of prompt
    and answer together, at most the model's limit. `prefill_chunk`: tokens per row and call in prefill, which bounds its
    memory. `forward`: called in place of the model (a compiled one); after prefill its ids are always [B, 1]. `clock`:
    seconds. Raises NanollamaError for options out of range, RequestError for bad requests and for logits from which no
    token can be chosen.
    """
    limit = model.config.max_position_embeddings
    if context is not None and (type(context) is not int or not 1 <= context <= limit):
        raise NanollamaError(f"context is {context!r}; expected from 1 to {limit} tokens, the model's limit")
    if type(prefill_chunk) is not int or prefill_chunk < 1:
        raise NanollamaError(f"prefill_chunk is {prefill_chunk!r}; expected a whole number of at least 1")
    size = model.config.vocab_size
    rows = [Row(i, each, defaults, tokenizer, size, context or limit) for i, each in enumerate(requests)]
    return run(model, model if forward is None else forward, rows, prefill_chunk, clock)


def run(
    model: Transformer, forward: Callable[..., Tensor], rows: Sequence[Row], chunk: int, clock: Callable[[], float]
) -> Iterator[Piece]:
    """The loop. A row that is done keeps its place, so that shapes stay; the model gets padding for it."""
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
            raise RequestError(row.index, f"token {len(row.generated) + 1}: {problem}")
    return ids

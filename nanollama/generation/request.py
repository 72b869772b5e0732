"""A request and the answer to it: prompt and settings in, pieces of text and usage out, and the ids that end it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nanollama.errors import NanollamaError
from nanollama.generation.sampling import SamplingParams
from nanollama.text.tokenizer import TokenizerLike

# stop: an end token or a stop string; length: max_tokens; context: the window is full (OpenAI says "length" for both)
FinishReason = Literal["stop", "length", "context"]


@dataclass(frozen=True)
class Request:
    """One prompt and the settings of its answer.

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
class GenerationDefaults:
    """The ids that a checkpoint's files name: the one that begins a text, and all that end one."""

    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()


NO_DEFAULTS = GenerationDefaults()


class RequestError(NanollamaError):
    """A request that can't be answered. `index` is its place in the batch, `problem` the message without it."""

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(f"request {index}: {problem}")
        self.index, self.problem = index, problem


@dataclass(frozen=True)
class Usage:
    """Tokens and seconds of a finished request.

    completion_tokens counts every sampled id, the end token included. `seed` replays the run, also if the request had
    none. Seconds are those of the whole batch until this request was done, without the caller's time; the first token
    belongs to prefill. Rates: prompt_tokens / prefill_seconds, (completion_tokens - 1) / decode_seconds.
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
    usage. End tokens and stop strings are never part of the text.
    """

    index: int
    token_id: int | None
    text: str
    finish_reason: FinishReason | None = None
    usage: Usage | None = None

    def __str__(self) -> str:
        return self.text


def check_ids(index: int, request: Request, vocab_size: int, context: int) -> None:
    """Raise RequestError unless the prompt has tokens, all ids are in the vocabulary, and it fits the context."""
    prompt = request.prompt_ids
    if not prompt:
        raise RequestError(index, "an empty prompt; expected at least one token, text or a BOS token")
    for kind, ids in (("prompt_ids", prompt), ("stop_ids", request.stop_ids), ("logit_bias", request.params.logit_bias)):
        for token in ids:
            if type(token) is not int or not 0 <= token < vocab_size:
                wanted = f"expected ids from 0 to {vocab_size - 1}, the model's vocabulary"
                raise RequestError(index, f"{kind} has {token!r}; {wanted}")
    if len(prompt) > context:
        raise RequestError(
            index,
            f"the prompt has {len(prompt)} tokens, the context only {context}; shorten the prompt or raise the context, "
            "if the model allows more",
        )


def end_ids(request: Request, defaults: GenerationDefaults, tokenizer: TokenizerLike | None) -> frozenset[int]:
    """The ids that end this request: the checkpoint's EOS ids, the request's, and stop strings that are special tokens.

    A special token has no text for a stop string to be found in, so "<|im_end|>" as a stop string means its id.
    """
    ends = set(request.stop_ids)
    if not request.ignore_eos:
        ends.update(defaults.eos_token_ids)
    for stop in request.stop:
        if tokenizer is None:
            raise NanollamaError(f"stop string {stop!r} needs a tokenizer; pass one, or use stop_ids")
        token_id = tokenizer.token_to_id(stop)
        if token_id is not None and token_id in tokenizer.special_ids:
            ends.add(token_id)
    return frozenset(ends)

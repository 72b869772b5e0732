"""The state of one request in the batch: its ids, its text so far, its random generator, its limits."""

import secrets
from collections.abc import Sequence

import torch

from nanollama.generation.request import FinishReason, GenerationDefaults, Piece, Request, Usage, check_ids, end_ids
from nanollama.text.detokenizer import Detokenizer, StopStrings
from nanollama.text.tokenizer import TokenizerLike


class TextStream:
    """Ids in, final text out: no later token changes it. Without a tokenizer the text stays empty.

    A decoder strips the space before its first word. That is right after BOS, but joins "time" and "there" after a prompt,
    so the decoder sees the prompt's last ids first. transformers' TextStreamer does otherwise: it decodes the answer alone.
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
        """The text held back until now: half characters, and beginnings of stop strings that did not follow."""
        return "" if self.detokenizer is None else self.stops.push(self.detokenizer.flush()) + self.stops.flush()

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        return self.stops.stopped is not None


class Row:
    """One request in the loop: its ids, text, random generator and limits."""

    def __init__(
        self,
        index: int,
        request: Request,
        defaults: GenerationDefaults,
        tokenizer: TokenizerLike | None,
        vocab_size: int,
        context: int,
    ) -> None:
        check_ids(index, request, vocab_size, context)
        self.index, self.request, self.params = index, request, request.params
        self.prompt, self.generated = list(request.prompt_ids), list[int]()
        self.end_ids = end_ids(request, defaults, tokenizer)
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
        """The piece to yield; the last one has all the text that was held back."""
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

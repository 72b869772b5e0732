"""From choices to an answer: log-probabilities, usage, and the fields of completions and chats."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from conformance.judging.wire.rigged.model import log_softmax
from conformance.judging.wire.rigged.writer import Json, TextModel, Writer, Written


@dataclass(frozen=True)
class Listed:
    """A token as it is shown: its text, id, log-probability, and the likeliest tokens with theirs."""

    text: str
    id: int
    log_prob: float | None
    tops: list[tuple[int, float]]


class Answers(Writer):
    """Answers in one piece."""

    name = "rigged"

    def __init__(self, model: TextModel) -> None:
        super().__init__(model)
        self.numbers = itertools.count(1)

    def log_probs(self, ids: Sequence[int], request: Json) -> list[float]:
        """Log-probabilities [V] of what follows ids, as they are reported."""
        return log_softmax(self.model.scores(ids))

    def listed(self, written: Written, request: Json, count: int) -> list[Listed]:
        """Every token that is shown; the first of an echoed prompt has no log-probability."""
        ids = [*written.prompt, *(id for id in written.ids if id != self.model.end)]
        found = []
        for place in range(0 if request.get("echo") else len(written.prompt), len(ids)):
            row = self.log_probs(ids[:place], request) if place else []
            tops = self.tops(row, ids[place], count) if row else []
            found.append(Listed(self.decode(ids[place : place + 1]), ids[place], row[ids[place]] if row else None, tops))
        return found

    def tops(self, row: Sequence[float], id: int, count: int) -> list[tuple[int, float]]:
        """The likeliest tokens, and the chosen one."""
        best = sorted(range(len(row)), key=lambda each: -row[each])[:count]
        return [(each, row[each]) for each in (best if id in best else [*best, id])]

    def lists(self, written: Written, request: Json) -> Json | None:
        """logprobs of a completion; of tokens with the same text the likeliest is shown."""
        if request.get("logprobs") is None:
            return None
        listed = self.listed(written, request, request["logprobs"])
        texts = [each.text for each in listed]
        return {
            "tokens": texts,
            "token_logprobs": [each.log_prob for each in listed],
            "top_logprobs": [{self.decode([i]): v for i, v in reversed(each.tops)} if each.tops else None for each in listed],
            "text_offset": self.offsets(texts),
        }

    def offsets(self, texts: Sequence[str]) -> list[int]:
        """Where each token begins, in characters."""
        return [len("".join(texts[:place])) for place in range(len(texts))]

    def content_list(self, written: Written, request: Json) -> Json | None:
        """logprobs of a chat."""
        if not request.get("logprobs"):
            return None
        count, entries = request.get("top_logprobs", 0), []
        for each in self.listed(written, request, count):
            likely = [self.entry(id, value) for id, value in each.tops[:count]]
            entries.append({**self.entry(each.id, each.log_prob), "top_logprobs": likely})
        return {"content": entries}

    def entry(self, id: int, log_prob: float | None) -> Json:
        """A token of a chat's log-probabilities."""
        return {"token": self.decode([id]), "logprob": log_prob, "bytes": list(self.model.piece(id))}

    def usage(self, choices: Sequence[Written], request: Json) -> Json:
        """The counts of prompt and sampled tokens."""
        prompt = sum(len(written.prompt) for written in choices[:: request.get("n", 1)])
        completion = sum(len(written.ids) for written in choices)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def number(self) -> int:
        """A number that no other answer has."""
        return next(self.numbers)

    def head(self, request: Json, chat: str) -> Json:
        """The first fields of every answer and chunk."""
        kind = chat if "messages" in request else "text_completion"
        return {"id": f"cmpl-{self.number()}", "object": kind, "created": 1_700_000_000, "model": self.name}

    def answer(self, request: Json) -> Json:
        """The whole answer."""
        choices = self.write_all(request)
        shown = [self.choice(written, request) for written in choices]
        return {**self.head(request, "chat.completion"), "choices": shown, "usage": self.usage(choices, request)}

    def choice(self, written: Written, request: Json) -> Json:
        """One choice of it."""
        known: Json = {"index": written.index, "finish_reason": self.reason(written)}
        if "messages" in request:
            message = {"role": "assistant", "content": written.text}
            return {**known, "message": message, "logprobs": self.content_list(written, request)}
        return {**known, "text": self.echoed(written, request) + written.text, "logprobs": self.lists(written, request)}

    def echoed(self, written: Written, request: Json) -> str:
        """The prompt, if echo is set."""
        return self.decode(written.prompt) if request.get("echo") else ""

    def reason(self, written: Written) -> str:
        """finish_reason."""
        return written.reason

    def models(self) -> Json:
        """The list of models."""
        return {"object": "list", "data": [{"id": self.name, "object": "model", "created": 1_700_000_000, "owned_by": "tests"}]}

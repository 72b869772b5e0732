"""The correct log-probabilities: the served checkpoint in float64, run on the tokens that the server wrote.

Quantized weights are decoded exactly as stored. The server's tokens are matched to ids by their text; of several ids with one
text the likeliest is taken, and a text that no token has is not judged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from conformance.engines.engine import Unsupported
from nanollama.lm import LM, load
from nanollama.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Served:
    """One answer: ids of prompt and answer, the log-probabilities reported at each step by id, and the truth [T, V]."""

    prompt: list[int]
    ids: list[int]
    reported: list[dict[int, float]]
    truth: Tensor

    def error(self, log_probs: Tensor) -> float:
        """The largest error of log-probabilities [T, V] at the tokens that the server reported, in nats."""
        return max(
            (abs(float(log_probs[t, i] - self.truth[t, i])) for t, reported in enumerate(self.reported) for i in reported),
            default=0.0,
        )

    def served_error(self) -> float:
        """The server's largest error, in nats."""
        pairs = ((value, float(self.truth[t, i])) for t, reported in enumerate(self.reported) for i, value in reported.items())
        return max(abs(value - truth) for value, truth in pairs)


class Truth:
    """A checkpoint in float64: folder or GGUF file, as `nanollama.load` takes it."""

    def __init__(self, source: str | Path) -> None:
        self.source = source
        self.lm: LM = load(source, dtype="float64", device="cpu")

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer; Unsupported if it has none."""
        if self.lm.tokenizer is None:
            raise Unsupported(f"{self.source} has no tokenizer, so the server's words can't be matched to tokens")
        return self.lm.tokenizer

    @cached_property
    def by_text(self) -> Mapping[str, list[int]]:
        """Ids by text; a token's text is what it appends to another token's, spaces included."""
        tokenizer, found = self.tokenizer, dict[str, list[int]]()
        anchor = tokenizer.encode("a", add_special=False)
        before = len(tokenizer.decode(anchor))
        for id in range(min(tokenizer.vocab_size, self.lm.config.vocab_size)):
            text = tokenizer.decode([*anchor, id])[before:]
            if text and "\ufffd" not in text:
                found.setdefault(text, []).append(id)
        return found

    @torch.inference_mode()
    def rows(self, prompt: Sequence[int], count: int, choose: Any) -> tuple[list[int], Tensor]:
        """`count` steps after a prompt: `choose(step, log-probabilities [V])` gives the id that goes in next."""
        cache = self.lm.model.new_cache(batch=1, max_len=len(prompt) + count)
        logits = self.lm.model(torch.tensor([list(prompt)]), cache=cache)[0, -1]
        ids: list[int] = []
        rows = []
        for step in range(count):
            rows.append(logits.double().log_softmax(-1))
            ids.append(choose(step, rows[-1]))
            if step + 1 < count:
                logits = self.lm.model(torch.tensor([ids[-1:]]), cache=cache)[0, -1]
        return ids, torch.stack(rows)

    def follow(self, prompt: Sequence[int], steps: Sequence[tuple[str, float, dict[str, float]]]) -> Served:
        """The truth along a served answer; `steps` are its tokens, their log-probabilities and the likeliest ones shown."""
        ids, rows = self.rows(prompt, len(steps), lambda step, row: self.id_of(steps[step][0], row))
        reported = []
        for (_, value, top), id, row in zip(steps, ids, rows, strict=True):
            shown = {self.id_of(text, row): log_prob for text, log_prob in top.items() if text in self.by_text}
            reported.append(shown | {id: value})
        return Served(list(prompt), ids, reported, rows)

    def id_of(self, text: str, row: Tensor) -> int:
        """The likeliest of the ids that have a text."""
        if text not in self.by_text:
            raise Unsupported(f"the server wrote {text!r}, which is no token of {self.source} by itself")
        return max(self.by_text[text], key=lambda id: float(row[id]))

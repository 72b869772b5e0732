"""How well a model predicts a text, and how far two models differ in what they predict: perplexity, KL, top-1 agreement.

Teacher-forced: the model sees the text itself, never its own tokens. Pure functions of a model and ids; all sums
over the vocabulary and over the tokens run in float64.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nanollama.errors import NanollamaError

Model = Callable[[Tensor], Tensor]  # ids int64 [B, T] → logits [B, T, V]


class Agreement(NamedTuple):
    """How two models differ over the same tokens."""

    kl: float  # mean of KL(a ‖ b) over the positions, in nats
    largest_kl: float
    top1: float  # share of positions where both put the same token first
    tokens: int  # positions compared


def windows(count: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(begin, first, end) of each window over `count` tokens: it shows begin … end and scores first … end.

    A window begins every `stride` tokens and none is longer than `window`. Every token but the text's first is scored
    exactly once, in the first window that holds it, after at least window - stride tokens of context once the text is
    that far.
    """
    if not 1 <= stride < window:
        raise NanollamaError(f"stride {stride} with window {window}; expected 1 ≤ stride < window")
    first = 1
    for begin in range(0, count, stride):
        end = min(begin + window, count)
        if first < end:
            yield begin, first, end
        first = end


@torch.inference_mode()
def log_likelihoods(model: Model, ids: Sequence[int], window: int, stride: int, batch: int = 16) -> Tensor:
    """log p(token | the tokens before it in its window), float64 [len(ids) - 1], in nats."""
    text = torch.tensor(ids)
    found = []
    for rows in batches(windows(len(ids), window, stride), batch):
        logits = model(torch.stack([text[begin:end] for begin, _, end in rows]))
        for (begin, first, end), row in zip(rows, logits, strict=True):
            log_p = row[first - 1 - begin : end - 1 - begin].double().log_softmax(-1).cpu()
            found.append(log_p.gather(1, text[first:end, None])[:, 0])
    return torch.cat(found)


def batches(spans: Iterator[tuple[int, int, int]], batch: int) -> Iterator[list[tuple[int, int, int]]]:
    """Neighbouring windows of the same length, at most `batch` together."""
    rows: list[tuple[int, int, int]] = []
    for span in spans:
        if rows and (len(rows) == batch or span[2] - span[0] != rows[0][2] - rows[0][0]):
            yield rows
            rows = []
        rows.append(span)
    if rows:
        yield rows


def perplexity(model: Model, ids: Sequence[int], window: int, stride: int, batch: int = 16) -> float:
    """exp of the mean of -log p(token) over all tokens of a text but the first; see `windows` for what each token sees.

    From 1 (certainty) to V (a uniform guess). It depends on window and stride: state both with it.
    """
    if len(ids) < 2:
        raise NanollamaError(f"a text of {len(ids)} tokens has no perplexity; expected at least 2")
    return math.exp(-log_likelihoods(model, ids, window, stride, batch).mean().item())


@torch.inference_mode()
def agreement(a: Model, b: Model, ids: Sequence[int], window: int, stride: int, batch: int = 16) -> Agreement:
    """Compare what two models of one vocabulary predict at every position that `perplexity` scores."""
    if len(ids) < 2:
        raise NanollamaError(f"a text of {len(ids)} tokens has no position to compare; expected at least 2")
    text = torch.tensor(ids)
    divergences, same = [], 0
    for rows in batches(windows(len(ids), window, stride), batch):
        shown = torch.stack([text[begin:end] for begin, _, end in rows])
        for (begin, first, end), row_a, row_b in zip(rows, a(shown), b(shown), strict=True):
            scored = slice(first - 1 - begin, end - 1 - begin)
            log_a, log_b = (row[scored].double().log_softmax(-1).cpu() for row in (row_a, row_b))
            divergences.append(torch.nn.functional.kl_div(log_b, log_a, reduction="none", log_target=True).sum(-1))
            same += int((log_a.argmax(-1) == log_b.argmax(-1)).sum())
    kl = torch.cat(divergences)
    return Agreement(kl.mean().item(), kl.max().item(), same / len(kl), len(kl))

"""Greedy tokens after every token of a prompt, each judged by itself (teacher-forced); ties are excused and counted."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Choices:
    """How many of an engine's choices are the truth's, how many others are ties, and the first that is neither."""

    same: int
    ties: int
    wrong: int
    first: str = ""


def choices(got: Tensor, want: Tensor, room: float) -> Choices:
    """Log-probabilities [T, V], both. `room`: the tolerance of each, in nats. Another token is a tie if the truth's margin
    is at most twice that."""
    mine, best = got.argmax(-1), want.argmax(-1)
    rows = torch.arange(len(want))
    margin = want[rows, best] - want[rows, mine]
    other = mine != best
    wrong = (other & (margin > 2 * room)).nonzero()[:, 0].tolist()
    first = ""
    if wrong:
        t = wrong[0]
        first = f"after token {t} it chooses {int(mine[t])}, {float(margin[t]):.3g} nats less likely than {int(best[t])}"
    return Choices(int((~other).sum()), int(other.sum()) - len(wrong), len(wrong), first)

"""An exercise in testing: a good test passes every right answer and fails every wrong one."""

from collections.abc import Callable

import torch
from torch import Tensor

Penalty = Callable[[Tensor, Tensor, float], Tensor]


def check_penalty(penalty: Penalty) -> None:
    """Raise AssertionError unless this function does what `nanollama.generation.sampling.repetition_penalty` does.

    It is called as penalty(logits [1, V], counts [V], number) and returns new logits; counts holds how often each token was
    seen. Every right implementation must pass, and every wrong one must fail.
    """
    logits, counts = torch.tensor([[2.0, -2.0, 3.0, 4.0]]), torch.tensor([1.0, 1.0, 0.0, 2.0])
    before = logits.clone()
    got = penalty(logits, counts, 2.0)
    assert torch.equal(got, torch.tensor([[1.0, -4.0, 3.0, 2.0]])), f"of {before.tolist()} it makes {got.tolist()}"
    assert torch.equal(logits, before), "it edits its input"

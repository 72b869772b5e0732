"""A prompt cut into what an engine takes in one call."""

from collections.abc import Iterator

import torch

from conformance.engines.engine import Prompt


def pieces(prompt: Prompt) -> Iterator[slice]:
    """The prompt cut at the ends of its chunks and wherever a position is left out: what an engine takes in one call."""
    positions, ends, start = prompt.positions, set(torch.tensor(prompt.chunks).cumsum(0).tolist()), 0
    for i in range(1, len(positions) + 1):
        if i == len(positions) or i in ends or positions[i] != positions[i - 1] + 1:
            yield slice(start, i)
            start = i


def has_gap(prompt: Prompt) -> bool:
    """Whether its positions are others than 0, 1, 2, …"""
    return prompt.positions != tuple(range(len(prompt.positions)))

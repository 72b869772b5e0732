"""How many programs torch.compile makes of one function.

With its first program torch patches itself. Importing this module lets it do so, which happens before anything is watched
where a kata counts programs (`imports` in katas.toml).
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch


def programs(function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> int:
    """The number of programs that these calls need, each made for the shapes and numbers of its call. None is optimised."""
    made = 0

    def backend(graph: Any, inputs: list[Any]) -> Any:
        nonlocal made
        made += 1
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(function, backend=backend, dynamic=False)
    for call in calls:
        compiled(*call)
    torch.compiler.reset()
    return made


programs(torch.nn.functional.relu, [(torch.ones(1),)])

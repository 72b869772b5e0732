"""How many programs torch.compile makes of one function.

torch patches itself when it makes its first program. Importing this module triggers that, before a kata's names are watched
(`imports` in katas.toml).
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch


def programs(function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> int:
    """The number of programs that these calls need, one per combination of shapes and numbers; none is optimised."""
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

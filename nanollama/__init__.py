"""nanollama: a minimal LLM runtime, proven layer by layer.

>>> lm = nanollama.load("path/to/checkpoint")            # or a hub id
>>> for piece in lm.generate("Once upon a time", max_tokens=100, temperature=0.0):
...     print(piece, end="")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanollama.errors import NanollamaError
    from nanollama.generation.request import Piece, Request
    from nanollama.generation.sampling import SamplingParams
    from nanollama.lm import LM, load

__all__ = ["LM", "NanollamaError", "Piece", "Request", "SamplingParams", "load"]
__version__ = "0.1.0"

HOMES = {
    "LM": "lm",
    "NanollamaError": "errors",
    "Piece": "generation.request",
    "Request": "generation.request",
    "SamplingParams": "generation.sampling",
    "load": "lm",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is: torch takes seconds, and `nanollama --help` needs none of it."""
    if name not in HOMES:
        raise AttributeError(f"module 'nanollama' has no attribute {name!r}")
    return getattr(import_module(f"nanollama.{HOMES[name]}"), name)

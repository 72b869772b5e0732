"""nanollama: a minimal LLM runtime, proven layer by layer.

>>> lm = nanollama.load("path/to/checkpoint")            # or a hub id
>>> for piece in lm.generate("Once upon a time", max_tokens=100, temperature=0.0):
...     print(piece, end="")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers, which don't read HOMES; a test holds both lists equal
    from nanollama.errors import NanollamaError as NanollamaError
    from nanollama.generation.request import Piece as Piece
    from nanollama.generation.request import Request as Request
    from nanollama.generation.sampling import SamplingParams as SamplingParams
    from nanollama.lm import LM as LM
    from nanollama.lm import load as load

__version__ = "0.1.0"

HOMES = {  # public name: the module that defines it
    "LM": "lm",
    "NanollamaError": "errors",
    "Piece": "generation.request",
    "Request": "generation.request",
    "SamplingParams": "generation.sampling",
    "load": "lm",
}
__all__ = [*HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is used: torch takes seconds, and `nanollama --help` does not need it."""
    if name not in HOMES:
        raise AttributeError(f"module 'nanollama' has no attribute {name!r}")
    return getattr(import_module(f"nanollama.{HOMES[name]}"), name)

"""nanollama: a minimal LLM runtime, proven layer by layer.

>>> lm = nanollama.load("path/to/checkpoint")            # or a hub id
>>> for piece in lm.generate("Once upon a time", max_tokens=100, temperature=0.0):
...     print(piece, end="")
"""

from nanollama.errors import NanollamaError
from nanollama.generate import Piece, Request
from nanollama.lm import LM, load
from nanollama.sampling import SamplingParams

__all__ = ["LM", "NanollamaError", "Piece", "Request", "SamplingParams", "load"]
__version__ = "0.1.0"

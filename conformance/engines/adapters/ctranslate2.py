"""CTranslate2: a checkpoint through its own converter, run by its Generator.

It takes tokens and gives logits at every position; it has no way to say positions, and its cache is out of reach.
"""

import tempfile
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
from ctranslate2.converters import TransformersConverter
from transformers import PreTrainedTokenizerFast

from conformance.engines.engine import Answer, Broken, Engine, Prompt, Unsupported, parse_options
from conformance.engines.prompt_pieces import has_gap
from conformance.models.readable_copy import has_vocabulary, readable_copy
from conformance.requirements.results import About


def words(tokenizer_class: Any, folder: str, **options: Any) -> Any:
    """The vocabulary that `foreign` wrote, as it is: left alone, the converter takes the tokenizer of the family."""
    return PreTrainedTokenizerFast.from_pretrained(folder)


class CTranslate2(Engine):
    """A converted model on the CPU; the argument is its compute type."""

    def __init__(self, argument: str = "") -> None:
        self.dtype = parse_options(argument, dtype=("float32", "bfloat16", "int8"))["dtype"]

    def about(self) -> About:
        """Logits; what is inside stays inside."""
        return About("CTranslate2", ctranslate2.__version__, ("L2",), self.dtype)

    def load(self, folder: Path) -> None:
        """Convert and load; whatever either raises is what it says of the folder."""
        self.close()
        with tempfile.TemporaryDirectory() as scratch:
            copy, target = readable_copy(folder, Path(scratch, "model")), str(Path(scratch, "converted"))
            converter = TransformersConverter(str(copy))
            if not has_vocabulary(folder):
                converter.load_tokenizer = words
            try:
                converter.convert(target)
                self.loaded = ctranslate2.Generator(target, compute_type=self.dtype, intra_threads=1)
            except Exception as error:
                raise Unsupported(f"{type(error).__name__}: {error}") from error

    def run(self, prompt: Prompt, taps: bool = False) -> Answer:
        """One row, at once."""
        if has_gap(prompt):
            raise Unsupported("CTranslate2 takes no positions")
        if prompt.chunks:
            raise Unsupported("CTranslate2 takes a prompt only at once")
        try:
            found = np.array(self.model.forward_batch([list(prompt.ids)], return_log_probs=False))
        except (ValueError, RuntimeError) as error:
            raise Broken(f"{type(error).__name__}: {error}") from error
        return Answer(torch.from_numpy(found)[0].double())

    def close(self) -> None:
        """Let go of the model."""
        self.loaded = None


ENGINE = CTranslate2

"""ONNX Runtime's generate() API: a checkpoint through its own model builder, in float32, run by its Generator on the CPU."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai
import torch
from torch import Tensor

from conformance.engines import Answer, Engine, Prompt, Unsupported
from conformance.engines.foreign import has_gap, pieces, readable_copy
from conformance.results import About
from nanollama.errors import NanollamaError

LONGEST = 256  # tokens of a sequence that a Generator makes room for


class OnnxGenAI(Engine):
    """A built model; its cache goes on from call to call."""

    def __init__(self, argument: str = "") -> None:
        if argument:
            raise NanollamaError(f"onnxgenai takes no option, got {argument!r}")
        onnxruntime_genai.disable_telemetry_events()
        self.model: Any = None
        self.scratch = tempfile.TemporaryDirectory()

    def about(self) -> About:
        """Logits; what is inside stays inside."""
        return About("ONNX Runtime generate()", onnxruntime_genai.__version__, ("L2",))

    def load(self, folder: Path) -> None:
        """Build and load, and run one token: some models can be built and not be run."""
        self.close()
        self.scratch = tempfile.TemporaryDirectory()
        copy, target = readable_copy(folder, Path(self.scratch.name, "model")), str(Path(self.scratch.name, "built"))
        options = ["-i", str(copy), "-o", target, "-p", "fp32", "-e", "cpu", "-c", self.scratch.name]
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", *options]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Unsupported(f"its model builder: {done.stderr.strip().rpartition(chr(10))[2]}")
        try:
            self.model = onnxruntime_genai.Model(target)
            list(self.calls(Prompt((1,), (0,))))
        except RuntimeError as error:
            raise Unsupported(str(error)) from error

    def run(self, prompt: Prompt, taps: bool = False) -> Answer:
        """One sequence, in one call or several."""
        if self.model is None:
            raise Unsupported("no model is loaded")
        if has_gap(prompt):
            raise Unsupported("ONNX Runtime generate() takes no positions")
        return Answer(torch.cat(list(self.calls(prompt))))

    def calls(self, prompt: Prompt) -> Iterator[Tensor]:
        """The logits of every call, float64 [T, V]."""
        options = onnxruntime_genai.GeneratorParams(self.model)
        options.set_search_options(max_length=LONGEST)
        generator = onnxruntime_genai.Generator(self.model, options)
        for piece in pieces(prompt):
            generator.append_tokens(list(prompt.ids[piece]))
            yield torch.from_numpy(np.array(generator.get_output("logits"))[0]).double()

    def close(self) -> None:
        """Let go of the model and its files."""
        self.model = None
        self.scratch.cleanup()


ENGINE = OnnxGenAI

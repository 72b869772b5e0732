"""ONNX Runtime's generate() API: a checkpoint through its own model builder, in float32, run by its Generator on the CPU."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime_genai
import torch
from torch import Tensor

from conformance.engines.engine import Answer, Engine, Prompt, Unsupported
from conformance.engines.prompt_pieces import has_gap, pieces
from conformance.models.readable_copy import readable_copy
from conformance.requirements.results import About
from nanollama.errors import NanollamaError

ROOM = 256  # tokens beside the prompt that a Generator makes room for; a window's cache must hold the window


class OnnxGenAI(Engine):
    """A built model; its cache goes on from call to call."""

    def __init__(self, argument: str = "") -> None:
        if argument:
            raise NanollamaError(f"onnxgenai takes no option, got {argument!r}")
        onnxruntime_genai.disable_telemetry_events()

    def about(self) -> About:
        """Logits; what is inside stays inside."""
        return About("ONNX Runtime generate()", onnxruntime_genai.__version__, ("L2",))

    def load(self, folder: Path) -> None:
        """Build and load, and run one token: some models can be built and not be run."""
        self.close()
        with tempfile.TemporaryDirectory() as scratch:
            target = built(readable_copy(folder, Path(scratch, "model")), Path(scratch))
            try:
                self.loaded = onnxruntime_genai.Model(str(target))
                list(self.calls(Prompt((1,), (0,))))
            except RuntimeError as error:
                self.close()
                raise Unsupported(str(error)) from error

    def run(self, prompt: Prompt, taps: bool = False) -> Answer:
        """One sequence, in one call or several."""
        if has_gap(prompt):
            raise Unsupported("ONNX Runtime generate() takes no positions")
        return Answer(torch.cat(list(self.calls(prompt))))

    def calls(self, prompt: Prompt) -> Iterator[Tensor]:
        """The logits of every call, float64 [T, V]."""
        options = onnxruntime_genai.GeneratorParams(self.model)
        options.set_search_options(max_length=len(prompt.ids) + ROOM)
        generator = onnxruntime_genai.Generator(self.model, options)
        for piece in pieces(prompt):
            generator.append_tokens(list(prompt.ids[piece]))
            yield torch.from_numpy(np.array(generator.get_output("logits"))[0]).double()

    def close(self) -> None:
        """Let go of the model."""
        self.loaded = None


def built(folder: Path, scratch: Path) -> Path:
    """What its model builder makes of a checkpoint folder."""
    target = scratch / "built"
    options = ["-i", str(folder), "-o", str(target), "-p", "fp32", "-e", "cpu", "-c", str(scratch)]
    done = subprocess.run([sys.executable, "-m", "onnxruntime_genai.models.builder", *options], capture_output=True, text=True)
    if done.returncode:
        raise Unsupported(f"its model builder: {done.stderr.strip().rpartition(chr(10))[2]}")
    return target


ENGINE = OnnxGenAI

"""OpenVINO on the CPU: a checkpoint as optimum-intel exports it, in the runtime below OpenVINO GenAI, which gives no logits.

The exported model keeps its cache itself, takes positions, and computes in float32 by request.
"""

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openvino
import torch
from optimum.exporters.openvino import main_export
from torch import Tensor

from conformance.engines.engine import Answer, Engine, Prompt, Unsupported
from conformance.engines.prompt_pieces import has_gap, pieces
from conformance.models.readable_copy import readable_copy
from conformance.requirements.results import About
from nanollama.errors import NanollamaError

FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "INFERENCE_NUM_THREADS": 1}


class OpenVino(Engine):
    """An exported model in float32."""

    def __init__(self, argument: str = "") -> None:
        if argument:
            raise NanollamaError(f"openvino takes no option, got {argument!r}")
        self.inputs: set[str] = set()
        self.windowed = False

    def about(self) -> About:
        """Logits; what is inside is fused."""
        return About("OpenVINO", openvino.__version__, ("L2",))

    def load(self, folder: Path) -> None:
        """Export and compile; whatever the exporter raises is what it says of the folder."""
        self.close()
        logging.getLogger("optimum").setLevel(logging.ERROR)
        self.windowed = bool(json.loads((folder / "config.json").read_text()).get("sliding_window"))
        with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            copy, target = readable_copy(folder, Path(scratch, "model")), Path(scratch, "exported")
            try:
                main_export(str(copy), str(target), task="text-generation-with-past", library_name="transformers")
                model = openvino.Core().compile_model(target / "openvino_model.xml", "CPU", FLOAT32)
            except Exception as error:
                raise Unsupported(f"{type(error).__name__}: {error}") from error
            self.inputs = {each.any_name for each in model.inputs}
            self.loaded = model.create_infer_request()

    def run(self, prompt: Prompt, taps: bool = False) -> Answer:
        """One row, in one call or several."""
        if has_gap(prompt) and (self.windowed or "position_ids" not in self.inputs):
            raise Unsupported("its masks count places of the cache, so that windows and positions with a gap don't go together")
        self.model.reset_state()
        return Answer(torch.cat(list(self.calls(prompt))))

    def calls(self, prompt: Prompt) -> Iterator[Tensor]:
        """The logits of every call, float64 [T, V]."""
        for piece in pieces(prompt):
            given = {
                "input_ids": np.array([prompt.ids[piece]]),
                "attention_mask": np.ones((1, piece.stop), np.int64),
                "position_ids": np.array([prompt.positions[piece]]),
                "beam_idx": np.zeros(1, np.int32),
            }
            found = self.model.infer({name: value for name, value in given.items() if name in self.inputs})
            yield torch.from_numpy(np.array(found["logits"])[0]).double()

    def close(self) -> None:
        """Let go of the model."""
        self.loaded = None


ENGINE = OpenVino

"""llama.cpp through llama-cpp-python's bindings: a checkpoint as a GGUF file of float32, run with a float32 cache.

`llamacpp` runs our export of the folder, `llamacpp:FOLDER` what llama.cpp's own converter makes of it; FOLDER is the source
package's, where convert_hf_to_gguf.py is.
"""

import ctypes
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp
import torch
from torch import Tensor

from conformance.engines.engine import Answer, Engine, Prompt, Unsupported
from conformance.engines.prompt_pieces import has_gap, pieces
from conformance.models.readable_copy import readable_copy
from conformance.requirements.results import About
from nanollama.checkpoint.export import export_gguf
from nanollama.checkpoint.source import open_source
from nanollama.errors import NanollamaError

F32_CACHE = 0  # GGML_TYPE_F32
NO_FLASH = 0  # LLAMA_FLASH_ATTN_TYPE_DISABLED
CONTEXT = 256  # its granularity; models whose rotation depends on the length go by it
CONVERTER = "convert_hf_to_gguf.py"
CONVERT = """
import json, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1] + "/gguf-py", sys.argv[1]]
import convert_hf_to_gguf, conversion
name = json.loads(Path(sys.argv[2], "config.json").read_text())["architectures"][0]
def set_vocab(self):
    self._set_vocab_none()
    self.gguf_writer.add_vocab_size(self.hparams["vocab_size"])
    self.gguf_writer.add_vocab_size = lambda size: None  # some families write it themselves, others leave it to the vocabulary
conversion.get_model_class(name).set_vocab = set_vocab
sys.argv = ["convert", sys.argv[2], "--outfile", sys.argv[3], "--outtype", "f32"]
convert_hf_to_gguf.main()
"""
"""llama.cpp's converter, but for the vocabulary: the fixtures have none, and theirs must be one that it knows."""

LOG: list[str] = []  # what llama.cpp complained of, for the case that it fails
LOG_ERROR = 4  # GGML_LOG_LEVEL_ERROR


def remember(level: int, text: bytes, _: Any) -> None:
    """Keep llama.cpp's complaints, and print nothing."""
    if level >= LOG_ERROR:
        LOG.append(text.decode("utf-8", "replace").strip())


QUIET = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(remember)


class LlamaCpp(Engine):
    """A GGUF file in llama.cpp on the CPU, its KV cache in float32 and its attention by the definition."""

    def __init__(self, argument: str = "") -> None:
        self.converter = Path(argument) if argument else None
        if self.converter and not (self.converter / CONVERTER).is_file():
            raise NanollamaError(f"{self.converter} has no {CONVERTER}; want llama.cpp's source folder, or no argument")

    def about(self) -> About:
        """Logits; what is inside stays inside."""
        notes = "its own converter" if self.converter else "our GGUF export"
        return About("llama.cpp", f"llama-cpp-python {llama_cpp.__version__}", ("L2",), notes=notes)

    def load(self, folder: Path) -> None:
        """Convert the folder and load the file."""
        self.close()
        with tempfile.TemporaryDirectory() as scratch:
            self.loaded = load_file(self.as_gguf(folder, Path(scratch)))

    def as_gguf(self, folder: Path, scratch: Path) -> Path:
        """The folder as a file, by their converter or by ours."""
        if self.converter is not None:
            return converted(self.converter, readable_copy(folder, scratch / "model"), scratch / "model.gguf")
        try:
            export_gguf(open_source(folder), scratch / "model.gguf", "f32")
        except NanollamaError as error:
            raise Unsupported(str(error)) from error
        return scratch / "model.gguf"

    def run(self, prompt: Prompt, taps: bool = False) -> Answer:
        """One sequence in a context that is just long enough, in one call or several."""
        if has_gap(prompt):
            raise Unsupported("llama.cpp wants the positions of a sequence one after the other (llama-batch.cpp, init)")
        context = -(-len(prompt.ids) // CONTEXT) * CONTEXT
        with sequence(self.model, context) as run:
            return Answer(torch.cat([decoded(run, self.model, prompt.ids[p], p.start) for p in pieces(prompt)]))

    def close(self) -> None:
        """Free the model."""
        if self.loaded is not None:
            llama_cpp.llama_model_free(self.loaded)
        self.loaded = None


def load_file(path: Path) -> Any:
    """llama.cpp's model of a file."""
    LOG.clear()
    llama_cpp.llama_log_set(QUIET, ctypes.c_void_p())
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers, params.use_mmap = 0, False
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise Unsupported(f"llama.cpp does not load it: {' '.join(LOG)[-600:]}")
    return model


@contextmanager
def sequence(model: Any, context: int) -> Iterator[Any]:
    """A context of that length for one sequence."""
    options = llama_cpp.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = context
    options.n_threads = options.n_threads_batch = 1
    options.type_k = options.type_v = F32_CACHE
    options.flash_attn_type = NO_FLASH
    run = llama_cpp.llama_init_from_model(model, options)
    if not run:
        raise Unsupported(f"llama.cpp makes no context for it: {' '.join(LOG)[-600:]}")
    try:
        yield run
    finally:
        llama_cpp.llama_free(run)


def decoded(run: Any, model: Any, ids: Sequence[int], start: int) -> Tensor:
    """The logits float64 [T, V] of these tokens, the next ones of the sequence."""
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, start + i, 1, 0, 1
    batch.n_tokens = len(ids)
    failed = llama_cpp.llama_decode(run, batch)
    llama_cpp.llama_batch_free(batch)
    if failed:
        raise Unsupported(f"llama.cpp does not decode it: {' '.join(LOG)[-600:]}")
    size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    rows = [llama_cpp.llama_get_logits_ith(run, i)[:size] for i in range(len(ids))]
    return torch.tensor(rows, dtype=torch.float64)


def converted(converter: Path, folder: Path, target: Path) -> Path:
    """What llama.cpp's converter makes of a checkpoint folder, which must have a tokenizer.json: gemma3 counts its tokens."""
    done = subprocess.run([sys.executable, "-c", CONVERT, converter, folder, target], capture_output=True, text=True)
    if done.returncode:
        raise Unsupported(f"llama.cpp's converter fails: {done.stderr[-1500:]}")
    return target


ENGINE = LlamaCpp

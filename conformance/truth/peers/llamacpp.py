"""llama.cpp as a peer: the same GGUF file through its own runtime, and the same checkpoint through its own converter.

    python -m conformance.truth.peers.llamacpp [--architecture NAME …] [--converter FOLDER]

Needs llama-cpp-python beside nanollama (`nox -s llamacpp` installs it). Three checks per architecture, at every position:

* *ours → llama.cpp*: a checkpoint folder, exported by us as F32, run by llama.cpp with an F32 cache, against our float64
  logits of the folder.
* *theirs → ours*: the same folder through llama.cpp's converter (of its source package, --converter), against the same.
* *unpermuted*: our export with the rows of q and k left in the checkpoint's order, which must fail where rows are permuted.

The bar: |Δ logit| at most 5e-3 of the logits' standard deviation, and the same top token everywhere. llama.cpp computes in
float32 with a table of float16 numbers for GELU and with fast exponentials, which is what the bar leaves room for.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from safetensors.torch import save_file
from torch import Tensor

from conformance.models.fixtures import FIXTURES, fixture_config, fixture_tensors, near_prompt
from conformance.models.readable_copy import write_vocabulary
from nanollama.checkpoint.export import export_gguf
from nanollama.checkpoint.gguf import names as gguf_names
from nanollama.checkpoint.source import open_source
from nanollama.lm import load_model

BAR = 5e-3  # of the standard deviation of the logits

# What GGUF can't say of the fixtures, and what llama.cpp's graphs take for granted: heads as wide as the hidden state has room.
YARN = {"rope_type": "yarn", "factor": 6.0, "original_max_position_embeddings": 512}
WIDE = {"hidden_size": 96}
CHANGES: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {},
    "MistralForCausalLM": {"sliding_window": None},
    "Qwen2ForCausalLM": {"use_sliding_window": False, **WIDE, "rope_scaling": YARN},
    "Qwen3ForCausalLM": {"use_sliding_window": False, "layer_types": None, "attention_bias": False},
    "Gemma2ForCausalLM": {"query_pre_attn_scalar": 8},
    "Gemma3ForCausalLM": {"query_pre_attn_scalar": 8},
    "Phi3ForCausalLM": {},
    "Olmo2ForCausalLM": WIDE,
    "SmolLM3ForCausalLM": {"use_sliding_window": False, "layer_types": None, "no_rope_layers": None},
    "GPT2LMHeadModel": {"scale_attn_by_inverse_layer_idx": False},
    "MixtralForCausalLM": {"sliding_window": None},
    "Qwen3MoeForCausalLM": {"norm_topk_prob": True, "mlp_only_layers": []},
}

CONVERTER_CHANGES: dict[str, dict[str, Any]] = {  # what its converter takes for granted besides, and drops without a word
    "Gemma2ForCausalLM": {"rope_theta": 10000.0},
    "Gemma3ForCausalLM": {"layer_types": None, "num_hidden_layers": 7},
    "GPT2LMHeadModel": {"n_inner": 4 * 96, "n_ctx": 4200},
}


class Row(NamedTuple):
    """One comparison: the largest difference in standard deviations of the logits, and positions whose top token differs."""

    architecture: str
    check: str
    worst: float
    flipped: int
    positions: int

    @property
    def agrees(self) -> bool:
        """Whether it is within the bar."""
        return self.worst <= BAR and self.flipped == 0


def llamacpp_logits(path: Path, ids: list[int]) -> Tensor:
    """The logits of llama.cpp at every position, float64 [T, V], for one sequence in a context of CONTEXT."""
    from conformance.engines.adapters import llamacpp

    model = llamacpp.load_file(path)
    with llamacpp.sequence(model, CONTEXT) as run:
        return llamacpp.decoded(run, model, ids, 0)


def compare(architecture: str, check: str, truth: Tensor, found: Tensor) -> Row:
    """One row, from logits [T, V]."""
    worst = float((found - truth).abs().max() / truth.std())
    flipped = int((found.argmax(-1) != truth.argmax(-1)).sum())
    return Row(architecture, check, worst, flipped, len(truth))


def write_folder(folder: Path, architecture: str, **changes: Any) -> dict[str, Any]:
    """The fixture as a checkpoint folder of float32 numbers that bfloat16 holds too; its config.json."""
    raw = {**fixture_config(architecture, **(CHANGES[architecture] | changes)), "dtype": "float32"}
    tensors = {name: tensor.bfloat16().float().contiguous() for name, tensor in fixture_tensors(raw).items()}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(raw))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return raw


CONTEXT = 256  # llama.cpp's own granularity; models whose rotation depends on the length go by it


@contextmanager
def unpermuted() -> Iterator[None]:
    """The bug that this check is for: rows of q and k written in the checkpoint's order."""
    plain = {
        name: gguf_names.Architecture(architecture.name, False, architecture.fused)
        for name, architecture in gguf_names.ARCHITECTURES.items()
    }
    with mock.patch.dict(gguf_names.ARCHITECTURES, plain):
        yield


def our_logits(path: Path, ids: Tensor) -> Tensor:
    """Our float64 logits [T, V], in a context as long as llama.cpp's."""
    model = load_model(path, "float64", "cpu")
    return model(ids, cache=model.new_cache(1, CONTEXT))[0]


def check_architecture(architecture: str, folder: Path, converter: Path | None) -> Iterator[Row]:
    """Every comparison of one architecture; the last one, where there is a permutation, is the bug."""
    ids = near_prompt(write_folder(folder, architecture))
    truth, tokens = our_logits(folder, ids), ids[0].tolist()
    export_gguf(open_source(folder), folder / "ours.gguf", "f32")
    yield compare(architecture, "ours → llama.cpp", truth, llamacpp_logits(folder / "ours.gguf", tokens))
    yield compare(architecture, "ours → ours", truth, our_logits(folder / "ours.gguf", ids))
    if converter is not None:
        yield through_their_converter(architecture, folder.with_name("known"), converter, ids)
    if gguf_names.ARCHITECTURES[architecture].rotates_neighbours:
        with unpermuted():
            export_gguf(open_source(folder), folder / "wrong.gguf", "f32")
        yield compare(architecture, UNPERMUTED, truth, llamacpp_logits(folder / "wrong.gguf", tokens))


def through_their_converter(architecture: str, folder: Path, converter: Path, ids: Tensor) -> Row:
    """What llama.cpp's converter makes of a folder that it understands, run by us."""
    from conformance.engines.adapters.llamacpp import converted

    raw = write_folder(folder, architecture, **CONVERTER_CHANGES.get(architecture, {}))
    truth = our_logits(folder, ids)
    write_vocabulary(folder, raw["vocab_size"])
    return compare(architecture, "theirs → ours", truth, our_logits(converted(converter, folder, folder / "theirs.gguf"), ids))


UNPERMUTED = "unpermuted → llama.cpp"


def main() -> int:
    """Print every comparison; 1 if one that must agree does not, or one that must not does."""
    parser = argparse.ArgumentParser(prog="python -m conformance.truth.peers.llamacpp", description=__doc__.partition("\n")[0])
    parser.add_argument("--architecture", action="append", choices=list(FIXTURES), help="only this one (may be repeated)")
    parser.add_argument("--converter", type=Path, help="llama.cpp's source, where convert_hf_to_gguf.py is")
    options = parser.parse_args()
    wrong = 0
    for architecture in options.architecture or FIXTURES:
        with tempfile.TemporaryDirectory() as folder:
            for row in check_architecture(architecture, Path(folder, "model"), options.converter):
                good = row.agrees != (row.check == UNPERMUTED)
                wrong += not good
                verdict = "ok" if good else "WRONG"
                flipped = f"{row.flipped:2}/{row.positions} flipped"
                print(f"{row.architecture:22} {row.check:24} {row.worst:9.2e} std, {flipped}  {verdict}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""The fixtures as GGUF can hold them: config keys that GGUF has no place for are changed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from safetensors.torch import save_file

from conformance.models.fixtures import fixture_config, fixture_tensors
from nanollama.checkpoint.gguf import names as gguf_names

# Keys that GGUF can't express or llama.cpp's graphs ignore, which assume head_dim = hidden_size / heads for some families.
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

CONVERTER_CHANGES: dict[str, dict[str, Any]] = {  # further keys that llama.cpp's converter ignores without a notice
    "Gemma2ForCausalLM": {"rope_theta": 10000.0},
    "Gemma3ForCausalLM": {"layer_types": None, "num_hidden_layers": 7},
    "GPT2LMHeadModel": {"n_inner": 4 * 96, "n_ctx": 4200},
}


def write_folder(folder: Path, architecture: str, **changes: Any) -> dict[str, Any]:
    """Write the fixture as a checkpoint folder of float32 numbers that bfloat16 holds exactly; returns its config.json."""
    raw = {**fixture_config(architecture, **(CHANGES[architecture] | changes)), "dtype": "float32"}
    tensors = {name: tensor.bfloat16().float().contiguous() for name, tensor in fixture_tensors(raw).items()}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(raw))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return raw


@contextmanager
def unpermuted() -> Iterator[None]:
    """The bug of exporters that forget the permutation: rows of q and k written in the checkpoint's order."""
    plain = {
        name: gguf_names.Architecture(architecture.name, False, architecture.fused)
        for name, architecture in gguf_names.ARCHITECTURES.items()
    }
    with mock.patch.dict(gguf_names.ARCHITECTURES, plain):
        yield

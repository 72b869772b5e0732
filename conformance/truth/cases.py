"""The models that checks run: each family's golden fixture, and variations that cover config keys the goldens leave out.

A case is a checkpoint folder and its truth (`reference.py`). Both are made once per process, without the runtime.
"""

import atexit
import functools
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from conformance.models.fixtures import FIXTURES, SEED, far_prompt, fixture_config, fixture_tensors, near_prompt, write_fixture
from conformance.models.weights import derived_ids
from conformance.truth.reference import Reference, Trace
from conformance.truth.spec import Spec, read_spec
from conformance.truth.stored import module_tensors
from nanollama.lm import load_model
from nanollama.model.transformer import Transformer

LLAMA = "LlamaForCausalLM"
SLIDE, FULL = "sliding_attention", "full_attention"
DYNAMIC = {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 123.0}
YARN = {"rope_type": "yarn", "factor": 6.0, "rope_theta": 4321.0, "original_max_position_embeddings": 64}
LONG = {"rope_type": "longrope", "short_factor": [1.1, 1.7, 2.0, 2.5], "long_factor": [2.3, 9.1, 10.0, 20.0]}
WIDE_RAMP = {"rope_theta": 20.0, "original_max_position_embeddings": 512, "beta_fast": 300.0, "beta_slow": 0.05}
DEEPSEEK = {"beta_fast": 5.0, "beta_slow": 0.5, "truncate": False, "mscale": 0.7, "mscale_all_dim": 1.2}
VARIATIONS: dict[str, tuple[str, dict[str, Any]]] = {  # architecture, and changes of its fixture's config.json
    "llama: plain": (
        LLAMA,
        {"rope_parameters": None, "attention_bias": False, "mlp_bias": False, "num_key_value_heads": 12, "hidden_act": "gelu"},
    ),
    "llama: dynamic": (LLAMA, {"rope_parameters": DYNAMIC, "max_position_embeddings": 16, "tie_word_embeddings": True}),
    "llama: yarn": (LLAMA, {"rope_parameters": {**YARN, **DEEPSEEK}, "num_key_value_heads": 1, "mlp_bias": False}),
    "llama: yarn by default": (LLAMA, {"rope_parameters": YARN, "attention_bias": False, "hidden_act": "relu"}),
    "llama: yarn, sharpness stated": (LLAMA, {"rope_parameters": {**YARN, "attention_factor": 1.3}}),
    "llama: yarn, a ramp beyond both ends": (LLAMA, {"rope_parameters": {**YARN, **WIDE_RAMP}}),
    "llama: yarn, a step": (LLAMA, {"rope_parameters": {**YARN, "beta_fast": 5.0, "beta_slow": 5.0, "truncate": False}}),
    "llama: longrope": (LLAMA, {"rope_parameters": {**LONG, "original_max_position_embeddings": 512, "factor": 7.0}}),
    "llama: layers of two digits": (LLAMA, {"num_hidden_layers": 11, "hidden_size": 24, "intermediate_size": 12}),
    "llama: heads fill the width": (
        LLAMA,
        {"hidden_size": 72, "head_dim": None, "rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.5}},
    ),
    "qwen2: one window layer": ("Qwen2ForCausalLM", {"max_window_layers": 3, "rope_scaling": None, "num_key_value_heads": 6}),
    "qwen3: windows from a layer on": ("Qwen3ForCausalLM", {"layer_types": None, "max_window_layers": 1}),
    "gemma2: no caps": ("Gemma2ForCausalLM", {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
    "gemma3: old spelling": (
        "Gemma3ForCausalLM",
        {
            "rope_parameters": None,
            "layer_types": None,
            "sliding_window_pattern": 2,
            "rope_theta": 54321.0,
            "rope_local_base_freq": 77.0,
            "rope_scaling": {"rope_type": "linear", "factor": 2.0},
            "tie_word_embeddings": False,
            "hidden_activation": "gelu",
        },
    ),
    "phi3: whole heads, window": ("Phi3ForCausalLM", {"rope_scaling": None, "partial_rotary_factor": 1.0, "sliding_window": 5}),
    "olmo2: biases": ("Olmo2ForCausalLM", {"attention_bias": True, "num_key_value_heads": 1}),
    "smollm3: intervals": (
        "SmolLM3ForCausalLM",
        {"layer_types": None, "no_rope_layers": None, "no_rope_layer_interval": 3, "tie_word_embeddings": False},
    ),
    "gpt2: unscaled": ("GPT2LMHeadModel", {"scale_attn_weights": False, "n_inner": None, "tie_word_embeddings": False}),
    "mixtral: three of six": ("MixtralForCausalLM", {"sliding_window": None, "num_experts_per_tok": 3}),
    "qwen3moe: renormalised, every other": (
        "Qwen3MoeForCausalLM",
        {
            "norm_topk_prob": True,
            "mlp_only_layers": None,
            "decoder_sparse_step": 2,
            "use_sliding_window": True,
            "sliding_window": 5,
        },
    ),
}
CASES = (*FIXTURES, *VARIATIONS)


@dataclass(frozen=True)
class Case:
    """A checkpoint and the truth about it."""

    name: str
    raw: dict[str, Any]
    stored: dict[str, Tensor]
    spec: Spec
    truth: Reference
    folder: Path

    def load(self, dtype: str = "float64") -> Transformer:
        """The subject: the runtime's model of this folder, loaded now."""
        return load_model(self.folder, dtype, "cpu")

    def prompt(self, name: str) -> tuple[Tensor, Tensor]:
        """Ids and positions [T] of the "near" or the "far" prompt, as in the goldens."""
        if name == "near":
            ids = near_prompt(self.raw)[0]
            return ids, torch.arange(len(ids))
        ids, positions = far_prompt(self.raw)
        return ids[0], positions[0]

    def long(self, count: int, seed: int = 0) -> Tensor:
        """`count` token ids [count]."""
        return torch.tensor(derived_ids(seed, "cache prompt", count, self.spec.vocab))


@functools.cache
def case(name: str) -> Case:
    """The case of an architecture or a variation."""
    architecture, changes = VARIATIONS.get(name, (name, {}))
    raw = {key: value for key, value in fixture_config(architecture, **changes).items() if value is not None}
    return make_case(name, raw)


def make_case(name: str, raw: dict[str, Any], seed: int = SEED) -> Case:
    """A case of any valid config.json."""
    spec, stored = read_spec(raw), fixture_tensors(raw, seed)
    folder = write_fixture(scratch() / name.replace(":", "").replace(" ", "-"), raw, seed)
    return Case(name, raw, stored, spec, Reference(spec, module_tensors(spec, stored)), folder)


@functools.cache
def truth_of(name: str, prompt: str) -> Trace:
    """Every value of a case's near or far prompt."""
    return case(name).truth.run(*case(name).prompt(prompt))


@functools.cache
def scratch() -> Path:
    """A folder that lives as long as this process."""
    folder, owner = Path(tempfile.mkdtemp(prefix="conformance-")), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # not a forked child
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def workplace() -> Path:
    """A folder for the files of a check; one per process, as forks run the same checks in parallel."""
    folder = scratch() / f"of-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    return folder

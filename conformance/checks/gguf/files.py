"""GGUF files of models by the rules of llama.cpp's converter (conversion/*.py, gguf-py/gguf/constants.py), without the
runtime's writer: names, metadata, the order of rotary rows, stacked experts, fused rows, norms plus one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from conformance.fuzz.valid_gguf import ARRAY, STRING, Model, Pair, model_bytes
from conformance.fuzz.valid_gguf import Tensor as Stored
from conformance.truth.rotation import frequencies
from conformance.truth.spec import Spec

UINT32, FLOAT32, BOOL = 4, 6, 7
KINDS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 30}
ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MixtralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3moe",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3",
    "Phi3ForCausalLM": "phi3",
    "Olmo2ForCausalLM": "olmo2",
    "SmolLM3ForCausalLM": "smollm3",
    "GPT2LMHeadModel": "gpt2",
}
NEIGHBOURS = ("llama", "smollm3")  # ggml rotates rows 2j and 2j+1 there
OUTSIDE = {"embed_tokens": "token_embd", "embed_positions": "position_embd", "norm": "output_norm", "lm_head": "output"}
PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "input_layernorm": "attn_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
FUSED: dict[str, dict[str, tuple[str, ...]]] = {  # by architecture: the stored tensor and its parts, concatenated
    "phi3": {"attn_qkv": ("q_proj", "k_proj", "v_proj"), "ffn_up": ("gate_proj", "up_proj")},
    "gpt2": {"attn_qkv": ("q_proj", "k_proj", "v_proj")},
}


def neighbours(rows: Tensor, heads: int) -> Tensor:
    """Rows (j, j + D/2) of each head as rows (2j, 2j + 1)."""
    D = len(rows) // heads
    order = [head * D + pair + half * (D // 2) for head in range(heads) for pair in range(D // 2) for half in range(2)]
    return rows[order]


def stored_name(spec: Spec, name: str) -> str:
    """A module's parameter as llama.cpp calls it."""
    module, _, kind = name.rpartition(".")
    if not module.startswith("layers."):
        return f"{OUTSIDE[module]}.{kind}"
    _, layer, part = module.split(".", 2)
    after = "ffn_norm" if spec.placement == "pre" else "post_attention_norm"
    return f"blk.{layer}.{PARTS.get(part, after)}.{kind}"


def numbers_of(spec: Spec, name: str, tensor: Tensor) -> Tensor:
    """The tensor with its numbers as the converter stores them."""
    heads = {"q_proj": spec.heads, "k_proj": spec.kv_heads}.get(name.split(".")[-2])
    if heads and ARCHITECTURES[spec.architecture] in NEIGHBOURS:
        return neighbours(tensor, heads)
    plus_one = spec.norm == "rms_plus_one" and name.endswith("norm.weight")
    return tensor + 1 if plus_one else tensor


def gathered(spec: Spec, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file: experts stacked, fused rows concatenated, a tied head left out."""
    found: dict[str, list[Tensor]] = {}
    fused = FUSED.get(ARCHITECTURES[spec.architecture], {})
    for name, tensor in ours.items():
        if name == "lm_head.weight" and spec.tied:
            continue
        module, kind = name.split(".")[-2:]
        whole = next((stored for stored, parts in fused.items() if module in parts), None)
        target = f"blk.{name.split('.')[1]}.{whole}.{kind}" if whole else ""
        if ".experts." in name:
            target = f"blk.{name.split('.')[1]}.ffn_{module.removesuffix('_proj')}_exps.{kind}"
        found.setdefault(target or stored_name(spec, name), []).append(numbers_of(spec, name, tensor))
    return {name: torch.stack(parts) if "_exps" in name else torch.cat(parts) for name, parts in found.items()}


def metadata(spec: Spec) -> dict[str, Any]:
    """The metadata of the model; floats are stored as float32."""
    norm = "layer_norm_epsilon" if spec.norm == "layer" else "layer_norm_rms_epsilon"
    values: dict[str, Any] = {
        "vocab_size": spec.vocab,
        "context_length": spec.max_length,
        "embedding_length": spec.hidden,
        "block_count": spec.layers,
        "feed_forward_length": spec.width,
        "attention.head_count": spec.heads,
        "attention.head_count_kv": spec.kv_heads,
        f"attention.{norm}": spec.eps,
    }
    if not spec.learned_positions:
        values |= {"attention.key_length": spec.head_dim, "attention.value_length": spec.head_dim}
    values |= {"expert_count": spec.experts, "expert_used_count": spec.chosen} if spec.experts else {}
    values |= {"expert_feed_forward_length": spec.expert_width} if spec.architecture.startswith("Qwen3Moe") else {}
    values |= {"attn_logit_softcapping": spec.attention_cap} if spec.attention_cap else {}
    values |= {"final_logit_softcapping": spec.logit_cap} if spec.logit_cap else {}
    if spec.architecture.startswith("Gemma"):
        values["attention.sliding_window"] = max(window or 0 for window in spec.windows)
    if spec.architecture.startswith("Gemma3"):
        values["attention.sliding_window_pattern"] = [window is not None for window in spec.windows]
    return values | rotary(spec)


def rotary(spec: Spec) -> dict[str, Any]:
    """The keys of the rotation."""
    ropes = [(rope, window) for rope, window in zip(spec.ropes, spec.windows, strict=True) if rope]
    if not ropes:
        return {}
    rope = next((rope for rope, window in ropes if window is None), ropes[0][0])
    values: dict[str, Any] = {"rope.freq_base": rope.theta, "rope.dimension_count": rope.dim}
    if spec.architecture.startswith("Gemma3"):
        values["rope.freq_base_swa"] = next(rope.theta for rope, window in ropes if window is not None)
    if rope.kind in ("linear", "yarn"):
        values |= {"rope.scaling.type": rope.kind, "rope.scaling.factor": float(rope.scaling["factor"])}
    if rope.kind in ("yarn", "longrope"):
        values["rope.scaling.original_context_length"] = rope.original
    if rope.kind == "longrope":
        values |= {"rope.scaling.type": "longrope", "rope.scaling.attn_factor": rope.sharpness}
    return values


def factors(spec: Spec) -> dict[str, Tensor]:
    """Divisors of the frequencies, if the file stores one for each."""
    rope = next((rope for rope in spec.ropes if rope), None)
    if rope is None or rope.kind not in ("longrope", "llama3"):
        return {}
    if rope.kind == "longrope":
        return {f"rope_factors_{kind}.weight": torch.tensor(rope.scaling[f"{kind}_factor"]) for kind in ("long", "short")}
    plain = [rope.theta ** (-2 * j / rope.dim) for j in range(rope.dim // 2)]
    return {"rope_freqs.weight": torch.tensor([p / f for p, f in zip(plain, frequencies(rope, 0), strict=True)])}


def pair(key: str, value: Any) -> Pair:
    """A key with the type that the converter gives it."""
    if isinstance(value, str):
        return Pair(key.encode(), STRING, value.encode())
    if isinstance(value, list):
        return Pair(key.encode(), ARRAY, (BOOL, value))
    return Pair(key.encode(), FLOAT32 if isinstance(value, float) else UINT32, value)


def plain_tensor(name: str, tensor: Tensor, dtype: torch.dtype) -> Stored:
    """Unquantized numbers; vectors always in float32."""
    kept = tensor.to(torch.float32 if tensor.ndim == 1 else dtype).contiguous()
    data = kept.view(torch.uint8).numpy().tobytes()
    return Stored(name.encode(), list(tensor.shape)[::-1], KINDS[kept.dtype], data)


def write_gguf(path: Path, spec: Spec, tensors: list[Stored], extra: Mapping[str, Any] | None = None) -> Path:
    """The file."""
    name = ARCHITECTURES[spec.architecture]
    keys: dict[str, Any] = {
        "general.architecture": name,
        **{f"{name}.{key}": value for key, value in metadata(spec).items()},
        **(extra or {}),
    }
    stored = [plain_tensor(key, value, torch.float32) for key, value in factors(spec).items()]
    path.write_bytes(model_bytes(Model(3, 32, [pair(key, value) for key, value in keys.items()], stored + tensors)))
    return path


def as_read(spec: Spec, name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A number after rounding by the file, float64."""
    dtype = torch.float32 if tensor.ndim == 1 else dtype
    if spec.norm == "rms_plus_one" and name.endswith("norm.weight"):
        return (tensor + 1).to(dtype).double() - 1
    return tensor.to(dtype).double()

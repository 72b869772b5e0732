"""Tensors of a GGUF file as parameters of `Transformer`, and back: other names, rotary rows in another order, experts stacked.

llama.cpp's converter (conversion/*.py of github.com/ggml-org/llama.cpp) changes a checkpoint as follows; this module undoes it:

* *Rotary rows.* Where ggml rotates neighbours (architectures `llama` and `smollm3`), the rows of q_proj and k_proj are stored
  in that order: pair j of a head in rows 2j and 2j + 1, and not in j and j + D/2 as in a checkpoint. q has as many heads as
  there are query heads, k as key/value heads. Forgetting this gives logits that are right at position 0 and wrong after it.
* *Experts.* The matrices of all experts of a layer are one tensor [experts, out, in].
* *Fused rows.* q, k and v (`attn_qkv`) are one matrix in `phi3` and `gpt2`, gate and up are one in `phi3`.
* *Norms.* Gemma's weight is stored plus one, as it is applied.
* A tied head is left out. GPT-2's matrices are [out, in], as those of all other models.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nanollama.checkpoint.names import Weight, part_rows
from nanollama.errors import NanollamaError
from nanollama.model.config import ModelConfig
from nanollama.quant.quant_tensor import QuantTensor

QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
NAMES = {  # outside and inside of layers; for norms see NORMS
    "token_embd": "embed_tokens",
    "position_embd": "embed_positions",
    "output_norm": "norm",
    "output": "lm_head",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
}
NORMS = {  # by `placement`
    "pre": {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"},
    "post": {"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"},
    "sandwich": {
        "attn_norm": "input_layernorm",
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}
EXPERTS = {"ffn_gate_exps": "gate_proj", "ffn_up_exps": "up_proj", "ffn_down_exps": "down_proj"}
ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")  # read with the config


@dataclass(frozen=True)
class Architecture:
    """How llama.cpp stores one family. `fused`: stored tensor → the parameters whose rows it joins."""

    name: str  # general.architecture
    rotates_neighbours: bool = False
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


ARCHITECTURES = {
    "LlamaForCausalLM": Architecture("llama", rotates_neighbours=True),
    "MistralForCausalLM": Architecture("llama", rotates_neighbours=True),
    "MixtralForCausalLM": Architecture("llama", rotates_neighbours=True),
    "Qwen2ForCausalLM": Architecture("qwen2"),
    "Qwen3ForCausalLM": Architecture("qwen3"),
    "Qwen3MoeForCausalLM": Architecture("qwen3moe"),
    "Gemma2ForCausalLM": Architecture("gemma2"),
    "Gemma3ForCausalLM": Architecture("gemma3"),
    "Phi3ForCausalLM": Architecture("phi3", fused={"attn_qkv": QKV, "ffn_up": ("mlp.gate_proj", "mlp.up_proj")}),
    "Olmo2ForCausalLM": Architecture("olmo2"),
    "SmolLM3ForCausalLM": Architecture("smollm3", rotates_neighbours=True),
    "GPT2LMHeadModel": Architecture("gpt2", fused={"attn_qkv": QKV}),
}


def tensors_from_gguf(config: ModelConfig, stored: Mapping[str, Weight]) -> dict[str, Weight]:
    """The tensors of a GGUF file (experts flattened to [experts · out, in]) under the runtime's names; views where possible."""
    ours: dict[str, Weight] = {}
    for name, tensor in stored.items():
        if name in ROPE_TENSORS:
            continue
        for part, piece in take_apart(config, name, tensor):
            if part in ours:
                raise NanollamaError(f"the file stores {part} twice (the second time as {name}); convert the model again")
            ours[part] = from_gguf(config, part, piece)
    return ours


def take_apart(config: ModelConfig, name: str, tensor: Weight) -> Iterator[tuple[str, Weight]]:
    """Yields the parameters of one stored tensor, by name: one, or several for fused and stacked tensors."""
    prefix, stem, kind = split_name(name)
    fused = {"attn_qkv": QKV, **ARCHITECTURES[config.architecture].fused}
    if stem in EXPERTS and prefix:
        parts = [f"mlp.experts.{expert}.{EXPERTS[stem]}" for expert in range(min(config.num_experts, tensor.shape[0]))]
    elif stem in fused and prefix:
        parts = list(fused[stem])
    else:
        yield f"{prefix}{our_name(config, name, stem)}.{kind}", tensor
        return
    counts = [part_rows(config, part) for part in parts]
    if tensor.shape[0] != sum(counts):
        raise NanollamaError(f"{name} has {tensor.shape[0]} rows; expected {sum(counts)} by the metadata: the file is damaged")
    start = 0
    for part, count in zip(parts, counts, strict=True):
        rows = slice(start, start + count)
        yield f"{prefix}{part}.{kind}", tensor.pick(rows) if isinstance(tensor, QuantTensor) else tensor[rows]
        start += count


def split_name(name: str) -> tuple[str, str, str]:
    """ "blk.3.attn_q.weight" → ("layers.3.", "attn_q", "weight"); outside layers the first part is empty."""
    stem, _, kind = name.rpartition(".")
    if not stem.startswith("blk."):
        return "", stem, kind
    _, layer, stem = [*stem.split(".", 2), ""][:3]
    return f"layers.{layer}.", stem, kind


def our_name(config: ModelConfig, name: str, stem: str) -> str:
    """The module of a tensor, without the prefix of its layer."""
    known = {**NAMES, **NORMS[config.placement]}
    if stem not in known:
        raise NanollamaError(
            f"tensor {name!r} is not one that {config.architecture} has here; it would be ignored. The file was made by a "
            "newer converter, or has an older layout: convert the model again"
        )
    return known[stem]


def from_gguf(config: ModelConfig, name: str, tensor: Weight) -> Weight:
    """The numbers of one stored tensor as the runtime has them: rotary rows in halves, norms without the plus one."""
    if is_rotary(config, name):
        return reorder(tensor, halves_order(rotary_heads(config, name), config.head_dim))
    if stores_plus_one(config, name):
        return as_tensor(tensor).double() - 1
    return tensor


def to_gguf(config: ModelConfig, name: str, tensor: Weight) -> Weight:
    """The inverse of `from_gguf`."""
    if is_rotary(config, name):
        return reorder(tensor, neighbours_order(rotary_heads(config, name), config.head_dim))
    if stores_plus_one(config, name):
        return as_tensor(tensor).double() + 1
    return tensor


def is_rotary(config: ModelConfig, name: str) -> bool:
    """Whether a tensor has rows of rotated heads that are stored in another order."""
    module = name.rpartition(".")[0]
    return ARCHITECTURES[config.architecture].rotates_neighbours and module.endswith(("q_proj", "k_proj"))


def rotary_heads(config: ModelConfig, name: str) -> int:
    """The number of heads of q_proj or k_proj."""
    return config.num_attention_heads if "q_proj" in name else config.num_key_value_heads


def stores_plus_one(config: ModelConfig, name: str) -> bool:
    """Whether a tensor is a norm's weight that is stored plus one."""
    return config.norm == "rms_plus_one" and name.endswith("norm.weight")


def halves_order(heads: int, head_dim: int) -> Tensor:
    """The place in the file of each row of a checkpoint's q_proj or k_proj, int64 [heads · head_dim].

    For one head of 4: rows 0 1 2 3 (pairs 0-2 and 1-3) are at 0 2 1 3 (pairs 0-1 and 2-3).
    """
    return torch.arange(heads * head_dim).view(heads, head_dim // 2, 2).transpose(1, 2).reshape(-1)


def neighbours_order(heads: int, head_dim: int) -> Tensor:
    """The inverse: the checkpoint's row at each place of the file, int64 [heads · head_dim]."""
    return torch.arange(heads * head_dim).view(heads, 2, head_dim // 2).transpose(1, 2).reshape(-1)


def reorder(tensor: Weight, order: Tensor) -> Weight:
    """The rows of a tensor in another order: row i of the result is row order[i]. Quantized rows are not moved in memory."""
    if tensor.shape[0] != len(order):
        raise NanollamaError(f"q_proj or k_proj has {tensor.shape[0]} rows; expected {len(order)} by the metadata")
    if isinstance(tensor, Tensor):
        return tensor[order]
    return replace(tensor, order=order if tensor.order is None else tensor.order[order])


def as_tensor(tensor: Weight) -> Tensor:
    """The tensor, decoded to float64 if it is quantized."""
    return tensor.dequantize(torch.float64) if isinstance(tensor, QuantTensor) else tensor


def gguf_names(config: ModelConfig, ours: Iterable[str]) -> dict[str, list[str]]:
    """GGUF tensor → the parameters whose rows it joins, in the order of `ours`; without a tied head."""
    names: dict[str, list[str]] = {}
    for name in ours:
        if name != "lm_head.weight" or not config.tie_word_embeddings:
            stored, parts = stored_name(config, name)
            names.setdefault(stored, parts)
    return names


def stored_name(config: ModelConfig, name: str) -> tuple[str, list[str]]:
    """The GGUF tensor that holds a parameter, and all parameters that it holds."""
    module, _, kind = name.rpartition(".")
    _, layer, stem = [*module.split(".", 2), "", ""][:3] if module.startswith("layers.") else ("", "", module)
    prefix, theirs = (f"layers.{layer}.", f"blk.{layer}.") if layer else ("", "")
    if ".experts." in name:
        matrix = module.rpartition(".")[2]
        stacked = next(key for key, value in EXPERTS.items() if value == matrix)
        return f"{theirs}{stacked}.{kind}", [
            f"{prefix}mlp.experts.{expert}.{matrix}.{kind}" for expert in range(config.num_experts)
        ]
    for fused, parts in ARCHITECTURES[config.architecture].fused.items():
        if stem in parts:
            return f"{theirs}{fused}.{kind}", [f"{prefix}{part}.{kind}" for part in parts]
    back = {value: key for key, value in {**NAMES, **NORMS[config.placement]}.items()}
    return f"{theirs}{back[stem]}.{kind}", [name]

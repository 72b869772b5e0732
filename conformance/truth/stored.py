"""The tensors of a checkpoint folder by the runtime's module names, independent of the runtime."""

from collections.abc import Mapping

import torch
from torch import Tensor

from conformance.truth.spec import Spec

MIXTRAL = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
GPT2_LAYER = {
    "ln_1": "input_layernorm",
    "ln_2": "post_attention_layernorm",
    "attn.c_proj": "self_attn.o_proj",
    "mlp.c_fc": "mlp.up_proj",
    "mlp.c_proj": "mlp.down_proj",
}
GPT2_OUTSIDE = {"wte": "embed_tokens", "wpe": "embed_positions", "ln_f": "norm"}


def module_tensors(spec: Spec, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of the checkpoint → names of modules; fused matrices split, GPT-2's transposed, a tied head added."""
    ours: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        ours |= gpt2_tensors(spec, name, tensor) if spec.learned_positions else llama_tensors(spec, name, tensor)
    if spec.tied:
        ours["lm_head.weight"] = ours["embed_tokens.weight"]
    return ours


def llama_tensors(spec: Spec, name: str, tensor: Tensor) -> dict[str, Tensor]:
    """One tensor of a family with Llama's names."""
    parts = name.removeprefix("model.").split(".")
    if "qkv_proj" in parts:
        q, kv = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        pieces = {"q_proj": tensor[:q], "k_proj": tensor[q : q + kv], "v_proj": tensor[q + kv :]}
    elif "gate_up_proj" in parts:
        pieces = {"gate_proj": tensor[: spec.width], "up_proj": tensor[spec.width :]}
    elif "block_sparse_moe" in parts:
        parts = [MIXTRAL.get(part, part) for part in parts]
        parts[parts.index("block_sparse_moe")] = "mlp"
        return {".".join(parts): tensor}
    else:
        return {".".join(parts): tensor}
    return {".".join([*parts[:-2], piece, parts[-1]]): rows for piece, rows in pieces.items()}


def gpt2_tensors(spec: Spec, name: str, tensor: Tensor) -> dict[str, Tensor]:
    """One tensor of GPT-2, whose matrices are [in, out]."""
    name = name.removeprefix("transformer.")
    if not name.startswith("h."):
        module, kind = name.rsplit(".", 1)
        return {f"{GPT2_OUTSIDE.get(module, module)}.{kind}": tensor}
    _, layer, rest = name.split(".", 2)
    module, kind = rest.rsplit(".", 1)
    tensor = tensor.T if tensor.ndim == 2 else tensor
    if module == "attn.c_attn":
        pieces = dict(zip("qkv", torch.tensor_split(tensor, 3), strict=True))
        return {f"layers.{layer}.self_attn.{part}_proj.{kind}": rows for part, rows in pieces.items()}
    return {f"layers.{layer}.{GPT2_LAYER[module]}.{kind}": tensor}

"""Stored tensors of a checkpoint as parameters of `Transformer`: renamed, split, transposed; nothing is copied.

Strict: a tensor that is missing, left over, of another shape or stored twice is an error. (A model that keeps random numbers
for missing tensors still produces text, and the text is wrong.)
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from nanollama.errors import NanollamaError
from nanollama.model.config import ModelConfig
from nanollama.model.families import Family
from nanollama.quant.quant_tensor import QuantTensor

NAME = re.compile(r"(layers\.\d+\.)?(.+)\.(weight|bias)")  # the runtime's names: layer, module, parameter
Weight = Tensor | QuantTensor  # QuantTensor: rows of blocks as they are stored

# Buffers in old files that every runtime computes itself: causal masks (GPT-2) and rotary frequencies (Llama 1).
STORED_BUFFERS = re.compile(r"(^|\.)(attn\.(bias|masked_bias)|rotary_emb\.inv_freq)$")


def runtime_tensors(config: ModelConfig, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors under the runtime's names, as views of the stored ones."""
    ours: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if STORED_BUFFERS.search(name):
            continue
        for part, piece in split(config, rename(config.family, name), tensor):
            if part in ours:
                raise NanollamaError(f"the checkpoint stores {part} twice (the second time as {name}); remove one of them")
            ours[part] = piece
    check_counts(config, ours)
    return ours


def check_counts(config: ModelConfig, tensors: Mapping[str, Weight]) -> None:
    """Raise if config.json asks for more layers and experts than there are tensors, before such a model is built."""
    needed = sum(config.num_experts if is_moe else 1 for is_moe in config.moe_layers)
    if needed > len(tensors):
        experts = f" with {config.num_experts} experts" if config.num_experts else ""
        raise NanollamaError(
            f"config.json makes it {config.num_hidden_layers} layers{experts}, at least {needed} tensors, but the checkpoint "
            f"has {len(tensors)}; the config belongs to another checkpoint, or files are missing"
        )


def rename(family: Family, name: str) -> str:
    """The runtime's name of a stored tensor: rules that begin with a dot apply anywhere, the others to the beginning."""
    for old, new in family.renames:
        if old.startswith("."):
            name = name.replace(old, new)
        elif name.startswith(old):
            name = new + name.removeprefix(old)
    return name


def original_name(family: Family, name: str) -> str:
    """The inverse of `rename`: the stored name of a parameter. Special rules come before general ones."""
    prefix = ""
    for old, new in family.renames:
        if not new:
            prefix = old
        elif new.startswith("."):
            name = name.replace(new, old)
        elif name.startswith(new):
            name = old + name.removeprefix(new)
    return name if name.startswith("lm_head.") else prefix + name


def checkpoint_names(config: ModelConfig, ours: Iterable[str]) -> dict[str, list[str]]:
    """The inverse of `runtime_tensors` for names: stored name → the parameters that the tensor joins."""
    fused = {part: (whole, parts) for whole, parts in (config.family.fused or {}).items() for part in parts}
    names: dict[str, list[str]] = {}
    for name in ours:
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        layer, stem, kind = NAME.fullmatch(name).groups("")  # type: ignore[union-attr]
        whole, parts = fused.get(stem, (stem, (stem,)))
        names.setdefault(original_name(config.family, f"{layer}{whole}.{kind}"), [f"{layer}{part}.{kind}" for part in parts])
    return names


def checkpoint_tensor(config: ModelConfig, parts: Sequence[str], pieces: Sequence[Tensor]) -> Tensor:
    """One stored tensor, joined from parameters and transposed if the checkpoint stores it so."""
    tensor = pieces[0] if len(pieces) == 1 else torch.cat(list(pieces))
    turned = config.family.transposed and parts[0].startswith("layers.") and tensor.ndim == 2
    return tensor.T if turned else tensor


def split(config: ModelConfig, name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """Split a fused tensor along its rows, after transposing GPT-2's [in, out] matrices; others stay whole."""
    if config.family.transposed and name.startswith("layers.") and tensor.ndim == 2:
        tensor = tensor.T
    for fused, parts in (config.family.fused or {}).items():
        if f".{fused}." in name:
            rows = [part_rows(config, part) for part in parts]
            if tensor.ndim == 0 or len(tensor) != sum(rows):
                raise NanollamaError(
                    f"{name} has shape {list(tensor.shape)}; config.json makes it {' + '.join(map(str, rows))} rows "
                    f"({', '.join(p.rsplit('.')[-1] for p in parts)}). The config belongs to another checkpoint"
                )
            pieces = tensor.split(rows)
            return [(name.replace(fused, part), piece) for part, piece in zip(parts, pieces, strict=True)]
    return [(name, tensor)]


def part_rows(config: ModelConfig, part: str) -> int:
    """Rows (output size) of one part of a fused matrix, or of one expert's matrix."""
    if not part.startswith("mlp."):
        heads = config.num_attention_heads if part.endswith("q_proj") else config.num_key_value_heads
        return heads * config.head_dim
    if part.endswith("down_proj"):
        return config.hidden_size
    return config.moe_intermediate_size if ".experts." in part else config.intermediate_size


def check_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Weight]) -> None:
    """Raise unless both hold the same names with the same shapes and every tensor is of a floating-point dtype."""
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if missing or extra:
        raise NanollamaError(
            f"the checkpoint does not fit config.json: {len(missing)} tensors missing{some(missing)}, "
            f"{len(extra)} not of this model{some(extra)}. Check that both files are of the same model and complete"
        )
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            raise NanollamaError(
                f"{name} has shape {list(tensor.shape)}, but config.json makes it {list(expected[name].shape)}; "
                "the config belongs to another checkpoint"
            )
        if isinstance(tensor, Tensor) and (not tensor.is_floating_point() or tensor.element_size() == 1):
            raise NanollamaError(
                f"{name} is stored as {str(tensor.dtype).removeprefix('torch.')}; expected float64, float32, bfloat16 or "
                "float16. Quantized safetensors are not supported"
            )


def some(names: list[str]) -> str:
    """The first three names of a list in brackets; "" for an empty list."""
    return f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""


def share_tied_head(config: ModelConfig, tensors: dict[str, Weight]) -> None:
    """Let a tied head be the embedding, one tensor; a file that stores both must store the same numbers."""
    embedding = tensors.get("embed_tokens.weight")
    if not config.tie_word_embeddings or embedding is None:
        return
    head = tensors.get("lm_head.weight")
    if (
        isinstance(head, Tensor)
        and isinstance(embedding, Tensor)
        and (head.shape != embedding.shape or not torch.equal(head, embedding))
    ):
        raise NanollamaError(
            "config.json says tie_word_embeddings, but the checkpoint stores an lm_head.weight that differs from the "
            "embedding; set tie_word_embeddings to false if the head has weights of its own"
        )
    tensors["lm_head.weight"] = embedding

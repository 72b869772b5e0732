"""The format of each tensor of a model in a file type of llama.cpp, such as q4_k_m.

A file type has one main format. Small or sensitive tensors are kept as they are; the head, and in the K mixes attn_v and
ffn_down of some layers, get more bits. The decisions are those of llama.cpp's `llama_tensor_get_type` (src/llama-quant.cpp,
without an importance matrix), tensor by tensor; only what it decides for glm5-next and bailingmoe3 alone is missing.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nanollama.quant.file_types import FILE_TYPES, find_file_type
from nanollama.quant.formats.format import Format
from nanollama.quant.formats.table import FORMATS

# Tensors with one of these in their name are kept: norms, routers, positions, and small tensors of rare architectures.
KEPT = (
    *("_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj"),
    *("ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight", "attn_rel_b.weight"),
    *(f"time_mix_{part}.weight" for part in ("first", "w0", "w1", "w2", "v0", "v1", "v2", "a0", "a1", "a2", "g1", "g2")),
    *("time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight"),
    *(".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd", ".patch_merger"),
    *("a.rvq.codebook", "mm.a.code_embd"),
)
KEPT_NAMES = ("position_embd.weight", "token_types.weight")
EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")

# The kind of a tensor is the first of these that its name contains.
VALUES = ("attn_qkv.weight", "attn_kv_b.weight", "attn_v.weight")
PARTS = (*VALUES, "attn_k.weight", "attn_q.weight", "attn_output.weight", "ffn_up", "ffn_gate", "ffn_down")

# The format for rows that are not whole blocks of 256: blocks of 32; F16 for rows that are not whole blocks of 32 either.
FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "TQ1_0": "Q4_0", "TQ2_0": "Q4_0"}
LAYERS_OF_70B = {"llama": 80, "qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68}  # llama: if key/value heads are fewer


class Traits(NamedTuple):
    """The properties of a model that its mix depends on."""

    architecture: str
    layers: int
    experts: int
    is_70b: bool
    is_tied: bool  # the embedding is the head too
    values: int  # how many tensors are value projections


def choose_formats(
    file_type: str, shapes: Mapping[str, Sequence[int]], metadata: Mapping[str, Any]
) -> dict[str, Format | None]:
    """The format of each tensor, by name, in a file of this type; None: the tensor is kept as it is.

    shapes: row-major, of all tensors of the model. metadata: as in a GGUF file; architecture, block_count, expert_count and
    attention.head_count(_kv) matter.
    """
    main, traits = find_file_type(file_type).main, model_traits(shapes, metadata)
    numbers = numbered(shapes)
    chosen: dict[str, Format | None] = {}
    for name, shape in shapes.items():
        if not is_quantized(name, shape):
            chosen[name] = None
        elif FORMATS[main].block_size == 1:
            chosen[name] = FORMATS[main]
        else:
            chosen[name] = fitting(wanted(name, shape, numbers.get(name, 0), file_type, traits), shape[-1])
    return chosen


def numbered(shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The number of each value projection and of each ffn_down among its kind, from 0, in llama.cpp's order of tensors."""
    order = sorted(
        filter(lambda name: is_quantized(name, shapes[name]), shapes), key=lambda name: (layer_of(name), name.encode())
    )
    kinds = [[name for name in order if part_of(name) in parts] for parts in (VALUES, ("ffn_down",))]
    return {name: number for kind in kinds for number, name in enumerate(kind)}


def is_quantized(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor is quantized: a matrix of weights, or a stack of them, that is not kept."""
    matrix = len(shape) > 1 and max(shape[:-1]) > 1
    return matrix and name.endswith("weight") and name not in KEPT_NAMES and not any(part in name for part in KEPT)


def model_traits(names: Mapping[str, Any], metadata: Mapping[str, Any]) -> Traits:
    """The traits of a model, from its metadata; without a block_count, layers are counted by name."""
    architecture = str(metadata.get("general.architecture"))

    def number(key: str) -> int:
        value = metadata.get(f"{architecture}.{key}")
        return value if isinstance(value, int) else 0

    layers = number("block_count") or 1 + max(map(layer_of, names), default=-1)
    is_70b = layers == LAYERS_OF_70B.get(architecture)
    if architecture == "llama":
        heads = number("attention.head_count")
        is_70b = is_70b and heads != (number("attention.head_count_kv") or heads)
    values = sum(part_of(name) in VALUES for name in names)
    return Traits(architecture, layers, number("expert_count"), is_70b, "output.weight" not in names, values)


def layer_of(name: str) -> int:
    """The layer number in a name such as "blk.7.attn_q.weight"; -1 outside of layers."""
    match = re.match(r"blk\.([0-9]{1,9})\.", name)
    return int(match[1]) if match else -1


def part_of(name: str) -> str | None:
    return next((part for part in PARTS if part in name), None)


def wanted(name: str, shape: Sequence[int], number: int, file_type: str, traits: Traits) -> str:
    """The format of a tensor whose rows are whole blocks of it; `number` is from `numbered`."""
    main = FILE_TYPES[file_type].main
    if name == "output.weight" or (traits.is_tied and name in EMBEDDINGS):
        is_eight = file_type in ("q8_0", "mxfp4_moe") or traits.architecture == "falcon"
        return "Q8_0" if is_eight or shape[-1] % FORMATS[main].block_size else "Q6_K"
    if file_type == "mxfp4_moe":
        return "MXFP4" if len(shape) > 2 and shape[-3] > 1 else "Q8_0"
    if name in EMBEDDINGS:
        return "Q4_K" if main.startswith("TQ") else main
    part = part_of(name)
    if part in VALUES:
        return wanted_for_values(number, file_type, traits)
    if part == "ffn_down":
        layer = layer_of(name) if traits.experts > 1 and layer_of(name) >= 0 else number
        return wanted_for_ffn_down(layer, file_type, traits)
    if traits.experts == 8 and part == "attn_k.weight":
        return "Q8_0"
    if traits.experts == 8 and part == "attn_output.weight" and main == "Q4_K" and traits.architecture != "falcon":
        return "Q5_K"
    return main


def wanted_for_values(number: int, file_type: str, traits: Traits) -> str:
    """The format of attn_v, or attn_qkv if fused: small and sensitive."""
    if traits.experts == 8:
        return "Q8_0"
    if file_type in ("q4_k_m", "q5_k_m") and has_more_bits(number, traits.values):
        return "Q6_K"
    if (file_type == "q4_k_s" and number < 4) or (FILE_TYPES[file_type].main == "Q4_K" and traits.is_70b):
        return "Q5_K"
    return FILE_TYPES[file_type].main


def wanted_for_ffn_down(layer: int, file_type: str, traits: Traits) -> str:
    """The format of the MLP's down projection: some layers get more bits. Falcon has another rule for q4_k_m."""
    more = has_more_bits(layer, traits.layers)
    if file_type == "q4_k_m" and traits.architecture == "falcon":
        return "Q6_K" if layer < traits.layers // 16 else "Q5_K" if more else "Q4_K"
    if file_type in ("q4_k_m", "q5_k_m") and more:
        return "Q6_K"
    if file_type == "q4_k_s" and traits.architecture != "falcon" and layer < traits.layers // 8:
        return "Q5_K"
    return FILE_TYPES[file_type].main


def has_more_bits(layer: int, layers: int) -> bool:
    """Whether this is one of the first or last eighth of the layers, or every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def fitting(name: str, columns: int) -> Format:
    """The format for rows of `columns` values: this one, or its fallback."""
    if columns % FORMATS[name].block_size:
        name = FALLBACK.get(name, name)
    return FORMATS[name if columns % FORMATS[name].block_size == 0 else "F16"]

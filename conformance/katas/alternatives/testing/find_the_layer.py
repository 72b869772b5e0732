"""Other right ways to repair the checkpoint."""

from collections.abc import Mapping

from torch import Tensor


def even_then_odd(tensors: Mapping[str, Tensor], head_dim: int) -> dict[str, Tensor]:
    """of each head the even rows, then the odd ones"""
    mended = dict(tensors)
    wrong = mended["model.layers.1.self_attn.k_proj.weight"]
    order = sorted(range(len(wrong)), key=lambda row: (row // head_dim, row % 2, row))
    mended["model.layers.1.self_attn.k_proj.weight"] = wrong[order]
    return mended


def by_index(tensors: Mapping[str, Tensor], head_dim: int) -> dict[str, Tensor]:
    """where each row comes from, row by row"""
    name = "model.layers.1.self_attn.k_proj.weight"
    half = head_dim // 2
    order = []
    for row in range(tensors[name].shape[0]):
        head, place = divmod(row, head_dim)
        order.append(head * head_dim + (2 * place if place < half else 2 * (place - half) + 1))
    return dict(tensors) | {name: tensors[name][order]}

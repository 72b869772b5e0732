"""Quantize the matrices of a loaded model to `q8` and `q4` (formats/rowwise.py):

matrices of attention, MLP and experts        q8 or q4, as asked
token embedding and head                      q8 in both cases: every token uses them, and q4 costs more accuracy than it saves
norms, biases, routers, learned positions     unchanged: they are small, and every output depends on them
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nanollama.errors import NanollamaError
from nanollama.quant.formats.rowwise import GROUP, rowwise_format
from nanollama.quant.formats.tensor import decode_rows, quantize, tiles
from nanollama.quant.modules import Stored, use_quantized
from nanollama.quant.quant_tensor import QuantTensor

KEPT = ("gate", "embed_positions")  # routers of experts ("layers.0.mlp.gate") and learned positions


class Change(NamedTuple):
    """One quantized matrix, before and after; sizes in bytes."""

    name: str  # of the module: "layers.0.self_attn.q_proj"
    shape: tuple[int, int]
    format: str
    error: float  # |decoded - original| / |original|, Euclidean norms; for random inputs also the error of the output
    bytes_before: int
    bytes_after: int


@torch.no_grad()
def quantize_model(model: nn.Module, name: str) -> list[Change]:
    """Replace a model's matrices by q8 or q4 ones, in place, one after the other; return a Change for each.

    A head that shares the embedding's weights keeps sharing them and has no Change. Raises NanollamaError for an unknown
    name, a model that is quantized already, and weights that are not finite or too large for q4's float16 scales.
    """
    rowwise_format(name, GROUP)  # an unknown name is refused before anything changes
    if stored := next((module for module in model.modules() if isinstance(module, Stored)), None):
        raise NanollamaError(
            f"the model's weights are stored as {stored.format.name} already; load the original weights to make {name} "
            "of them, or use them as they are"
        )
    done: dict[int, QuantTensor] = {}
    changes = []
    for path, module in matrices(model):
        weight = module.weight
        seen = weight.data_ptr()
        if seen not in done:
            done[seen], change = quantize_matrix(path, weight, "q8" if path in ("embed_tokens", "lm_head") else name)
            changes.append(change)
        use_quantized(model, {f"{path}.weight": done[seen]}, weight.dtype)
    return changes


def matrices(model: nn.Module) -> list[tuple[str, nn.Linear | nn.Embedding]]:
    """The modules that are quantized, by path: all matrices except those that the last part of their path keeps (KEPT)."""
    found = [(path, module) for path, module in model.named_modules() if path.rpartition(".")[2] not in KEPT]
    return [(path, module) for path, module in found if isinstance(module, nn.Linear | nn.Embedding)]


def quantize_matrix(path: str, weight: Tensor, name: str) -> tuple[QuantTensor, Change]:
    """One matrix [out, in] as q8 or q4, on the same device, and its Change."""
    format = rowwise_format(name, weight.shape[1])
    try:
        stored = QuantTensor(quantize(weight, format), format).to(weight.device)
    except NanollamaError as error:
        raise NanollamaError(f"{path} can't be {name}: {error}") from error
    lost = total = 0.0  # squares
    for tile in tiles(*stored.shape):
        original = weight[tile].double()
        lost += (decode_rows(stored.rows[tile], format, torch.float64) - original).square().sum().item()
        total += original.square().sum().item()
    distance = (lost / total) ** 0.5 if total else 0.0
    before = weight.numel() * weight.element_size()
    return stored, Change(path, (weight.shape[0], weight.shape[1]), name, distance, before, stored.nbytes)

"""Modules whose weights stay quantized: they hold stored rows and decode them on use.

The rows are a buffer outside the state dict: bytes that `.to(dtype)` does not touch, that are never trained, and that a file
holds already. The other tensors of a model (norms, biases, routers, learned positions) stay ordinary parameters.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nanollama.errors import NanollamaError
from nanollama.kernels.linear import quantized_linear
from nanollama.quant.formats.tensor import decode_rows
from nanollama.quant.quant_tensor import QuantTensor


class Stored(nn.Module):
    """A module that holds a QuantTensor; `weight` returns it."""

    rows: Tensor
    order: Tensor | None

    def __init__(self, weight: QuantTensor) -> None:
        super().__init__()
        self.format = weight.format
        self.register_buffer("rows", weight.rows, persistent=False)
        self.register_buffer("order", weight.order, persistent=False)

    @property
    def weight(self) -> QuantTensor:
        """The stored matrix."""
        return QuantTensor(self.rows, self.format, self.order)

    def extra_repr(self) -> str:
        """Shape and format, in `print(model)`."""
        return f"{list(self.weight.shape)}, {self.format.name}"


class QuantLinear(Stored):
    """x · weight transposed + bias, where the weight [out, in] is stored as blocks."""

    bias: nn.Parameter | None

    def __init__(self, weight: QuantTensor, bias: nn.Parameter | None = None) -> None:
        super().__init__(weight)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] → [..., out] in the dtype of x; sums run in at least float32."""
        return quantized_linear(x, self.rows, self.format, self.order, self.bias)


class QuantEmbedding(Stored):
    """A table of vectors, one a token, stored as blocks; only the rows that are looked up are decoded."""

    like: Tensor

    def __init__(self, weight: QuantTensor, dtype: torch.dtype) -> None:
        super().__init__(weight)
        self.register_buffer("like", torch.empty(0, dtype=dtype), persistent=False)  # follows the model's dtype

    def forward(self, ids: Tensor) -> Tensor:
        """int64 [...] → [..., columns]."""
        weight = self.weight
        picked = weight.pick(ids.flatten())
        return decode_rows(picked.rows, weight.format, self.like.dtype).reshape(*ids.shape, weight.shape[1])


def use_quantized(model: nn.Module, weights: Mapping[str, QuantTensor], dtype: torch.dtype) -> None:
    """Replace the model's modules by ones that hold these stored weights, by parameter name ("lm_head.weight").

    Biases are kept. `dtype` is the model's: that of embeddings' outputs. A tied head has the embedding's QuantTensor under its
    name too: the same bytes. Raises NanollamaError for a name that is not a matrix of this model, and for a wrong shape.
    """
    found = {name: find_matrix(model, name, weight) for name, weight in weights.items()}
    for name, weight in weights.items():
        old = found[name]
        new: Stored = QuantEmbedding(weight, dtype)
        if isinstance(old, nn.Linear | QuantLinear):
            new = QuantLinear(weight, old.bias)
        model.set_submodule(name.removesuffix(".weight"), new.train(model.training))


def find_matrix(model: nn.Module, name: str, weight: QuantTensor) -> nn.Linear | nn.Embedding | Stored:
    """The module with the matrix of this parameter name. Raises NanollamaError if there is none, or its shape differs."""
    path, _, last = name.rpartition(".")
    try:
        module = model.get_submodule(path)
    except AttributeError:
        module = None
    if not isinstance(module, nn.Linear | nn.Embedding | Stored) or last != "weight":
        raise NanollamaError(f"{name} can't be a quantized weight of this model; expected a matrix or an embedding of it")
    if module.weight.shape != weight.shape:
        raise NanollamaError(
            f"{name} is stored with shape {list(weight.shape)}, but the model's is {list(module.weight.shape)}; the weights "
            "belong to another model"
        )
    return module

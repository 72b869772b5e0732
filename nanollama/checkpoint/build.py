"""The model of an opened checkpoint: its weights in place, on a device, in a dtype."""

from typing import Any

import torch
from torch import Tensor

from nanollama.checkpoint.source import Source, skeleton
from nanollama.kernels.memory import keep_freed_memory
from nanollama.model.dtypes import pick_device, pick_dtype
from nanollama.model.transformer import Transformer
from nanollama.quant.modules import use_quantized
from nanollama.quant.quant_tensor import QuantTensor
from nanollama.quant.weight_only import quantize_model


def build_model(source: Source, dtype: str = "auto", device: str = "auto", quantize: str | None = None) -> Transformer:
    """The model of an opened checkpoint, in eval mode. The arguments are those of `nanollama.load`."""
    target = pick_device(device)
    if target.type == "cpu":
        keep_freed_memory()
    wanted, tensors = pick_dtype(dtype, source.config.dtype, stored_dtype(source), target), source.tensors
    tied = tensors["lm_head.weight"] is tensors["embed_tokens.weight"]
    blocks = {name: tensor.to(target) for name, tensor in tensors.items() if isinstance(tensor, QuantTensor)}
    state = {
        name: tensor.to(target, wanted)
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor) and not (tied and name == "lm_head.weight")
    }
    if tied:  # one tensor, not two equal ones
        shared: dict[str, Any] = state if "embed_tokens.weight" in state else blocks
        shared["lm_head.weight"] = shared["embed_tokens.weight"]
    model = skeleton(source.config)
    use_quantized(model, blocks, wanted)
    model.load_state_dict(state, assign=True)
    if quantize is not None:
        quantize_model(model, quantize)
    return model.eval()


def stored_dtype(source: Source) -> torch.dtype:
    """The dtype of the stored embedding; float32 if any tensor is stored as blocks, for that is how they are decoded."""
    embedding = source.tensors["embed_tokens.weight"]
    return torch.float32 if source.is_quantized or isinstance(embedding, QuantTensor) else embedding.dtype

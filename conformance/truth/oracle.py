"""The oracle: transformers' own code, run in true float64.

`.double()` alone is not enough: transformers requests float32 by name in its norms, rotary tables and softmax, which leaves
an error of about 1e-5. Under `float64_everywhere` every such request gives float64, both while the model is built (when rotary
tables are made) and while it runs.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()


class Float64Mode(TorchFunctionMode):
    """Inside, torch.float32 means torch.float64: as an argument, a keyword, or the method .float()."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.float:
            return args[0].double()
        wide = [torch.float64 if a is torch.float32 else a for a in args]
        named = {k: torch.float64 if v is torch.float32 else v for k, v in (kwargs or {}).items()}
        return func(*wide, **named)


@contextmanager
def float64_everywhere() -> Iterator[None]:
    """float64 wherever the code inside names float32 or no dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with Float64Mode():
            yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """The mode for float64; nothing for the dtypes in which transformers is used as it is."""
    if dtype is torch.float64:
        with float64_everywhere():
            yield
    else:
        yield


def load_oracle(folder: Path, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """transformers' model of a checkpoint folder, with eager attention and eager experts; every tensor must be used."""
    with precision(dtype), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers warns about configs that are unusual on purpose
        load: Any = AutoModelForCausalLM.from_pretrained
        model, info = load(
            folder,
            dtype=dtype,
            attn_implementation="eager",
            experts_implementation="eager",
            output_loading_info=True,
            local_files_only=True,
        )
    wrong = {k: v for k, v in info.items() if v}
    if wrong:
        raise RuntimeError(f"transformers did not load {folder} cleanly: {wrong}")
    return model.eval()


def visible_masks(model: PreTrainedModel, positions: Tensor) -> Any:
    """Additive masks [1, 1, T, T] made from positions. transformers counts places in the prompt, so gaps between
    positions need an explicit mask; models with two kinds of layers take one mask for each."""
    config, distance = model.config, positions[0][:, None] - positions[0][None, :]
    window = getattr(config, "sliding_window", None)
    causal = distance >= 0
    sliding = causal & (distance < window) if window else causal

    def additive(allowed: Tensor) -> Tensor:
        return torch.zeros(allowed.shape, dtype=model.dtype).masked_fill(~allowed, torch.finfo(model.dtype).min)[None, None]

    if getattr(config, "layer_types", None):
        return {"full_attention": additive(causal), "sliding_attention": additive(sliding)}
    return additive(sliding)


def oracle_logits(model: PreTrainedModel, ids: Tensor, positions: Tensor | None = None, **options: Any) -> Tensor:
    """Logits [B, T, V] in the model's own dtype."""
    mask = None if positions is None else visible_masks(model, positions)
    with precision(model.dtype), torch.no_grad():
        out = model(ids, position_ids=positions, attention_mask=mask, use_cache=False, **options)
    return out.logits

"""A loaded language model: `load(source)` gives config, model, tokenizer and chat template, ready to generate."""

from pathlib import Path

import torch

from nanollama.checkpoint.files import read_json
from nanollama.checkpoint.names import check_tensors, runtime_tensors, share_tied_head
from nanollama.checkpoint.safetensors import read_folder
from nanollama.config import ModelConfig, read_config
from nanollama.errors import NanollamaError
from nanollama.model import Transformer

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_config(folder: Path) -> ModelConfig:
    """Read config.json, and generation_config.json where there is one."""
    path = folder / "config.json"
    if not path.is_file():
        raise NanollamaError(f"{folder} has no config.json; expected a folder with config.json and *.safetensors")
    generation = folder / "generation_config.json"
    return read_config(read_json(path), read_json(generation) if generation.is_file() else None)


def load_model(folder: Path, dtype: str = "auto", device: str = "auto") -> Transformer:
    """The model of a checkpoint folder. Weights stay memory-mapped where dtype and device are those of the file."""
    config = load_config(folder)
    tensors = runtime_tensors(config, read_folder(folder))
    share_tied_head(config, tensors)
    with torch.device("meta"):
        model = Transformer(config).requires_grad_(False)
    check_tensors(model.state_dict(), tensors)
    target = pick_device(device)
    wanted = pick_dtype(dtype, config, tensors["embed_tokens.weight"].dtype, target)
    tied = tensors["lm_head.weight"] is tensors["embed_tokens.weight"]
    state = {n: tensor.to(target, wanted) for n, tensor in tensors.items() if not (tied and n == "lm_head.weight")}
    if tied:  # one tensor, not two equal ones
        state["lm_head.weight"] = state["embed_tokens.weight"]
    model.load_state_dict(state, assign=True)
    return model.eval()


def pick_dtype(dtype: str, config: ModelConfig, stored: torch.dtype, device: torch.device) -> torch.dtype:
    """ "auto" is what config.json states, else what the file holds."""
    if dtype == "auto":
        dtype = config.dtype or str(stored).removeprefix("torch.")
    if dtype not in DTYPES:
        raise NanollamaError(f"dtype {dtype!r} is not known; known: auto, {', '.join(DTYPES)}")
    if device.type == "mps" and dtype == "float64":
        raise NanollamaError("float64 does not exist on mps; use float32, or the cpu")
    return DTYPES[dtype]


def pick_device(device: str) -> torch.device:
    """ "auto" is cuda, else mps, else the cpu."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = next(name for name in ("cuda", "mps", "cpu") if there[name])
    kind = device.partition(":")[0]
    if kind not in there:
        raise NanollamaError(f"device {device!r} is not known; known: auto, cpu, cuda, mps")
    if not there[kind]:
        raise NanollamaError(f"device {device!r} was asked for, but torch sees none here; use auto or cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise NanollamaError(f"device {device!r} is not a device name; expected cpu, cuda, cuda:1, mps") from error

"""Targets of the checkpoint fuzz: the reader of weights, and targets with bugs as negative controls.

The controls load the valid checkpoint, as every target must, and know it by its folder's name. Each bug costs a worker
process, so slow imports are avoided.
"""

import contextlib
import os
import signal
from pathlib import Path


def read_weights(folder: Path) -> None:
    """`read_folder`, every byte touched, and equal to what the safetensors library reads."""
    import safetensors.torch
    import torch

    from nanollama.checkpoint.safetensors import read_folder

    def key(tensor: torch.Tensor) -> tuple[object, ...]:
        return tensor.dtype, tensor.shape, bytes(tensor.reshape(-1).view(torch.uint8).tolist())

    ours = read_folder(folder)
    theirs: dict[str, list[tuple[object, ...]]] = {}
    for path in folder.iterdir():
        with contextlib.suppress(Exception):  # files that the checkpoint does not use may be broken
            for name, tensor in safetensors.torch.load_file(path).items() if path.is_file() else ():
                theirs.setdefault(name, []).append(key(tensor))
    for name, tensor in ours.items():
        if key(tensor) not in theirs.get(name, []):
            raise AssertionError(f"{name!r} was read, but not as the safetensors library reads it")


def raises(folder: Path) -> None:
    if folder.name != "sound":
        raise KeyError("weight_map")


def hangs(folder: Path) -> None:
    while folder.name != "sound":
        pass


def dies(folder: Path) -> None:
    if folder.name != "sound":
        os.kill(os.getpid(), signal.SIGKILL)


def takes_memory(folder: Path) -> None:
    """300 MB, written to."""
    if folder.name != "sound":
        bytearray(b"x") * 300_000_000


def asks_for_memory(folder: Path) -> None:
    """8 GiB of zeros, never touched: resident memory does not grow, the address space does."""
    if folder.name != "sound":
        bytearray(2**33)


def loads_nothing(folder: Path) -> None:
    raise OSError(f"{folder} is not loaded")


def refuses_some(folder: Path) -> None:
    """No bug: loads folders with a model.safetensors, and refuses the others."""
    from nanollama.errors import NanollamaError

    if not (folder / "model.safetensors").exists() and folder.name != "sound":
        raise NanollamaError("no model.safetensors")

"""Targets with bugs, for the negative controls of the checkpoint fuzz: it must find every one of them.

They load the sound checkpoint, as a target must, and know it by its folder's name. No imports that take time: each bug
costs a worker process.
"""

import os
import signal
from pathlib import Path


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
    """No bug: loads what has a model.safetensors, and refuses the rest as it should."""
    from nanollama.errors import NanollamaError

    if not (folder / "model.safetensors").exists() and folder.name != "sound":
        raise NanollamaError("no model.safetensors")

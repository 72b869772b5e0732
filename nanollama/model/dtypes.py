"""The names of dtypes and devices as users write them, and the ones that torch has here."""

import torch

from nanollama.errors import NanollamaError

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_dtype(name: str, stated: str | None, stored: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype to compute in. "auto" is the dtype that the config states, else the one of the stored weights.

    Raises NanollamaError for a name that is not in DTYPES and for a dtype that the device does not have.
    """
    if name == "auto":
        name = stated or str(stored).removeprefix("torch.")
    if name not in DTYPES:
        raise NanollamaError(f"dtype {name!r} is not known; known: auto, {', '.join(DTYPES)}")
    if device.type == "mps" and name == "float64":
        raise NanollamaError("float64 does not exist on mps; use float32, or the cpu")
    return DTYPES[name]


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
        place = torch.device(device)
    except RuntimeError as error:
        raise NanollamaError(f"device {device!r} is not a device name; expected cpu, cuda, cuda:1, mps") from error
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if (place.index or 0) >= count:
        raise NanollamaError(f"device {device!r} does not exist; there are {count} of that kind, numbered from 0")
    return place

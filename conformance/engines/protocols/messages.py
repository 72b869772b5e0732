"""Messages of the protocol: JSON objects, checked against `protocol.schema.json`, and tensors within them.

A tensor is {"shape": […], "dtype": "float64" or "float32", "data": base64 of its numbers, row-major and little-endian}.
"""

import base64
import binascii
import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonschema import Draft202012Validator
from torch import Tensor

from conformance.engines.engine import Broken, Taps

Message = dict[str, Any]
SCHEMA = Path(__file__).with_name("protocol.schema.json")
NUMBERS = {"float64": "<f8", "float32": "<f4"}


@cache
def validator(kind: str) -> Draft202012Validator:
    """For one kind of message."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": schema["$defs"]})


def check(message: Message, kind: str) -> None:
    """Broken, with the place and the fault, unless a message is of this kind."""
    fault = next(validator(kind).iter_errors(message), None)
    if fault is not None:
        raise Broken(f"no {kind}: {fault.json_path}: {fault.message[:160]}")


def parsed(line: bytes) -> Message:
    """The JSON object on a line."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Broken(f"it wrote {shown(line)}, which is no JSON: {shown(str(error).encode())}") from None
    if not isinstance(value, dict):
        raise Broken(f"it wrote {shown(line)}; expected a JSON object")
    return value


def shown(text: bytes) -> str:
    """The beginning of something foreign, fit for an error."""
    return repr(text[:120].decode("utf-8", "replace")) + ("…" if len(text) > 120 else "")


def pack(value: Tensor) -> Message:
    """A tensor as the protocol has it."""
    data = value.detach().cpu().double().numpy().astype("<f8").tobytes()
    return {"shape": list(value.shape), "dtype": "float64", "data": base64.b64encode(data).decode()}


def unpack(message: Message) -> Tensor:
    """float64; Broken where the data are not those of the shape."""
    kind = np.dtype(NUMBERS[message["dtype"]])
    try:
        data = base64.b64decode(message["data"], validate=True)
    except binascii.Error as error:
        raise Broken(f"a tensor's data are no base64: {error}") from error
    size = math.prod(message["shape"]) * kind.itemsize
    if len(data) != size:
        raise Broken(f"a tensor of shape {message['shape']} in {message['dtype']} has {size} bytes, and it sent {len(data)}")
    return torch.from_numpy(np.frombuffer(data, kind).astype(np.float64).reshape(message["shape"]))


def unpacked(tensors: Mapping[str, Message]) -> Taps:
    """Tensors by name."""
    return {name: unpack(value) for name, value in tensors.items()}

"""The keys of a GGUF file's architecture: each is read and checked, known to change nothing, or refused by name."""

import math
import struct
from collections.abc import Mapping
from typing import Any

from nanollama.errors import NanollamaError, quote
from nanollama.model.families import REQUIRED

PER_LAYER = ("attention.sliding_window_pattern",)  # lists that stay lists
INERT = frozenset({"tensor_data_layout", "pooling_type", "rope.scaling.finetuned"})  # a forward pass does not read them
INERT_AT: dict[str, tuple[Any, ...]] = {  # they change nothing at these values
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "expert_gating_func": (1,),  # softmax
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "expert_shared_count": (0,),
    "expert_shared_feed_forward_length": (0,),
    "expert_weights_norm": (True,),
    "expert_weights_scale": (0.0, 1.0),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "leading_dense_block_count": (0,),
    "logit_scale": (0.0, 1.0),
    "rope.scaling.attn_factor": (1.0,),
    "rope.scaling.yarn_log_multiplier": (0.0,),
    "use_parallel_residual": (False,),
}


class Metadata:
    """The metadata of one file; records which keys were read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.architecture = values.get("general.architecture")
        self._read: set[str] = set()

    def get(self, key: str, default: Any = REQUIRED) -> Any:
        """The value of a key of the architecture. A float becomes the shortest decimal that is the same float32; a list with
        one value for each layer becomes that value if all are equal."""
        name = f"{self.architecture}.{key}"
        self._read.add(name)
        value = self.values.get(name, default)
        if value is REQUIRED:
            raise NanollamaError(f"the metadata has no {name}, which every {self.architecture} file needs; the file is damaged")
        if isinstance(value, list) and value and key not in PER_LAYER:
            if any(other != value[0] for other in value):
                raise NanollamaError(f"{name} differs from layer to layer ({quote(value)}); that is not supported")
            value = value[0]
        return shortest(value) if type(value) is float else value

    def number(self, key: str, default: float) -> float:
        """A finite number, or the default if the file has no such key."""
        value = self.get(key, default)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise NanollamaError(f"{self.architecture}.{key} is {quote(value)}; expected a number")
        return float(value)

    def refuse_unread(self) -> None:
        """Raise for the first key of the architecture that was not read and may change the mathematics."""
        for name, value in self.values.items():
            prefix, _, key = name.partition(".")
            if prefix != self.architecture or name in self._read or key in INERT or value in INERT_AT.get(key, ()):
                continue
            raise NanollamaError(
                f"the metadata has {name} = {quote(value)}, which is not supported for {self.architecture}; it may "
                "change the mathematics, so the model is refused"
            )


def as_float32(value: float) -> float:
    """The nearest float32, as a Python float."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def shortest(value: float) -> float:
    """The decimal with the fewest digits that rounds to the same float32; a value that is no float32 is returned as it is."""
    if not math.isfinite(value) or as_float32(value) != value:
        return value
    stored = struct.pack("<f", value)
    candidates = (float(f"{value:.{digits}g}") for digits in range(1, 9))
    return next((short for short in candidates if abs(short) < 3.4e38 and struct.pack("<f", short) == stored), value)

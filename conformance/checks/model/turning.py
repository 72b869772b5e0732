"""The inner steps of rotary positions: frequencies, tables, the rotation itself.

Tables are compared as differences of two positions, as an engine may shift all positions alike.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import nanollama.model.rope
from conformance.checks.model.steps import Step
from conformance.truth.reference import Reference, Trace
from conformance.truth.rotation import Rope, cos_sin, frequencies
from nanollama.model.transformer import Transformer

FAST_KEYS = ("factor", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow", "truncate")


def differences(cos: Tensor, sin: Tensor) -> Tensor:
    """[T, half] each → cos and sin of the angle between every two positions, [2, T, T, half]."""
    cos, sin = cos.double().reshape(-1, cos.shape[-1]), sin.double().reshape(-1, sin.shape[-1])
    return torch.stack([cos[:, None] * cos + sin[:, None] * sin, sin[:, None] * cos - cos[:, None] * sin])


def runtime_rope(rope: Rope) -> Any:
    """The runtime's description of a rotation, filled with true values."""
    scaling: dict[str, Any] = {key: rope.scaling[key] for key in FAST_KEYS if rope.scaling.get(key) is not None}
    scaling |= {key: tuple(rope.scaling.get(key, ())) for key in ("short_factor", "long_factor")}
    return nanollama.model.rope.RopeConfig(
        dim=rope.dim,
        theta=rope.theta,
        rope_type=rope.kind,
        original_length=rope.max_length if rope.kind == "dynamic" else rope.original,
        attention_factor=rope.sharpness,
        **scaling,
    )


def rotation_steps(model: Transformer, truth: Reference, i: int, positions: Tensor, trace: Trace) -> Iterator[Step]:
    """The steps from heads to rotated heads of layer i."""
    rope, length = truth.spec.ropes[i], int(positions.max()) + 1
    if rope is None:
        return
    config, row = runtime_rope(rope), positions[None]
    cos, sin = cos_sin(rope, positions, length)
    yield from frequency_steps(rope, config, length)
    want = differences(cos, sin)
    yield Step("rotary", lambda: differences(*nanollama.model.rope.Rotary(config)(row, [length])), want)

    def made() -> Tensor:
        found: Any = model.rotations(row, None)[i]
        return differences(*found)

    yield Step("model.transformer.Transformer.rotations", made, want)
    for part in "qk":
        heads, turned = trace[f"layers.{i}.self_attn.{part}"], trace[f"layers.{i}.self_attn.{part}.turned"]
        rotated = partial(nanollama.model.rope.rotate, heads[None], cos[None, None], sin[None, None])
        yield Step("model.rope.rotate", rotated, turned)


def frequency_steps(rope: Rope, config: Any, length: int) -> Iterator[Step]:
    """Radians per position: unscaled, then by type, then as dispatched."""
    plain = Rope(rope.dim, rope.theta, "default", {"factor": 1.0}, 1, 1, 1.0)
    plain_want = torch.tensor(frequencies(plain, 0), dtype=torch.float64)[:, None]
    default = "model.rope.default_frequencies"
    yield Step(default, lambda: nanollama.model.rope.default_frequencies(rope.theta, rope.dim)[:, None], plain_want)
    want = torch.tensor(frequencies(rope, length), dtype=torch.float64)[:, None]
    if rope.kind != "default":
        run = getattr(nanollama.model.rope, f"{rope.kind}_frequencies")
        yield Step(f"model.rope.{rope.kind}_frequencies", lambda: run(config, length)[:, None], want)
    yield Step("model.rope.frequencies", lambda: nanollama.model.rope.frequencies(config, length)[:, None], want)

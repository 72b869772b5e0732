"""Rotary scaling in the metadata and tensors of a GGUF file, worked out by hand."""

# mypy: disable-error-code="arg-type,dict-item,func-returns-value,misc"
# tables mix good and bad arguments

import math
import struct
from typing import Any

import torch
from torch import Tensor

from conformance.checks import check
from conformance.checks.assertions import expect, expect_equal, expect_refused
from conformance.checks.generation.rigged import blamed
from conformance.checks.gguf.metadata import metadata, raw


@check("GGUF-024", "ROPE-020", area="rope")
def rotary_scaling_is_read_as_llama_cpp_applies_it() -> None:
    place = "checkpoint.gguf.rope.read_scaling"

    def scaling(architecture: str = "llama", factors: dict[str, Tensor] | None = None, **keys: Any) -> Any:
        data = metadata(architecture, **{f"rope.{key.replace('__', '.')}": value for key, value in keys.items()})
        return raw(data, None, **(factors or {}))["rope_scaling"]

    expect_equal(place, scaling(scaling__type="linear", scaling__factor=4.0), {"rope_type": "linear", "factor": 4.0}, "linear")
    expect_equal(place, scaling(scale_linear=4.0), {"rope_type": "linear", "factor": 4.0}, "the old key")
    expect_equal(
        place, (scaling(scaling__type="none", scaling__factor=4.0), scaling(scaling__factor=1.0)), (None, None), "none"
    )
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 32.0, "beta_slow": 1.0}
    base = {"scaling__type": "yarn", "scaling__factor": 4.0, "scaling__original_context_length": 16}
    expect_equal("checkpoint.gguf.rope.read_yarn", scaling(**base), yarn, "YaRN")
    got = scaling(**base, scaling__yarn_beta_fast=8.0, scaling__attn_factor=0.5)
    wanted = {**yarn, "beta_fast": 8.0, "attention_factor": 0.5 * (1 + 0.1 * math.log(4.0))}
    expect_equal("checkpoint.gguf.rope.read_yarn", got, wanted, "YaRN with other numbers")
    for key in ("yarn_attn_factor", "yarn_ext_factor"):
        expect_refused("checkpoint.gguf.rope.read_yarn", lambda key=key: scaling(**base, **{f"scaling__{key}": 3.0}), key, key)
    short, long = torch.tensor([1.0, 1.5]), torch.tensor([2.0, 4.0])
    lists = {"rope_factors_short": short, "rope_factors_long": long}
    got = scaling("phi3", lists, scaling__original_context_length=16, scaling__attn_factor=1.25)
    wanted = {
        "rope_type": "longrope",
        "short_factor": [1.0, 1.5],
        "long_factor": [2.0, 4.0],
        "original_max_position_embeddings": 16,
        "attention_factor": 1.25,
    }
    expect_equal("checkpoint.gguf.rope.read_factors", got, wanted, "LongRoPE")
    natural = struct.unpack("<f", struct.pack("<f", math.sqrt(1 + math.log(4) / math.log(16))))[0]
    got = scaling("phi3", lists, scaling__original_context_length=16, scaling__attn_factor=natural)
    expect(
        "checkpoint.gguf.rope.read_sharpness", "attention_factor" not in got, f"LongRoPE with the implied sharpness is {got}"
    )
    with blamed("checkpoint.gguf.rope.read_factors"):
        got = scaling("llama", {"rope_freqs": torch.tensor([1.0, 1.5])})
        got = (got or {}) | {
            "short_factor": (got or {}).get("short_factor"),
            "attention_factor": (got or {}).get("attention_factor"),
        }
        expect("checkpoint.gguf.rope.read_scaling", "rope_type" in got, "rope_freqs is not read")
    expect_equal(
        "checkpoint.gguf.rope.read_factors",
        (got["rope_type"], got["short_factor"], got["attention_factor"]),
        ("longrope", [1.0, 1.5], 1.0),
        "one list",
    )
    freq = [12345.0 ** (-2 * j / 4) for j in range(2)]
    turns = [8192 * f / (2 * math.pi) for f in freq]
    keep = [min(1.0, max(0.0, (t - 1) / 3)) for t in turns]
    divisors = torch.tensor([f / (k * f + (1 - k) * f / 8) for f, k in zip(freq, keep, strict=True)])
    if float(divisors.max()) == 1.0:
        divisors = torch.tensor([1.0, 1.0])
    expect_refused(
        "checkpoint.gguf.rope.read_factors",
        lambda: scaling("gemma2", {"rope_freqs": long}),
        "rope_freqs",
        "a list that llama.cpp does not read",
    )
    expect_refused(
        "checkpoint.gguf.rope.read_factors",
        lambda: scaling("phi3", {"rope_factors_short": short}),
        "rope_factors_short",
        "one of two lists",
    )


@check("GGUF-025", area="rope")
def llama_3_is_recognised_by_its_divisors() -> None:
    theta, dim, factor = 500000.0, 64, 8.0
    divisors = []
    for j in range(dim // 2):
        freq = theta ** (-2 * j / dim)
        wave, low, high = 2 * math.pi / freq, 8192 / 1.0, 8192 / 4.0
        smooth = (8192 / wave - 1.0) / (4.0 - 1.0)
        scaled = freq if wave < high else freq / factor if wave > low else (1 - smooth) * freq / factor + smooth * freq
        divisors.append(freq / scaled)
    keys = {"embedding_length": 384, "rope.freq_base": theta}
    shapes = {"token_embd.weight": (40, 384)}
    got = raw(metadata(**keys), shapes, rope_freqs=torch.tensor(divisors))["rope_scaling"]
    wanted = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    expect_equal("checkpoint.gguf.rope.is_llama3", got, wanted, "Llama 3's scaling")
    divisors[20] *= 1.01
    got = raw(metadata(**keys), shapes, rope_freqs=torch.tensor(divisors))["rope_scaling"]
    expect_equal("checkpoint.gguf.rope.is_llama3", got["rope_type"], "longrope", "divisors that are not Llama 3's")

"""Which tensor of a file type such as q4_k_m gets which format: llama.cpp's rules, by hand and against llama.cpp itself.

A slice of `python -m conformance.truth.peers.llamacpp_quantize` is run where llama-cpp-python is: here, or where
$NANOLLAMA_LLAMACPP says.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from conformance.truth.peers import llamacpp_quantize
from conformance.truth.peers.llamacpp_quantize import peer_python
from nanollama.errors import NanollamaError
from nanollama.quant.formats.format import Format
from nanollama.quant.mixes import choose_formats

LLAMA = {"general.architecture": "llama", "llama.block_count": 32}


def formats(file_type: str, shapes: Mapping[str, tuple[int, ...]], **metadata: Any) -> dict[str, str | None]:
    chosen = choose_formats(file_type, shapes, LLAMA | {key.replace("_", ".", 1): value for key, value in metadata.items()})
    return names_of(chosen)


def names_of(chosen: Mapping[str, Format | None]) -> dict[str, str | None]:
    return {name: format.name if format else None for name, format in chosen.items()}


def per_layer(part: str, layers: int = 32, shape: tuple[int, ...] = (4, 256)) -> dict[str, tuple[int, ...]]:
    return {f"blk.{layer}.{part}.weight": shape for layer in range(layers)}


def layers_with(format: str, chosen: dict[str, str | None]) -> list[int]:
    return [int(name.split(".")[1]) for name, each in chosen.items() if each == format]


def test_what_is_small_or_delicate_stays_as_it_is() -> None:
    matrix = (4, 256)
    kept = [
        "output_norm.weight",
        "blk.0.ffn_gate_inp.weight",
        "position_embd.weight",
        "token_types.weight",
        "blk.0.attn_q.bias",
    ]
    kept += ["blk.0.attn_rel_b.weight", "blk.0.time_mix_w1.weight", "blk.0.ssm_conv1d.weight", "rope_freqs"]
    assert set(formats("q4_0", dict.fromkeys(kept, matrix)).values()) == {None}
    for shape in ((256,), (), (1, 256), (1, 1, 256)):
        assert formats("q8_0", {"blk.0.attn_q.weight": shape}) == {"blk.0.attn_q.weight": None}
    assert formats("f16", {"blk.0.attn_q.weight": matrix, "x.bias": matrix}) == {"blk.0.attn_q.weight": "F16", "x.bias": None}


@pytest.mark.parametrize(
    ("file_type", "head", "embedding", "tied"),
    [
        ("f16", "F16", "F16", "F16"),
        ("q4_0", "Q6_K", "Q4_0", "Q6_K"),
        ("q8_0", "Q8_0", "Q8_0", "Q8_0"),
        ("q4_k_m", "Q6_K", "Q4_K", "Q6_K"),
        ("q6_k", "Q6_K", "Q6_K", "Q6_K"),
        ("tq2_0", "Q6_K", "Q4_K", "Q6_K"),
        ("mxfp4_moe", "Q8_0", "Q8_0", "Q8_0"),
    ],
)
def test_the_head_gets_more_bits_and_the_embedding_too_where_it_is_the_head(
    file_type: str, head: str, embedding: str, tied: str
) -> None:
    shapes = {"token_embd.weight": (8, 512), "output.weight": (8, 512)}
    assert list(formats(file_type, shapes).values()) == [embedding, head]
    assert formats(file_type, {"token_embd.weight": (8, 512)}) == {"token_embd.weight": tied}


def test_q4_k_m_gives_six_bits_to_every_third_layer_and_to_the_outer_eighths() -> None:
    many = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    for part in ("attn_v", "ffn_down"):
        chosen = formats("q4_k_m", per_layer(part))
        assert layers_with("Q6_K", chosen) == many and set(chosen.values()) == {"Q4_K", "Q6_K"}
        assert layers_with("Q6_K", formats("q5_k_m", per_layer(part))) == many
        assert layers_with("Q6_K", formats("q4_k_m", dict(reversed(per_layer(part).items())))) == many[::-1], "in any order"
    assert set(formats("q4_k_m", per_layer("attn_k") | per_layer("ffn_up")).values()) == {"Q4_K"}


def test_q4_k_s_gives_five_bits_to_the_first_layers() -> None:
    assert layers_with("Q5_K", formats("q4_k_s", per_layer("attn_v"))) == [0, 1, 2, 3]
    assert layers_with("Q5_K", formats("q4_k_s", per_layer("ffn_down", 64), llama_block_count=64)) == list(range(8))
    assert set(formats("q5_k_s", per_layer("attn_v")).values()) == {"Q5_K"}


def test_eight_experts_bring_eight_bits_for_keys_and_values() -> None:
    shapes = {f"blk.9.attn_{part}.weight": (4, 256) for part in ("q", "k", "v", "output")}
    assert list(formats("q4_k_m", shapes, llama_expert_count=8).values()) == ["Q4_K", "Q8_0", "Q8_0", "Q5_K"]
    assert list(formats("q4_0", shapes, llama_expert_count=8).values()) == ["Q4_0", "Q8_0", "Q8_0", "Q4_0"]
    experts = {"blk.9.ffn_up_exps.weight": (8, 4, 256), "blk.9.attn_q.weight": (4, 256)}
    assert list(formats("mxfp4_moe", experts).values()) == ["MXFP4", "Q8_0"]


def test_seventy_billion_parameters_bring_five_bits_for_values() -> None:
    heads = {"llama_attention.head_count": 64, "llama_attention.head_count_kv": 8}
    shapes = per_layer("attn_v", 80)
    assert set(formats("q4_k_m", shapes, llama_block_count=80, **heads).values()) == {"Q5_K", "Q6_K"}
    heads["llama_attention.head_count_kv"] = 64
    assert set(formats("q4_k_m", shapes, llama_block_count=80, **heads).values()) == {"Q4_K", "Q6_K"}


@pytest.mark.parametrize(
    ("file_type", "columns", "expected"),
    [
        ("q4_k_s", 256, "Q4_K"),
        ("q4_k_s", 320, "Q5_0"),
        ("q5_k_s", 320, "Q5_1"),
        ("q6_k", 320, "Q8_0"),
        ("tq1_0", 320, "Q4_0"),
        ("q4_0", 320, "Q4_0"),
        ("q4_k_s", 40, "F16"),
        ("q8_0", 40, "F16"),
        ("bf16", 40, "BF16"),
    ],
)
def test_rows_that_are_not_whole_blocks_fall_back(file_type: str, columns: int, expected: str) -> None:
    assert formats(file_type, {"blk.0.attn_q.weight": (4, columns)}) == {"blk.0.attn_q.weight": expected}


def test_metadata_of_any_kind_choose_something() -> None:
    shapes = per_layer("ffn_down", 3)
    for metadata in (
        {},
        {"general.architecture": 7},
        {"general.architecture": "x", "x.block_count": "many", "x.expert_count": [8]},
    ):
        assert layers_with("Q6_K", names_of(choose_formats("q4_k_m", shapes, metadata))) == [2]
    with pytest.raises(
        NanollamaError, match="there is no file type 'q4'; did you mean 'q4_1'\\? There are f32, f16, bf16, q8_0"
    ):
        choose_formats("q4", shapes, {})


@pytest.mark.parametrize("model", ["llama, tied", "llama, rows of 96, tied", "mixtral", "falcon"])
def test_types_and_bytes_are_those_of_llama_cpp(model: str, tmp_path: Path) -> None:
    python = peer_python()
    if not python:
        pytest.skip("llama-cpp-python is not installed, and NANOLLAMA_LLAMACPP is not set: nothing was compared with llama.cpp")
    llamacpp_quantize.write_model(tmp_path / "in.gguf", llamacpp_quantize.MODELS[model])
    for file_type in ("q4_k_m", "q4_0", "q6_k"):
        llamacpp_quantize.quantize_with_both(python, tmp_path / "in.gguf", file_type, tmp_path)

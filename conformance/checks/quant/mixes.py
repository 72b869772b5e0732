"""The format of each tensor in a file type: llama.cpp's choices, worked out by hand for small models."""

# mypy: disable-error-code="arg-type,assignment,misc"
# tables mix good and bad arguments

from typing import Any

from conformance.checks import check
from conformance.checks.assertions import expect_equal, expect_refused
from nanollama.quant import file_types as filetypes
from nanollama.quant import mixes


def model(layers: int, columns: int = 256, tied: bool = False, **tensors: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes of a Llama, in the order of a file."""
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (512, columns), "output_norm.weight": (columns,)}
    if not tied:
        shapes["output.weight"] = (512, columns)
    for layer in range(layers):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            shapes[f"blk.{layer}.{part}.weight"] = (256, columns)
        shapes |= {f"blk.{layer}.attn_norm.weight": (columns,), f"blk.{layer}.attn_q.bias": (256,)}
    return shapes | tensors


def metadata(layers: int, architecture: str = "llama", **more: int) -> dict[str, Any]:
    keys = {"block_count": layers, "attention.head_count": 8, "attention.head_count_kv": 2, **more}
    return {"general.architecture": architecture, **{f"{architecture}.{key}": value for key, value in keys.items()}}


def chosen(file_type: str, shapes: dict[str, tuple[int, ...]], data: dict[str, Any]) -> dict[str, str | None]:
    found = mixes.choose_formats(file_type, shapes, data)
    return {name: format and format.name for name, format in found.items()}


def by_part(found: dict[str, str | None], part: str) -> list[str | None]:
    return [format for name, format in found.items() if name.endswith(f".{part}.weight")]


@check("QUNT-050", area="quantization")
def parts_and_layers_are_read_from_names() -> None:
    for name, wanted in (("blk.12.attn_q.weight", 12), ("output.weight", -1), ("blk.x.attn_q.weight", -1), ("ablk.1.b", -1)):
        expect_equal("quant.mixes.layer_of", mixes.layer_of(name), wanted, f"the layer of {name}")
    for name, part in (
        ("blk.0.attn_v.weight", "attn_v.weight"),
        ("blk.0.attn_qkv.weight", "attn_qkv.weight"),
        ("a.weight", None),
    ):
        expect_equal("quant.mixes.part_of", mixes.part_of(name), part, f"the part of {name}")
    for name, shape, wanted in (
        ("blk.0.attn_q.weight", (4, 8), True),
        ("blk.0.ffn_up_exps.weight", (4, 1, 8), True),
        ("blk.0.attn_q.weight", (8,), False),
        ("blk.0.attn_q.weight", (1, 8), False),
        ("blk.0.attn_q.bias", (4, 8), False),
        ("blk.0.attn_q_norm.weight", (4, 8), False),
        ("blk.0.ffn_gate_inp.weight", (4, 8), False),
        ("position_embd.weight", (4, 8), False),
        ("token_embd.weight", (4, 8), True),
    ):
        expect_equal("quant.mixes.is_quantized", mixes.is_quantized(name, shape), wanted, f"whether {name} {shape} changes")
    for layer, layers, wanted in (
        (0, 8, True),
        (1, 8, False),
        (2, 8, False),
        (3, 8, True),
        (6, 8, True),
        (7, 8, True),
        (4, 8, False),
    ):
        expect_equal("quant.mixes.has_more_bits", mixes.has_more_bits(layer, layers), wanted, f"layer {layer} of {layers}")
    for name, columns, wanted in (
        ("Q4_K", 256, "Q4_K"),
        ("Q4_K", 32, "Q5_0"),
        ("Q5_K", 32, "Q5_1"),
        ("Q6_K", 96, "Q8_0"),
        ("Q4_K", 33, "F16"),
        ("TQ2_0", 64, "Q4_0"),
        ("Q4_0", 40, "F16"),
    ):
        expect_equal("quant.mixes.fitting", mixes.fitting(name, columns).name, wanted, f"{name} for rows of {columns}")


@check("QUNT-050", area="quantization")
def facts_of_a_model_that_its_mix_depends_on() -> None:
    place = "quant.mixes.model_traits"
    shapes = model(2)
    got = mixes.model_traits(shapes, metadata(2, expert_count=8))
    expect_equal(place, tuple(got), ("llama", 2, 8, False, False, 2), "traits of a small Llama")
    got = mixes.model_traits(model(3, tied=True), {"general.architecture": "x"})
    expect_equal(place, tuple(got), ("x", 3, 0, False, True, 3), "traits without metadata")
    for architecture, layers, kv, wanted in (
        ("llama", 80, 2, True),
        ("llama", 80, 8, False),
        ("llama", 79, 2, False),
        ("qwen2", 80, 8, True),
        ("gemma", 80, 2, False),
    ):
        data = metadata(layers, architecture, **{"attention.head_count_kv": kv})
        expect_equal(
            place, mixes.model_traits(shapes, data).is_70b, wanted, f"whether {layers} layers of {architecture} are a 70B"
        )
    order = model(11)
    numbers = mixes.numbered(dict(reversed(order.items())))
    got = [numbers[f"blk.{layer}.{part}.weight"] for part in ("attn_v", "ffn_down") for layer in range(11)]
    expect_equal("quant.mixes.numbered", got, [*range(11), *range(11)], "numbers of values and ffn_down by layer")


@check("QUNT-051", area="quantization")
def formats_of_a_whole_model() -> None:
    place, layers = "quant.mixes.choose_formats", 16
    more = [layer < 2 or layer >= 14 or (layer - 2) % 3 == 2 for layer in range(layers)]
    for file_type, main, value, down in (
        ("q4_k_m", "Q4_K", ["Q6_K" if m else "Q4_K" for m in more], ["Q6_K" if m else "Q4_K" for m in more]),
        ("q5_k_m", "Q5_K", ["Q6_K" if m else "Q5_K" for m in more], ["Q6_K" if m else "Q5_K" for m in more]),
        ("q4_k_s", "Q4_K", ["Q5_K"] * 4 + ["Q4_K"] * 12, ["Q5_K"] * 2 + ["Q4_K"] * 14),
        ("q5_k_s", "Q5_K", ["Q5_K"] * 16, ["Q5_K"] * 16),
        ("q6_k", "Q6_K", ["Q6_K"] * 16, ["Q6_K"] * 16),
        ("q4_0", "Q4_0", ["Q4_0"] * 16, ["Q4_0"] * 16),
        ("f16", "F16", ["F16"] * 16, ["F16"] * 16),
    ):
        found = chosen(file_type, model(layers), metadata(layers))
        expect_equal("quant.mixes.wanted_for_values", by_part(found, "attn_v"), value, f"attn_v in {file_type}")
        expect_equal("quant.mixes.wanted_for_ffn_down", by_part(found, "ffn_down"), down, f"ffn_down in {file_type}")
        for part in ("attn_q", "attn_k", "attn_output", "ffn_gate", "ffn_up"):
            expect_equal("quant.mixes.wanted", by_part(found, part), [main] * layers, f"{part} in {file_type}")
        head = "F16" if main == "F16" else "Q6_K"
        expect_equal(
            "quant.mixes.wanted", (found["token_embd.weight"], found["output.weight"]), (main, head), f"ends in {file_type}"
        )
        kept = [found[name] for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.attn_q.bias")]
        expect_equal(place, kept, [None] * 3, f"what stays as it is in {file_type}")


@check("QUNT-051", area="quantization")
def formats_of_unusual_models() -> None:
    place = "quant.mixes.wanted"
    tied = chosen("q4_k_m", model(1, tied=True), metadata(1))
    expect_equal(place, tied["token_embd.weight"], "Q6_K", "a tied embedding")
    eight = chosen("q8_0", model(1), metadata(1))
    expect_equal(
        place, (eight["output.weight"], eight["token_embd.weight"], eight["blk.0.attn_v.weight"]), ("Q8_0",) * 3, "q8_0"
    )
    narrow = chosen("q4_k_m", model(1, columns=96), metadata(1))
    expect_equal(place, narrow["output.weight"], "Q8_0", "a head whose rows are no whole super-blocks")
    expect_equal("quant.mixes.fitting", narrow["blk.0.attn_q.weight"], "Q5_0", "a matrix whose rows are no whole super-blocks")
    trits = chosen("tq1_0", model(1), metadata(1))
    expect_equal(
        place,
        (trits["token_embd.weight"], trits["blk.0.ffn_up.weight"], trits["output.weight"]),
        ("Q4_K", "TQ1_0", "Q6_K"),
        "tq1_0",
    )
    experts = {f"blk.{i}.ffn_{part}_exps.weight": (8, 256, 256) for i in range(8) for part in ("up", "down")}
    found = chosen("q4_k_m", model(8, **experts), metadata(8, expert_count=8))
    expect_equal(place, by_part(found, "attn_k"), ["Q8_0"] * 8, "attn_k with 8 experts")
    expect_equal("quant.mixes.wanted_for_values", by_part(found, "attn_v"), ["Q8_0"] * 8, "attn_v with 8 experts")
    expect_equal(place, by_part(found, "attn_output"), ["Q5_K"] * 8, "attn_output with 8 experts")
    down = ["Q6_K" if layer < 1 or layer >= 7 or (layer - 1) % 3 == 2 else "Q4_K" for layer in range(8)]
    expect_equal("quant.mixes.wanted_for_ffn_down", by_part(found, "ffn_down_exps"), down, "stacked ffn_down: by layer")
    mx = chosen("mxfp4_moe", model(1, **{"blk.0.ffn_up_exps.weight": (8, 256, 256)}), metadata(1, expert_count=8))
    got = mx["blk.0.ffn_up_exps.weight"], mx["blk.0.attn_q.weight"], mx["output.weight"]
    expect_equal(place, got, ("MXFP4", "Q8_0", "Q8_0"), "mxfp4_moe")
    big = chosen("q4_k_s", model(80), metadata(80))
    expect_equal("quant.mixes.wanted_for_values", by_part(big, "attn_v"), ["Q5_K"] * 80, "attn_v of a 70B")
    falcon = chosen("q4_k_m", model(16), metadata(16, "falcon"))
    down = ["Q6_K" if i < 1 else "Q5_K" if i < 2 or i >= 14 or (i - 2) % 3 == 2 else "Q4_K" for i in range(16)]
    expect_equal("quant.mixes.wanted_for_ffn_down", by_part(falcon, "ffn_down"), down, "ffn_down of Falcon")
    expect_equal(place, falcon["output.weight"], "Q8_0", "the head of Falcon")
    expect_refused("quant.file_types.find_file_type", lambda: filetypes.find_file_type("q9"), "q9", "an unknown file type")

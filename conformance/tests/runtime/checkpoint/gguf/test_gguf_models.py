"""Whole models in GGUF files: the config that the metadata stand for, names, row orders, and the same logits as the folder."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from conformance.models.fixtures import FIXTURES, far_prompt, fixture_config, near_prompt
from conformance.models.gguf_fixtures import CHANGES, unpermuted, write_folder
from conformance.truth.compare import relative_error
from nanollama.checkpoint.export import export_folder, export_gguf
from nanollama.checkpoint.gguf.keys import shortest
from nanollama.checkpoint.gguf.names import ARCHITECTURES, gguf_names, halves_order, neighbours_order
from nanollama.checkpoint.gguf.reader import read_gguf
from nanollama.checkpoint.gguf.writer import NewTensor, stored, write_gguf
from nanollama.checkpoint.source import open_source
from nanollama.errors import NanollamaError
from nanollama.lm import load, load_model
from nanollama.model.config import read_config
from nanollama.quant import find_format
from nanollama.quant.modules import QuantLinear

LLAMA = "LlamaForCausalLM"
PUBLISHED = {  # Llama 3.1 8B
    "rope_theta": 500000.0,
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
EXACT = {LLAMA: {"rope_parameters": PUBLISHED, "max_position_embeddings": 131072}}  # what float32 divisors are exact for


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder and the file `f32.gguf` beside it, per architecture."""
    root = tmp_path_factory.mktemp("exported")
    for architecture in FIXTURES:
        write_folder(root / architecture, architecture, **EXACT.get(architecture, {}))
        export_gguf(open_source(root / architecture), root / architecture / "f32.gguf", "f32")
    return {architecture: root / architecture for architecture in FIXTURES}


def logits(path: Path, architecture: str) -> Tensor:
    """Float64 logits at near and at far positions."""
    model, vocabulary = load_model(path, "float64", "cpu"), {"vocab_size": 97}
    (far, positions), near = far_prompt(vocabulary), near_prompt(vocabulary)
    return torch.cat([model(near), model(far, positions=positions)], 1)


def rewritten(path: Path, target: Path, metadata: Mapping[str, Any] = {}, tensors: Mapping[str, NewTensor | None] = {}) -> Path:
    """A file again with some metadata and tensors changed, added, or left out (None)."""
    model = read_gguf(path)
    values = {key: value for key, value in {**model.metadata, **metadata}.items() if value is not None}
    new = {**{name: stored(tensor) for name, tensor in model.tensors.items()}, **tensors}
    types = {key: type_ for key, type_ in model.types.items() if key not in metadata}
    write_gguf(target, values, [tensor for tensor in new.values() if tensor is not None], types)
    return target


def f32(name: str, numbers: Tensor) -> NewTensor:
    """A tensor to write as F32."""
    return NewTensor(name, tuple(numbers.shape), find_format("F32"), lambda: [numbers.view(torch.uint8)])


# Row order: by hand


def test_one_head_of_four_is_stored_as_rows_0_2_1_3() -> None:
    assert halves_order(1, 4).tolist() == [0, 2, 1, 3]
    assert neighbours_order(1, 4).tolist() == [0, 2, 1, 3]


def test_two_heads_of_six_are_reordered_each_for_itself() -> None:
    assert neighbours_order(2, 6).tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    assert halves_order(2, 6).tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]


@given(st.integers(1, 5), st.integers(1, 9))
def test_both_orders_undo_each_other(heads: int, half: int) -> None:
    assert neighbours_order(heads, 2 * half)[halves_order(heads, 2 * half)].tolist() == list(range(heads * 2 * half))


def test_queries_and_keys_are_reordered_by_their_own_number_of_heads(exported: dict[str, Path]) -> None:
    folder = load_file(exported[LLAMA] / "model.safetensors")
    file = gguf.GGUFReader(exported[LLAMA] / "f32.gguf")
    found = {tensor.name: torch.tensor(tensor.data) for tensor in file.tensors}
    for name, heads in (("q", 12), ("k", 3)):
        matrix = folder[f"model.layers.0.self_attn.{name}_proj.weight"]
        rows = [matrix[8 * head + pair + 4 * half] for head in range(heads) for pair in range(4) for half in range(2)]
        assert torch.equal(found[f"blk.0.attn_{name}.weight"], torch.stack(rows))


# The same model


@pytest.mark.parametrize("architecture", FIXTURES)
def test_a_gguf_file_gives_the_logits_of_the_folder_it_was_made_of(architecture: str, exported: dict[str, Path]) -> None:
    folder = exported[architecture]
    assert relative_error(logits(folder / "f32.gguf", architecture), logits(folder, architecture)) < 1e-12


@pytest.mark.parametrize("architecture", FIXTURES)
def test_a_folder_made_of_a_gguf_file_gives_its_logits(architecture: str, exported: dict[str, Path], tmp_path: Path) -> None:
    export_folder(open_source(exported[architecture] / "f32.gguf"), tmp_path / "again", "f32")
    expected, found = load_file(exported[architecture] / "model.safetensors"), load_file(tmp_path / "again/model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert relative_error(logits(tmp_path / "again", architecture), logits(exported[architecture], architecture)) < 1e-12


@pytest.mark.parametrize("architecture", FIXTURES)
def test_transformers_runs_the_folder_made_of_a_gguf_file(architecture: str, exported: dict[str, Path], tmp_path: Path) -> None:
    from conformance.truth.oracle import load_oracle, oracle_logits

    export_folder(open_source(exported[architecture] / "f32.gguf"), tmp_path / "again", "f32")
    ids = near_prompt({"vocab_size": 97})
    ours = load_model(exported[architecture], "float64", "cpu")(ids)
    assert relative_error(ours, oracle_logits(load_oracle(tmp_path / "again", torch.float64), ids)) < 1e-10


@pytest.mark.parametrize("architecture", FIXTURES)
def test_tensors_have_the_names_that_the_gguf_package_gives_them(architecture: str, exported: dict[str, Path]) -> None:
    source = open_source(exported[architecture])
    known = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    table = gguf.get_tensor_name_map(known[ARCHITECTURES[architecture].name], source.config.num_hidden_layers)
    expected = set()
    for name in load_file(exported[architecture] / "model.safetensors"):
        for expert in range(source.config.num_experts):  # stacked into one tensor
            name = name.replace(f"experts.{expert}.", "experts.").replace("block_sparse_moe.experts.", "feed_forward.experts.")
        expected.add(table.get_name(name.removeprefix("model.") if ".feed_forward." in name else name, (".weight", ".bias")))
    assert set(gguf_names(source.config, source.tensors)) == expected


def test_rows_left_in_the_order_of_the_checkpoint_are_right_at_position_0_only(
    exported: dict[str, Path], tmp_path: Path
) -> None:
    with unpermuted():
        export_gguf(open_source(exported[LLAMA]), tmp_path / "wrong.gguf", "f32")
    ids = near_prompt({"vocab_size": 97})
    right, wrong = (load_model(path, "float64", "cpu")(ids)[0] for path in (exported[LLAMA], tmp_path / "wrong.gguf"))
    assert relative_error(wrong[0], right[0]) < 1e-12
    assert min(relative_error(a, b) for a, b in zip(wrong[1:], right[1:], strict=True)) > 1e-2


@pytest.mark.parametrize("file_type", ["f16", "bf16", "q8_0", "q4_0", "q5_1", "q4_k_m", "mxfp4_moe"])
def test_a_quantized_file_is_the_model_of_the_numbers_that_the_gguf_package_decodes(file_type: str, tmp_path: Path) -> None:
    """Oracle: the file's tensors decoded by the gguf package, written as F32 by it, in a file that has the same metadata."""
    sizes = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 32}
    raw = write_folder(tmp_path / "model", LLAMA, **sizes)
    export_gguf(open_source(tmp_path / "model"), tmp_path / "small.gguf", file_type)
    file = gguf.GGUFReader(tmp_path / "small.gguf")
    plain: dict[str, NewTensor | None] = {}
    for tensor in file.tensors:
        numbers = torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type)).float().contiguous()
        plain[tensor.name] = f32(tensor.name, numbers.reshape(tensor.shape.tolist()[::-1]))
    rewritten(tmp_path / "small.gguf", tmp_path / "plain.gguf", tensors=plain)
    ids = near_prompt(raw)
    small, large = (load_model(tmp_path / name, "float64", "cpu") for name in ("small.gguf", "plain.gguf"))
    assert any(isinstance(module, QuantLinear) for module in small.modules()) == (file_type not in ("f16", "bf16"))
    assert relative_error(small(ids), large(ids)) < 1e-12


def test_blocks_are_copied_where_the_format_stays(tmp_path: Path) -> None:
    write_folder(tmp_path / "model", LLAMA, hidden_size=64, intermediate_size=96)
    export_gguf(open_source(tmp_path / "model"), tmp_path / "once.gguf", "q4_0")
    export_gguf(open_source(tmp_path / "once.gguf"), tmp_path / "twice.gguf", "q4_0")
    once, twice = (read_gguf(tmp_path / name).tensors for name in ("once.gguf", "twice.gguf"))
    assert once.keys() == twice.keys()
    assert all(torch.equal(once[name].blocks, twice[name].blocks) for name in once)


def test_what_is_quantized_already_is_rounded_again_only_on_request(tmp_path: Path) -> None:
    write_folder(tmp_path / "model", LLAMA, hidden_size=64, intermediate_size=96)
    export_gguf(open_source(tmp_path / "model"), tmp_path / "once.gguf", "q8_0")
    with pytest.raises(NanollamaError, match=r"quantized already.*--allow-requantize"):
        export_gguf(open_source(tmp_path / "once.gguf"), tmp_path / "again.gguf", "q4_0")
    assert not (tmp_path / "again.gguf").exists()
    export_gguf(open_source(tmp_path / "once.gguf"), tmp_path / "again.gguf", "q4_0", allow_requantize=True)
    assert load_model(tmp_path / "again.gguf")(near_prompt({"vocab_size": 97})).isfinite().all()


def test_the_published_gguf_of_stories260k_is_the_folder(data_dir: Path) -> None:
    ids = torch.arange(400).view(2, 200) % 512
    file, folder = (load_model(data_dir / "weights" / name, "float64") for name in ("stories260K.gguf", "stories260K-hf"))
    assert relative_error(file(ids), folder(ids)) < 1e-12


def test_the_published_gguf_of_stories260k_tells_its_story(data_dir: Path) -> None:
    lm = load(data_dir / "weights/stories260K.gguf")
    text = "".join(lm.generate("", max_tokens=200, temperature=0.0))
    assert text == (data_dir / "weights/stories260K.expected_greedy_200.txt").read_text()


# Numbers


@given(st.integers(1, 10**6), st.integers(-9, 9))
def test_a_decimal_of_six_digits_survives_float32(digits: int, exponent: int) -> None:
    value = float(f"{digits}e{exponent}")
    assert shortest(struct.unpack("<f", struct.pack("<f", value))[0]) == value


@pytest.mark.parametrize("value", [0.0, -1.5, float("inf"), 1 / 3, 3.4028234663852886e38])
def test_what_needs_all_its_digits_keeps_them(value: float) -> None:
    single = value if value == 1 / 3 else struct.unpack("<f", struct.pack("<f", value))[0]
    assert struct.pack("<f", shortest(single)) == struct.pack("<f", single)


def test_llama_3_is_read_as_what_it_was_made_of(exported: dict[str, Path]) -> None:
    scaling = open_source(exported[LLAMA] / "f32.gguf").raw["rope_scaling"]
    assert {**scaling, "rope_theta": 500000.0} == PUBLISHED


def test_other_divisors_are_read_as_they_are_stored(tmp_path: Path) -> None:
    write_folder(tmp_path / "model", LLAMA)
    export_gguf(open_source(tmp_path / "model"), tmp_path / "model.gguf", "f32")
    raw = open_source(tmp_path / "model.gguf").raw
    assert raw["rope_scaling"]["rope_type"] == "longrope"
    assert raw["rope_scaling"]["short_factor"] == raw["rope_scaling"]["long_factor"]
    assert relative_error(logits(tmp_path / "model.gguf", LLAMA), logits(tmp_path / "model", LLAMA)) < 1e-4  # far positions


# What is refused


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another architecture": ({"general.architecture": "mamba"}, "general.architecture is 'mamba'.*supported: .*llama"),
    "no architecture": ({"general.architecture": None}, "general.architecture is None"),
    "an adapter": ({"general.type": "adapter"}, "general.type is 'adapter'"),
    "an unknown key": ({"llama.attention.sinks": True}, "llama.attention.sinks = True.*may change the mathematics"),
    "a scale": ({"llama.attention.scale": 0.5}, "llama.attention.scale = 0.5"),
    "not causal": ({"llama.attention.causal": False}, "llama.attention.causal = False"),
    "no epsilon": ({"llama.attention.layer_norm_rms_epsilon": None}, "no llama.attention.layer_norm_rms_epsilon"),
    "a window": ({"llama.attention.sliding_window": 4}, "llama.attention.sliding_window = 4"),
    "another vocabulary": ({"llama.vocab_size": 98}, "vocab_size is 98, but token_embd.weight has 97 rows"),
    "value heads of another size": ({"llama.attention.value_length": 4}, "value_length is 4; expected 8"),
    "a part of a head": ({"llama.rope.dimension_count": 4}, "rope.dimension_count is 4; expected 8"),
    "layers that differ": ({"llama.attention.head_count_kv": [3, 3, 6]}, "head_count_kv differs from layer to layer"),
    "too many layers": ({"llama.block_count": 5000}, "num_hidden_layers is 5000"),
    "more layers than tensors": ({"llama.block_count": 400}, "tensors"),
    "heads that do not divide": ({"llama.attention.head_count": 7}, "7"),
    "a size that is a text": ({"llama.embedding_length": "60"}, "'60'"),
    "an unknown scaling": ({"llama.rope.scaling.type": "dynamic"}, "rope.scaling.type 'dynamic'"),
    "a sharpness": ({"llama.rope.scaling.attn_factor": 1.5}, "attn_factor = 1.5"),
    "theta below 1": ({"llama.rope.freq_base": 0.5}, "rope_theta is 0.5"),
    "theta that is no number": ({"llama.rope.freq_base": float("nan")}, "rope.freq_base is nan"),
    "two thetas": ({"llama.rope.freq_base_swa": 77.0}, "rope.freq_base_swa differs"),
    "no experts in use": ({"llama.expert_count": 4}, "llama.expert_used_count"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_metadata_that_would_be_computed_differently_are_refused_by_name(
    case: str, exported: dict[str, Path], tmp_path: Path
) -> None:
    changes, message = REFUSED[case]
    path = rewritten(exported[LLAMA] / "f32.gguf", tmp_path / "changed.gguf", changes)
    with pytest.raises(NanollamaError, match=message):
        open_source(path)


def tensor_of(name: str, *shape: int) -> NewTensor:
    """A tensor of ones."""
    return f32(name, torch.ones(shape))


WRONG_TENSORS: dict[str, tuple[NewTensor | None, str]] = {
    "blk.0.attn_norm.weight": (None, "1 tensors missing.*input_layernorm"),
    "token_embd.weight": (None, "no tensor token_embd.weight"),
    "blk.0.attn_sinks.weight": (tensor_of("blk.0.attn_sinks.weight", 12), "'blk.0.attn_sinks.weight' is not one"),
    "blk.0.ffn_gate.3.weight": (tensor_of("blk.0.ffn_gate.3.weight", 44, 60), "not one that LlamaForCausalLM has here"),
    "blk.9.ffn_up.weight": (tensor_of("blk.9.ffn_up.weight", 44, 60), "not of this model"),
    "output_norm.weight": (tensor_of("output_norm.weight", 61), r"norm.weight has shape \[61\]"),
    "blk.0.attn_q.weight": (tensor_of("blk.0.attn_q.weight", 95, 60), "95 rows; expected 96"),
    "blk.0.attn_qkv.weight": (tensor_of("blk.0.attn_qkv.weight", 144, 60), "stores layers.0.self_attn.q_proj.weight twice"),
    "blk.0.attn_q.bias": (None, "missing"),
    "rope_freqs.weight": (tensor_of("rope_freqs.weight", 5), "short_factor"),
    "rope_factors_long.weight": (tensor_of("rope_factors_long.weight", 4), "rope_freqs alone, or"),
}


@pytest.mark.parametrize("name", WRONG_TENSORS)
def test_a_tensor_that_is_missing_left_over_or_of_another_shape_is_named(
    name: str, exported: dict[str, Path], tmp_path: Path
) -> None:
    tensor, message = WRONG_TENSORS[name]
    path = rewritten(exported[LLAMA] / "f32.gguf", tmp_path / "changed.gguf", tensors={name: tensor})
    with pytest.raises(NanollamaError, match=message):
        open_source(path)


NOT_EXPRESSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    LLAMA: ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}}, "ropes"),
    "MistralForCausalLM": ({"sliding_window": 5}, "windows.*set max_position_embeddings to 5"),
    "Qwen2ForCausalLM": ({"use_sliding_window": True}, "windows"),
    "Qwen3ForCausalLM": ({"rope_parameters": {**PUBLISHED}}, "rope_freqs.weight.*qwen3"),
    "Gemma2ForCausalLM": ({"query_pre_attn_scalar": 7}, "attention_scales"),
    "Gemma3ForCausalLM": ({"query_pre_attn_scalar": 7}, "attention_scales"),
    "Olmo2ForCausalLM": ({"hidden_act": "relu"}, "hidden_act"),
    "SmolLM3ForCausalLM": ({"no_rope_layers": [1, 0, 1, 1]}, "ropes"),
    "GPT2LMHeadModel": ({"scale_attn_by_inverse_layer_idx": True}, "attention_scales"),
    "MixtralForCausalLM": ({"sliding_window": 5}, "windows"),
    "Qwen3MoeForCausalLM": ({"norm_topk_prob": False}, "norm_topk_prob"),
}


@pytest.mark.parametrize("architecture", NOT_EXPRESSIBLE)
def test_a_config_that_a_gguf_file_cannot_say_is_refused_and_nothing_is_written(architecture: str, tmp_path: Path) -> None:
    changes, message = NOT_EXPRESSIBLE[architecture]
    write_folder(tmp_path / "model", architecture, **changes)
    with pytest.raises(NanollamaError, match=f"{message}(.|\n)*a GGUF file of architecture|{message}"):
        export_gguf(open_source(tmp_path / "model"), tmp_path / "out.gguf", "f32")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_exists_is_not_touched(exported: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(NanollamaError, match="exists already"):
        export_folder(open_source(exported[LLAMA]), tmp_path / "mine", "f32")
    with pytest.raises(NanollamaError, match="'q4_0' can't be stored in safetensors"):
        export_folder(open_source(exported[LLAMA]), tmp_path / "new", "q4_0")


def test_every_fixture_can_be_exported_but_for_the_changes_that_are_listed() -> None:
    assert CHANGES.keys() == FIXTURES.keys() == ARCHITECTURES.keys()
    for architecture in FIXTURES:
        read_config(fixture_config(architecture, **CHANGES[architecture]))

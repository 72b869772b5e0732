"""From a checkpoint folder to a model: every tensor is used once, in its shape and dtype, or the folder is refused by name."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from conformance.models.fixtures import FIXTURES, fixture_config, fixture_tensors, near_prompt, write_fixture
from conformance.truth.compare import SEMANTIC_BAR, relative_error
from conformance.truth.oracle import load_oracle, oracle_logits
from nanollama import lm
from nanollama.checkpoint import source
from nanollama.checkpoint.source import load_config
from nanollama.errors import NanollamaError
from nanollama.generation.request import GenerationDefaults
from nanollama.lm import load_model
from nanollama.model.dtypes import DTYPES

Tensors = dict[str, Tensor]
LLAMA, GPT2, PHI3 = "LlamaForCausalLM", "GPT2LMHeadModel", "Phi3ForCausalLM"
RENAMED = (GPT2, PHI3, "MixtralForCausalLM")  # families whose checkpoints name or fuse tensors in their own way
ROUNDING = 1e-13  # the same numbers elsewhere in memory: matrix kernels sum in another order when rows are not aligned
EVERY = pytest.mark.parametrize("architecture", FIXTURES)


def write(folder: Path, tensors: Mapping[str, Tensor], config: dict[str, Any]) -> Path:
    """A checkpoint folder of these contents."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def logits(folder: Path, dtype: str = "auto") -> Tensor:
    model = load_model(folder, dtype, "cpu")
    return model(near_prompt({"vocab_size": model.config.vocab_size}))


def changed(architecture: str, **tensors: Tensor | None) -> Tensors:
    """A fixture's tensors with some replaced, added, or (None) taken away; "__" stands for a dot."""
    result: dict[str, Any] = fixture_tensors(fixture_config(architecture))
    result |= {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in result.items() if tensor is not None}


def sample(tensors: Tensors) -> Tensors:
    """The tensors outside of layers and those of layer 1, which stands for all."""
    return {n: t for n, t in tensors.items() if re.search(r"\.(layers|h)\.1\.", n) or not re.search(r"\.(layers|h)\.\d", n)}


def without(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}


# --- what is accepted


@EVERY
def test_a_checkpoint_saved_by_transformers_loads_and_computes_the_same(architecture: str, tmp_path: Path) -> None:
    theirs = load_oracle(write_fixture(tmp_path / "fixture", fixture_config(architecture)))
    theirs.save_pretrained(tmp_path / "saved")
    want = oracle_logits(theirs, near_prompt(fixture_config(architecture)))
    assert relative_error(logits(tmp_path / "saved"), want) <= SEMANTIC_BAR


@EVERY
def test_shards_give_the_same_model_as_one_file(architecture: str, tmp_path: Path) -> None:
    config = fixture_config(architecture)
    tensors = fixture_tensors(config)
    whole, shards = write(tmp_path / "whole", tensors, config), tmp_path / "shards"
    shards.mkdir()
    (shards / "config.json").write_text(json.dumps(config))
    files = {name: f"model-0000{i % 3 + 1}-of-00003.safetensors" for i, name in enumerate(tensors)}
    for file in set(files.values()):
        save_file({name: tensor for name, tensor in tensors.items() if files[name] == file}, shards / file)
    (shards / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    assert relative_error(logits(shards), logits(whole)) <= ROUNDING


@EVERY
def test_names_without_the_prefix_of_the_head_class_are_the_same_tensors(architecture: str, tmp_path: Path) -> None:
    config = fixture_config(architecture)
    prefix = "transformer." if architecture == GPT2 else "model."
    tensors = fixture_tensors(config)
    bare = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    assert bare.keys() != tensors.keys()
    got, want = logits(write(tmp_path / "bare", bare, config)), logits(write(tmp_path / "full", tensors, config))
    assert relative_error(got, want) <= ROUNDING


@pytest.mark.parametrize(
    ("architecture", "buffers"),
    [
        (LLAMA, ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"]),
        (GPT2, ["transformer.h.0.attn.bias", "h.1.attn.masked_bias"]),
    ],
)
def test_buffers_that_old_files_carry_are_passed_over(architecture: str, buffers: list[str], tmp_path: Path) -> None:
    config = fixture_config(architecture)
    old = changed(architecture) | {name: torch.full((1, 1, 4, 4), 77.0) for name in buffers}
    assert torch.equal(
        logits(write(tmp_path / "old", old, config)), logits(write(tmp_path / "new", changed(architecture), config))
    )


@EVERY
def test_a_loaded_model_is_for_inference(architecture: str, tmp_path: Path) -> None:
    model = load_model(write_fixture(tmp_path, fixture_config(architecture)))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(parameter.is_meta for parameter in model.parameters())


def test_running_a_model_does_not_touch_its_file(tmp_path: Path) -> None:
    folder = write_fixture(tmp_path, fixture_config(LLAMA))
    before = (folder / "model.safetensors").read_bytes()
    model = load_model(folder)
    model(near_prompt(fixture_config(LLAMA)))
    model.embed_tokens.weight.fill_(0.0)  # even writing to a parameter
    assert (folder / "model.safetensors").read_bytes() == before


# --- missing, extra, twice, of another shape


@EVERY
def test_each_tensor_that_is_missing_is_named(architecture: str, tmp_path: Path) -> None:
    config, tensors = fixture_config(architecture), changed(architecture)
    for name in sample(tensors):
        folder = write(tmp_path, {n: t for n, t in tensors.items() if n != name}, config)
        with pytest.raises(NanollamaError, match=r"[1-9]\d* tensors missing .*, 0 not of this model") as caught:
            load_model(folder)
        if architecture not in RENAMED:
            assert name.removeprefix("model.") in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["model.layers.0.self_attn.q_proj.weight_scale", "model.layers.3.mlp.up_proj.weight", "score.weight", "lm_head.bias"],
)
def test_a_tensor_of_no_known_name_is_named(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path, changed(LLAMA) | {name: torch.zeros(4)}, fixture_config(LLAMA))
    with pytest.raises(NanollamaError, match=rf"0 tensors missing, 1 not of this model \({name.removeprefix('model.')}\)"):
        load_model(folder)


@EVERY
def test_each_tensor_of_another_shape_is_refused_with_both_shapes(architecture: str, tmp_path: Path) -> None:
    config, tensors = fixture_config(architecture), changed(architecture)
    for name, tensor in sample(tensors).items():
        longer = torch.cat([tensor, tensor[:1]])  # one row more
        folder = write(tmp_path, tensors | {name: longer}, config)
        with pytest.raises(NanollamaError, match=r"config.json makes it") as caught:
            load_model(folder)
        if architecture not in RENAMED:
            assert name.removeprefix("model.") in str(caught.value)
            assert f"{list(longer.shape)}, but config.json makes it {list(tensor.shape)}" in str(caught.value)


@EVERY
def test_each_matrix_stored_the_other_way_round_is_refused(architecture: str, tmp_path: Path) -> None:
    config, tensors = fixture_config(architecture), changed(architecture)
    matrices = {name: t for name, t in sample(tensors).items() if t.ndim == 2 and t.shape[0] != t.shape[1]}
    assert matrices
    for name, matrix in matrices.items():
        with pytest.raises(NanollamaError, match=r"config.json makes it"):
            load_model(write(tmp_path, tensors | {name: matrix.T}, config))


def test_a_square_matrix_stored_the_other_way_round_has_the_right_shape_and_other_logits(tmp_path: Path) -> None:
    square = changed(GPT2)["transformer.h.0.attn.c_proj.weight"]
    assert square.shape[0] == square.shape[1]
    turned = write(tmp_path / "turned", changed(GPT2, transformer__h__0__attn__c_proj__weight=square.T), fixture_config(GPT2))
    right = write(tmp_path / "right", changed(GPT2), fixture_config(GPT2))
    assert relative_error(logits(turned), logits(right)) > 1e-3  # only a comparison of values can see it: `nanollama verify`


@pytest.mark.parametrize(
    ("architecture", "name", "stored"),
    [
        (LLAMA, "embed_tokens.weight", "model.embed_tokens.weight"),
        (GPT2, "h.0.ln_1.weight", "transformer.h.0.ln_1.weight"),
        (PHI3, "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.qkv_proj.weight"),
        ("MixtralForCausalLM", "layers.0.mlp.gate.weight", "model.layers.0.block_sparse_moe.gate.weight"),
    ],
)
def test_a_tensor_stored_under_two_names_is_refused(architecture: str, name: str, stored: str, tmp_path: Path) -> None:
    tensors = changed(architecture)
    folder = write(tmp_path, tensors | {name: tensors[stored].clone()}, fixture_config(architecture))
    with pytest.raises(NanollamaError, match=r"the checkpoint stores \S+ twice .*remove one of them"):
        load_model(folder)


def test_a_fused_matrix_of_other_proportions_is_refused_with_its_parts(tmp_path: Path) -> None:
    folder = write(tmp_path, changed(PHI3), fixture_config(PHI3, num_key_value_heads=4))
    with pytest.raises(
        NanollamaError, match=r"qkv_proj.weight has shape \[144, 96\]; .* 96 \+ 32 \+ 32 rows \(q_proj, k_proj, v_"
    ):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 4}, r"tensors missing \(layers.3.\S+, \S+, \S+, …\), 0 not of this model"),
        ({"num_hidden_layers": 2}, r"0 tensors missing, \d+ not of this model \(layers.2."),
        ({"hidden_size": 120}, r"has shape \[97, 60\], but config.json makes it \[97, 120\]"),
        ({"vocab_size": 98}, r"has shape \[97, 60\], but config.json makes it \[98, 60\]"),
        ({"head_dim": 4}, r"_proj.\S+ has shape \[\S+\], but config.json makes it"),
        ({"num_key_value_heads": 4}, r"[kv]_proj.bias has shape \[24\], but config.json makes it \[32\]"),
        ({"intermediate_size": 45}, r"down_proj.weight has shape \[60, 44\], but config.json makes it \[60, 45\]"),
        ({"attention_bias": False}, r"0 tensors missing, 12 not of this model \(layers.0.self_attn.[kqvo]_proj.bias"),
        ({"mlp_bias": False}, r"0 tensors missing, 9 not of this model"),
        ({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}, "attention_bias is 'True'"),
    ],
)
def test_the_config_of_another_model_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(NanollamaError, match=message):
        load_model(write(tmp_path, changed(LLAMA), fixture_config(LLAMA, **changes)))


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        (LLAMA, {"num_hidden_layers": 4096}, "4096 layers, at least 4096 tensors, but the checkpoint has 5"),
        ("MixtralForCausalLM", {"num_local_experts": 16384}, "3 layers with 16384 experts, at least 49152 tensors"),
    ],
)
def test_an_absurd_number_of_layers_or_experts_is_refused_before_a_model_is_built(
    architecture: str, changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "Transformer", None)
    with pytest.raises(NanollamaError, match=message):
        load_model(write(tmp_path, changed(architecture), fixture_config(architecture, **changes)))


# --- the head


def tied_folder(folder: Path, tied: bool, head: Callable[[Tensor], Tensor] | None) -> Path:
    """Llama's fixture with or without a head of its own, made from the embedding."""
    tensors = changed(LLAMA, lm_head__weight=None)
    if head is not None:
        tensors["lm_head.weight"] = head(tensors["model.embed_tokens.weight"].clone())
    return write(folder, tensors, fixture_config(LLAMA, tie_word_embeddings=tied))


def test_a_tied_head_may_be_stored_if_it_equals_the_embedding(tmp_path: Path) -> None:
    stored, left_out = (tied_folder(tmp_path / name, True, head) for name, head in (("a", lambda e: e), ("b", None)))
    assert torch.equal(logits(stored), logits(left_out))


@pytest.mark.parametrize("head", [lambda e: e.flip(0), lambda e: e[:-1], lambda e: e.T, lambda e: e * (1 + 1e-15)])
def test_a_tied_head_that_differs_from_the_embedding_is_refused(head: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    with pytest.raises(NanollamaError, match=r"tie_word_embeddings, but the checkpoint stores an lm_head.weight that differs"):
        load_model(tied_folder(tmp_path, True, head))


def test_a_head_that_is_neither_stored_nor_tied_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NanollamaError, match=r"1 tensors missing \(lm_head.weight\)"):
        load_model(tied_folder(tmp_path, False, None))


def test_a_missing_embedding_is_missing_and_not_taken_from_the_head(tmp_path: Path) -> None:
    for tied in (True, False):
        folder = write(
            tmp_path, changed(LLAMA, model__embed_tokens__weight=None), fixture_config(LLAMA, tie_word_embeddings=tied)
        )
        with pytest.raises(NanollamaError, match=r"1 tensors missing \(embed_tokens.weight\)"):
            load_model(folder)


def test_a_damaged_embedding_is_not_mistaken_for_a_head_of_its_own(tmp_path: Path) -> None:
    nan = torch.full((97, 60), torch.nan, dtype=torch.float64)
    tensors = changed(LLAMA, lm_head__weight=None, model__embed_tokens__weight=nan)
    assert logits(write(tmp_path, tensors, fixture_config(LLAMA, tie_word_embeddings=True))).isnan().all()


@pytest.mark.parametrize("dtype", ["auto", *DTYPES])
@pytest.mark.parametrize("stored", [True, False])
def test_a_tied_head_is_the_embedding_itself_in_every_dtype(stored: bool, dtype: str, tmp_path: Path) -> None:
    model = load_model(tied_folder(tmp_path, True, (lambda e: e) if stored else None), dtype)
    assert model.lm_head.weight.data_ptr() == model.embed_tokens.weight.data_ptr()


def test_a_head_of_its_own_stays_its_own_even_if_equal(tmp_path: Path) -> None:
    model = load_model(tied_folder(tmp_path, False, lambda e: e), "float32")
    assert torch.equal(model.lm_head.weight, model.embed_tokens.weight)
    assert model.lm_head.weight.data_ptr() != model.embed_tokens.weight.data_ptr()


# --- dtypes, devices, memory


def dtypes_of(folder: Path, dtype: str = "auto") -> set[torch.dtype]:
    return {parameter.dtype for parameter in load_model(folder, dtype, "cpu").parameters()}


def stored_as(dtype: torch.dtype) -> Tensors:
    return {name: tensor.to(dtype) for name, tensor in changed(LLAMA).items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stored", DTYPES.values())
def test_weights_are_converted_to_the_dtype_asked_for(stored: torch.dtype, dtype: str, tmp_path: Path) -> None:
    tensors = stored_as(stored)
    model = load_model(write(tmp_path, tensors, fixture_config(LLAMA)), dtype)
    for name, parameter in model.named_parameters():
        source = tensors[name if name == "lm_head.weight" else f"model.{name}"]
        assert torch.equal(parameter, source.to(DTYPES[dtype]))
    assert model.dtype is DTYPES[dtype]


@pytest.mark.parametrize("stated", [{"dtype": "float16"}, {"torch_dtype": "float16"}, {"dtype": "torch.float16"}])
def test_auto_is_the_dtype_that_the_config_states(stated: dict[str, str], tmp_path: Path) -> None:
    config = without(fixture_config(LLAMA), "dtype") | stated
    assert dtypes_of(write(tmp_path, stored_as(torch.float32), config)) == {torch.float16}


@pytest.mark.parametrize("stored", DTYPES.values())
def test_auto_is_the_dtype_of_the_file_where_the_config_states_none(stored: torch.dtype, tmp_path: Path) -> None:
    assert dtypes_of(write(tmp_path, stored_as(stored), without(fixture_config(LLAMA), "dtype"))) == {stored}


def test_a_file_of_mixed_dtypes_becomes_one_dtype(tmp_path: Path) -> None:
    mixed = {n: t.float() if "norm" in n else t.bfloat16() for n, t in changed(LLAMA).items()}
    assert dtypes_of(write(tmp_path, mixed, without(fixture_config(LLAMA), "dtype"))) == {torch.bfloat16}


@pytest.mark.parametrize(
    ("asked", "stated"), [("float8", "float32"), ("auto", "float8_e4m3fn"), ("Float32", "float32"), ("", "float32")]
)
def test_an_unknown_dtype_is_refused_by_name(asked: str, stated: str, tmp_path: Path) -> None:
    folder = write(tmp_path, changed(LLAMA), fixture_config(LLAMA, dtype=stated))
    name = stated if asked == "auto" else asked
    with pytest.raises(NanollamaError, match=rf"dtype '{name}' is not known; known: auto, float64, float32, bfloat16, float16"):
        load_model(folder, asked)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.uint8, torch.float8_e4m3fn, torch.complex64])
def test_a_tensor_that_is_not_stored_in_floating_point_is_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    folder = write(tmp_path, changed(LLAMA) | {name: torch.ones(44, 60).to(dtype)}, fixture_config(LLAMA))
    stored = str(dtype).removeprefix("torch.")
    with pytest.raises(NanollamaError, match=rf"layers.1.mlp.up_proj.weight is stored as {stored}; expected float64, float32"):
        load_model(folder)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "device 'gpu' is not known; known: auto, cpu, cuda, mps"),
        ("", "device '' is not known"),
        ("CPU", "device 'CPU' is not known"),
        ("meta", "device 'meta' is not known"),
        ("cpu:x", "device 'cpu:x' is not a device name"),
        ("cpu:-1", "device 'cpu:-1' is not a device name"),
    ],
)
def test_an_impossible_device_is_refused_by_name(device: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(NanollamaError, match=message):
        load_model(write_fixture(tmp_path, fixture_config(LLAMA)), device=device)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_a_device_that_torch_does_not_see_is_refused(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(NanollamaError, match=f"device '{device}' was asked for, but torch sees none here; use auto or cpu"):
        load_model(write_fixture(tmp_path, fixture_config(LLAMA)), device=device)
    assert load_model(tmp_path, device="auto").device == torch.device("cpu")


@pytest.mark.parametrize("architecture", [LLAMA, PHI3, GPT2, "MixtralForCausalLM"])
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists what is mapped")
def test_weights_in_the_dtype_of_the_file_stay_where_the_file_is_mapped(architecture: str, tmp_path: Path) -> None:
    bf16 = {name: tensor.bfloat16() for name, tensor in changed(architecture).items()}
    folder = write(tmp_path, bf16, fixture_config(architecture, dtype="bfloat16"))
    file = folder / "model.safetensors"
    model = load_model(folder, "auto", "cpu")
    assert len(within(model, file)) == len(list(model.parameters()))
    assert not within(load_model(folder, "float32", "cpu"), file)  # the control


def within(model: torch.nn.Module, file: Path) -> list[Tensor]:
    """The parameters whose bytes lie in a mapping of the file, by Linux's own list of mappings."""
    spans = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(file)):
            begin, end = line.split()[0].split("-")
            spans.append(range(int(begin, 16), int(end, 16)))
    return [p for p in model.parameters() if any(p.data_ptr() in span for span in spans)]


# --- the files beside the weights


def test_a_folder_without_config_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NanollamaError, match=r"has no config.json; expected a folder with config.json and"):
        load_config(tmp_path)


def test_generation_config_json_adds_what_ends_a_text(tmp_path: Path) -> None:
    write_fixture(tmp_path, fixture_config(LLAMA))
    assert lm.load(tmp_path).defaults == GenerationDefaults(1, (2,))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 9], "temperature": 0.6}')
    assert lm.load(tmp_path).defaults == GenerationDefaults(1, (2, 9))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, true]}')
    with pytest.raises(NanollamaError, match=r"eos_token_id is \[2, True\], expected token ids"):
        load_model(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": NaN}', "\ufeff{}", '{"architectures": 1}'])
def test_a_config_json_that_is_no_such_thing_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(NanollamaError, match=r"config.json"):
        load_config(tmp_path)

"""A GGUF file gives the logits of its source model: metadata, names, row orders, stacks, fused rows, weights in blocks."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import nanollama.checkpoint.gguf.names as gguf_names
from conformance.checks import Failed, check, compared, place_of
from conformance.checks.checkpoint.loading import without_layer
from conformance.checks.gguf.files import ARCHITECTURES, as_read, gathered, plain_tensor, write_gguf
from conformance.checks.model.configured import FIELDS, alike, fields_of_rope
from conformance.fuzz.valid_gguf import Tensor as Stored
from conformance.models.fixtures import far_prompt, fixture_config, fixture_tensors, near_prompt
from conformance.models.weights import derived_ids
from conformance.truth.cases import scratch
from conformance.truth.compare import SEMANTIC_BAR, row_error
from conformance.truth.quant_golden import GOLDEN_FORMATS, load_goldens
from conformance.truth.reference import Reference
from conformance.truth.spec import Spec, read_spec
from conformance.truth.stored import module_tensors
from nanollama.checkpoint.build import build_model
from nanollama.checkpoint.gguf.reader import read_gguf
from nanollama.checkpoint.source import Source, open_source
from nanollama.quant import FORMATS
from nanollama.quant.quant_tensor import QuantTensor

PUBLISHED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 500000.0}
YARN = {"rope_type": "yarn", "factor": 6.0, "original_max_position_embeddings": 512}
GEMMA = {"query_pre_attn_scalar": 8}
NO_WINDOW: dict[str, Any] = {"use_sliding_window": False, "layer_types": None}
CASES: dict[str, tuple[str, dict[str, Any]]] = {  # changes of fixtures that GGUF or llama.cpp can't express
    "llama": ("LlamaForCausalLM", {"rope_parameters": {**PUBLISHED, "original_max_position_embeddings": 8192}}),
    "llama, tied, no biases": (
        "LlamaForCausalLM",
        {"rope_parameters": None, "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True, "rope_theta": 777.0},
    ),
    "mixtral": ("MixtralForCausalLM", {"sliding_window": None}),
    "qwen2": ("Qwen2ForCausalLM", {"use_sliding_window": False, "rope_scaling": YARN}),
    "qwen3": ("Qwen3ForCausalLM", {**NO_WINDOW, "attention_bias": False}),
    "qwen3moe": ("Qwen3MoeForCausalLM", {"norm_topk_prob": True, "mlp_only_layers": [], "num_experts": 12}),
    "gemma2": ("Gemma2ForCausalLM", GEMMA),
    "gemma2, head of its own": ("Gemma2ForCausalLM", {**GEMMA, "tie_word_embeddings": False}),
    "gemma3": ("Gemma3ForCausalLM", GEMMA),
    "phi3": ("Phi3ForCausalLM", {}),
    "olmo2": ("Olmo2ForCausalLM", {}),
    "smollm3": ("SmolLM3ForCausalLM", {**NO_WINDOW, "no_rope_layers": None, "num_hidden_layers": 5}),
    "gpt2": ("GPT2LMHeadModel", {"scale_attn_by_inverse_layer_idx": False}),
}
HALVES = (("llama", torch.float16), ("gemma2", torch.bfloat16), ("phi3", torch.bfloat16))
BLOCKY: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
BLOCKY |= {"num_hidden_layers": 2, "rope_parameters": None, "attention_bias": False, "mlp_bias": False}


@functools.cache
def made(name: str, dtype: torch.dtype = torch.float32) -> tuple[Path, Reference]:
    """A file of plain numbers, and the model that it holds."""
    architecture, changes = CASES[name]
    raw = {key: value for key, value in fixture_config(architecture, **changes).items() if value is not None}
    spec = read_spec(raw)
    ours = module_tensors(spec, fixture_tensors(raw))
    stored = [plain_tensor(key, tensor, dtype) for key, tensor in gathered(spec, ours).items()]
    path = write_gguf(scratch() / f"{name.replace(', ', '-').replace(' ', '-')}-{dtype.itemsize}.gguf", spec, stored)
    return path, Reference(spec, {key: as_read(spec, key, tensor, dtype) for key, tensor in ours.items()})


def judge_file(path: Path, truth: Reference) -> None:
    """The file must give the logits of its model; else raises Failed at the faulty function of loading."""
    try:
        model, error = build_model(open_source(path), "float64", "cpu"), 0.0
        config = {"vocab_size": truth.spec.vocab}
        far, positions = far_prompt(config)
        for ids, at in ((near_prompt(config)[0], torch.arange(16)), (far[0], positions[0])):
            want = truth.run(ids, at)["logits"].log_softmax(-1)
            error = max(error, row_error(model(ids[None], positions=at[None]).log_softmax(-1), want))
            compared()
        detail = f"{path.name}: logits off by {error:.1e} (bar {SEMANTIC_BAR:.0e})"
    except Exception as raised:
        error, detail = torch.inf, f"{path.name}: {type(raised).__name__} in {place_of(raised.__traceback__)}: {raised}"
        raise locate(path, truth) or Failed(place_of(raised.__traceback__), detail[:300]) from raised
    if error > SEMANTIC_BAR:
        raise locate(path, truth) or Failed("checkpoint.build.build_model", detail)


def locate(path: Path, truth: Reference) -> Failed | None:
    """The faulty function of reading the file: its config, or a tensor on its way to a module."""
    try:
        read_gguf(path)
        source = open_source(path)
    except Exception as raised:
        place = place_of(raised.__traceback__)
        by_name = place.startswith("checkpoint.names.check_") or place.startswith("checkpoint.gguf.names.")
        where = first_wrong_name(path, truth) if by_name else None
        return where or Failed(place, f"{type(raised).__name__}: {str(raised)[:200]}")
    return config_fault(source, truth.spec) or tensor_fault(source, truth) or module_fault(source, truth)


def first_wrong_name(path: Path, truth: Reference) -> Failed | None:
    """The first tensor that gets another name than its module's."""
    for part in truth.tensors:
        name = stored_as(truth.spec, part)
        try:
            config = open_config(path)
            found = [ours for ours, _ in gguf_names.take_apart(config, name, torch.zeros(*shape_in_file(path, name)))]
        except Exception:
            found = []
        if part not in found:
            detail = f"{name} becomes {found[:3]}, and not {part}"
            return Failed(f"checkpoint.gguf.names.take_apart: {without_layer(part)}", detail)
    return None


def open_config(path: Path) -> Any:
    """The config that the runtime reads from the metadata."""
    from nanollama.checkpoint.source import read_gguf_config

    return read_gguf_config(read_gguf(path))[1]


def shape_in_file(path: Path, name: str) -> tuple[int, ...]:
    """A tensor's shape, experts flattened."""
    shape = read_gguf(path).tensors[name].shape
    return (shape[0] * shape[1], shape[2]) if len(shape) == 3 else tuple(shape)


def stored_as(spec: Spec, part: str) -> str:
    """The tensor of the file that holds a parameter."""
    return next(iter(gathered(replace(spec, tied=False), {part: torch.zeros(spec.heads * spec.kv_heads * 2)})))


def config_fault(source: Source, spec: Spec) -> Failed | None:
    """The first config field that differs from the metadata's meaning."""
    config = source.config
    if ARCHITECTURES[config.architecture] != ARCHITECTURES[spec.architecture] or config.num_experts != spec.experts:
        return Failed("checkpoint.gguf.config.family_of", f"the file is read as {config.architecture}")
    for ours, (theirs, _) in FIELDS.items():
        compared()
        got, want = getattr(config, ours), getattr(spec, theirs)
        if not alike(got, want):
            gemma = spec.architecture.startswith("Gemma") and ours in ("windows", "attention_scales")
            function = "gemma_keys" if gemma else "config_from_gguf"
            return Failed(f"checkpoint.gguf.config.{function}: {ours}", f"{ours} is {got!r}, expected {want!r}")
    for got_rope, want_rope in zip(config.ropes, spec.ropes, strict=True):
        faults = list(fields_of_rope(got_rope, want_rope)) if got_rope and want_rope else []
        if (got_rope is None) != (want_rope is None):
            return Failed("checkpoint.gguf.config.config_from_gguf: rotary", "another layer rotates")
        if faults:
            return Failed(f"checkpoint.gguf.rope.rope_from_gguf: {faults[0].place.split('.')[-1]}", faults[0].detail)
    return None


def tensor_fault(source: Source, truth: Reference) -> Failed | None:
    """The first tensor whose numbers are not its module's."""
    for name, want in truth.tensors.items():
        compared()
        got: Any = source.tensors.get(name)
        if got is not None:
            numbers: Tensor = got.dequantize(torch.float64) if isinstance(got, QuantTensor) else got.double()
            if numbers.shape != want.shape or not torch.equal(numbers, want):
                rotary = name.split(".")[-2] in ("q_proj", "k_proj")
                function = "from_gguf" if rotary or name.endswith("norm.weight") else "take_apart"
                place = f"checkpoint.gguf.names.{function}: {without_layer(name)}"
                return Failed(place, f"{name} has other numbers than the file")
    return None


def module_fault(source: Source, truth: Reference) -> Failed | None:
    """The first matrix of the built model whose product is wrong for its numbers."""
    model = build_model(source, "float64", "cpu")
    for name, module in model.named_modules():
        weight = truth.tensors.get(f"{name}.weight")
        if weight is None or weight.ndim != 2:
            continue
        kind = type(module).__name__
        if name.startswith("embed"):
            ids = torch.arange(len(weight))
            error = row_error(module(ids[None]), weight)
        else:
            x = torch.linspace(-1, 1, 3 * weight.shape[1], dtype=torch.float64).view(3, -1).sin()
            error = row_error(module(x[None]), truth.linear(name, x))
        if error > SEMANTIC_BAR:
            owner = f"{type(module).__module__}.{kind}".removeprefix("nanollama.")
            owner = "kernels.linear.quantized_linear" if kind == "QuantLinear" else owner
            return Failed(f"{owner}: {without_layer(name + '.')}", f"{name}: off by {error:.1e} on the file's own numbers")
    return None


@check("GGUF-010", "GGUF-011", "GGUF-012", area="weights", each=tuple(CASES))
def a_file_is_the_model_that_it_was_made_of(name: str) -> None:
    judge_file(*made(name))


@check("GGUF-013", area="weights", each=tuple(name for name, _ in HALVES))
def half_precision_numbers_are_read_exactly(name: str) -> None:
    judge_file(*made(name, dict(HALVES)[name]))


@functools.cache
def blocky(first: int) -> tuple[Path, Reference]:
    """A file whose matrices are golden blocks, each of the next format; the truth is the values that ggml decodes."""
    raw = {key: value for key, value in fixture_config("LlamaForCausalLM", **BLOCKY).items() if value is not None}
    spec, golden = read_spec(raw), load_goldens()
    ours = module_tensors(spec, fixture_tensors(raw))
    names = [GOLDEN_FORMATS[(first + i) % len(GOLDEN_FORMATS)] for i in range(len(ours))]
    stored, values = [], dict[str, Tensor]()
    for (name, tensor), format in zip(ours.items(), names, strict=True):
        [(key, _)] = gathered(spec, {name: tensor}).items()
        if tensor.ndim == 1:
            stored.append(plain_tensor(key, tensor, torch.float32))
            values[name] = tensor.float().double()
            continue
        blocks, numbers = golden_matrix(golden, format, name, tuple(tensor.shape))
        stored.append(Stored(key.encode(), list(tensor.shape)[::-1], FORMATS[format].id, blocks.numpy().tobytes()))
        values[name] = unordered(spec, name, numbers)
    return write_gguf(scratch() / f"blocky-{first}.gguf", spec, stored), Reference(spec, values)


def golden_matrix(golden: dict[str, Tensor], format: str, name: str, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Golden blocks in an arbitrary order, and their values as a matrix."""
    per_block, size = FORMATS[format].block_size, FORMATS[format].block_bytes
    blocks, values = golden[f"{format}/written/blocks"].view(-1, size), golden[f"{format}/written/values"].view(-1, per_block)
    picks = torch.tensor(derived_ids(7, name, shape[0] * shape[1] // per_block, len(blocks)))
    return blocks[picks], values[picks].reshape(shape).double()


def unordered(spec: Spec, name: str, rows: Tensor) -> Tensor:
    """The rows of a file's rotary matrix in a checkpoint's order."""
    heads = {"q_proj": spec.heads, "k_proj": spec.kv_heads}.get(name.split(".")[-2])
    if not heads:
        return rows
    return rows.view(heads, -1, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)


@check("QUNT-010", "QUNT-011", area="quantization", each=("0", "7", "14"))
def matrices_left_in_blocks_compute_with_the_values_of_the_blocks(first: str) -> None:
    judge_file(*blocky(int(first)))

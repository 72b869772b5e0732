"""Every form of real checkpoint folders loads as the same model, in the requested dtype; a wrong one is refused."""

import functools
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from conformance.checks import Failed, check, place_of
from conformance.checks.assertions import expect, expect_equal, expect_refused
from conformance.checks.checkpoint.loading import without_layer
from conformance.truth.cases import Case, case, scratch, workplace
from conformance.truth.compare import SEMANTIC_BAR, row_error
from conformance.truth.reference import Reference
from conformance.truth.stored import module_tensors
from nanollama.lm import load, load_model

Tensors = Mapping[str, Tensor]
LLAMA, GEMMA, PHI3, GPT2 = "LlamaForCausalLM", "Gemma2ForCausalLM", "Phi3ForCausalLM", "GPT2LMHeadModel"
DTYPES = ("float64", "float32", "bfloat16", "float16")
FORMS: dict[str, tuple[str, Callable[[Case], list[Tensors]], dict[str, Any]]] = {}  # family, files, changes of config.json


def form(name: str, family: str, **changes: Any) -> Callable[[Callable[[Case], list[Tensors]]], None]:
    """Register a form: a function from a case to the files of its folder."""

    def keep(files: Callable[[Case], list[Tensors]]) -> None:
        FORMS[name] = family, files, changes

    return keep


@form("shards", LLAMA)
def _(this: Case) -> list[Tensors]:
    names = list(this.stored)
    return [{name: this.stored[name] for name in names[start::3]} for start in range(3)]


@form("shards of fused matrices", PHI3)
def _(this: Case) -> list[Tensors]:
    names = list(this.stored)
    return [{name: this.stored[name] for name in names[start::2]} for start in range(2)]


@form("a head that is tied and stored too", GEMMA)
def _(this: Case) -> list[Tensors]:
    return [{**this.stored, "lm_head.weight": this.stored["model.embed_tokens.weight"].clone()}]


@form("frequencies stored with the weights", LLAMA)
def _(this: Case) -> list[Tensors]:
    return [{**this.stored, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}]


@form("masks stored with the weights", GPT2)
def _(this: Case) -> list[Tensors]:
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 4, 4) for i in range(3)}
    return [{**this.stored, **masks, "transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}]


@form("names without the outer module", GPT2)
def _(this: Case) -> list[Tensors]:
    return [{name.removeprefix("transformer."): tensor for name, tensor in this.stored.items()}]


@functools.cache
def folder(name: str) -> Path:
    """A form as files."""
    family, files, changes = FORMS[name]
    this, path = case(family), scratch() / f"form-{name.replace(' ', '-')}"
    return write(path, {**this.raw, **changes}, files(this))


def write(path: Path, raw: Mapping[str, Any], files: list[Tensors]) -> Path:
    """config.json and one or several safetensors files."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(raw))
    if len(files) == 1:
        save_file({name: tensor.contiguous() for name, tensor in files[0].items()}, path / "model.safetensors")
        return path
    names: dict[str, str] = {}
    for number, tensors in enumerate(files, 1):
        file = f"model-{number:05}-of-{len(files):05}.safetensors"
        save_file(dict(tensors), path / file)
        names |= dict.fromkeys(tensors, file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return path


def judge_folder(path: Path, truth: Reference, dtype: str = "float64") -> None:
    """A folder must give the logits of its numbers."""
    try:
        model = load_model(path, dtype, "cpu")
        ids = torch.arange(5, 21) % truth.spec.vocab
        error = row_error(model(ids[None]).log_softmax(-1), truth.run(ids)["logits"].log_softmax(-1))
    except Exception as raised:
        raise Failed(place_of(raised.__traceback__), f"{path.name}: {type(raised).__name__}: {str(raised)[:200]}") from raised
    state = model.state_dict()
    wrong = [name for name, want in truth.tensors.items() if name in state and not torch.equal(state[name].double(), want)]
    place = f"checkpoint.build.build_model: {without_layer(wrong[0])}" if wrong else "checkpoint.build.build_model"
    expect(place, error <= SEMANTIC_BAR, f"{path.name}: logits off by {error:.1e} (bar {SEMANTIC_BAR:.0e})")


@check("WGHT-010", "WGHT-011", area="weights", each=tuple(FORMS))
def every_form_of_a_folder_is_the_same_model(name: str) -> None:
    judge_folder(folder(name), case(FORMS[name][0]).truth)


@functools.cache
def rounded(family: str, dtype: str, stated: str | None) -> tuple[Path, Reference]:
    """A checkpoint stored in one dtype, whose config may state another, and its model."""
    this, kept = case(family), getattr(torch, dtype)
    files = {name: tensor.to(kept) for name, tensor in this.stored.items()}
    raw = {key: value for key, value in this.raw.items() if key != "dtype"} | ({"dtype": stated} if stated else {})
    path = write(scratch() / f"{family}-{dtype}-{stated}", raw, [files])
    return path, Reference(this.spec, module_tensors(this.spec, files))


@check("WGHT-012", "NUMR-010", area="weights")
def numbers_keep_their_values_and_models_the_dtype_asked_for() -> None:
    for family, dtype in ((LLAMA, "bfloat16"), (GEMMA, "float16"), (GPT2, "float32")):
        judge_folder(*rounded(family, dtype, dtype))
        for stated in (None, dtype, "float32"):
            path, _ = rounded(family, dtype, stated)
            wanted = getattr(torch, stated or dtype)
            expect_equal(
                "model.dtypes.pick_dtype", load_model(path, "auto", "cpu").dtype, wanted, f'"auto" for {dtype}, stated {stated}'
            )
        for asked in DTYPES:
            model = load_model(rounded(family, dtype, dtype)[0], asked, "cpu")
            expect_equal(
                "checkpoint.build.build_model", model.dtype, getattr(torch, asked), f"the dtype of a model loaded as {asked}"
            )
            kinds = {tensor.dtype for tensor in model.state_dict().values()}
            expect_equal(
                "checkpoint.build.build_model", kinds, {getattr(torch, asked)}, f"the dtypes of weights loaded as {asked}"
            )
            logits = model(torch.tensor([[1, 2, 3]]))
            expect_equal(
                "model.transformer.Transformer.forward", logits.dtype, model.dtype, f"the dtype of logits of a model in {asked}"
            )
    expect_refused(
        "model.dtypes.pick_dtype", lambda: load_model(case(LLAMA).folder, "int8", "cpu"), "int8", "a dtype that there is not"
    )
    expect_refused(
        "model.dtypes.pick_device", lambda: load_model(case(LLAMA).folder, "auto", "tpu"), "tpu", "a device that there is not"
    )


def changed(this: Case, name: str, **changes: Tensor | None) -> Path:
    """The folder with some tensors replaced, added, or removed (None)."""
    tensors = {key: tensor for key, tensor in {**this.stored, **changes}.items() if tensor is not None}
    return write(workplace() / f"wrong-{name}", this.raw, [tensors])


@check("WGHT-013", "WGHT-014", "SAFE-010", area="weights")
def a_checkpoint_that_does_not_fit_is_refused_by_name() -> None:
    this = case(LLAMA)
    q, head = "model.layers.1.self_attn.q_proj.weight", "lm_head.weight"
    place = "checkpoint.names.check_tensors"
    wrong: list[tuple[str, dict[str, Any], str, str]] = [
        ("missing", {q: None}, place, "layers.1.self_attn.q_proj.weight"),
        ("no-bias", {q.replace("weight", "bias"): None}, place, "layers.1.self_attn.q_proj.bias"),
        ("no-head", {head: None}, place, "lm_head.weight"),
        ("extra", {"model.layers.1.self_attn.q_norm.weight": torch.ones(8)}, place, "q_norm"),
        ("another-layer", {"model.layers.3.mlp.up_proj.weight": torch.ones(44, 60)}, place, "layers.3"),
        ("shape", {q: torch.ones(95, 60)}, place, "layers.1.self_attn.q_proj.weight"),
        ("turned", {q: torch.ones(60, 96)}, place, "layers.1.self_attn.q_proj.weight"),
        ("integers", {q: torch.ones(96, 60, dtype=torch.int32)}, place, "int32"),
        ("twice", {"norm.weight": torch.ones(60)}, "checkpoint.names.runtime_tensors", "norm.weight"),
    ]
    for name, changes, function, named in wrong:
        path = changed(this, name, **changes)
        expect_refused(function, partial(load_model, path, "float64", "cpu"), named, f"a checkpoint, {name},")
    tied = case(GEMMA)
    other = changed(tied, "other-head", **{head: tied.stored["model.embed_tokens.weight"] + 1})
    expect_refused(
        "checkpoint.names.share_tied_head", lambda: load_model(other, "float64", "cpu"), head, "a tied head of its own"
    )
    fused = case(PHI3)
    cut = changed(fused, "cut", **{"model.layers.0.self_attn.qkv_proj.weight": torch.ones(100, 96)})
    expect_refused(
        "checkpoint.names.split", lambda: load_model(cut, "float64", "cpu"), "qkv_proj", "a fused matrix of another size"
    )


@check("WGHT-015", "EOSX-010", area="weights")
def a_folder_gives_its_generation_settings() -> None:
    this = case(LLAMA)
    path = write(workplace() / "with-generation", this.raw, [this.stored])
    (path / "generation_config.json").write_text('{"eos_token_id": [5, 6], "bos_token_id": 4}')
    lm = load(path, "float64", "cpu")
    found = (lm.defaults.eos_token_ids, lm.defaults.bos_token_id, lm.tokenizer, lm.template)
    expect_equal("checkpoint.source.read_generation_config", found, ((5, 6), 4, None, None), "a folder's generation settings")
    tied = load(case(GEMMA).folder, "float64", "cpu").model
    shares = tied.lm_head.weight.data_ptr() == tied.embed_tokens.weight.data_ptr()
    expect("checkpoint.build.build_model: lm_head", shares, "a tied head is a second copy of the embedding")

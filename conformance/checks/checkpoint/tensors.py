"""From stored tensors to a model: names, fused and transposed matrices, tied heads, and tensors that do not fit."""

# mypy: disable-error-code="arg-type,func-returns-value,misc,no-redef"
# tables mix good and bad arguments

import json
import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from conformance.checks import check
from conformance.checks.assertions import expect, expect_equal, expect_equal_tensor, expect_refused
from conformance.models.fixtures import fixture_config, write_fixture
from nanollama import lm
from nanollama.checkpoint import names, source
from nanollama.model.config import ModelConfig, read_config
from nanollama.model.families import FAMILIES
from nanollama.model.transformer import Transformer
from nanollama.quant import FORMATS, QuantTensor


def config(architecture: str = "LlamaForCausalLM", **changes: Any) -> ModelConfig:
    return read_config(fixture_config(architecture, **changes))


def state(given: ModelConfig) -> dict[str, Tensor]:
    with torch.device("meta"):
        return dict(Transformer(given).state_dict())


@check("WGHT-003", area="weights")
def names_go_both_ways() -> None:
    place = "checkpoint.names.rename"
    for architecture, stored, ours in (
        ("LlamaForCausalLM", "model.layers.1.self_attn.q_proj.weight", "layers.1.self_attn.q_proj.weight"),
        ("LlamaForCausalLM", "lm_head.weight", "lm_head.weight"),
        (
            "MixtralForCausalLM",
            "model.layers.0.block_sparse_moe.experts.3.w2.weight",
            "layers.0.mlp.experts.3.down_proj.weight",
        ),
        ("MixtralForCausalLM", "model.layers.0.block_sparse_moe.gate.weight", "layers.0.mlp.gate.weight"),
        ("GPT2LMHeadModel", "transformer.h.2.attn.c_proj.bias", "layers.2.self_attn.o_proj.bias"),
        ("GPT2LMHeadModel", "transformer.h.2.mlp.c_proj.weight", "layers.2.mlp.down_proj.weight"),
        ("GPT2LMHeadModel", "transformer.wpe.weight", "embed_positions.weight"),
        ("GPT2LMHeadModel", "transformer.ln_f.bias", "norm.bias"),
    ):
        expect_equal(place, names.rename(FAMILIES[architecture], stored), ours, f"{stored} of {architecture}")
        expect_equal(
            "checkpoint.names.original_name",
            names.original_name(FAMILIES[architecture], ours),
            stored,
            f"{ours} of {architecture}",
        )
    for architecture in FAMILIES:
        given = config(architecture)
        ours_ = state(given)
        stored_ = names.checkpoint_names(given, ours_)
        listed = sorted(part for parts in stored_.values() for part in parts)
        tied = {"lm_head.weight"} if given.tie_word_embeddings else set()
        expect_equal(
            "checkpoint.names.checkpoint_names", listed, sorted(ours_.keys() - tied), f"the tensors of a {architecture} folder"
        )


@check("WGHT-003", "WGHT-004", "CONF-010", area="weights")
def fused_and_transposed_matrices_are_taken_apart() -> None:
    phi, gpt2 = config("Phi3ForCausalLM"), config("GPT2LMHeadModel")
    q, kv = phi.num_attention_heads * phi.head_dim, phi.num_key_value_heads * phi.head_dim
    matrix = torch.arange(float(q + 2 * kv)).repeat(2, 1).T
    parts = dict(names.split(phi, "layers.0.self_attn.qkv_proj.weight", matrix))
    got = {name.split(".")[-2]: tensor[:, 0].tolist() for name, tensor in parts.items()}
    numbers = [float(i) for i in range(q + 2 * kv)]
    expect_equal(
        "checkpoint.names.split",
        got,
        {"q_proj": numbers[:q], "k_proj": numbers[q : q + kv], "v_proj": numbers[q + kv :]},
        "rows of q, k and v",
    )
    matrix = torch.arange(2.0 * phi.intermediate_size)[:, None]
    gate, up = (tensor[0, 0].item() for _, tensor in names.split(phi, "layers.0.mlp.gate_up_proj.weight", matrix))
    expect_equal("checkpoint.names.split", (gate, up), (0.0, float(phi.intermediate_size)), "gate stands before up")
    wide = torch.arange(6.0).reshape(2, 3)
    ((_, turned),) = names.split(gpt2, "layers.0.mlp.up_proj.weight", wide)
    expect_equal_tensor("checkpoint.names.split", turned, wide.T, "GPT-2's matrices are turned")
    ((_, whole),) = names.split(gpt2, "embed_tokens.weight", wide)
    expect_equal_tensor("checkpoint.names.split", whole, wide, "its embedding is not")
    expect_refused(
        "checkpoint.names.split",
        lambda: names.split(phi, "layers.0.self_attn.qkv_proj.weight", matrix[:5]),
        "rows",
        "too few rows",
    )
    back = names.checkpoint_tensor(gpt2, ["layers.0.self_attn.q_proj.weight", "b", "c"], [wide, wide + 10, wide + 20])
    expect_equal_tensor(
        "checkpoint.names.checkpoint_tensor", back, torch.cat([wide, wide + 10, wide + 20]).T, "fused and turned again"
    )
    given = config()
    buffers = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": wide,
        "lm_head.weight": wide,
        **{f"model.layers.{i}.x.weight": wide for i in range(4)},
    }
    got_names = sorted(names.runtime_tensors(given, buffers))
    expect_equal(
        "checkpoint.names.runtime_tensors",
        got_names,
        ["layers.0.x.weight", "layers.1.x.weight", "layers.2.x.weight", "layers.3.x.weight", "lm_head.weight"],
        "buffers of old files are left out",
    )
    expect_refused(
        "checkpoint.names.runtime_tensors",
        lambda: names.runtime_tensors(given, {"model.norm.weight": wide, "norm.weight": wide}),
        "twice",
        "a tensor twice",
    )
    expect_refused(
        "checkpoint.names.check_counts",
        lambda: names.runtime_tensors(given, {}),
        "layers",
        "a config of more layers than tensors",
    )


@check("WGHT-005", "WGHT-006", "WGHT-007", "ERRS-012", area="weights")
def tensors_must_be_those_of_the_model() -> None:
    place, expected = "checkpoint.names.check_tensors", {"a": torch.zeros(2, 3), "b": torch.zeros(4)}
    good = {"a": torch.zeros(2, 3, dtype=torch.bfloat16), "b": torch.zeros(4, dtype=torch.float64)}
    expect_equal(place, names.check_tensors(expected, good), None, "the right tensors")
    stored = QuantTensor(torch.zeros(2, 12, dtype=torch.uint8), FORMATS["F32"])
    expect_equal(place, names.check_tensors(expected, {**good, "a": stored}), None, "a stored matrix")
    for found, part in (
        ({"a": good["a"]}, "(b)"),
        ({**good, "c": good["b"]}, "(c)"),
        ({**good, "ab": good["b"]}, "(ab)"),
        ({"a.weight": good["a"], "b": good["b"]}, "missing (a)"),
        ({**good, "a": torch.zeros(3, 2)}, "[3, 2]"),
        ({**good, "a": torch.zeros(2, 3, dtype=torch.int32)}, "int32"),
        ({**good, "b": torch.zeros(4, dtype=torch.float8_e4m3fn)}, "float8"),
    ):
        expect_refused(place, lambda found=found: names.check_tensors(expected, found), part, f"tensors {sorted(found)}")
    place, tied, free = "checkpoint.names.share_tied_head", config(tie_word_embeddings=True), config(tie_word_embeddings=False)
    table, other = torch.arange(4.0), torch.arange(4.0) + 1
    for given, tensors, wanted in (
        (tied, {}, table),
        (tied, {"lm_head.weight": table.clone()}, table),
        (free, {"lm_head.weight": other}, other),
        (free, {}, None),
    ):
        found: dict[str, Any] = {"embed_tokens.weight": table, **tensors}
        names.share_tied_head(given, found)
        head = found.get("lm_head.weight")
        expect(
            place,
            (head is None) == (wanted is None) and (head is None or torch.equal(head, wanted)),
            f"the head is {head}, expected {wanted}",
        )
        expect(place, given is free or head is table, "a tied head is not the embedding itself")
    expect_refused(
        place,
        lambda: names.share_tied_head(tied, {"embed_tokens.weight": table, "lm_head.weight": other}),
        "lm_head",
        "a tied head that differs",
    )
    expect_refused(
        place,
        lambda: names.share_tied_head(tied, {"embed_tokens.weight": table, "lm_head.weight": other[:2]}),
        "lm_head",
        "a tied head of another shape",
    )


def ends_of(path: Path) -> tuple[int, ...]:
    return lm.load(path, device="cpu").defaults.eos_token_ids


@check("WGHT-008", "EOSX-002", "NUMR-008", area="weights")
def a_folder_becomes_a_model() -> None:
    place = "lm.load"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m"
        path.mkdir()
        raw = fixture_config("LlamaForCausalLM", vocab_size=64, eos_token_id=None)
        write_fixture(path, raw)
        got = lm.load(path, dtype="float64", device="cpu")
        facts = got.tokenizer, got.template, got.config.vocab_size, got.model.dtype, got.model.training
        expect_equal(place, facts, (None, None, 64, torch.float64, False), "a model without texts")
        expect_equal(
            "checkpoint.source.open_source",
            set(source.open_source(path).tensors),
            set(state(got.config)),
            "names of its tensors",
        )
        expect_equal(
            "model.dtypes.pick_dtype", lm.load(path, device="cpu").model.dtype, torch.float64, "the dtype of float64 weights"
        )
        (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 6]}))
        expect_equal("lm.generation_defaults", ends_of(path), (5, 6), "ends that generation_config.json names")
        for option, bad in (("dtype", "int8"), ("device", "tpu"), ("quantize", "q3")):
            expect_refused(place, lambda option=option, bad=bad: lm.load(path, **{option: bad}), bad, f"{option} {bad}")
        quantized = lm.load(path, device="cpu", quantize="q8")
        expect_equal(place, type(quantized.model.lm_head).__name__, "QuantLinear", "the head of a quantized model")
        (path / "config.json").unlink()
        expect_refused(
            "checkpoint.source.read_folder_config", lambda: lm.load(path), "config.json", "a folder without config.json"
        )
        expect_refused(place, lambda: lm.load(Path(folder) / "none.gguf"), "none.gguf", "a file that is not there")


@check("EOSX-006", "TOKN-044", area="eos")
def ends_come_from_the_tokenizer_where_the_config_names_none() -> None:
    from conformance.models.small_model import write_small_model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m"
        path.mkdir()
        write_small_model(path, eos_token_id=None)
        got = lm.load(path, device="cpu")
        expect_equal("lm.generation_defaults", got.defaults.eos_token_ids, (2,), "ends of a model whose tokenizer names </s>")
        expect("lm.load_text", got.tokenizer is not None and got.template is not None, "tokenizer or template is missing")
        if got.tokenizer is not None:
            expect_equal("lm.load_text", got.encode("ab")[0], 1, "BOS of the tokenizer")
        write_small_model(path, eos_token_id=7)
        expect_equal("lm.generation_defaults", ends_of(path), (7,), "an end that the config names wins")


@check("SAFE-020", "SAFE-021", "WGHT-006", area="security")
def a_checkpoint_brings_no_code_and_lacks_nothing() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, marker = Path(folder) / "m", Path(folder) / "was-run"
        path.mkdir()
        raw = fixture_config("LlamaForCausalLM", vocab_size=64)
        write_fixture(path, {**raw, "auto_map": {"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"}})
        code = f"open({str(marker)!r}, 'w').close()\nModel = Config = None\n"
        for name in ("evil.py", "modeling_llama.py", "configuration_llama.py", "tokenization_llama.py"):
            (path / name).write_text(code)
        (path / "pytorch_model.bin").write_bytes(b"cbuiltins\nexec\n(V" + code.encode("unicode_escape") + b"\ntR.")
        got = lm.load(path, device="cpu")
        expect("checkpoint.source.read_folder_config", not marker.exists(), "code of a checkpoint was run")
        tensors = {
            name: tensor.clone() for name, tensor in source.open_source(path).tensors.items() if isinstance(tensor, Tensor)
        }
        expect("checkpoint.source.open_source", len(tensors) > 9 and got.config.vocab_size == 64, "tensors are missing")
        for file in path.glob("*.safetensors*"):
            file.unlink()
        for name in ("norm.weight", "layers.0.mlp.up_proj.weight"):
            rest = {f"model.{n}": t for n, t in tensors.items() if n not in (name, "lm_head.weight")}
            rest |= {} if got.config.tie_word_embeddings else {"lm_head.weight": tensors["lm_head.weight"]}
            safetensors.torch.save_file(rest, path / "model.safetensors")
            expect_refused(
                "checkpoint.source.open_source", lambda: lm.load(path, device="cpu"), name, f"a checkpoint without {name}"
            )

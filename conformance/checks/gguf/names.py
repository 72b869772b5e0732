"""Names and row orders of the tensors of a GGUF file, and the metadata of an export, worked out by hand."""

# mypy: disable-error-code="arg-type"
# tables mix good and bad arguments

import itertools
import math
from typing import Any

import torch

from conformance.checks import check
from conformance.checks.assertions import expect, expect_close, expect_equal, expect_equal_tensor, expect_refused
from conformance.models.fixtures import fixture_config
from nanollama.checkpoint.gguf import metadata as gguf_metadata
from nanollama.checkpoint.gguf import names as gguf_names
from nanollama.checkpoint.gguf import rope as gguf_rope
from nanollama.model.config import ModelConfig, read_config
from nanollama.quant import FORMATS, QuantTensor


def config(architecture: str, **changes: Any) -> ModelConfig:
    return read_config(fixture_config(architecture, **changes))


@check("GGUF-030", "ATTN-020", area="weights")
def rotary_rows_change_their_order() -> None:
    expect_equal(
        "checkpoint.gguf.names.halves_order", gguf_names.halves_order(1, 4).tolist(), [0, 2, 1, 3], "rows of one head of 4"
    )
    expect_equal(
        "checkpoint.gguf.names.neighbours_order",
        gguf_names.neighbours_order(1, 6).tolist(),
        [0, 3, 1, 4, 2, 5],
        "rows of one head of 6",
    )
    for heads, size in itertools.product((1, 3), (2, 4, 8)):
        halves, neighbours = gguf_names.halves_order(heads, size), gguf_names.neighbours_order(heads, size)
        wanted = [h * size + 2 * (i % (size // 2)) + (i >= size // 2) for h in range(heads) for i in range(size)]
        expect_equal("checkpoint.gguf.names.halves_order", halves.tolist(), wanted, f"rows of {heads} heads of {size}")
        expect_equal(
            "checkpoint.gguf.names.neighbours_order", neighbours[halves].tolist(), list(range(heads * size)), "there and back"
        )
    place, order = "checkpoint.gguf.names.reorder", torch.tensor([2, 0, 1])
    matrix = torch.arange(6.0).reshape(3, 2)
    expect_equal_tensor(place, gguf_names.reorder(matrix, order), matrix[order], "rows of a matrix")
    stored = QuantTensor(matrix.view(torch.uint8), FORMATS["F32"])
    turned: Any = gguf_names.reorder(gguf_names.reorder(stored, order), torch.tensor([1, 2, 0]))
    expect_equal_tensor(place, turned.dequantize(), matrix[order][[1, 2, 0]], "rows of a stored matrix, twice")
    expect_refused(place, lambda: gguf_names.reorder(matrix, order[:2]), "3 rows", "another number of rows")


@check("GGUF-031", "GGUF-032", "MOE-010", area="weights")
def stored_tensors_become_ours_and_back() -> None:
    for name, wanted in (
        ("blk.3.attn_q.weight", ("layers.3.", "attn_q", "weight")),
        ("output.weight", ("", "output", "weight")),
        ("blk.12.a.b.bias", ("layers.12.", "a.b", "bias")),
    ):
        expect_equal("checkpoint.gguf.names.split_name", gguf_names.split_name(name), wanted, name)
    for architecture in gguf_names.ARCHITECTURES:
        given = config(architecture)
        judge_round_trip(architecture, given)
    llama, gemma = config("LlamaForCausalLM"), config("Gemma2ForCausalLM")
    for each, name, rotary, plus_one in (
        (llama, "layers.0.self_attn.q_proj.weight", True, False),
        (llama, "layers.0.self_attn.k_proj.bias", True, False),
        (llama, "layers.0.self_attn.v_proj.weight", False, False),
        (gemma, "layers.0.self_attn.q_proj.weight", False, False),
        (gemma, "layers.0.input_layernorm.weight", False, True),
        (gemma, "norm.weight", False, True),
        (llama, "norm.weight", False, False),
    ):
        got = gguf_names.is_rotary(each, name), gguf_names.stores_plus_one(each, name)
        expect_equal("checkpoint.gguf.names.is_rotary", got, (rotary, plus_one), f"{name} of {each.architecture}")
    phi = config("Phi3ForCausalLM")
    rows = (phi.num_attention_heads + 2 * phi.num_key_value_heads) * phi.head_dim
    matrix = torch.arange(2.0 * rows).reshape(rows, 2)
    parts = gguf_names.tensors_from_gguf(phi, {"blk.0.attn_qkv.weight": QuantTensor(matrix.view(torch.uint8), FORMATS["F32"])})
    got_rows = torch.cat([torch.as_tensor(part.dequantize()) for part in parts.values() if isinstance(part, QuantTensor)])
    expect_equal_tensor("checkpoint.gguf.names.take_apart", got_rows, matrix, "the rows of q, k and v that stay in blocks")
    halves = gguf_names.tensors_from_gguf(phi, {"blk.0.ffn_up.weight": torch.arange(2.0 * phi.intermediate_size)[:, None]})
    starts = {name.split(".")[-2]: float(torch.as_tensor(half)[0, 0]) for name, half in halves.items()}
    wanted_starts = {"gate_proj": 0.0, "up_proj": float(phi.intermediate_size)}
    expect_equal("checkpoint.gguf.names.ARCHITECTURES", starts, wanted_starts, "gate stands before up")
    heads = gguf_names.rotary_heads(llama, "a.q_proj.weight"), gguf_names.rotary_heads(llama, "a.k_proj.weight")
    expect_equal(
        "checkpoint.gguf.names.rotary_heads", heads, (llama.num_attention_heads, llama.num_key_value_heads), "heads of q and k"
    )
    expect_refused(
        "checkpoint.gguf.names.our_name",
        lambda: gguf_names.tensors_from_gguf(llama, {"blk.0.ssm_in.weight": torch.zeros(2, 2)}),
        "ssm_in",
        "an unknown tensor",
    )
    one = torch.zeros(llama.num_attention_heads * llama.head_dim + 1, 2)
    expect_refused(
        "checkpoint.gguf.names.reorder",
        lambda: gguf_names.tensors_from_gguf(llama, {"blk.0.attn_q.weight": one}),
        "rows",
        "a row too many",
    )


def judge_round_trip(architecture: str, given: ModelConfig) -> None:
    """Every tensor of a model survives writing and reading; names follow llama.cpp's table."""
    from nanollama.model.transformer import Transformer

    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in Transformer(given).state_dict().items()}
    ours = {name: torch.arange(float(math.prod(shape))).reshape(shape) for name, shape in expected.items()}
    stored: dict[str, Any] = {}
    for theirs, parts in gguf_names.gguf_names(given, ours).items():
        stored[theirs] = torch.cat([torch.as_tensor(gguf_names.to_gguf(given, part, ours[part])) for part in parts])
    read = gguf_names.tensors_from_gguf(given, stored)
    tied = {"lm_head.weight"} if given.tie_word_embeddings else set()
    expect_equal(
        "checkpoint.gguf.names.gguf_names",
        sorted(read),
        sorted(ours.keys() - tied),
        f"tensors of {architecture}, stored and read",
    )
    for name, tensor in read.items():
        expect_equal_tensor(
            "checkpoint.gguf.names.from_gguf",
            torch.as_tensor(tensor).double(),
            ours[name].double(),
            f"{name} of {architecture}",
        )
    known = {"token_embd.weight", "output_norm.weight", "blk.1.attn_output.weight", *(() if tied else ("output.weight",))}
    expect(
        "checkpoint.gguf.names.stored_name", known <= stored.keys(), f"{architecture} has no {sorted(known - stored.keys())}"
    )


@check("GGUF-033", area="weights")
def a_config_survives_metadata() -> None:
    for architecture in gguf_names.ARCHITECTURES:
        for changes in ({}, {"rope_scaling": None, "rope_parameters": None} if architecture != "GPT2LMHeadModel" else {}):
            given = config(architecture, **changes)
            data = gguf_metadata.metadata_of(given)
            shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (given.vocab_size, given.hidden_size)}
            shapes |= {} if given.tie_word_embeddings else {"output.weight": (given.vocab_size, given.hidden_size)}
            shapes |= {"blk.0.attn_q.bias": (4,)} if given.qkv_bias else {}
            shapes |= {"blk.0.ffn_gate.bias": (4,)} if given.mlp_bias else {}
            expect_equal(
                "checkpoint.gguf.metadata.metadata_of",
                data["general.architecture"],
                gguf_names.ARCHITECTURES[architecture].name,
                "the name",
            )
            prefix = data["general.architecture"]
            got = (
                data[f"{prefix}.context_length"],
                data[f"{prefix}.block_count"],
                data[f"{prefix}.attention.head_count_kv"],
                data[f"{prefix}.embedding_length"],
            )
            wanted = given.max_position_embeddings, given.num_hidden_layers, given.num_key_value_heads, given.hidden_size
            expect_equal("checkpoint.gguf.metadata.metadata_of", got, wanted, f"sizes of {architecture}")


@check("GGUF-034", "NUMR-007", area="weights")
def numbers_that_a_file_rounds_are_compared_with_care() -> None:
    place = "checkpoint.gguf.metadata.close"
    for ours, theirs, wanted in (
        (1.0, 1.0 + 1e-8, True),
        (1.0, 1.0 + 1e-4, False),
        ((1.0, 2), (1.0 + 1e-8, 2), True),
        ((1.0,), (1.0, 1.0), False),
        (3, 3, True),
        (3, 4, False),
        ("a", "a", True),
        (None, 0.0, False),
    ):
        expect_equal(place, gguf_metadata.close(ours, theirs), wanted, f"{ours} and {theirs}")
    expect_close(
        "checkpoint.gguf.rope.divisors",
        torch.tensor(gguf_rope.divisors(torch.tensor([0.1, 2.0]), 3.0)),
        torch.tensor([0.3, 6.0]),
        1e-7,
        "divisors",
    )

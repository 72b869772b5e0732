"""Rows that GGUF stores in another order, restored: heads of six rows by hand, then scores that must not change."""

import cmath
from dataclasses import replace

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree, answers
from conformance.models.fixtures import fixture_config
from nanollama.checkpoint.gguf.names import from_gguf, halves_order, neighbours_order
from nanollama.model.config import ModelConfig, read_config
from nanollama.quant.formats.table import find_format
from nanollama.quant.quant_tensor import QuantTensor

Q, K = "layers.0.self_attn.q_proj.weight", "layers.0.self_attn.k_proj.weight"


def config(architecture: str = "LlamaForCausalLM", heads: int = 1, kv_heads: int = 1, head_dim: int = 6) -> ModelConfig:
    """A model of this shape."""
    read = read_config(fixture_config(architecture))
    return replace(read, num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim)


def rows(*numbers: int) -> Tensor:
    """A matrix [rows, 2] in which every row contains its index twice."""
    return torch.tensor(numbers, dtype=torch.float64)[:, None].repeat(1, 2)


def order(*numbers: int) -> Tensor:
    """int64 [rows]."""
    return torch.tensor(numbers)


def test_pairs_of_halves_stand_side_by_side_in_the_file() -> None:
    """A head of 6 has the pairs 0-3, 1-4, 2-5; the file has 0 3 1 4 2 5. So row 0 is found in 0, row 1 in 2, row 3 in 1."""
    answers(halves_order, 1, 6, want=order(0, 2, 4, 1, 3, 5))


def test_on_the_way_to_a_file_halves_become_neighbours() -> None:
    """The other direction: the file's row 1 is the runtime's row 3."""
    answers(neighbours_order, 1, 6, want=order(0, 3, 1, 4, 2, 5))


def test_every_head_is_put_in_order_alone() -> None:
    """Two heads of 4, then three of 2, where nothing changes."""
    answers(halves_order, 2, 4, want=order(0, 2, 1, 3, 4, 6, 5, 7))
    answers(neighbours_order, 2, 4, want=order(0, 2, 1, 3, 4, 6, 5, 7))
    answers(halves_order, 3, 2, want=order(0, 1, 2, 3, 4, 5))


def test_one_order_undoes_the_other() -> None:
    """Three heads of 10: to the file and back."""
    agree("neighbours_order, rows of it in halves_order", neighbours_order(3, 10)[halves_order(3, 10)], torch.arange(30))
    agree("halves_order, rows of it in neighbours_order", halves_order(3, 10)[neighbours_order(3, 10)], torch.arange(30))


def test_rows_of_queries_are_put_back() -> None:
    """The file has the rows in the order 0 3 1 4 2 5; the result is 0 1 2 3 4 5."""
    answers(from_gguf, config(), Q, rows(0, 3, 1, 4, 2, 5), want=rows(0, 1, 2, 3, 4, 5))


def test_there_are_as_many_heads_as_the_tensor_has() -> None:
    """Queries have two heads of 6, keys one. Keys split into two heads of 3 would be wrong."""
    shape = config(heads=2, kv_heads=1)
    answers(from_gguf, shape, Q, rows(0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11), want=rows(*range(12)))
    answers(from_gguf, shape, K, rows(0, 3, 1, 4, 2, 5), want=rows(0, 1, 2, 3, 4, 5))


def test_biases_go_with_their_rows() -> None:
    """A bias has a number for each row, in the order of the rows."""
    name = Q.replace("weight", "bias")
    answers(from_gguf, config(), name, torch.tensor([0.0, 3.0, 1.0, 4.0, 2.0, 5.0]), want=torch.arange(6.0))


def test_only_rotated_tensors_have_another_order() -> None:
    """Values and outputs are not rotated: they stay."""
    for part in ("self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj"):
        answers(from_gguf, config(), f"layers.0.{part}.weight", rows(0, 3, 1, 4, 2, 5), want=rows(0, 3, 1, 4, 2, 5))


def test_where_ggml_rotates_halves_too_nothing_moves() -> None:
    """It does so for Qwen 2."""
    answers(from_gguf, config("Qwen2ForCausalLM"), Q, rows(0, 1, 2, 3, 4, 5), want=rows(0, 1, 2, 3, 4, 5))


def test_gemmas_norms_are_stored_one_higher() -> None:
    """1.25 in the file is the weight 0.25, in float64, where subtracting 1 loses no digits. Llama's norms stay."""
    norm, stored = "layers.0.input_layernorm.weight", torch.tensor([1.25, 1.0, 0.5])
    answers(from_gguf, config("Gemma2ForCausalLM"), norm, stored, want=torch.tensor([0.25, 0.0, -0.5], dtype=torch.float64))
    answers(from_gguf, config(), norm, stored, want=stored.clone())


def test_quantized_rows_stay_where_they_are() -> None:
    """A mapped matrix is not copied: it stores the order of its rows."""
    stored = QuantTensor(torch.arange(6 * 34).to(torch.uint8).view(6, 34), find_format("Q8_0"))
    got = from_gguf(config(), Q, stored)
    assert isinstance(got, QuantTensor)
    agree("whether the rows are the file's own", got.rows.data_ptr() == stored.rows.data_ptr(), True)
    agree("the order of the rows", got.order, order(0, 2, 4, 1, 3, 5))


def turned(vector: list[complex], position: int) -> list[complex]:
    """A head whose pairs are complex numbers, each rotated by its position times its frequency."""
    return [pair * cmath.rect(1.0, position / (j + 1)) for j, pair in enumerate(vector)]


def score(query: list[complex], key: list[complex], positions: tuple[int, int]) -> float:
    """q · k of one head at two positions."""
    both = zip(turned(query, positions[0]), turned(key, positions[1]), strict=True)
    return sum((a * b.conjugate()).real for a, b in both)


def test_scores_are_those_that_ggml_computes() -> None:
    """Ten random heads of 8: pairs of neighbours in the file, pairs of halves here, the same q · k at any two positions."""
    for start in range(10):
        positions, neighbours, halves = (start + 5, start * start), [], []
        for name in (Q, K):
            theirs = torch.randn(8, dtype=torch.float64)
            ours = from_gguf(config(head_dim=8), name, theirs)
            assert isinstance(ours, Tensor)
            neighbours.append([complex(theirs[2 * j], theirs[2 * j + 1]) for j in range(4)])
            halves.append([complex(ours[j], ours[j + 4]) for j in range(4)])
        ours_score, theirs_score = (score(query, key, positions) for query, key in (halves, neighbours))
        agree(f"q · k at positions {positions}", ours_score, theirs_score, within=1e-12)

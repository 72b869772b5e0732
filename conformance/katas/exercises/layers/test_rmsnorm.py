"""RMSNorm, written again: by hand first, then properties for any input, then a real model's numbers."""

import torch

from conformance.katas.testing.compare import agree, answers
from conformance.katas.testing.golden import AGREES, recipe, tap, weight
from nanollama.model.layers import RMSNorm


def norm(*weights: float, eps: float = 0.0, plus_one: bool = False) -> RMSNorm:
    """A norm with these weights."""
    made = RMSNorm(len(weights), eps, plus_one)
    made.weight.data = torch.tensor(weights)
    return made


def test_a_vector_is_divided_by_its_root_mean_square() -> None:
    """3, 4, 0, 0: the squares are 9 + 16, their mean is 25/4, its root is 5/2."""
    answers(norm(1.0, 1.0, 1.0, 1.0).forward, torch.tensor([3.0, 4.0, 0.0, 0.0]), want=torch.tensor([1.2, 1.6, 0.0, 0.0]))


def test_the_mean_is_not_subtracted() -> None:
    """2, 2: every number equal, so the root mean square is 2. LayerNorm would give zeros."""
    answers(norm(1.0, 1.0).forward, torch.tensor([2.0, 2.0]), want=torch.tensor([1.0, 1.0]))


def test_each_weight_scales_its_own_feature() -> None:
    """Ones are normed to ones, so the result is the weights."""
    answers(norm(1.0, 2.0, -3.0).forward, torch.ones(3), want=torch.tensor([1.0, 2.0, -3.0]))


def test_eps_sits_inside_the_root() -> None:
    """eps 12 and a mean square of 4: 2 / sqrt(4 + 12) is 1/2. Outside the root, eps 12 would give 2 / (2 + 12)."""
    answers(norm(1.0, 1.0, eps=12.0).forward, torch.tensor([2.0, -2.0]), want=torch.tensor([0.5, -0.5]))


def test_a_row_of_zeros_stays_zero() -> None:
    """0 / sqrt(0 + eps) is 0; without eps it would be 0 / 0."""
    answers(norm(1.0, 1.0, eps=1e-6).forward, torch.zeros(1, 2), want=torch.zeros(1, 2))


def test_each_row_has_its_own_mean() -> None:
    """The second row is a hundred times the first, with the same result."""
    rows = torch.tensor([[3.0, 4.0, 0.0, 0.0], [300.0, 400.0, 0.0, 0.0]])
    answers(norm(1.0, 1.0, 1.0, 1.0).forward, rows, want=torch.tensor([[1.2, 1.6, 0.0, 0.0], [1.2, 1.6, 0.0, 0.0]]))


def test_the_features_are_the_last_axis() -> None:
    """Three axes of different sizes [1, 3, 2]: with two axes, dim=1 and dim=-1 would be the same."""
    x = torch.tensor([[[1.0, 7.0], [6.0, 8.0], [7.0, 17.0]]])  # mean squares 25, 50, 169
    roots = torch.tensor([25.0, 50.0, 169.0]).sqrt()
    answers(norm(1.0, 1.0).forward, x, want=x / roots[None, :, None])


def test_gemma_stores_the_weight_minus_one() -> None:
    """plus_one: weights 0 and 1 mean 1 and 2."""
    answers(norm(0.0, 1.0, plus_one=True).forward, torch.ones(2), want=torch.tensor([1.0, 2.0]))


def test_float16_does_not_overflow() -> None:
    """300 squared is 90,000, above float16's 65,504: the squares need float32. The result is float16 again."""
    x = torch.tensor([300.0, -300.0]).half()
    answers(norm(1.0, 1.0).half().forward, x, want=torch.tensor([1.0, -1.0]).half())


def test_float64_stays_float64() -> None:
    """The mean square is 1 + 1e-9, which float32 can't tell from 1."""
    x = torch.tensor([1.0, -1.0], dtype=torch.float64)
    answers(norm(1.0, 1.0, eps=1e-9).double().forward, x, want=x / (1 + 1e-9) ** 0.5)


def test_a_longer_vector_in_the_same_direction_gives_the_same() -> None:
    """With eps 0 the result does not depend on the length of the vector."""
    x = torch.randn(5, 8)
    ours = norm(*[1.0] * 8)
    agree("RMSNorm.forward, of 7 · x as of x", ours.forward(7 * x), ours.forward(x))


def test_a_llama_models_first_norm() -> None:
    """transformers' float64 result for a small Llama model with eps 0.003."""
    ours = RMSNorm(60, recipe("LlamaForCausalLM")["config"]["rms_norm_eps"]).double()
    ours.weight.data = weight("LlamaForCausalLM", "model.layers.0.input_layernorm.weight", 60)
    want = tap("LlamaForCausalLM", "near/layers.0.input_layernorm")
    answers(ours.forward, tap("LlamaForCausalLM", "near/embeddings"), want=want, within=AGREES)

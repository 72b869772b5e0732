"""LayerNorm, written again: by hand first, then properties for any input, then a real model's numbers."""

import torch

from conformance.katas.testing.compare import agree, answers
from conformance.katas.testing.golden import AGREES, recipe, tap, weight
from nanollama.model.layers import LayerNorm


def norm(*weights: float, bias: tuple[float, ...] = (), eps: float = 0.0) -> LayerNorm:
    """A norm with these weights; without a bias given it is zero."""
    made = LayerNorm(len(weights), eps)
    made.weight.data = torch.tensor(weights)
    made.bias.data = torch.tensor(bias or (0.0,) * len(weights))
    return made


def test_the_mean_goes_and_the_spread_becomes_one() -> None:
    """1 and 5: the mean is 3, which leaves -2 and 2; the mean of their squares is 4, its root 2."""
    answers(norm(1.0, 1.0).forward, torch.tensor([1.0, 5.0]), want=torch.tensor([-1.0, 1.0]))


def test_the_variance_is_divided_by_n() -> None:
    """-7, -1, 1, 7: the squares add up to 100, a quarter of it is 25. Divided by n - 1 it would be 33.3."""
    x = torch.tensor([-7.0, -1.0, 1.0, 7.0])
    answers(norm(1.0, 1.0, 1.0, 1.0).forward, x, want=torch.tensor([-1.4, -0.2, 0.2, 1.4]))


def test_each_feature_has_its_own_weight_and_bias() -> None:
    """-1 and 1 after the norm: -1 · 2 + 10 and 1 · 5 + 20. The bias comes last, unscaled."""
    ours = norm(2.0, 5.0, bias=(10.0, 20.0))
    answers(ours.forward, torch.tensor([1.0, 5.0]), want=torch.tensor([8.0, 25.0]))


def test_eps_sits_inside_the_root() -> None:
    """eps 12 and a variance of 4: 2 / sqrt(4 + 12) is 1/2. Outside the root it would be 2 / (2 + 12)."""
    answers(norm(1.0, 1.0, eps=12.0).forward, torch.tensor([1.0, 5.0]), want=torch.tensor([-0.5, 0.5]))


def test_equal_numbers_leave_only_the_bias() -> None:
    """Without the mean all numbers are 0: 0 / sqrt(0 + eps) is 0; without eps it would be 0 / 0."""
    ours = norm(1.0, 1.0, bias=(3.0, 4.0), eps=1e-6)
    answers(ours.forward, torch.tensor([7.0, 7.0]), want=torch.tensor([3.0, 4.0]))


def test_each_row_has_its_own_mean_and_variance() -> None:
    """The second row is the first times ten, plus a hundred, with the same result."""
    rows = torch.tensor([[1.0, 5.0], [110.0, 150.0]])
    answers(norm(1.0, 1.0).forward, rows, want=torch.tensor([[-1.0, 1.0], [-1.0, 1.0]]))


def test_the_features_are_the_last_axis() -> None:
    """Three axes of different sizes [1, 3, 2]: with two axes, dim=1 and dim=-1 would be the same."""
    x = torch.tensor([[[1.0, 5.0], [9.0, 3.0], [2.0, 4.0]]])
    answers(norm(1.0, 1.0).forward, x, want=torch.tensor([[[-1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]]]))


def test_float16_does_not_overflow() -> None:
    """300 squared is 90,000, above float16's 65,504: the squares need float32. The result is float16 again."""
    x = torch.tensor([300.0, -300.0]).half()
    answers(norm(1.0, 1.0).half().forward, x, want=torch.tensor([1.0, -1.0]).half())


def test_float64_stays_float64() -> None:
    """The variance is 1 + 1e-9, which float32 can't tell from 1."""
    x = torch.tensor([1.0, -1.0], dtype=torch.float64)
    answers(norm(1.0, 1.0, eps=1e-9).double().forward, x, want=x / (1 + 1e-9) ** 0.5)


def test_a_shift_and_a_stretch_are_forgotten() -> None:
    """With eps 0, 7 · x + 3 and x have the same norm."""
    x = torch.randn(5, 8, dtype=torch.float64)
    ours = norm(*[1.0] * 8).double()
    agree("LayerNorm.forward, of 7 · x + 3 as of x", ours.forward(7 * x + 3), ours.forward(x), within=1e-12)


def test_gpt2s_first_norm() -> None:
    """transformers' float64 result for a small GPT-2 with eps 0.003."""
    family = "GPT2LMHeadModel"
    ours = LayerNorm(96, recipe(family)["config"]["layer_norm_epsilon"]).double()
    ours.weight.data = weight(family, "transformer.h.0.ln_1.weight", 96)
    ours.bias.data = weight(family, "transformer.h.0.ln_1.bias", 96)
    want = tap(family, "near/layers.0.input_layernorm")
    answers(ours.forward, tap(family, "near/embeddings"), want=want, within=AGREES)

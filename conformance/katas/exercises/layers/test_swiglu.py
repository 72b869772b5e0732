"""The MLP, written again: a gate and a product on paper, then without a gate, then a model's numbers."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from conformance.katas.testing.compare import answers
from conformance.katas.testing.golden import AGREES, recipe, tap, weight
from conformance.models.fixtures import fixture_config
from nanollama.model.config import read_config
from nanollama.model.layers import MLP

LN3 = math.log(3)  # its sigmoid is 3/4, so its silu is 3/4 · ln 3; that of -ln 3 is -1/4 · ln 3


def mlp(
    gate: list[list[float]] | None,
    up: list[list[float]],
    down: list[list[float]],
    activation: str = "silu",
    biases: tuple[list[float], list[float], list[float]] | None = None,
) -> MLP:
    """The module with these matrices [out, in]; a gate of None means that there is none. `biases` in the same order."""
    config = replace(
        read_config(fixture_config("LlamaForCausalLM")),
        hidden_size=len(down),
        hidden_act=activation,
        gated_mlp=gate is not None,
        mlp_bias=biases is not None,
    )
    made = MLP(config, len(up))
    parts = {"gate_proj": gate, "up_proj": up, "down_proj": down}
    for number, (name, matrix) in enumerate(parts.items()):
        if matrix is not None:
            part = getattr(made, name)
            part.weight.data = torch.tensor(matrix)
            if biases is not None:
                part.bias.data = torch.tensor(biases[number])
    return made


def row(*numbers: float) -> Tensor:
    """One token."""
    return torch.tensor([list(numbers)])


def test_the_gate_scales_the_other_product() -> None:
    """The gate's ln 3 becomes 3/4 · ln 3; times 4, from the other matrix, is 3 ln 3."""
    answers(mlp([[LN3]], [[4.0]], [[1.0]]).forward, row(1.0), want=row(3 * LN3))


def test_a_negative_gate_is_not_zero() -> None:
    """-ln 3 becomes -1/4 · ln 3; times 4 is -ln 3. A sigmoid alone would give 1."""
    answers(mlp([[-LN3]], [[4.0]], [[1.0]]).forward, row(1.0), want=row(-LN3))


def test_the_activation_is_applied_to_the_gate() -> None:
    """With relu: 2 stays 2, times -1 is -2. relu of -1, or of the product -2, would be 0."""
    answers(mlp([[2.0]], [[-1.0]], [[1.0]], "relu").forward, row(1.0), want=row(-2.0))


def test_the_two_are_multiplied_number_by_number() -> None:
    """Gate 1, 2, 3 and up 4, 5, 6: the products are 4, 10 and 18; down_proj adds the first two."""
    ours = mlp([[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]], [[1.0, 1.0, 0.0]], "relu")
    answers(ours.forward, row(1.0), want=row(14.0))


def test_down_proj_comes_last() -> None:
    """Two numbers in, three between, two out: relu keeps the gates 1, 2, 0; up gives 2, 1, 3; so down_proj gets 2, 2, 0."""
    gate, up = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    answers(mlp(gate, up, [[1.0, 10.0, 5.0], [0.0, 3.0, 5.0]], "relu").forward, row(1.0, 2.0), want=row(22.0, 6.0))


def test_biases_are_added_where_they_belong() -> None:
    """Gate 0 + 2, up 1 + 4, down 10 + 7."""
    ours = mlp([[0.0]], [[1.0]], [[1.0]], "relu", biases=([2.0], [4.0], [7.0]))
    answers(ours.forward, row(1.0), want=row(17.0))


def test_without_a_gate_the_activation_is_applied_to_up() -> None:
    """GPT-2: relu of 2 and of -3 is 2 and 0, and 10 · 2 + 1 · 0 is 20."""
    answers(mlp(None, [[2.0], [-3.0]], [[10.0, 1.0]], "relu").forward, row(1.0), want=row(20.0))


def test_every_token_is_alone() -> None:
    """Two rows of three tokens: 1 and -1 as above, 0 stays 0."""
    x = torch.tensor([[[1.0], [-1.0], [0.0]], [[0.0], [0.0], [1.0]]])
    want = torch.tensor([[[3.0], [1.0], [0.0]], [[0.0], [0.0], [3.0]]]) * LN3
    answers(mlp([[LN3]], [[4.0]], [[1.0]]).forward, x, want=want)


def test_the_first_layer_of_a_llama_and_of_a_gemma_2_model() -> None:
    """Silu with biases, and the tanh form of GELU without: transformers' float64 results."""
    before = {"LlamaForCausalLM": "post_attention_layernorm", "Gemma2ForCausalLM": "pre_feedforward_layernorm"}
    for family, norm in before.items():
        ours = MLP(read_config(recipe(family)["config"]), 44)
        for name, parameter in ours.named_parameters():
            parameter.data = weight(family, f"model.layers.0.mlp.{name}", *parameter.shape)
        want = tap(family, "near/layers.0.mlp")
        answers(ours.forward, tap(family, f"near/layers.0.{norm}"), want=want, within=AGREES)

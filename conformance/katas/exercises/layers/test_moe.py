"""A mixture of experts, written again: probabilities added on paper, experts that only add a number, then real models."""

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from conformance.katas.testing.compare import agree, answers
from conformance.katas.testing.golden import AGREES, recipe, tap, weight
from conformance.models.fixtures import fixture_config
from nanollama.model.config import read_config
from nanollama.model.layers import MoE


class Adds(nn.Module):
    """An expert that adds a number to every feature and counts its tokens."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number, self.tokens = number, 0

    def forward(self, x: Tensor) -> Tensor:
        """[N, hidden] → the same shape."""
        self.tokens += len(x)
        return x + self.number


def moe(*likes: list[float], adds: Iterable[float] = (0, 0, 0, 0), top_k: int = 2, renormalise: bool = True) -> MoE:
    """Four experts. Token i is all zeros except a 1 at place i; `likes` are its probabilities of the four."""
    config = replace(
        read_config(fixture_config("MixtralForCausalLM")),
        hidden_size=len(likes),
        num_experts=4,
        num_experts_per_tok=top_k,
        norm_topk_prob=renormalise,
    )
    made = MoE(config)
    made.gate.weight.data = torch.tensor(likes).log().mT.contiguous() + 7  # which no softmax minds
    made.experts = nn.ModuleList(map(Adds, adds))
    return made


def router(top_k: int = 2, renormalise: bool = True) -> MoE:
    """A module of which only route is called."""
    return moe([0.25] * 4, top_k=top_k, renormalise=renormalise)


def logits(*rows: list[float]) -> Tensor:
    """Router logits [N, 4] with these probabilities, and 7 added to each."""
    return torch.tensor(rows).log() + 7


def tokens(*numbers: int, hidden: int = 1) -> Tensor:
    """Token i with a 1 at place i: [1, T, hidden]."""
    return torch.eye(hidden)[list(numbers)][None]


def test_the_best_are_chosen_with_their_probabilities() -> None:
    """1/2, 1/8, 1/4, 1/8: experts 0 and 2, the better one first. Not divided by their sum unless renormalised."""
    want = torch.tensor([[0.5, 0.25]]), torch.tensor([[0, 2]])
    answers(router(renormalise=False).route, logits([0.5, 0.125, 0.25, 0.125]), want=want)


def test_the_weights_of_the_chosen_are_brought_to_a_sum_of_one() -> None:
    """1/2 and 1/4 of 3/4 are 2/3 and 1/3."""
    want = torch.tensor([[2 / 3, 1 / 3]]), torch.tensor([[0, 2]])
    answers(router().route, logits([0.5, 0.125, 0.25, 0.125]), want=want)


def test_one_expert_alone_has_weight_one() -> None:
    """One expert: 1 if renormalised, else its probability."""
    row = logits([0.1, 0.1, 0.1, 0.7])
    answers(router(top_k=1).route, row, want=(torch.tensor([[1.0]]), torch.tensor([[3]])))
    answers(router(top_k=1, renormalise=False).route, row, want=(torch.tensor([[0.7]]), torch.tensor([[3]])))


def test_every_token_has_its_own_choice() -> None:
    """Two rows; in the second the later expert is the better one, and comes first."""
    rows = logits([0.5, 0.25, 0.125, 0.125], [0.125, 0.125, 0.25, 0.5])
    want = torch.tensor([[2 / 3, 1 / 3], [2 / 3, 1 / 3]]), torch.tensor([[0, 1], [3, 2]])
    answers(router().route, rows, want=want)


def test_low_precision_is_routed_in_float32() -> None:
    """bfloat16 logits of 0: four probabilities of 1/4, and two weights of 1/2, in float32."""
    weights, _ = router().route(torch.zeros(1, 4).bfloat16())
    agree("MoE.route, the weights of a bfloat16 model", weights, torch.tensor([[0.5, 0.5]]))


def test_the_answers_are_added_by_weight() -> None:
    """The token is 1; its experts return 1 + 10 and 1 + 40, with weights 2/3 and 1/3: 22/3 + 41/3 is 21."""
    ours = moe([0.5, 0.125, 0.25, 0.125], adds=(10, 0, 40, 0))
    answers(ours.forward, tokens(0), want=torch.tensor([[[21.0]]]))


def test_it_is_the_answer_that_is_weighted() -> None:
    """Weights of 1/2 and 1/4: (1 + 8)/2 + (1 + 8)/4 is 6.75. An input of 1/2 would give 8.5 and 8.25."""
    ours = moe([0.5, 0.125, 0.25, 0.125], adds=(8, 0, 8, 0), renormalise=False)
    answers(ours.forward, tokens(0), want=torch.tensor([[[6.75]]]))


def test_each_token_goes_to_its_own_experts() -> None:
    """Token 0 chooses experts 0 and 2 (2/3 of 3, 1/3 of 6 is 4), token 1 chooses 3 and 1 (2/3 of 30, 1/3 of 60 is 40)."""
    ours = moe([0.5, 0.125, 0.25, 0.125], [0.125, 0.25, 0.125, 0.5], adds=(3, 60, 6, 30))
    want = torch.tensor([[[5.0, 4.0], [40.0, 41.0], [5.0, 4.0]]])
    answers(ours.forward, tokens(0, 1, 0, hidden=2), want=want)


def test_rows_of_a_batch_keep_their_place() -> None:
    """Two rows of two tokens: [2, 2, 2] in and out."""
    ours = moe([0.5, 0.125, 0.25, 0.125], [0.125, 0.25, 0.125, 0.5], adds=(3, 60, 6, 30))
    x = torch.cat((tokens(0, 0, hidden=2), tokens(1, 1, hidden=2)))
    want = torch.tensor([[[5.0, 4.0], [5.0, 4.0]], [[40.0, 41.0], [40.0, 41.0]]])
    answers(ours.forward, x, want=want)


def test_an_expert_takes_everybody_who_chose_it() -> None:
    """Six tokens that all choose the same two: none is dropped because an expert is full."""
    ours = moe([0.5, 0.125, 0.25, 0.125], adds=(10, 0, 40, 0))
    answers(ours.forward, tokens(0, 0, 0, 0, 0, 0), want=torch.full((1, 6, 1), 21.0))


def test_only_the_chosen_experts_run() -> None:
    """Three tokens, two experts each: six expert outputs, none of an expert that was not chosen."""
    ours = moe([0.5, 0.125, 0.25, 0.125], [0.125, 0.25, 0.125, 0.5])
    ours(tokens(0, 1, 0, hidden=2))
    agree("how many tokens each expert was given", [each.tokens for each in ours.experts], [2, 1, 2, 1])


def test_low_precision_comes_back_in_low_precision() -> None:
    """bfloat16 in, bfloat16 out: 21 as above."""
    ours = moe([0.5, 0.125, 0.25, 0.125], adds=(10, 0, 40, 0)).bfloat16()
    answers(ours.forward, tokens(0).bfloat16(), want=torch.tensor([[[21.0]]]).bfloat16(), within=0.25)


def test_the_choice_of_a_mixtral_model() -> None:
    """Its first layer's router logits, recorded by transformers: softmax, best two, sum of 1, in plain Python."""
    recorded = tap("MixtralForCausalLM", "near/layers.0.mlp.gate")
    weights, chosen = [], []
    for row in recorded.tolist():
        powers = [math.exp(each) for each in row]
        best = sorted(range(len(row)), key=lambda expert: -powers[expert])[:2]
        weights.append([powers[each] / sum(powers[other] for other in best) for each in best])
        chosen.append(best)
    want = torch.tensor(weights, dtype=torch.float64), torch.tensor(chosen)
    answers(MoE(read_config(recipe("MixtralForCausalLM")["config"])).route, recorded, want=want, within=1e-12)


def test_the_first_layer_of_a_qwen3_moe_model() -> None:
    """Seven experts, three a token, weights as they are: transformers' float64 results."""
    family = "Qwen3MoeForCausalLM"
    ours = MoE(read_config(recipe(family)["config"]))
    for name, parameter in ours.named_parameters():
        parameter.data = weight(family, f"model.layers.0.mlp.{name}", *parameter.shape)
    want = tap(family, "near/layers.0.mlp")
    answers(ours.forward, tap(family, "near/layers.0.post_attention_layernorm"), want=want, within=AGREES)

"""The whole model, written again: two layers that only multiply and add, so that logits are a sum; then a real model."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from conformance.katas.testing.compare import agree, answers
from conformance.katas.testing.golden import AGREES, recipe, tap, weight
from conformance.models.fixtures import fixture_config
from nanollama.model.config import read_config
from nanollama.model.transformer import Transformer

LN2 = math.log(2)  # tanh(ln 2) is 3/5


class Part(nn.Module):
    """times · x + plus; it records its other arguments."""

    def __init__(self, times: float = 1.0, plus: float = 0.0) -> None:
        super().__init__()
        self.times, self.plus = nn.Parameter(torch.tensor(times)), plus
        self.others: tuple[Any, ...] = ()

    def forward(self, x: Tensor, *others: Any) -> Tensor:
        """The same shape."""
        self.others = others
        return self.times * x + self.plus


def model(cap: float | None = None) -> Transformer:
    """Token i has the embedding i; layer 0 returns 2 x, layer 1 x + 1, the norm 10 x; logits are x and -x. Layer 0 has a
    rotation and no window, layer 1 no rotation and a window of 3."""
    raw = fixture_config("SmolLM3ForCausalLM", num_hidden_layers=2, no_rope_layers=[1, 0], sliding_window=3)
    raw |= {"layer_types": ["full_attention", "sliding_attention"], "hidden_size": 1, "vocab_size": 2}
    made = Transformer(replace(read_config(raw), logit_softcap=cap))
    made.embed_tokens.weight.data = torch.arange(9.0)[:, None]
    made.layers = nn.ModuleList([Part(times=2.0), Part(plus=1.0)])
    made.norm = Part(times=10.0)
    made.lm_head.weight.data = torch.tensor([[1.0], [-1.0]])
    return made


def ids(*rows: list[int]) -> Tensor:
    """Token ids or positions, int64 [B, T]."""
    return torch.tensor(rows)


def given(made: Transformer) -> list[tuple[Any, ...]]:
    """The arguments of each layer after the stream: rotation, view, cache."""
    return [each.others for each in made.layers if isinstance(each, Part)]


def logits(*rows: list[float]) -> Tensor:
    """x and -x for each token: [B, T, 2]."""
    return torch.tensor(rows)[:, :, None] * torch.tensor([1.0, -1.0])


def test_a_token_goes_through_layers_norm_and_head() -> None:
    """3 becomes 6, then 7, then 70: the logits are 70 and -70. In the opposite order the layers would give 80."""
    answers(model().forward, ids([3]), want=logits([70.0]))


def test_every_token_has_logits() -> None:
    """Two rows of three."""
    answers(model().forward, ids([1, 2, 3], [0, 0, 4]), want=logits([30.0, 50.0, 70.0], [10.0, 10.0, 90.0]))


def test_logits_are_capped_if_the_model_has_a_cap() -> None:
    """A cap of 70 / ln 2 maps 70 to three fifths of the cap."""
    cap = 70 / LN2
    answers(model(cap).forward, ids([3]), want=logits([0.6 * cap]))


def test_each_layer_gets_its_own_rotation_and_view() -> None:
    """Layer 0 has a rotation and no window, layer 1 no rotation and a window of 3."""
    made = model()
    made(ids([1, 2, 3]))
    (turn, view, cache), (no_turn, narrow, no_cache) = given(made)
    agree("layers that get a rotation", [turn is not None, no_turn is not None], [True, False])
    agree("the windows of the layers' views", [view.window, narrow.window], [None, 3])
    agree("layers that get a cache, without one", [cache is not None, no_cache is not None], [False, False])


def test_a_rotation_is_of_the_tokens_positions() -> None:
    """Three tokens at 0, 1, 2: the first isn't rotated, the second by one radian in its first pair."""
    made = model()
    made(ids([1, 2, 3]))
    cosines = given(made)[0][0][0]
    agree("the cosines of the first pair", cosines[0, 0, :, 0], torch.tensor([math.cos(p) for p in range(3)]), within=1e-6)


def test_each_layer_gets_its_own_cache() -> None:
    """The first layer gets the first cache, the second the second."""
    made = model()
    cache = made.new_cache(1, 8)
    made(ids([1, 2]), cache)
    own = [others[2] is layer for others, layer in zip(given(made), cache.layers, strict=True)]
    agree("layers whose cache is their own", own, [True, True])


def test_a_cache_counts_the_call() -> None:
    """Two tokens, then one: 3. The third is at position 2."""
    made = model()
    cache = made.new_cache(1, 8)
    made(ids([1, 2]), cache)
    agree("the cache's lengths after two tokens", cache.lengths, [2])
    made(ids([3]), cache)
    agree("where the third token stands", given(made)[0][1].positions, ids([2]))
    agree("the cache's lengths after three", cache.lengths, [3])


def test_padding_is_not_counted() -> None:
    """Rows of three tokens and of one, padded (-1) on the right."""
    made = model()
    cache = made.new_cache(2, 8)
    made(ids([1, 2, 3], [4, 0, 0]), cache, ids([0, 1, 2], [0, -1, -1]))
    agree("the cache's lengths", cache.lengths, [3, 1])


def test_last_only_is_the_last_token() -> None:
    """Of 1, 2, 3 it is 3: one token a row, [B, 1, V]."""
    answers(model().forward, ids([1, 2, 3], [3, 2, 1]), None, None, True, want=logits([70.0], [30.0]))


def test_last_only_finds_the_last_token_that_is_no_padding() -> None:
    """Padded on the right the last token is not in the last column; padded on the left it is."""
    tokens, positions = ids([1, 2, 3], [4, 0, 0], [0, 0, 1]), ids([0, 1, 2], [0, -1, -1], [-1, -1, 0])
    answers(model().forward, tokens, None, positions, True, want=logits([70.0], [90.0], [30.0]))


def test_last_only_goes_the_same_way() -> None:
    """Norm, head and cap, as for all tokens."""
    cap = 70 / LN2
    answers(model(cap).forward, ids([1, 3]), None, None, True, want=logits([0.6 * cap]))


def test_a_llama_model() -> None:
    """Three layers, 16 tokens: transformers' log-probabilities in float64."""
    family = "LlamaForCausalLM"
    ours = Transformer(read_config(recipe(family)["config"]))
    for name, parameter in ours.named_parameters():
        stored = name if name.startswith("lm_head") else f"model.{name}"
        parameter.data = weight(family, stored, *parameter.shape)
    prompt = torch.tensor([recipe(family)["prompts"]["near"]["ids"]])
    got = ours(prompt).log_softmax(-1)
    agree("the log-probabilities of a Llama model", got, tap(family, "near/logits"), within=AGREES)

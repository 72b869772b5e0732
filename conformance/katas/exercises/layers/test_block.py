"""One layer, written again: parts that only multiply or add a number, so that the order can be checked on paper; then
real models."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from conformance.katas.testing.compare import agree, answers
from conformance.katas.testing.golden import AGREES, recipe, tap, weight
from conformance.models.fixtures import fixture_config
from nanollama.model.config import read_config
from nanollama.model.kv_cache import KVView
from nanollama.model.layers import Block
from nanollama.model.rope import Rotary

VIEW = KVView(torch.tensor([[0]]), None, None, torch.device("cpu"))


class Part(nn.Module):
    """times · x + plus; it records its other arguments."""

    def __init__(self, times: float = 1.0, plus: float = 0.0) -> None:
        super().__init__()
        self.times, self.plus = times, plus
        self.others: tuple[Any, ...] = ()

    def forward(self, x: Tensor, *others: Any) -> Tensor:
        """The same shape."""
        self.others = others
        return self.times * x + self.plus


def block(placement: str, **norms: float) -> Block:
    """Attention adds 10, the MLP adds 100; the norms multiply by the given numbers."""
    config = replace(read_config(fixture_config("LlamaForCausalLM")), placement=placement)
    made = Block(config, 0)
    made.add_module("self_attn", Part(plus=10.0))
    made.add_module("mlp", Part(plus=100.0))
    for name, times in norms.items():
        assert getattr(made, f"{name}_layernorm") is not None
        setattr(made, f"{name}_layernorm", Part(times))
    return made


def token(number: float) -> Tensor:
    """A residual stream of one number: [1, 1, 1]."""
    return torch.tensor([[[number]]])


def test_llama_norms_before_each_part() -> None:
    """1 + (2 · 1 + 10) is 13; 13 + (3 · 13 + 100) is 152."""
    ours = block("pre", input=2.0, post_attention=3.0)
    answers(ours.forward, token(1.0), None, VIEW, None, want=token(152.0))


def test_llama_adds_to_the_unnormed_stream() -> None:
    """Norms that make everything 0 leave 1 + 10 + 100: the stream is added, not its norm."""
    answers(block("pre", input=0.0, post_attention=0.0).forward, token(1.0), None, VIEW, None, want=token(111.0))


def test_olmo_norms_after_each_part() -> None:
    """1 + 2 · (1 + 10) is 23; 23 + 3 · (23 + 100) is 392."""
    ours = block("post", post_attention=2.0, post_feedforward=3.0)
    answers(ours.forward, token(1.0), None, VIEW, None, want=token(392.0))


def test_gemma_norms_on_both_sides() -> None:
    """1 + 3 · (2 · 1 + 10) is 37; 37 + 7 · (5 · 37 + 100) is 2032."""
    ours = block("sandwich", input=2.0, post_attention=3.0, pre_feedforward=5.0, post_feedforward=7.0)
    answers(ours.forward, token(1.0), None, VIEW, None, want=token(2032.0))


def test_attention_gets_rotation_view_and_cache() -> None:
    """All three unchanged, in every placement."""
    for placement in ("pre", "post", "sandwich"):
        ours = block(placement)
        for name in list(dict(ours.named_children())):
            if name.endswith("layernorm"):
                setattr(ours, name, Part())
        turn, cache = (token(1.0), token(0.0)), object()
        ours(token(1.0), turn, VIEW, cache)
        attention: Any = ours.self_attn
        passed = [one is other for one, other in zip(attention.others, (turn, VIEW, cache), strict=False)]
        agree(f"{placement}: rotation, view and cache arrive", passed, [True, True, True])


def of_model(family: str) -> Block:
    """The first layer of a family's model in golden/."""
    made = Block(read_config(recipe(family)["config"]), 0)
    for name, parameter in made.named_parameters():
        parameter.data = weight(family, f"model.layers.0.{name}", *parameter.shape)
    return made


def test_the_first_layer_of_a_llama_and_of_an_olmo_2_model() -> None:
    """Norms before, and norms after: transformers' float64 results."""
    for family in ("LlamaForCausalLM", "Olmo2ForCausalLM"):
        ours, positions = of_model(family), torch.arange(16)[None]
        [rope] = {each for each in read_config(recipe(family)["config"]).ropes if each}
        view = KVView(positions, None, None, torch.device("cpu"))
        x, want = tap(family, "near/embeddings"), tap(family, "near/layers.0")
        answers(ours.forward, x, Rotary(rope)(positions, [16]), view, None, want=want, within=AGREES)

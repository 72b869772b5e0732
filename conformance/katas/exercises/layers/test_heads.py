"""The attention module, written again: heads split and merged by hand, rotation and norms by a sum of two values, then
real models."""

import math
from dataclasses import replace
from typing import Any

import torch

from conformance.katas.testing.compare import agree, answers
from conformance.katas.testing.golden import AGREES, recipe, tap, weight
from conformance.models.fixtures import fixture_config
from nanollama.model.config import ModelConfig, read_config
from nanollama.model.kv_cache import KVCache, KVView
from nanollama.model.layers import Attention, RMSNorm
from nanollama.model.rope import Rotary

CPU = torch.device("cpu")
LN3 = math.log(3)  # scores of 0 and ln 3 become weights of 1/4 and 3/4: of values 8 and 4 they make 5
QUARTER = torch.tensor([[1.0], [0.0]])[None, None], torch.tensor([[0.0], [1.0]])[None, None]  # the second token, by 90 degrees
HALVES = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]  # from three numbers to the first two
THIRD = [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]  # from three numbers to the last


def config(hidden: int, heads: int, size: int, **changes: Any) -> ModelConfig:
    """A model without biases and scales."""
    plain = replace(read_config(fixture_config("LlamaForCausalLM")), qkv_bias=False, o_bias=False, attention_scales=(1.0,))
    shape: dict[str, Any] = {
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": size,
    }
    return replace(plain, norm_eps=0.0, windows=(None,), **shape, **changes)


def attention(made: ModelConfig, **weights: list[list[float]] | list[float]) -> Attention:
    """The module with these weights: q_proj=… and so on; biases as q_bias=…, norms as q_norm=…; the others are zero."""
    module = Attention(made, 0)
    for name, parameter in module.named_parameters():
        part, _, kind = name.partition(".")
        given = weights.get(part.replace("_proj", "_bias") if kind == "bias" else part)
        parameter.data = torch.zeros(parameter.shape) if given is None else torch.tensor(given)
    return module


def one_head(scale: float = 1.0, **changes: Any) -> Attention:
    """Three numbers a token: the first two make query and key, the last is the value, the result's first number."""
    given: dict[str, Any] = {"q_proj": [[scale, 0.0, 0.0], [0.0, scale, 0.0]], "k_proj": HALVES, "v_proj": THIRD}
    out = [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    made = config(3, 1, 2, qk_norm=changes.pop("qk_norm", None), qkv_bias="k_bias" in changes)
    return attention(made, **{**given, "o_proj": out, **changes})


def two_tokens() -> KVView:
    """Each token sees itself and the ones before."""
    return KVView(torch.tensor([[0, 1]]), None, None, CPU)


def of_model(family: str) -> Attention:
    """The first layer's attention of a family's model in golden/."""
    module = Attention(read_config(recipe(family)["config"]), 0)
    for name, parameter in module.named_parameters():
        parameter.data = weight(family, f"model.layers.0.self_attn.{name}", *parameter.shape)
    return module


def test_a_token_is_cut_into_heads() -> None:
    """Two tokens of four numbers, heads of two: the first head has the first two of both."""
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]])
    want = torch.tensor([[[[1.0, 2.0], [5.0, 6.0]], [[3.0, 4.0], [7.0, 8.0]]]])
    answers(attention(config(4, 2, 2)).heads, x, None, want=want)


def test_qwen_norms_each_head() -> None:
    """1, 1 and 7, 7: each head is divided by its root mean square, which gives ones, times 2 and 3."""
    norm = RMSNorm(2, 0.0)
    norm.weight.data = torch.tensor([2.0, 3.0])
    ours = attention(config(4, 2, 2, qk_norm="head"))
    answers(ours.heads, torch.tensor([[[1.0, 1.0, 7.0, 7.0]]]), norm, want=torch.tensor([[[[2.0, 3.0]], [[2.0, 3.0]]]]))


def test_olmo_norms_all_heads_together() -> None:
    """1, 1, 7, 7: the mean square is 100/4, the root 5; the four weights are 1, 2, 3, 4."""
    norm = RMSNorm(4, 0.0)
    norm.weight.data = torch.tensor([1.0, 2.0, 3.0, 4.0])
    ours = attention(config(4, 2, 2, qk_norm="full"))
    answers(ours.heads, torch.tensor([[[1.0, 1.0, 7.0, 7.0]]]), norm, want=torch.tensor([[[[0.2, 0.4]], [[4.2, 5.6]]]]))


def test_one_token_gets_its_own_value() -> None:
    """Its value is its third number, the first number of the result."""
    view = KVView(torch.tensor([[0]]), None, None, CPU)
    answers(one_head().forward, torch.tensor([[[2.0, 3.0, 5.0]]]), None, view, None, want=torch.tensor([[[5.0, 0.0, 0.0]]]))


def test_queries_and_keys_have_separate_matrices() -> None:
    """The query is ln 3 times the key's (1, 0): the second token's scores are 0 for (0, 1) and ln 3 for itself."""
    x = torch.tensor([[[0.0, 1.0, 8.0], [1.0, 0.0, 4.0]]])
    want = torch.tensor([[[8.0, 0.0, 0.0], [5.0, 0.0, 0.0]]])
    answers(one_head(LN3).forward, x, None, two_tokens(), None, want=want)


def test_heads_are_put_together_again() -> None:
    """Scores of zero: the second token gets the mean. Each number must keep its place."""
    eye = torch.eye(4).tolist()
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]])
    want = torch.tensor([[[1.0, 2.0, 3.0, 4.0], [3.0, 4.0, 5.0, 6.0]]])
    answers(attention(config(4, 2, 2), v_proj=eye, o_proj=eye).forward, x, None, two_tokens(), None, want=want)


def test_queries_and_keys_are_rotated() -> None:
    """Both tokens are (1, 0); the second is rotated to (0, 1): its scores are 0 and ln 3. Unrotated, it would get the mean."""
    x = torch.tensor([[[1.0, 0.0, 8.0], [1.0, 0.0, 4.0]]])
    want = torch.tensor([[[8.0, 0.0, 0.0], [5.0, 0.0, 0.0]]])
    answers(one_head(LN3).forward, x, QUARTER, two_tokens(), None, want=want)


def test_a_bias_is_rotated_with_the_key() -> None:
    """The key is only its bias, (1, 0): the same result as before."""
    ours = one_head(LN3, k_proj=torch.zeros(2, 3).tolist(), k_bias=[1.0, 0.0])
    x = torch.tensor([[[1.0, 0.0, 8.0], [1.0, 0.0, 4.0]]])
    want = torch.tensor([[[8.0, 0.0, 0.0], [5.0, 0.0, 0.0]]])
    answers(ours.forward, x, QUARTER, two_tokens(), None, want=want)


def test_norms_come_before_the_rotation() -> None:
    """5, 5 and 2, 2 are normed to 1, 1; the weights give (ln 3, 0) and (1, 0), which are then rotated."""
    ours = one_head(qk_norm="head", q_norm=[LN3, 0.0], k_norm=[1.0, 0.0])
    x = torch.tensor([[[5.0, 5.0, 8.0], [2.0, 2.0, 4.0]]])
    want = torch.tensor([[[8.0, 0.0, 0.0], [5.0, 0.0, 0.0]]])
    answers(ours.forward, x, QUARTER, two_tokens(), None, want=want)


def test_with_a_cache_the_second_token_finds_the_first() -> None:
    """The same two tokens in two calls; the cache holds rotated keys, which are not rotated again."""
    ours = one_head(LN3)
    cache = KVCache(config(3, 1, 2), 1, 8, torch.float32)
    tokens, outs = torch.tensor([[[1.0, 0.0, 8.0], [1.0, 0.0, 4.0]]]), []
    for position in (0, 1):
        view = KVView(torch.tensor([[position]]), None, cache, CPU)
        turn = QUARTER[0][:, :, position, None], QUARTER[1][:, :, position, None]
        outs.append(ours(tokens[:, position, None], turn, view, cache.layers[0]))
        cache.advance(view.positions)
    agree("Attention.forward, in two calls", torch.cat(outs, 1), torch.tensor([[[8.0, 0.0, 0.0], [5.0, 0.0, 0.0]]]))


def test_a_mistral_and_a_qwen3_model() -> None:
    """Their first layers: 12 heads share 3 keys; Mistral has a window of 5, Qwen 3 norms its heads."""
    for family in ("MistralForCausalLM", "Qwen3ForCausalLM"):
        made, positions = read_config(recipe(family)["config"]), torch.arange(16)[None]
        rope = made.ropes[0]
        assert rope is not None
        view = KVView(positions, made.windows[0], None, CPU)
        x, want = tap(family, "near/layers.0.input_layernorm"), tap(family, "near/layers.0.self_attn")
        answers(of_model(family).forward, x, Rotary(rope)(positions, [16]), view, None, want=want, within=AGREES)

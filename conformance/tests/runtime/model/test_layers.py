"""The parts of the transformer, each by numbers that can be redone by hand, then by property against torch's own functions.

The numbers are 3-4-5 triangles, quarter turns and logarithms of small integers: the right answer is short, and every
wrong convention (eps outside the root, neighbours paired, heads tiled, routing not renormalised) gives another one.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from conformance.truth.compare import relative_error
from nanollama.kernels.cpu import single_row_linear
from nanollama.kernels.linear import linear
from nanollama.model.activations import ACTIVATIONS
from nanollama.model.config import ModelConfig, read_config
from nanollama.model.kv_cache import KVView
from nanollama.model.layers import MLP, Attend, Attention, Block, LayerNorm, MoE, RMSNorm, Scores, softcap
from nanollama.model.rope import rotate

INF = math.inf
ROUNDING = 1e-13  # relative, in float64: a few hundred roundings of 1e-16, and ten thousand times less than any wrong formula
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
LN2, LN3 = math.log(2), math.log(3)  # tanh(ln 2) = 3/5, tanh(ln 3) = 4/5, softmax(0, ln 3) = 1/4, 3/4


def numbers(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def same(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    assert relative_error(got, want) <= ROUNDING, f"{got} is not {want}"


def config(**changes: Any) -> ModelConfig:
    """A model of one layer, small enough to be written out."""
    sizes = {"vocab_size": 5, "hidden_size": 2, "intermediate_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1}
    names = {"architectures": ["LlamaForCausalLM"], "head_dim": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-6}
    return read_config({**names, **sizes, "hidden_act": "relu", **changes})


def filled(module: nn.Module, **weights: Any) -> Any:
    """The module in float64 with these weights; those not named are NaN, so that reading one shows."""
    module = module.double().requires_grad_(False)
    for parameter in module.parameters():
        parameter.fill_(math.nan)
    for name, value in weights.items():
        module.get_parameter(name.replace("__", ".")).copy_(torch.as_tensor(value, dtype=torch.float64))
    return module


def view(length: int, window: int | None = None) -> KVView:
    """What a call without a cache sees: positions 0, 1, 2, …"""
    return KVView(torch.arange(length)[None], window, None, torch.device("cpu"))


def heads(*rows: Any) -> Tensor:
    """[1, H, T, 1]: one list of numbers a head."""
    return numbers(*rows)[None, :, :, None]


# --- norms


def test_rms_norm_divides_by_the_root_mean_square_with_eps_inside_the_root() -> None:
    # mean of squares (9 + 16) / 2 = 12.5, and 12.5 of eps: the root of 25 is 5
    norm = filled(RMSNorm(2, eps=12.5), weight=[10.0, 100.0])
    same(norm(numbers([3.0, 4.0])), numbers([6.0, 80.0]))


def test_gemmas_norm_adds_one_to_its_weight() -> None:
    norm = filled(RMSNorm(2, eps=12.5, plus_one=True), weight=[9.0, 99.0])
    same(norm(numbers([3.0, 4.0])), numbers([6.0, 80.0]))


def test_layer_norm_removes_the_mean_and_divides_by_the_population_deviation() -> None:
    # mean 4, deviations -3 and 3, variance 9 (not 18), and 16 of eps: the root of 25 is 5
    norm = filled(LayerNorm(2, eps=16.0), weight=[10.0, 100.0], bias=[1.0, 2.0])
    same(norm(numbers([1.0, 7.0])), numbers([-5.0, 62.0]))


@pytest.mark.parametrize("norm", [RMSNorm(3, 1e-6), LayerNorm(3, 1e-6)])
def test_a_norm_of_zeros_is_finite(norm: nn.Module) -> None:
    filled(norm, **{name: [0.5, 0.5, 0.5] for name, _ in norm.named_parameters()})
    assert norm(numbers([0.0, 0.0, 0.0])).isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [lambda: RMSNorm(8, 1e-3), lambda: RMSNorm(8, 1e-3, True), lambda: LayerNorm(8, 1e-3)])
def test_a_norm_keeps_shape_and_dtype_and_its_input(make: Callable[[], nn.Module], dtype: torch.dtype) -> None:
    norm = make().to(dtype).requires_grad_(False)
    for parameter in norm.parameters():
        parameter.fill_(1.0)
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    before = x.clone()
    assert norm(x).shape == x.shape
    assert norm(x).dtype is dtype
    assert torch.equal(x, before)


@settings(max_examples=50)
@given(st.integers(0, 1 << 30), st.integers(1, 70), st.sampled_from([1e-8, 1e-3, 2.0]))
def test_norms_equal_torchs_own(seed: int, size: int, eps: float) -> None:
    random = torch.Generator().manual_seed(seed)
    x, weight, bias = (torch.randn(n, size, generator=random, dtype=torch.float64) for n in (4, 1, 1))
    x = x * 10 ** (4 * torch.rand(4, 1, generator=random, dtype=torch.float64) - 2)
    same(filled(RMSNorm(size, eps), weight=weight[0])(x), F.rms_norm(x, (size,), weight[0], eps))
    same(filled(RMSNorm(size, eps, True), weight=weight[0])(x), F.rms_norm(x, (size,), 1 + weight[0], eps))
    if size > 1:  # one number alone is its own mean: 0 / sqrt(eps), and rounding is all there is
        same(filled(LayerNorm(size, eps), weight=weight[0], bias=bias[0])(x), F.layer_norm(x, (size,), weight[0], bias[0], eps))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_norm_in_half_precision_rounds_once_at_the_end(dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(2)
    x, weight = torch.randn(200, 64, generator=random).to(dtype), torch.randn(64, generator=random).to(dtype)
    norm = RMSNorm(64, 1e-6).to(dtype).requires_grad_(False)
    norm.weight.copy_(weight)
    truth = F.rms_norm(x.double(), (64,), weight.double(), 1e-6)
    info = torch.finfo(dtype)
    half_a_step = info.eps / 2 * 2 ** truth.abs().clamp(min=info.smallest_normal).log2().floor()
    assert ((norm(x).double() - truth).abs() <= half_a_step * 1.001).all()


# --- softcap, activations, linear


def test_softcap_bends_a_score_towards_the_cap() -> None:
    same(softcap(numbers([0.0, 2 * LN2, -2 * LN3, 1e9]), 2.0), numbers([0.0, 1.2, -1.6, 2.0]))


def test_without_a_cap_softcap_returns_its_input() -> None:
    x = numbers([1e9])
    assert softcap(x, None) is x


def gelu_by_tanh(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("gelu", lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2)))),
        ("gelu_new", gelu_by_tanh),
        ("gelu_pytorch_tanh", gelu_by_tanh),
        ("relu", lambda x: max(x, 0.0)),
    ],
)
def test_an_activation_is_its_formula(name: str, formula: Callable[[float], float]) -> None:
    points = [-6.0, -1.0, -0.3, 0.0, 0.5, 2.0, 7.0]
    same(ACTIVATIONS[name](numbers(*points)), numbers(*map(formula, points)))


def test_every_activation_has_a_formula_here() -> None:
    assert set(ACTIVATIONS) == {"silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu"}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 48), (48,), (1, 48), (2, 3, 48)])
def test_a_bfloat16_row_through_its_own_kernel_is_the_exact_product_rounded_once(shape: tuple[int, ...], bias: bool) -> None:
    random = torch.Generator().manual_seed(3)
    x, weight, b = (torch.randn(s, generator=random).bfloat16() for s in (shape, (37, 48), (37,)))
    got = linear(x, weight, b if bias else None)
    exact = F.linear(x.double(), weight.double(), b.double() if bias else None)
    terms = F.linear(x.double().abs(), weight.double().abs(), b.double().abs() if bias else None)
    assert got.dtype is torch.bfloat16
    assert got.shape == exact.shape
    # half a step of bfloat16 for the result (a second one where the bias is added to a rounded product), float32 sums inside
    steps = torch.finfo(torch.bfloat16).eps * (exact.abs() if not bias else terms) / 2
    assert ((got.double() - exact).abs() <= steps + terms * 48 * torch.finfo(torch.float32).eps).all()


@pytest.mark.parametrize("before", [True, False])
def test_the_kernel_for_one_row_equals_torchs_linear_and_leaves_onednn_as_it_was(
    before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", before)
    x, weight = torch.eye(8)[:1].bfloat16(), torch.arange(40.0).view(5, 8).bfloat16()
    assert torch.equal(single_row_linear(x, weight), F.linear(x, weight))
    after: Any = torch.backends.mkldnn.enabled
    assert after is before


# --- rotation


def test_a_quarter_turn_pairs_each_dimension_with_the_one_half_a_head_away() -> None:
    x = numbers([1.0, 2.0, 3.0, 4.0])[None, None]  # pairs (1, 3) and (2, 4); only the first turns
    cos, sin = numbers([0.0, 1.0])[None, None], numbers([1.0, 0.0])[None, None]
    same(rotate(x, cos, sin), numbers([-3.0, 2.0, 1.0, 4.0])[None, None])


def test_dimensions_beyond_the_rotary_part_pass_unchanged() -> None:
    x = numbers([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])[None, None]
    cos, sin = numbers([0.0, 0.0])[None, None], numbers([1.0, 1.0])[None, None]
    same(rotate(x, cos, sin), numbers([-3.0, -4.0, 1.0, 2.0, 5.0, 6.0])[None, None])


@pytest.mark.parametrize("dtype", DTYPES)
def test_rotation_keeps_the_dtype_and_its_input(dtype: torch.dtype) -> None:
    x = torch.arange(12.0).view(1, 1, 2, 6).to(dtype)
    before, angle = x.clone(), torch.tensor([[[[0.1, 0.2], [0.3, 0.4]]]])
    turned = rotate(x, angle.cos(), angle.sin())
    assert turned.shape == x.shape
    assert turned.dtype is dtype
    assert torch.equal(x, before)


@settings(max_examples=30)
@given(st.integers(0, 1 << 30), st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 5000))
def test_the_product_of_rotated_vectors_depends_on_the_distance_only(seed: int, m: int, n: int, shift: int) -> None:
    random = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(1, 1, 1, 8, generator=random, dtype=torch.float64) for _ in range(2))
    freq = numbers(1.0, 0.1, 0.01, 0.001)

    def at(x: Tensor, position: int) -> Tensor:
        return rotate(x, (position * freq).cos()[None, None, None], (position * freq).sin()[None, None, None])

    assert float((at(q, m) * at(k, n)).sum() - (at(q, m + shift) * at(k, n + shift)).sum()) == pytest.approx(0, abs=1e-11)


# --- attention


def test_scores_are_scaled_then_capped_then_masked() -> None:
    q, k = heads([1.0]), heads([8 * LN2, -8 * LN3, 5.0])
    allowed = torch.tensor([[[[True, True, False]]]])
    got = Scores(scale=0.25, cap=2.0)(q, k, allowed)  # 2 ln 2 capped at 2 is 1.2; the masked key is -inf, not -2
    same(got, numbers([1.2, -1.6, -INF])[None, None])


@pytest.mark.parametrize("dtype", DTYPES)
def test_scores_are_at_least_float32(dtype: torch.dtype) -> None:
    q, k = torch.ones(1, 2, 3, 4, dtype=dtype), torch.ones(1, 2, 5, 4, dtype=dtype)
    got = Scores(0.5, None)(q, k, torch.ones(1, 1, 3, 5, dtype=torch.bool))
    assert got.shape == (1, 2, 3, 5)
    assert got.dtype is torch.promote_types(dtype, torch.float32)


def attend(q: Tensor, k: Tensor, v: Tensor, seen: KVView, implementation: str, scale: float = 1.0) -> Tensor:
    module = Attend(scale, None)
    module.implementation = implementation
    before = q.clone(), k.clone(), v.clone()
    out = module(q, k, v, seen)
    assert out.shape == q.shape
    assert out.dtype == q.dtype
    assert all(map(torch.equal, before, (q, k, v)))
    return out


BOTH = pytest.mark.parametrize("implementation", ["eager", "sdpa"])


@BOTH
def test_values_are_mixed_by_the_softmax_of_the_scores(implementation: str) -> None:
    q, k, v = heads([0.0, 1.0]), heads([0.0, LN3]), heads([4.0, 8.0])
    same(attend(q, k, v, view(2), implementation), heads([4.0, 7.0]))  # 4/4 · 1 + 8 · 3/4


@BOTH
@pytest.mark.parametrize("length", [1, 2])  # one query has a road of its own
def test_neighbouring_query_heads_share_a_key_head(implementation: str, length: int) -> None:
    flat = [0.0] * length
    q, k, v = heads(flat, flat, flat, flat, flat, flat), heads(flat, flat), heads([10.0] * length, [20.0] * length)
    want = heads(*[[10.0] * length] * 3, *[[20.0] * length] * 3)  # tiled it would be 10, 20, 10, 20, 10, 20
    same(attend(q, k, v, view(length), implementation), want)


@BOTH
@pytest.mark.parametrize(
    ("window", "want"),
    [(None, [1.0, 1.5, 7 / 3, 15 / 4]), (1, [1.0, 2.0, 4.0, 8.0]), (2, [1.0, 1.5, 3.0, 6.0]), (4, [1.0, 1.5, 7 / 3, 3.75])],
)
def test_a_window_counts_the_current_key(implementation: str, window: int | None, want: list[float]) -> None:
    flat = heads([0.0] * 4)
    same(attend(flat, flat, heads([1.0, 2.0, 4.0, 8.0]), view(4, window), implementation), heads(want))


def test_a_cap_is_applied_before_the_softmax() -> None:
    module = Attend(scale=1.0, cap=2.0)
    assert module.implementation == "eager"  # SDPA has no softcap
    got = module(heads([1.0, 1.0]), heads([0.0, 2 * LN3]), heads([0.0, 1.0]), view(2))
    same(got, heads([0.0, 1 / (1 + math.exp(-1.6))]))  # 2 tanh(ln 3) = 1.6


@settings(max_examples=60)
@given(st.data())
def test_both_implementations_equal_torchs_attention_over_repeated_heads(data: st.DataObject) -> None:
    kv, group, length, size = (data.draw(st.integers(1, n)) for n in (3, 4, 9, 6))
    window, seed = data.draw(st.sampled_from([None, 1, 2, 4])), data.draw(st.integers(0, 1 << 30))
    random = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, n, length, size, generator=random, dtype=torch.float64) for n in (kv * group, kv, kv))
    positions = torch.tensor([list(range(length)), [*range(length - 1), -1] if length > 1 else [0]])
    seen = KVView(positions, window, None, torch.device("cpu"))
    mask = torch.tensor(
        [
            [[qp < 0 or (0 <= kp <= qp and (window is None or kp > qp - window)) for kp in row] for qp in row]
            for row in positions.tolist()
        ]
    )[:, None]
    each = torch.arange(kv * group) // group  # which key head a query head reads
    want = F.scaled_dot_product_attention(q, k[:, each], v[:, each], mask, scale=0.7)
    for implementation in ("eager", "sdpa"):
        same(attend(q, k, v, seen, implementation, scale=0.7), want)


def test_heads_are_normed_one_by_one_or_all_together() -> None:
    x = numbers([[3.0, 4.0, 0.0, 0.0]])  # two heads of two; with its eps each root is 5, and only then
    one = filled(Attention(config(num_attention_heads=2, hidden_size=4), 0), q_proj__weight=torch.eye(4))
    one.norm_heads = True
    same(one.heads(x, filled(RMSNorm(2, 12.5), weight=[1.0, 10.0])), numbers([[[0.6, 8.0]], [[0.0, 0.0]]]))
    one.norm_heads = False
    all_together = filled(RMSNorm(4, 18.75), weight=[1.0, 10.0, 1.0, 1.0])
    same(one.heads(x, all_together), numbers([[[0.6, 8.0]], [[0.0, 0.0]]]))


def test_an_attention_layer_projects_attends_and_projects_back() -> None:
    # one head; q = 0, so all keys weigh the same; v turns the axes round, o doubles the first
    matrices = {"q": [[0, 0], [0, 0]], "k": [[0, 0], [0, 0]], "v": [[0, 1], [1, 0]], "o": [[2, 0], [0, 1]]}
    layer = filled(Attention(config(), 0), **{f"{name}_proj__weight": matrix for name, matrix in matrices.items()})
    same(layer(numbers([[1.0, 2.0], [3.0, 6.0]]), None, view(2), None), numbers([[4.0, 1.0], [8.0, 2.0]]))


def test_biases_of_queries_keys_and_values_are_added() -> None:
    weights = {f"{p}_proj__weight": torch.zeros(2, 2) for p in "qkv"} | {"o_proj__weight": torch.eye(2)}
    biases = {"q_proj__bias": [1.0, 0.0], "k_proj__bias": [0.0, 0.0], "v_proj__bias": [5.0, 7.0], "o_proj__bias": [1.0, 1.0]}
    layer = filled(Attention(config(attention_bias=True), 0), **weights, **biases)
    same(layer(numbers([[1.0, 2.0]]), None, view(1), None), numbers([[6.0, 8.0]]))


# --- MLP, experts, block


def test_a_gated_mlp_multiplies_the_activated_gate_with_up() -> None:
    mlp = filled(MLP(config(), 2), gate_proj__weight=[[1, 0], [-1, 0]], up_proj__weight=[[0, 1], [0, 1]],
                 down_proj__weight=[[1, 1], [10, 0]])  # fmt: skip
    same(mlp(numbers([3.0, 4.0])), numbers([12.0, 120.0]))  # relu(3) · 4 = 12 and relu(-3) · 4 = 0


def test_gpt2s_mlp_has_no_gate() -> None:
    gpt2 = read_config({"architectures": ["GPT2LMHeadModel"], "vocab_size": 5, "n_embd": 2, "n_layer": 1, "n_head": 1,
                        "n_positions": 8, "activation_function": "relu"})  # fmt: skip
    mlp = filled(MLP(gpt2, 2), up_proj__weight=[[1, 0], [-1, 0]], up_proj__bias=[1, 5], down_proj__weight=[[1, 1], [10, 0]],
                 down_proj__bias=[100, 200])  # fmt: skip
    same(mlp(numbers([3.0, 4.0])), numbers([106.0, 240.0]))  # relu(3 + 1) = 4, relu(-3 + 5) = 2


def moe(**changes: Any) -> Any:
    """Three experts of one number each: x → x² · 1000, · 100, · 10; router probabilities for x = 1 are 1/8, 2/8, 5/8."""
    sizes = {"hidden_size": 1, "intermediate_size": 1, "moe_intermediate_size": 1, "num_experts": 3, "num_experts_per_tok": 2}
    named = {"architectures": ["Qwen3MoeForCausalLM"], "norm_topk_prob": True, "num_key_value_heads": 1}
    weights: dict[str, Any] = {"gate__weight": [[math.log(n)] for n in (1, 2, 5)]}
    for i, factor in enumerate((1000.0, 100.0, 10.0)):
        weights |= {f"experts__{i}__{m}_proj__weight": [[w]] for m, w in (("gate", 1.0), ("up", 1.0), ("down", factor))}
    return filled(MoE(config(**{**named, **sizes, **changes})), **weights)


def test_a_router_takes_the_softmax_over_all_then_the_best_then_renormalises() -> None:
    logits = numbers([1.0, 2.0, 5.0]).log()
    weights, chosen = moe(norm_topk_prob=False).route(logits)
    same(weights, numbers([5 / 8, 2 / 8]))
    assert chosen.tolist() == [[2, 1]]
    same(moe().route(logits)[0], numbers([5 / 7, 2 / 7]))


def test_the_chosen_experts_answers_are_added_by_weight() -> None:
    x = numbers([[1.0]])
    same(moe(norm_topk_prob=False)(x), numbers([[10 * 5 / 8 + 100 * 2 / 8]]))
    same(moe()(x), numbers([[10 * 5 / 7 + 100 * 2 / 7]]))


def test_an_expert_sees_the_tokens_that_chose_it_and_no_others() -> None:
    layer = moe(num_experts_per_tok=1)
    seen: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for i, expert in enumerate(layer.experts):
        expert.register_forward_hook(lambda _, args, __, i=i: seen[i].extend(args[0].flatten().tolist()))
    x = numbers([[1.0], [-1.0]], [[2.0], [-3.0]])  # positive: expert 2 has most; negative: expert 0, whose logit is 0
    same(layer(x), numbers([[10.0], [0.0]], [[40.0], [0.0]]))  # relu of a negative gate is 0
    assert seen == {0: [-1.0, -3.0], 1: [], 2: [1.0, 2.0]}


def test_experts_treat_a_batch_as_its_tokens_one_by_one() -> None:
    x = torch.randn(3, 5, 1, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    one_by_one = torch.stack([moe()(token[None, None])[0, 0] for token in x.flatten(0, 1)]).view_as(x)
    same(moe()(x), one_by_one)


@pytest.mark.parametrize("dtype", DTYPES)
def test_experts_keep_shape_and_dtype_and_their_input(dtype: torch.dtype) -> None:
    layer, x = moe().to(dtype), torch.ones(2, 3, 1, dtype=dtype)
    out = layer(x)
    assert out.shape == x.shape
    assert out.dtype is dtype
    assert torch.equal(x, torch.ones_like(x))
    assert layer.route(layer.gate(x.flatten(0, 1)))[0].dtype is torch.promote_types(dtype, torch.float32)


class Apply(nn.Module):
    """A part that is a function one can do in one's head."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, *_: Any) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    ("architecture", "want"),
    [
        ("LlamaForCausalLM", 39.0),  # 1 + (10·1 + 1) = 12;  12 + (2·12 + 3) = 39
        ("Olmo2ForCausalLM", 61.0),  # 1 + 2·(1 + 1) = 5;  5 + 7·(5 + 3) = 61
        ("Gemma2ForCausalLM", 849.0),  # 1 + 2·(10·1 + 1) = 23;  23 + 7·(5·23 + 3) = 849
    ],
)
def test_a_block_adds_each_part_to_the_stream_with_norms_where_its_family_has_them(architecture: str, want: float) -> None:
    block: Any = Block(config(architectures=[architecture], num_key_value_heads=1), 0)
    parts = {"self_attn": lambda x: x + 1, "mlp": lambda x: x + 3, "input_layernorm": lambda x: 10 * x,
             "post_attention_layernorm": lambda x: 2 * x, "pre_feedforward_layernorm": lambda x: 5 * x,
             "post_feedforward_layernorm": lambda x: 7 * x}  # fmt: skip
    for name, _ in list(block.named_children()):
        setattr(block, name, Apply(parts[name]))
    x = numbers([1.0])
    same(block(x, None, view(1), None), numbers([want]))
    same(x, numbers([1.0]))

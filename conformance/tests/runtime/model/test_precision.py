"""What low precision may cost and what it may not: no overflow where q·k passes 65504, sums in at least float32, float64 all
the way where it is asked for, no NaN from padding, and never more than twice transformers' own error."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from conformance.models.fixtures import FIXTURES, fixture_config, fixture_tensors, near_prompt, write_fixture
from conformance.truth.compare import relative_error, rms_error
from conformance.truth.golden import LOW_PRECISIONS, NUMERIC_FACTOR, Golden, load_golden
from conformance.truth.taps import blocks, eager_attention, runtime_taps
from nanollama.lm import load_model
from nanollama.model.dtypes import DTYPES
from nanollama.model.kv_cache import KVView
from nanollama.model.layers import Attend

EVERY = pytest.mark.parametrize("architecture", FIXTURES)
HALVES = [torch.float16, torch.bfloat16]
REDUCTIONS = {"mean", "sum", "_softmax", "rsqrt", "var", "softmax", "_log_softmax", "cumsum", "norm"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every fixture, written once."""
    place = tmp_path_factory.mktemp("fixtures")
    return {name: write_fixture(place / name, fixture_config(name)) for name in FIXTURES}


# --- scores beyond float16


def big_attention(queries: int) -> tuple[Tensor, Tensor, Tensor, KVView]:
    """q·k between 320,000 and 320,100 in exact float16 numbers; after the scale of 1/50 they differ by up to 2."""
    q = torch.full((1, 2, queries, 8), 200.0)
    k = torch.full((1, 1, 4, 8), 200.0)
    for place in range(4):
        k[0, 0, place, 0] += place * 0.125  # 25 more in q·k, half a unit more in the scores
    v = torch.tensor([1.0, 2.0, 4.0, 8.0])[None, None, :, None].expand(1, 1, 4, 8)
    view = KVView(torch.arange(4)[None], None, None, torch.device("cpu"))
    if queries == 1:  # the last of four tokens, as in decoding
        view.positions, view.causal = torch.tensor([[3]]), False
    return q, k, v, view


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("queries", [1, 4])
def test_scores_beyond_65504_are_finite_and_right_in_float16(queries: int, implementation: str) -> None:
    q, k, v, view = big_attention(queries)
    attend = Attend(scale=1 / 50, cap=None)
    attend.implementation = implementation
    got = attend(q.half(), k.half(), v.half(), view)
    exact = torch.tensor([0.0, 0.5, 1.0, 1.5], dtype=torch.float64)  # the scores, less 6400
    rows = range(4 - queries, 4)
    want = torch.stack([(exact[: t + 1].softmax(0) * v[0, 0, : t + 1, 0].double()).sum() for t in rows])
    assert (q @ k.transpose(-1, -2)).min() > torch.finfo(torch.float16).max
    assert got.dtype is torch.float16
    assert got.isfinite().all()
    # float16 rounds weights and values (two steps of 1e-3 of the largest value); float32 knows a score of 6400 to 5e-4
    assert (got.double() - want[None, None, :, None]).abs().max() <= 3 * torch.finfo(torch.float16).eps * 8


def test_the_naive_float16_product_of_the_same_numbers_overflows() -> None:  # the control
    q, k, _, _ = big_attention(4)
    assert (q.half() @ k.half().transpose(-1, -2)).isinf().all()


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Gemma2ForCausalLM", "GPT2LMHeadModel"])
def test_a_model_with_scores_beyond_65504_stays_finite_in_float16(architecture: str, folders: dict[str, Path]) -> None:
    model = load_model(folders[architecture], "float16")
    largest: list[float] = []
    for layer in blocks(model):
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            for parameter in projection.parameters():
                parameter.mul_(150.0)
        layer.self_attn.attend.scores.register_forward_pre_hook(
            lambda _, args: largest.append(float((args[0].double() @ args[1].double().transpose(-1, -2)).abs().max()))
        )
    ids = near_prompt(fixture_config(architecture))
    assert model(ids).isfinite().all()
    with eager_attention(model):
        assert model(ids).isfinite().all()
    assert max(largest) > torch.finfo(torch.float16).max


# --- at least float32


class Operations(TorchDispatchMode):
    """Records the name, and the floating-point dtypes going in and out, of every operation torch really runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, set[torch.dtype], set[torch.dtype]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.seen.append((func.overloadpacket.__name__, floating(args), floating(out)))
        return out


def floating(values: Any) -> set[torch.dtype]:
    """The floating-point dtypes of the tensors among these values."""
    if isinstance(values, Tensor):
        return {values.dtype} if values.is_floating_point() else set()
    return set().union(*map(floating, values)) if isinstance(values, (tuple, list)) else set()


@contextmanager
def operations() -> Iterator[list[tuple[str, set[torch.dtype], set[torch.dtype]]]]:
    recorder = Operations()
    with recorder:
        yield recorder.seen


@EVERY
def test_a_float64_model_computes_nothing_in_another_precision(architecture: str, folders: dict[str, Path]) -> None:
    model, ids = load_model(folders[architecture], "float64"), near_prompt(fixture_config(architecture))
    with operations() as seen:
        taps = runtime_taps(model, lambda: model(ids))
        cache = model.new_cache(1, 20)
        model(ids, cache=cache)
        model(ids[:, :1], cache=cache)
    assert {tap.dtype for tap in taps.values()} == {torch.float64}
    assert {dtype for _, going_in, out in seen for dtype in going_in | out} == {torch.float64}
    assert len(seen) > 100


@EVERY
@pytest.mark.parametrize("dtype", HALVES)
def test_a_half_precision_model_sums_and_normalises_in_float32(
    architecture: str, dtype: torch.dtype, folders: dict[str, Path]
) -> None:
    model, ids = load_model(folders[architecture], str(dtype).removeprefix("torch.")), near_prompt(fixture_config(architecture))
    with operations() as seen, eager_attention(model):
        logits = model(ids)
    reductions = [(name, going_in) for name, going_in, _ in seen if name in REDUCTIONS]
    assert {name for name, _ in reductions} >= {"mean", "_softmax", "rsqrt"}
    assert not [name for name, going_in in reductions if going_in & set(HALVES)]
    assert logits.dtype is dtype


@EVERY
def test_every_tap_of_a_half_precision_model_has_its_dtype(architecture: str, folders: dict[str, Path]) -> None:
    model, ids = load_model(folders[architecture], "bfloat16"), near_prompt(fixture_config(architecture))
    for name, tap in runtime_taps(model, lambda: model(ids)).items():
        assert tap.dtype is (torch.float32 if name.endswith(".weights") else torch.bfloat16), name


# --- twice transformers' own error, and no more


def ratio(golden: Golden, logits: Tensor, dtype: str) -> float:
    """Our error over what transformers had in the same precision, both against the float64 truth."""
    error = rms_error(logits.double().log_softmax(-1), golden.taps["near/logits"])
    return error / float(golden.recipe["transformers_rms_error_nats"][dtype])


@EVERY
@pytest.mark.parametrize("dtype", LOW_PRECISIONS)
def test_no_road_through_the_model_costs_more_than_twice_transformers_error(
    architecture: str, dtype: str, folders: dict[str, Path]
) -> None:
    golden, model = load_golden(architecture), load_model(folders[architecture], dtype)
    ids, _ = golden.prompt("near")
    cache = model.new_cache(1, ids.shape[1])
    roads = {"sdpa": model(ids), "token by token": torch.cat([model(token, cache=cache) for token in ids.split(1, 1)], 1)}
    with eager_attention(model):
        roads["eager"] = model(ids)
    ratios = {road: ratio(golden, logits, dtype) for road, logits in roads.items()}
    assert max(ratios.values()) <= NUMERIC_FACTOR, ratios


@EVERY
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_positions_beyond_4096_are_no_less_precise_than_near_ones(
    architecture: str, dtype: str, folders: dict[str, Path]
) -> None:
    golden, model = load_golden(architecture), load_model(folders[architecture], dtype)
    ids, positions = golden.prompt("far")
    logits = model(ids, positions=positions).double().log_softmax(-1)
    error = rms_error(logits, golden.taps["far/logits"])
    # the far prompt has no recorded error of its own; the near one's, of another prompt in the same model, is of its size
    assert error <= 2 * NUMERIC_FACTOR * float(golden.recipe["transformers_rms_error_nats"][dtype])


# --- padding


@EVERY
@pytest.mark.parametrize("dtype", DTYPES)
def test_padding_never_gives_a_number_that_is_none(architecture: str, dtype: str, folders: dict[str, Path]) -> None:
    model = load_model(folders[architecture], dtype)
    positions = torch.full((4, 9), -1)
    positions[0], positions[1, 4:], positions[2, :3] = torch.arange(9), torch.arange(5), torch.arange(3)  # row 3: nothing
    ids = torch.arange(36).view(4, 9)
    for implementation in ("default", "eager"):
        for layer in blocks(model):
            if implementation == "eager":
                layer.self_attn.attend.implementation = "eager"
        cache = model.new_cache(4, 16)
        assert model(ids, positions=positions).isfinite().all()
        assert model(ids, cache=cache, positions=positions).isfinite().all()
        assert model(ids, cache=cache, positions=torch.full((4, 9), -1)).isfinite().all()  # a call of padding only
        assert model(ids[:, :1], cache=cache, last_only=True).isfinite().all()
        assert cache.lengths == [10, 6, 4, 1]
        assert all(layer.k.isfinite().all() and layer.v.isfinite().all() for layer in cache.layers)


@EVERY
def test_a_row_that_breaks_does_not_break_its_neighbours(architecture: str, folders: dict[str, Path]) -> None:
    model, ids = load_model(folders[architecture]), torch.arange(2, 18).view(2, 8)
    want = model(ids)[1]
    model.embed_tokens.weight[2] = torch.nan  # the first token of row 0
    head = fixture_tensors(fixture_config(architecture)).get("lm_head.weight")
    if head is None:  # the head is tied: token 2 has no logit any more
        want[:, 2] = torch.nan
    got = model(ids)
    assert got[0, 0].isnan().any()
    known = ~want.isnan()
    assert relative_error(got[1][known], want[known]) <= 1e-13

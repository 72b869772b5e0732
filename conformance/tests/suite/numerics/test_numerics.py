"""Numerics: the variants are the same function, the floor is what they need and no more, local replay names the module that is
off, honest engines pass on weights that no floor was made from, and the published rules are what their sources say."""

import getpass
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from conformance.models.fixtures import FIXTURES
from conformance.numerics import recording, ways
from conformance.numerics.check import CHECKED_VARIANTS, check, false_alarms, judge_variant
from conformance.numerics.floor import FLOOR, TIERS, VIEWS, decided, leave_one_out, load_floors, pooled
from conformance.numerics.floor import Sample as Tap
from conformance.numerics.observe import Observed, Prompt, observe
from conformance.numerics.recording import fixture_model, prove_clean, record, workload
from conformance.numerics.statistics import INCOMPARABLE, NOTHING, Statistics, interval, measure
from conformance.numerics.variants import AS_IS, HELD_OUT, ORDER, POLICY, VARIANTS, Variant, applicable, put, without_compiler
from conformance.truth.compare import SEMANTIC_BAR, relative_error
from conformance.truth.golden import LOW_PRECISIONS, Golden, load_golden
from nanollama.lm import load_model
from nanollama.model import layers
from nanollama.model.transformer import Transformer

LLAMA, GEMMA, MOE = "LlamaForCausalLM", "Gemma2ForCausalLM", "Qwen3MoeForCausalLM"
EVERY = pytest.mark.parametrize("architecture", FIXTURES)


# --- statistics, by hand


def tap(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)[..., None]


def test_a_bad_token_shows_in_the_row_and_a_bad_channel_in_the_column() -> None:
    want = torch.ones(4, 8, 1, dtype=torch.float64)
    token, channel = want.clone(), want.clone()
    token[2] += 0.1
    channel[:, 5] += 0.1
    assert measure(token, want).row == pytest.approx(0.1)
    assert measure(token, want).column == pytest.approx(0.05)  # one of four tokens: 0.1 / sqrt(4)
    assert measure(channel, want).column == pytest.approx(0.1)
    assert measure(channel, want).row == pytest.approx(0.1 / 8**0.5)


def test_gain_is_the_share_of_the_truth_in_the_error_and_offset_the_mean_of_it() -> None:
    want = tap([[1.0, -1.0], [2.0, -2.0]])
    assert measure(want * 1.02, want).gain == pytest.approx(0.02)
    assert measure(want * 1.02, want).offset == pytest.approx(0)
    assert measure(want + 0.1, want).gain == pytest.approx(0)
    assert measure(want + 0.1, want).offset == pytest.approx(0.1 / 2.5**0.5)  # over the root mean square


def test_a_loud_token_is_measured_by_its_own_size() -> None:
    want = tap([[1.0, 1.0], [100.0, 100.0]])
    assert measure(want * 1.01, want).row == pytest.approx(0.01)


def test_what_cannot_be_compared_is_infinitely_wrong() -> None:
    want = tap([[1.0, -torch.inf]])
    assert measure(want, want) == NOTHING
    assert measure(tap([[1.0, 2.0]]), want) == INCOMPARABLE  # the mask is another
    assert measure(tap([[torch.nan, -torch.inf]]), want) == INCOMPARABLE
    assert measure(want[:0], want[:0]) == INCOMPARABLE  # nothing was compared
    assert measure(want, tap([[1.0]])) == INCOMPARABLE
    assert measure(tap([[1.0]]), tap([[0.0]])) == INCOMPARABLE


def test_excess_over_a_floor_of_nothing_is_infinite_unless_there_is_no_error() -> None:
    floor = Statistics(0.0, 2.0, 0.0, 1.0)
    assert Statistics(0.0, 3.0, 1.0, 1.0).over(floor) == Statistics(0.0, 1.5, torch.inf, 1.0)


def test_the_interval_of_no_alarm_in_300_runs_ends_at_one_and_a_quarter_percent() -> None:
    low, high = interval(0, 300)  # Wilson: z² / (n + z²)
    assert (low, high) == pytest.approx((0.0, 3.8415 / 303.8415), abs=1e-6)
    assert interval(0, 0) == (0.0, 1.0)


# --- the variants


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Golden, Transformer]]:
    """A family's golden and its float64 model."""
    place, made = tmp_path_factory.mktemp("goldens"), {}

    def model(architecture: str) -> tuple[Golden, Transformer]:
        if architecture not in made:
            golden = load_golden(architecture)
            made[architecture] = golden, load_model(golden.write_model(place / architecture), "float64")
        return made[architecture]

    return model


def golden_values(golden: Golden, part: str, name: str, tokens: Tensor) -> Tensor:
    """A golden's tap as `observe` gives taps: a row for every token."""
    want = golden.part(part)[name]
    if name.endswith(".weights"):  # [1, H, T, S] → [T, H, S + 1]: a key more, for weight on padding
        want = want.transpose(1, 2)
        want = torch.cat((want, torch.full_like(want[..., :1], -torch.inf)), -1)
    want = want.reshape(-1, *want.shape[2:]) if want.shape[0] == 1 else want
    return want[tokens] if want.ndim == 3 else want[tokens][..., None]


def worst_error(golden: Golden, part: str, seen: Observed) -> tuple[float, str]:
    """The largest error of a prompt's taps; every tap of the golden, save weights, must be there with every token."""
    want = golden.part(part)
    missing = {name for name in want if name not in seen and not name.endswith(".weights")}
    assert not missing or part == "far", missing
    tokens = want["logits"].shape[1]
    assert all(len(seen[name].token.unique()) == tokens for name in want if name in seen)
    return max((relative_error(s.values, golden_values(golden, part, n, s.token)), n) for n, s in seen.items() if n in want)


@EVERY
@pytest.mark.parametrize("part", ["near", "far"])
def test_every_variant_is_the_golden_in_float64(
    architecture: str, part: str, models: Callable[[str], tuple[Golden, Transformer]]
) -> None:
    golden, model = models(architecture)
    prompt = Prompt(*(x[0] for x in golden.prompt(part)))
    for variant in applicable(model.config):
        with torch.inference_mode(), variant.patch(model) as changed:
            seen, _ = observe(changed, variant.way, [prompt])
        error, name = worst_error(golden, part, seen)
        assert error <= SEMANTIC_BAR, (variant.name, name)


def test_there_are_enough_variants_and_each_says_what_it_is() -> None:
    assert len(ORDER) >= 15 and len(POLICY) >= 5 and len(HELD_OUT) >= 2
    assert len({v.name for v in VARIANTS}) == len(VARIANTS)
    assert all(v.what.endswith(".") for v in VARIANTS)
    assert all(v.policy for v in POLICY) and not any(v.policy for v in ORDER)


class Operations(TorchDispatchMode):
    """What torch is asked to compute: every operation, with the shapes, strides and dtypes of what goes in."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[tuple[object, ...]]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        self.seen.append((str(func), [(x.dtype, x.shape, x.stride()) for x in tensors]))
        return func(*args, **(kwargs or {}))


def work_of(model: Transformer, variant: Variant) -> tuple[Tensor, list[Any]]:
    """All taps of a variant, in one row, and the operations that made them."""
    with torch.inference_mode(), variant.patch(model) as changed, Operations() as operations:
        seen, _ = observe(changed, variant.way, workload(LLAMA)[:1])
    return torch.cat([s.values[s.token.argsort(stable=True)].flatten() for s in seen.values()]), operations.seen


@pytest.mark.parametrize("variant", [v for v in VARIANTS if not v.compiles], ids=lambda v: v.name)
def test_every_variant_really_computes_another_way(variant: Variant) -> None:
    """A patch that nothing calls would make the floor of nothing. Which ways give the same bits is the processor's affair:
    the numbers must differ, or what torch is asked to compute."""
    for architecture in (LLAMA, GEMMA, MOE, "MixtralForCausalLM", "GPT2LMHeadModel"):
        for dtype in LOW_PRECISIONS:
            with fixture_model(architecture, dtype) as load:
                model = load(dtype)
                if variant.reason(model.config) is None:
                    (mine, asked), (own, plain) = work_of(model, variant), work_of(model, AS_IS)
                    if asked != plain or mine.shape != own.shape or not torch.equal(mine, own):
                        return
    pytest.fail(f"{variant.name} is the runtime as it is")


def test_the_runtime_as_it_is_computes_no_other_way() -> None:
    with fixture_model(LLAMA, "float32") as load:
        model = load("float32")
    (mine, asked), (own, plain) = work_of(model, AS_IS), work_of(model, AS_IS)
    assert torch.equal(mine, own) and asked == plain and len(asked) > 100


def runtime_functions() -> list[Any]:
    """What variants replace."""
    classes = [layers.RMSNorm, layers.LayerNorm, layers.Attend, layers.Scores, layers.MLP, layers.MoE, layers.Block]
    return [vars(layers)["linear"], vars(layers)["rotate"], *(vars(each)["forward"] for each in classes)]


def test_a_variant_leaves_nothing_behind() -> None:
    before = runtime_functions()
    with fixture_model(LLAMA, "float32") as load:
        model = load("float32")
        for variant in applicable(model.config):
            with variant.patch(model):
                pass
        with pytest.raises(ZeroDivisionError), HELD_OUT[0].patch(model):
            raise ZeroDivisionError
    assert before == runtime_functions()


@pytest.mark.skipif(without_compiler() is not None, reason=f"torch.compile: {without_compiler()}")
@pytest.mark.filterwarnings("ignore:.*script_method. is deprecated:DeprecationWarning")  # torch's own, on import
def test_the_compiled_variant_is_the_golden_in_float64(
    models: Callable[[str], tuple[Golden, Transformer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = (
        f"inductor-{getpass.getuser()}-{torch.backends.cpu.get_cpu_capability()}"  # of one processor don't compile for another
    )
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir()) / kernels))
    golden, model = models("GPT2LMHeadModel")
    compiled = next(v for v in ORDER if v.compiles)
    with torch.inference_mode(), compiled.patch(model) as changed:
        seen, _ = observe(changed, compiled.way, [Prompt(*(x[0] for x in golden.prompt("near")))])
    assert worst_error(golden, "near", seen)[0] <= SEMANTIC_BAR


# --- ways of calling


def test_a_ragged_batch_is_padded_on_the_side_it_says() -> None:
    rows = [torch.tensor([5, 6, 7]), torch.tensor([8])]
    assert ways.padded(rows, False, 4).tolist() == [[5, 6, 7, -1], [8, -1, -1, -1]]
    assert ways.padded(rows, True, 4).tolist() == [[-1, 5, 6, 7], [-1, -1, -1, 8]]


def test_every_way_shows_the_model_every_token() -> None:
    prompts = workload(LLAMA)
    count = sum(len(p.ids) for p in prompts)
    ids, positions = torch.cat([p.ids for p in prompts]), torch.cat([p.positions for p in prompts])
    with fixture_model(LLAMA, "float32") as load:
        model = load("float32")
    for variant in VARIANTS:
        seen = []
        for step in variant.way(model, prompts):
            real = step.tokens >= 0
            assert torch.equal(real, step.positions >= 0)
            assert torch.equal(step.ids[real], ids[step.tokens[real]])
            if not variant.name.startswith("positions"):
                assert torch.equal(step.positions[real], positions[step.tokens[real]])
            seen.append(step.tokens[real])
        assert sorted(set(torch.cat(seen).tolist())) == list(range(count)), variant.name


def test_the_model_is_not_told_positions_that_it_must_know_and_is_asked_for_last_tokens_alone() -> None:
    prompts = workload(LLAMA)
    with fixture_model(LLAMA, "float32") as load:
        model = load("float32")
        told = [step.implicit for step in ways.chunks(5)(model, prompts)]
        decoded = [step for step in ways.ragged(model, prompts) if step.implicit]
    assert told[0] is True  # an empty cache starts at 0
    assert False in told  # the far prompt jumps
    assert [step.ids.shape for step in decoded] == [(3, 1)] * ways.DECODED
    last = [step for step in ways.batch(left=False)(model, prompts) if step.last_only]
    assert last[0].tokens_of(torch.zeros(3, 1, 60))[:, 0].tolist() == [15, 33, 40]  # 16, 18 and 7 tokens
    assert torch.equal(last[0].tokens_of(torch.zeros(3, 20, 60)), last[0].tokens)


# --- the truth


def rounded_scale_oracle(folder: Path, dtype: torch.dtype) -> Any:
    """transformers in float64, with Gemma's embedding scale rounded as Gemma defines it for the dtype."""
    from conformance.truth.oracle import load_oracle

    oracle: Any = load_oracle(folder)
    if oracle.config.model_type.startswith("gemma"):
        exact = oracle.config.hidden_size**0.5
        oracle.lm_head.weight = nn.Parameter(oracle.lm_head.weight.detach().clone())  # it was tied to the embedding
        with torch.no_grad():
            oracle.base_model.embed_tokens.weight.mul_(float(torch.tensor(exact, dtype=dtype)) / exact)
    return oracle


@EVERY
def test_the_truth_with_rounded_weights_is_what_transformers_computes(architecture: str, tmp_path: Path) -> None:
    from conformance.truth.oracle import oracle_logits

    truth = record(architecture, "bfloat16")
    oracle = rounded_scale_oracle(recording.write_rounded(tmp_path, architecture, "bfloat16"), torch.bfloat16)
    start = 0
    for prompt in truth.prompts:
        want = oracle_logits(oracle, prompt.ids[None], prompt.positions[None]).log_softmax(-1)[0]
        got = truth.accumulated["logits"][start : start + len(prompt.ids), :, 0]
        assert relative_error(got, want) <= SEMANTIC_BAR
        start += len(prompt.ids)


def test_no_truth_is_recorded_from_a_faulty_runtime() -> None:
    def faulty(self: layers.RMSNorm, x: Tensor) -> Tensor:
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True)) * self.weight

    prove_clean.cache_clear()
    try:
        with put(None, (layers.RMSNorm, "forward", faulty)), pytest.raises(RuntimeError, match="not clean"):
            prove_clean(LLAMA)
    finally:
        prove_clean.cache_clear()


# --- the floor


def test_the_stored_floor_says_who_measured_it_and_is_small() -> None:
    assert FLOOR.stat().st_size < 60_000
    for dtype in LOW_PRECISIONS:
        floors = load_floors(dtype)
        assert floors.provenance.keys() >= {"torch", "device", "date", "variants", "families", "seeds", "command"}
        assert set(floors.provenance["families"]) == set(FIXTURES)
        assert set(floors.provenance["variants"]) == {v.name for v in (AS_IS, *ORDER, *POLICY) if not v.compiles}
        for view in VIEWS:
            for tier in TIERS:
                assert min(vars(floors.factors[view][tier]).values()) >= 1
            for kind, order in floors.floors[view]["order"].items():
                assert order.largest(floors.floors[view]["all"][kind]) == floors.floors[view]["all"][kind]


def test_a_device_without_a_floor_is_an_error_that_says_how_to_measure_one() -> None:
    with pytest.raises(RuntimeError, match="numerics floor --device mps"):
        load_floors("bfloat16", "mps")


def samples(*rows: tuple[Variant, int, float]) -> list[Tap]:
    return [Tap("local", v, LLAMA, seed, "norm", "norm", Statistics(x, x, x, x)) for v, seed, x in rows]


def test_leave_one_out_judges_a_variant_by_the_others_on_other_seeds() -> None:
    a, b = ORDER[0], ORDER[1]
    taken = samples((a, 1, 4.0), (a, 2, 1.0), (b, 1, 3.0), (b, 2, 2.0))
    assert pooled(taken)["norm"].row == 4
    assert leave_one_out(taken).row == 3  # b on seed 1 by a on seed 2: 3/1; a on 1 by b on 2: 4/2; a on 2 by b on 1: 1/3


def test_a_token_is_decided_when_its_router_cannot_flip_within_the_floor() -> None:
    gate = tap([[0.5, 0.3, 0.2], [0.5, 0.25, 0.25], [0.4, 0.1, 0.5]])
    assert decided(gate, chosen=2, nats=0.04).tolist() == [True, False, True]
    assert decided(gate, chosen=2, nats=0.06).tolist() == [False, False, True]
    assert decided(gate, chosen=3, nats=9.0).tolist() == [True] * 3


@EVERY
@pytest.mark.parametrize("dtype", LOW_PRECISIONS)
def test_the_runtime_is_within_the_floor(architecture: str, dtype: str) -> None:
    judgement = check(architecture, dtype)
    assert judgement.verdict in ("PASS", "NOTE"), judgement.first
    assert judgement.taps > 50


@pytest.mark.parametrize(("architecture", "dtype"), list(zip((LLAMA, GEMMA, MOE), LOW_PRECISIONS, strict=True)))
def test_honest_variants_pass_on_weights_that_no_floor_was_made_from(architecture: str, dtype: str) -> None:
    """One family in each dtype; all of them: python -m conformance.numerics alarms."""
    alarms = false_alarms([dtype], families=[architecture], seeds=[11])
    assert alarms.runs > 30
    assert not alarms.flagged


# --- what local replay finds, and where


Break = Callable[[Any], object]


def attention(model: Transformer) -> Any:
    return model.layers[1].self_attn


def scale(parameter: Tensor, factor: float) -> None:
    parameter.data.mul_(factor)


BROKEN: dict[str, tuple[str, Break]] = {
    "layers.1.input_layernorm": (LLAMA, lambda m: setattr(m.layers[1].input_layernorm, "eps", 3e-2)),
    "layers.1.self_attn.o_proj": (LLAMA, lambda m: attention(m).o_proj.weight.data[7].zero_()),
    "layers.1.self_attn.attend.scores": (LLAMA, lambda m: scale(attention(m).k_proj.weight, 1.03)),
    "layers.1.self_attn.attend": (LLAMA, lambda m: attention(m).v_proj.bias.data.zero_()),
    "layers.2.mlp": (LLAMA, lambda m: m.layers[2].mlp.down_proj.weight.data[:, -2:].zero_()),
    "layers.0.post_feedforward_layernorm": (
        GEMMA,
        lambda m: setattr(m.layers[0].post_feedforward_layernorm, "plus_one", False),
    ),
    "layers.2.mlp.gate": (MOE, lambda m: scale(m.layers[2].mlp.gate.weight, 1.03)),
    "layers.0.mlp": (MOE, lambda m: setattr(m.layers[0].mlp, "renormalise", True)),
    "norm": (LLAMA, lambda m: m.norm.weight.data[3:5].mul_(1.05)),
    "lm_head": (LLAMA, lambda m: m.lm_head.weight.data.copy_(swapped(m.lm_head.weight))),
    "embed_tokens": (LLAMA, lambda m: scale(m.embed_tokens.weight, 1.01)),
}


def swapped(weight: Tensor) -> Tensor:
    """Two rows of a matrix exchanged."""
    order = torch.arange(len(weight))
    order[[30, 31]] = order[[31, 30]]
    return weight[order].clone()


@pytest.mark.parametrize("place", BROKEN)
def test_local_replay_in_bfloat16_names_the_module_that_is_off(place: str) -> None:
    architecture, damage = BROKEN[place]
    truth, floors, eager = record(architecture, "bfloat16"), load_floors("bfloat16"), CHECKED_VARIANTS[1]
    with fixture_model(architecture, "bfloat16") as load:
        model = load("bfloat16")
        damage(model)
        variant = eager if eager.reason(model.config) is None else AS_IS
        judgement = judge_variant(model, truth, floors, variant)
    assert judgement.first is not None
    assert judgement.first.place == place
    wrong = {f.place for f in judgement.beyond("all")}
    layer = place.split(".self_attn")[0].split(".mlp")[0].split(".post")[0]
    parts = (place, layer, f"{place}.attend", f"{layer}.self_attn.attend", f"{layer}.mlp")
    assert wrong <= set(parts)  # and what contains it or follows in the same layer: nothing else


def lowest_number_mask(self: layers.Scores, q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
    wide = layers.at_least_float32(q.dtype)
    return ((q.to(wide) * self.scale) @ k.to(wide).transpose(-1, -2)).masked_fill(~allowed, torch.finfo(wide).min)


def test_a_mask_written_as_the_lowest_number_is_the_same_mask() -> None:
    record(LLAMA, "bfloat16")
    with put(None, (layers.Scores, "forward", lowest_number_mask)):
        assert check(LLAMA, "bfloat16").verdict == "PASS"


@contextmanager
def noisy(times: float) -> Iterator[None]:
    """Matrix products with noise of so many roundings of bfloat16."""
    plain, random = vars(layers)["linear"], torch.Generator().manual_seed(0)

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        out = plain(x, weight, bias)
        return out + out * torch.randn(out.shape, generator=random).to(out.dtype) * times * 2**-9

    with put(None, (layers, "linear", linear)):
        yield


def null_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return x.new_zeros(*x.shape[:-1], len(weight))


def test_a_noisy_engine_and_one_that_computes_nothing_fail() -> None:
    record(LLAMA, "bfloat16")
    with noisy(8):
        assert check(LLAMA, "bfloat16").verdict == "FAIL"
    with put(None, (layers, "linear", null_linear)):
        assert check(LLAMA, "bfloat16").verdict == "FAIL"


def test_a_check_that_compared_nothing_is_an_error_and_a_tap_nobody_saw_a_failure() -> None:
    truth, floors = record(LLAMA, "bfloat16"), load_floors("bfloat16")
    with fixture_model(LLAMA, "bfloat16") as load:
        silent = judge_variant(
            load("bfloat16"), truth, floors, Variant("silent", "No call at all.", way=lambda model, prompts: iter(()))
        )
    assert silent.verdict in ("ERROR", "FAIL")
    assert {f.statistic for f in silent.findings} == {"never seen"}


def test_two_modules_that_are_off_are_both_named_in_one_run() -> None:
    truth, floors = record(LLAMA, "bfloat16"), load_floors("bfloat16")
    with fixture_model(LLAMA, "bfloat16") as load:
        model = load("bfloat16")
        for place in ("layers.1.input_layernorm", "layers.2.mlp"):
            BROKEN[place][1](model)
        wrong = {f.place for f in judge_variant(model, truth, floors).beyond("all")}
    assert {"layers.1.input_layernorm", "layers.2.mlp"} <= wrong

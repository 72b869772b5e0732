"""The checks themselves: their truth is proven, a sound runtime passes and nothing else does, and the right place is named."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig

import nanollama.model.kv_cache
import nanollama.model.layers
import nanollama.model.rope
import nanollama.model.transformer
from conformance.checks import Check, Failed, all_checks, check, compared, judged, place_of
from conformance.checks.assertions import expect, expect_close, expect_equal, expect_equal_tensor, expect_refused
from conformance.checks.model.diagnosis import diagnose
from conformance.checks.model.steps import Step, all_faults
from conformance.models.fixtures import FIXTURES
from conformance.truth.cases import CASES, case, truth_of
from conformance.truth.compare import SEMANTIC_BAR, relative_error, row_error
from conformance.truth.golden import load_golden
from conformance.truth.oracle import load_oracle, oracle_logits
from nanollama.errors import NanollamaError

MODEL_CHECKS = [each for each in all_checks() if each.name.startswith("model.")]
LLAMA, GEMMA = "LlamaForCausalLM", "Gemma2ForCausalLM"


# The framework


def test_what_a_check_raises_is_a_failure_with_a_place() -> None:
    def broken() -> None:
        raise ValueError("x")

    with pytest.raises(Failed, match=r"conformance: ValueError: x"):
        judged(broken)


def test_a_check_that_compares_nothing_fails() -> None:
    with pytest.raises(Failed, match="compared nothing"):
        judged(lambda: None)
    judged(compared)


def test_a_check_inside_a_check_does_not_lend_its_comparisons() -> None:
    def outer() -> None:
        judged(lambda: compared(3))

    judged(outer)

    def inner() -> None:
        compared()
        judged(lambda: None)

    with pytest.raises(Failed, match="compared nothing"):
        judged(inner)


def test_an_error_of_the_runtime_names_its_innermost_function() -> None:
    with pytest.raises(NanollamaError) as raised:
        nanollama.model.kv_cache.KVCache(case(LLAMA).load().config, 0, 5, torch.float64)
    assert place_of(raised.tb) == "model.kv_cache.KVCache.__init__"


def test_names_are_unique_and_every_check_has_requirements_and_an_area() -> None:
    checks = all_checks()
    assert len({each.name for each in checks}) == len(checks) > 100
    assert all(isinstance(each, Check) and each.requirements and each.area for each in checks)


def test_checks_come_in_the_order_of_dependency_each_time() -> None:
    modules = list(dict.fromkeys(".".join(each.name.split(".")[:2]) for each in all_checks()))
    assert modules[:3] == ["model.config", "model.semantics", "model.cache"]
    assert [each.name for each in all_checks()] == [each.name for each in all_checks()]


def test_a_check_is_listed_once_per_case() -> None:
    @check("TEST-001", area="none", each=("a", "b"))
    def judge_letter(letter: str) -> None:
        expect_equal("nowhere", letter, "a")

    from conformance.checks import _registered

    first, second = _registered.pop(__name__)
    assert [first.name, second.name] == [f"{__name__}.judge_letter[a]", f"{__name__}.judge_letter[b]"]
    first.run()
    with pytest.raises(Failed, match="nowhere"):
        second.run()


@pytest.mark.parametrize(
    "compare",
    [
        lambda: expect("p", False, "d"),
        lambda: expect_equal("p", 1, 2),
        lambda: expect_equal_tensor("p", torch.ones(2), torch.ones(2).double()),
        lambda: expect_equal_tensor("p", torch.ones(2), torch.tensor([1.0, torch.nan])),
        lambda: expect_close("p", torch.ones(2), torch.tensor([1.0, 1.1]), 1e-3),
        lambda: expect_close("p", torch.ones(3), torch.ones(2), 1e-3),
        lambda: expect_close("p", torch.tensor([torch.nan]), torch.ones(1), 1e-3),
        lambda: expect_refused("p", lambda: None),
    ],
)
def test_comparisons_fail_at_their_place(compare: Callable[[], None]) -> None:
    with pytest.raises(Failed) as raised:
        compare()
    assert raised.value.place == "p"


def test_errors_count_row_by_row_and_infinities_by_place() -> None:
    want = torch.tensor([[1e-6, 2e-6], [1.0, 2.0]])
    assert row_error(want + torch.tensor([[1e-6, 0.0], [0.0, 0.0]]), want) == pytest.approx(0.5, rel=1e-4)
    assert relative_error(want * 2, want) == pytest.approx(1.0)
    masked = torch.tensor([[0.5, -torch.inf]])
    assert row_error(masked, masked) == 0.0
    assert row_error(-masked, masked) == torch.inf
    assert row_error(torch.tensor([[0.5, torch.nan]]), masked) == torch.inf


def test_an_inner_step_is_named_before_the_outer_one() -> None:
    wrong, right = torch.ones(1, 2), torch.zeros(1, 2)
    inner = [Step("inner", lambda: wrong, right), Step("sound", lambda: right, right)]
    outer = Step("outer", lambda: wrong, right, inner=lambda: all_faults(inner))
    assert [fault.place for fault in outer.faults()] == ["inner"]
    assert [fault.place for fault in Step("outer", lambda: wrong, right, inner=list).faults()] == ["outer"]
    assert Step("outer", lambda: right, right, inner=lambda: all_faults(inner)).faults() == []


# The truth


@pytest.mark.parametrize("architecture", FIXTURES)
def test_the_independent_model_gives_every_value_of_the_golden(architecture: str) -> None:
    golden = load_golden(architecture)
    for prompt in ("near", "far"):
        trace, part = truth_of(architecture, prompt), golden.part(prompt)
        for name, want in part.items():
            got = trace[name.replace(".weights", ".attend.scores")]
            logs = name == "logits" or name.endswith((".weights", "mlp.gate"))
            got = got.log_softmax(-1) if logs else got
            assert relative_error(got.reshape(want.shape), want) <= SEMANTIC_BAR, name


@pytest.mark.parametrize("name", CASES)
def test_the_independent_model_gives_the_logits_of_transformers(name: str) -> None:
    this = case(name)
    oracle = load_oracle(this.folder)
    for prompt in ("near", "far"):
        ids, positions = this.prompt(prompt)
        want = oracle_logits(oracle, ids[None], None if prompt == "near" else positions[None])[0].log_softmax(-1)
        assert relative_error(truth_of(name, prompt)["logits"].log_softmax(-1), want) <= SEMANTIC_BAR, prompt


@pytest.mark.parametrize("name", CASES)
def test_the_independent_reader_agrees_with_transformers_config_classes(name: str) -> None:
    this = case(name)
    theirs: Any = AutoConfig.from_pretrained(this.folder)
    spec = this.spec
    heads = getattr(theirs, "num_key_value_heads", None) or theirs.num_attention_heads
    assert (spec.heads, spec.kv_heads, spec.layers) == (theirs.num_attention_heads, heads, theirs.num_hidden_layers)
    assert spec.tied == theirs.tie_word_embeddings
    if getattr(theirs, "layer_types", None):
        assert [window is not None for window in spec.windows] == [kind == "sliding_attention" for kind in theirs.layer_types]


# A sound runtime, and others


@pytest.mark.parametrize("each", MODEL_CHECKS, ids=lambda each: each.name)
def test_a_sound_runtime_passes(each: Check) -> None:
    each.run()
    each.run()  # and a check leaves nothing behind


def failing(limit: int = 1) -> list[Failed]:
    """The first failures of the suite's model checks, in its order."""
    found = []
    for each in MODEL_CHECKS:
        try:
            each.run()
        except Failed as fault:
            found.append(fault)
            if len(found) == limit:
                break
    return found


@contextmanager
def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """A function in another version while inside."""
    with mock.patch.object(owner, name, make(getattr(owner, name))):
        yield


def null(forward: Any) -> Any:
    return lambda self, ids, *_, **__: torch.zeros(*ids.shape, self.config.vocab_size, dtype=torch.float64)


def constant(forward: Any) -> Any:
    return lambda self, ids, *_, **__: torch.arange(97.0, dtype=torch.float64).expand(*ids.shape, 97)


def noisy(forward: Any) -> Any:
    def run(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        out = forward(self, *args, **kwargs)
        return out * (1 + 1e-7 * torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1)))

    return run


@pytest.mark.parametrize("engine", [null, constant, noisy])
def test_a_null_a_constant_and_a_noisy_model_fail_in_every_family(engine: Callable[[Any], Any]) -> None:
    with replaced(nanollama.model.transformer.Transformer, "forward", engine):
        judgements = [each for each in MODEL_CHECKS if ".every_tap" in each.name or ".every_module_is_right" in each.name]
        for each in judgements:
            with pytest.raises(Failed):
                each.run()
        ways = [each for each in MODEL_CHECKS if ".every_way_of_feeding" in each.name]
        assert len(judgements) == len(CASES) + len(FIXTURES) and len(ways) == len(FIXTURES)
        for each in ways:
            with pytest.raises(Failed):
                each.run()


def without_eps(forward: Any) -> Any:
    return lambda self, x: x * torch.rsqrt((x * x).mean(-1, keepdim=True)) * self.weight


def turned_the_other_way(rotate: Any) -> Any:
    return lambda x, cos, sin: rotate(x, cos, -1.01 * sin)


def one_key_more(visible: Any) -> Any:
    return lambda queries, keys, window: visible(queries, keys, window and window + 1)


def keeps_the_first(write: Any) -> Any:
    def run(self: Any, k: Tensor, v: Tensor, view: Any) -> None:
        self.k[view.rows, :, view.slots] = k.transpose(1, 2)

    return run


def forgets_to_cap(softcap: Any) -> Any:
    return lambda x, cap: x


MISTAKES = [
    (nanollama.model.layers.RMSNorm, "forward", without_eps, "input_layernorm"),
    (nanollama.model.layers, "rotate", turned_the_other_way, "self_attn"),
    (nanollama.model.kv_cache, "visible", one_key_more, "model.kv_cache.visible"),
    (nanollama.model.kv_cache.LayerCache, "write", keeps_the_first, "model.kv_cache.LayerCache.write"),
    (nanollama.model.layers, "softcap", forgets_to_cap, "model.layers.softcap"),
]


@pytest.mark.parametrize(("owner", "name", "make", "place"), MISTAKES, ids=[name for _, name, _, _ in MISTAKES])
def test_a_mistake_is_named_at_its_place(owner: Any, name: str, make: Callable[[Any], Any], place: str) -> None:
    with replaced(owner, name, make):
        assert failing()[0].place == place


def test_two_mistakes_are_both_named_in_one_diagnosis() -> None:
    with (
        replaced(nanollama.model.layers.RMSNorm, "forward", without_eps),
        replaced(nanollama.model.kv_cache, "visible", one_key_more),
        replaced(nanollama.model.layers, "softcap", forgets_to_cap),
    ):
        places = [fault.place for fault in diagnose(GEMMA)]
    assert {"input_layernorm", "model.kv_cache.visible", "model.layers.softcap"} <= set(places)
    assert not {"mlp", "lm_head", "self_attn.o_proj", "model.transformer.Transformer.forward"} & set(places)


def test_a_diagnosis_of_a_sound_family_is_empty() -> None:
    assert diagnose(LLAMA) == []

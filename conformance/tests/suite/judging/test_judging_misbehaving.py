"""Engines that misbehave while they are judged: each fault has the verdict that it deserves, and no more."""

from pathlib import Path

import pytest
import torch

from conformance.engines.engine import Answer, Prompt, Unsupported
from conformance.judging.controls import ReferenceEngine, right
from conformance.judging.judge_engine import judge_engine
from conformance.requirements.results import Run, Verdict, worst

OLMO, GEMMA = "Olmo2ForCausalLM", "Gemma2ForCausalLM"


@pytest.fixture(autouse=True)
def without_diagnosis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Causes and detectability take seconds, and are not asked for here."""
    monkeypatch.setattr("conformance.judging.judge_engine.likely", lambda comparisons: [])
    monkeypatch.setattr("conformance.judging.judge_engine.detectable", lambda comparisons: [])


def bad(run: Run) -> dict[str, Verdict]:
    """The gravest verdict of every requirement that is not fulfilled."""
    names = {result.requirement for result in run.results if not result.verdict.good}
    return {name: worst(r for r in run.results if r.requirement == name) for name in names}


class Misbehaving(ReferenceEngine):
    """Does one thing wrong, at one call."""

    def __init__(self, fault: str) -> None:
        super().__init__("float64", right)
        self.fault, self.calls = fault, 0

    def load(self, folder: Path) -> None:
        if self.fault == "can't load" and OLMO in str(folder):
            raise Unsupported("no norms behind")
        if self.fault == "dies":
            raise OSError("gone")
        super().load(folder)

    def run(self, prompt: Prompt, taps: bool = False) -> Answer:
        self.calls += 1
        answer = super().run(prompt, taps)
        if self.fault == "forgets a tap":
            answer.taps.pop("layers.1", None)
        if self.fault == "draws":
            answer.logits = answer.logits + 1e-13 * self.calls * torch.arange(answer.logits.shape[1])
        if self.fault == "one row":
            answer.logits = answer.logits[-1:]
        if self.fault == "loses its cache" and prompt.chunks:
            answer.logits = answer.logits.roll(1, 0)
        if self.fault == "no pieces" and prompt.chunks:
            raise Unsupported("all at once or not at all")
        return answer


def test_a_family_that_can_not_be_loaded_is_unsupported_and_the_others_are_judged() -> None:
    run = judge_engine(Misbehaving("can't load"), [OLMO, GEMMA])
    assert run.passed
    lost = [r for r in run.results if r.case == OLMO]
    assert {(r.verdict, r.detail) for r in lost} == {(Verdict.UNSUPPORTED, "no norms behind")}


def test_an_engine_that_breaks_down_is_an_error_and_no_traceback() -> None:
    run = judge_engine(Misbehaving("dies"), [OLMO])
    assert bad(run) == {"NUMR-001": Verdict.ERROR}
    assert not run.passed
    assert "OSError: gone" in next(r.detail for r in run.results if r.verdict is Verdict.ERROR)


def test_logits_of_another_shape_are_an_error() -> None:
    assert bad(judge_engine(Misbehaving("one row"), [OLMO])) == {"NUMR-001": Verdict.ERROR}


def test_a_tap_that_is_missing_in_one_layer_is_off() -> None:
    found = judge_engine(Misbehaving("forgets a tap"), [OLMO])
    off = next(r for r in found.results if r.requirement == "NUMR-001")
    assert (off.verdict, off.place, off.detail) == (Verdict.FAIL, "layers.1", "near: it is not shown")


def test_other_bits_on_the_second_call_break_only_what_promises_the_same_bits() -> None:
    assert set(bad(judge_engine(Misbehaving("draws"), [OLMO]))) == {"NUMR-001", "NUMR-003"}


def test_a_cache_that_loses_its_place_does_not_accuse_the_model() -> None:
    found = bad(judge_engine(Misbehaving("loses its cache"), [OLMO]))
    assert set(found) == {"NUMR-001", "CACHE-001", "CACHE-003", "CACHE-009"}


def test_what_an_engine_does_not_offer_is_unsupported_with_its_reason() -> None:
    run = judge_engine(Misbehaving("no pieces"), [OLMO])
    assert run.passed
    cache = next(r for r in run.results if r.requirement == "CACHE-003")
    assert (cache.verdict, cache.detail) == (Verdict.UNSUPPORTED, "all at once or not at all")

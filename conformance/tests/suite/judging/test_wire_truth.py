"""Servers held against a checkpoint: the runtime behind the rigged server agrees with it, and any other model does not."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conformance.engines.engine import Unsupported
from conformance.engines.protocols.openai_http import OpenAIServer
from conformance.judging.wire.judge_server import judge_server
from conformance.judging.wire.probe import CHAT, COMPLETIONS, Endpoint
from conformance.judging.wire.probes import truthful
from conformance.judging.wire.probes.truthful import hold_chosen, penalised
from conformance.judging.wire.rigged.runtime import RuntimeModel
from conformance.judging.wire.rigged.server import RiggedServer, serving
from conformance.judging.wire.served_model import write_served_model
from conformance.judging.wire.truth.floors import Floor, Run, errors_of, honest, leave_one_out, measure_floors, spread
from conformance.judging.wire.truth.roundings import EightBits, Rounding, rounded
from conformance.judging.wire.truth.truth import Served, Truth
from conformance.numerics import ways
from conformance.numerics.observe import Prompt, Step
from conformance.numerics.variants import HELD_OUT, Variant
from conformance.requirements.results import Result, Verdict
from nanollama.lm import load
from nanollama.model.transformer import Transformer

MODEL = ("WIRE-080", "WIRE-081", "LOGP-002", "GENR-004", "PENA-004", "PENA-005", "SAMP-003")


class NoChat(RiggedServer):
    """Completions only, which is half of the work."""

    def respond(self, method: str, path: str, body: bytes) -> tuple[int, str, Iterator[bytes]]:
        return super().respond(method, path.replace("/chat/", "/gone/"), body)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_served_model(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def truth(checkpoint: Path) -> Truth:
    return Truth(checkpoint)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers in which a fault that is in every token shows as well as in long ones."""
    monkeypatch.setattr(truthful, "TOKENS", 8)


def judged(source: Path, truth: Truth, *only: str, dtype: str = "float32", server: type[RiggedServer] = NoChat) -> list[Result]:
    with serving(server(RuntimeModel(load(source, dtype=dtype, device="cpu")))) as url:
        results = judge_server(OpenAIServer(url), truth, only)
    return [result for result in results if result.case == COMPLETIONS and "truthful" in result.test]


def test_the_runtime_behind_a_server_is_the_truth_within_the_floor_of_float32(checkpoint: Path, truth: Truth) -> None:
    results = judged(checkpoint, truth, *MODEL)
    assert [result.requirement for result in results] == list(MODEL)
    assert {result.verdict for result in results} == {Verdict.PASS}
    [found] = [result for result in results if result.requirement == "WIRE-081"]
    assert "floor of float32" in found.detail
    assert found.error is not None and found.bar is not None and 0 < found.error < 1e-4 < found.bar


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    "change",
    [{"rms_norm_eps": 0.3}, {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}, {"hidden_act": "gelu"}],
)
def test_a_server_with_another_model_is_beyond_every_floor(tmp_path: Path, truth: Truth, change: dict[str, Any]) -> None:
    [result] = judged(write_served_model(tmp_path, **change), truth, "WIRE-081")
    assert result.verdict is Verdict.FAIL
    assert "beyond every floor" in result.detail


@pytest.mark.usefixtures("short")
def test_a_server_that_computes_in_bfloat16_what_is_stored_wider_is_beyond_every_floor(checkpoint: Path, truth: Truth) -> None:
    [result] = judged(checkpoint, truth, "WIRE-081", dtype="bfloat16")
    assert result.verdict is Verdict.FAIL
    assert "beyond every floor" in result.detail


@pytest.mark.usefixtures("short")
def test_logarithms_to_the_base_of_2_are_no_log_probabilities(checkpoint: Path, truth: Truth) -> None:
    class Bits(NoChat):
        def log_probs(self, ids: object, request: object) -> list[float]:
            return [value / 0.6931471805599453 for value in super().log_probs(ids, request)]  # type: ignore[arg-type]

    results = judged(checkpoint, truth, "WIRE-081", "LOGP-002", server=Bits)
    assert {result.verdict for result in results} == {Verdict.FAIL}


@pytest.mark.usefixtures("short")
def test_penalties_that_count_the_prompt_are_found(checkpoint: Path, truth: Truth) -> None:
    class CountsThePrompt(NoChat):
        def penalised(self, written: object) -> list[int]:
            return [*written.prompt, *written.ids]  # type: ignore[attr-defined]

    results = judged(checkpoint, truth, "PENA-004", "PENA-005", "GENR-004", server=CountsThePrompt)
    assert {r.requirement: r.verdict for r in results} == {
        "GENR-004": Verdict.PASS,
        "PENA-004": Verdict.FAIL,
        "PENA-005": Verdict.FAIL,
    }


def test_a_prompt_with_two_begin_tokens_is_found(checkpoint: Path, truth: Truth) -> None:
    class TwoBegins(NoChat):
        def prompts(self, request: dict[str, object]) -> list[list[int]]:
            return [[ids[0], *ids] for ids in super().prompts(request)]

    [result] = judged(checkpoint, truth, "WIRE-080", server=TwoBegins)
    assert result.verdict is Verdict.FAIL
    assert result.detail.endswith("is 18; expected 17")


def served(values: list[float], said: list[dict[int, float]]) -> Served:
    """One step after one token, of a vocabulary of as many tokens as values."""
    return Served([0], [0], said, torch.tensor([values], dtype=torch.float64))


def test_errors_are_taken_where_the_server_named_tokens() -> None:
    answer = served([-1.0, -2.0, -3.0], [{0: -1.25, 2: -3.5}])
    assert answer.served_error() == 0.5
    assert answer.error(torch.tensor([[-1.0, 7.0, -2.0]])) == 1.0


def test_a_tie_within_the_floor_is_excused_and_counted_and_another_token_is_not(truth: Truth) -> None:
    end = Endpoint(OpenAIServer("http://127.0.0.1:1/v1"), COMPLETIONS, truth)
    end.known["floors"], end.known["served []"] = [Floor("float32", 0.05, 2.0)], []
    hold_chosen(end, [served([-1.1, -1.0], [{0: -1.0}])], lambda row, so_far: row)
    assert (end.tally.compared, end.tally.excused) == (1, 1)
    with pytest.raises(Exception, match=r"step 0 wrote .* 0\.3 nats less likely"):
        hold_chosen(end, [served([-1.3, -1.0], [{0: -1.0}])], lambda row, so_far: row)


def test_penalties_are_subtracted_by_openais_formula() -> None:
    row = torch.zeros(4)
    assert penalised(0.5, 0.25)(row, [1, 2, 2]).tolist() == [0.0, -0.75, -1.0, 0.0]
    assert row.tolist() == [0.0, 0.0, 0.0, 0.0]


def test_the_factor_of_a_floor_is_the_largest_excess_over_the_others() -> None:
    assert leave_one_out(torch.tensor([[1.0, 1.0], [1.0, 3.0], [1.0, 1.0]])) == 3.0
    assert leave_one_out(torch.tensor([[1.0, 2.0], [1.0, 1.0]])) == 2.0
    assert leave_one_out(torch.zeros(2, 2)) == 1.0


def test_variants_that_round_the_same_are_as_far_apart_as_the_best_and_the_worst() -> None:
    assert spread(torch.tensor([[1.0, 2.0], [3.0, 1.0], [4.0, 6.0], [0.0, 0.0]])) == 3.0
    assert spread(torch.zeros(2, 2)) == 1.0


def greedy(truth: Truth, steps: int) -> list[Served]:
    """The truth's own answers to some prompts, of which a server named the five likeliest tokens at every step."""
    answers = []
    for prompt in ([0, 5, 9], [0, 40, 7, 7, 61, 22], [0, 33]):
        ids, rows = truth.rows(prompt, steps, lambda step, row: int(row.argmax()))
        answers.append(Served(prompt, ids, [dict.fromkeys(top, 0.0) for top in rows.topk(5).indices.tolist()], rows))
    return answers


def test_floors_widen_from_class_to_class(checkpoint: Path, truth: Truth) -> None:
    answers = greedy(truth, 6)
    floors = measure_floors(truth, answers)
    assert [floor.name for floor in floors] == ["float32", "attention in float16"]
    assert 0 < floors[0].bar < floors[1].bar / 10


def test_every_way_to_serve_is_the_truth_in_float64(checkpoint: Path, truth: Truth) -> None:
    answers = greedy(truth, 6)
    answers[1] = replace(answers[1], ids=answers[1].ids[:2], reported=answers[1].reported[:2], truth=answers[1].truth[:2])
    names = []
    for run in honest(truth.lm.model, [Rounding()], answers):
        if not run.shift and not run.variant.policy:
            assert max(errors_of(truth.lm.model, run, answers)) < 1e-12, run.variant.name
            names.append(run.variant.name)
    assert {"as it is", "eager attention", "chunked prefill", "left padding", "served alone", "served together"} <= {*names}


def anew(model: Transformer, prompts: Sequence[Prompt]) -> Iterator[Step]:
    """Every token by a call with all tokens before it."""
    for prompt, tokens in zip(prompts, ways.tokens_of(prompts), strict=True):
        for end in range(1, len(tokens) + 1):
            yield Step(prompt.ids[None, :end], prompt.positions[None, :end], tokens[None, :end], last_only=True)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_engines_that_no_floor_was_made_from_are_in_their_class(dtype: str, tmp_path: Path) -> None:
    truth = Truth(write_served_model(tmp_path, dtype))
    answers, model = greedy(truth, 8), load(truth.source, dtype=dtype, device="cpu").model
    floors = {floor.name: floor for floor in measure_floors(truth, answers)}
    finer = {"float32": [], "float16": ["float32"], "bfloat16": ["float32", "attention in float16"]}[dtype]
    for variant in (*HELD_OUT, Variant("anew", "", way=anew)):
        error = max(errors_of(model, Run(Rounding(), variant), answers))
        assert max((floors[name].bar for name in finer), default=0.0) < error <= floors[dtype].bar, variant.name


def test_rounding_leaves_the_model_as_it_was(checkpoint: Path) -> None:
    model = load(checkpoint, dtype="float32").model
    ids = torch.tensor([[0, 5, 9, 12, 7]])
    with torch.inference_mode():
        before = model(ids)
        with rounded(model, Rounding(frozenset({"k", "v"}))):
            assert not torch.equal(model(ids), before)
        assert torch.equal(model(ids), before)


def test_eight_bits_by_hand() -> None:
    x = torch.tensor([[1.27, 0.014, -0.5, 0.0]])
    assert torch.allclose(EightBits(None, torch.float32)(x), torch.tensor([[1.27, 0.01, -0.5, 0.0]]))
    assert torch.allclose(EightBits(2, torch.float32)(x), torch.tensor([[1.27, 0.01, -0.5, 0.0]]))
    assert EightBits(None, torch.float16)(torch.zeros(1, 4)).tolist() == [[0.0, 0.0, 0.0, 0.0]]


def test_words_are_matched_to_the_likeliest_id_of_their_text(truth: Truth) -> None:
    [first] = truth.by_text["a"]
    assert truth.tokenizer.id_to_token(first) == "a"
    ids, rows = truth.rows([0], 2, lambda step, row: first)
    answer = truth.follow([0], [("a", -1.0, {"a": -1.0, "b": -2.0})] * 2)
    assert answer.ids == ids
    assert torch.equal(answer.truth, rows)
    assert answer.reported == [{first: -1.0, truth.by_text["b"][0]: -2.0}] * 2


def test_words_that_are_no_tokens_are_not_judged(truth: Truth) -> None:
    with pytest.raises(Unsupported, match="'ab', which is no token"):
        truth.follow([0], [("ab", -1.0, {})])


def test_without_a_template_a_chat_is_not_judged(truth: Truth) -> None:
    bare = Truth(truth.source)
    bare.lm = replace(bare.lm, template=None)
    with serving(RiggedServer(RuntimeModel(load(truth.source)))) as url:
        results = judge_server(OpenAIServer(url), bare, ["WIRE-080"])
    assert {r.case: r.verdict for r in results} == {COMPLETIONS: Verdict.PASS, CHAT: Verdict.UNSUPPORTED}

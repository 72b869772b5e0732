"""Signatures name causes: those that a hypothesis reproduces for certain, others by features, several bugs all at once."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conformance.diagnosis.causes.__main__ import main
from conformance.diagnosis.causes.confusion import Trial, held_out, matrix, rates, subjects
from conformance.diagnosis.causes.hypotheses.hypothesis import LABELS, model_of
from conformance.diagnosis.causes.hypotheses.runtime import runtime_runs
from conformance.diagnosis.causes.library import library
from conformance.diagnosis.causes.likely_causes import STORED, causes, name_causes
from conformance.diagnosis.causes.naming import Named
from conformance.diagnosis.causes.observed import Observation, of_trace
from conformance.diagnosis.causes.tolerances import float64_excess, floor_excess
from conformance.engines.engine import Prompt, Taps
from conformance.engines.subject import subject
from conformance.score.zoo.seeding import load_zoo, seeded
from conformance.truth.cases import CASES, case
from conformance.truth.reference import Reference
from nanollama.errors import NanollamaError
from nanollama.lm import load_model

LLAMA, GEMMA, MOE, GPT2 = "LlamaForCausalLM", "Gemma2ForCausalLM", "MixtralForCausalLM", "GPT2LMHeadModel"
TAPS = ("input_layernorm", "self_attn.weights", "self_attn.context", "self_attn", "post_attention_layernorm", "mlp", "")


def told(name: str, chunks: tuple[int, ...] = ()) -> Prompt:
    ids, positions = case(name).prompt("near")
    return Prompt(tuple(ids.tolist()), tuple(positions.tolist()), chunks)


def shown(name: str, model: Reference) -> Taps:
    """What an engine that computes like this model shows of itself: weights as logarithms, as engines do."""
    ids, positions = case(name).prompt("near")
    trace = model.run(ids, positions)
    names = [f"layers.{i}.{tap}".rstrip(".") for i in range(model.spec.layers) for tap in TAPS]
    taps = {tap: of_trace(trace, tap) for tap in ("embeddings", *names, "norm", "logits")}
    return {tap: value.log() if tap.endswith(".weights") else value for tap, value in taps.items()}


def engine(name: str, **fields: object) -> Reference:
    """An engine with other fields."""
    return Reference(replace(case(name).spec, **fields), case(name).truth.tensors)  # type: ignore[arg-type]


def named(name: str, model: Reference, only: str = "") -> list[Named]:
    taps = shown(name, model)
    return name_causes(name, [Observation(told(name), {only: taps[only]} if only else taps)])


def bugs(*names: str) -> ExitStack:
    """These bugs of the zoo, seeded."""
    stack, zoo = ExitStack(), {bug.name: bug for bug in load_zoo()}
    for name in names:
        stack.enter_context(seeded(zoo[name]))
    return stack


def runtime_causes(name: str, *seeds: str) -> list[str]:
    with bugs(*seeds):
        runs = list(runtime_runs(case(name).load(), case(name)))
    return [cause.sentence for cause in causes(name, runs)]


def test_an_engine_that_is_right_has_no_causes() -> None:
    assert named(LLAMA, case(LLAMA).truth) == []
    assert runtime_causes("Gemma3ForCausalLM") == []


def test_a_wrong_number_is_named_with_the_number() -> None:
    (cause,) = [each for each in named(GEMMA, engine(GEMMA, eps=1e-5)) if each.rank == 1]
    assert cause.sentence == "Epsilon of a norm is 1e-05, and the model says 0.003"
    assert cause.certain and cause.label == "norm"


def test_what_is_wrong_in_one_layer_only_is_said_to_be() -> None:
    spec = case(LLAMA).spec
    (cause,) = named(LLAMA, engine(LLAMA, scales=(spec.scales[0], 1.0, spec.scales[2])))
    assert cause.label == "scale"
    assert cause.sentence.endswith("it is not scaled; it should be 0.3536 (only in layer 1)")


def test_repeated_heads_in_the_wrong_order_are_named() -> None:
    sentences = runtime_causes(LLAMA, "gqa-tile-vs-repeat-interleave")
    assert sentences[0].startswith("Key/value heads are repeated in the wrong order, as tile does instead of repeat_interleave")


@pytest.mark.parametrize(
    ("name", "one", "other", "words"),
    [
        (LLAMA, "gqa-tile-vs-repeat-interleave", "rmsnorm-eps-hardcoded", ("tile", "psilon")),
        (LLAMA, "rope-theta-hardcoded", "gqa-values-of-first-head", ("heta is 10000", "first head")),
        (GEMMA, "embed-scale-missing", "final-softcap-missing", ("mbeddings", "cap 1.7")),
    ],
)
def test_two_bugs_at_once_are_both_named(name: str, one: str, other: str, words: Sequence[str]) -> None:
    sentences = runtime_causes(name, one, other)
    for word in words:
        assert any(word in sentence for sentence in sentences), (word, sentences)


def test_two_slips_in_one_value_are_tried_together() -> None:
    (cause, *_) = named(LLAMA, engine(LLAMA, scales=(1.0,) * 3, kv_heads=3, ropes=(None,) * 3))
    assert cause.certain
    assert "not scaled" in cause.sentence and "othing is rotated" in cause.sentence


def test_logits_alone_are_enough_where_one_thing_is_wrong() -> None:
    (cause, *_) = named(GEMMA, engine(GEMMA, attention_cap=None), only="logits")
    assert cause.sentence == "The cap 2 of attention scores is not applied"


def test_a_bug_of_the_cache_is_said_to_need_one() -> None:
    calls, this = torch.tensor([0] * 10 + [1] * 6), case(LLAMA)
    (slip,) = [h for h in library(this) if h.sentence == "keys of earlier calls are not seen"]
    wrong = model_of(this.spec, this.truth.tensors, [slip], {}, calls)
    runs = [Observation(told(LLAMA), shown(LLAMA, this.truth)), Observation(told(LLAMA, (10, 6)), shown(LLAMA, wrong))]
    (cause,) = name_causes(LLAMA, runs)
    assert (cause.label, cause.sentence) == ("cache", "Keys of earlier calls are not seen")
    assert cause.explains[0].run == 1


def test_with_injected_inputs_a_module_is_judged_by_those() -> None:
    taps = shown(LLAMA, case(LLAMA).truth)
    taps["layers.1.mlp"] = taps["layers.1.mlp"] * 1.5
    inputs = {"layers.1.mlp": shown(LLAMA, case(LLAMA).truth)["layers.1.post_attention_layernorm"]}
    taps["layers.1.post_attention_layernorm"] = taps["layers.1.post_attention_layernorm"] + 1  # what came in is not used
    found = name_causes(LLAMA, [Observation(told(LLAMA), taps, inputs)])
    assert any(each.explains[0].name == "layers.1.mlp" and "1.5 times" in each.sentence for each in found)


def changed(tap: str, change: object) -> list[Named]:
    """Causes where one tap is changed, and so is nothing behind it."""
    taps = shown(LLAMA, case(LLAMA).truth)
    taps[tap] = change(taps[tap].clone())  # type: ignore[operator]
    return [each for each in name_causes(LLAMA, [Observation(told(LLAMA), taps)], pairs=False) if each.explains[0].name == tap]


def test_features_tell_what_no_hypothesis_reproduces() -> None:
    assert "it is 1.5 times what it should be" in changed("layers.0.mlp", lambda x: x * 1.5)[0].sentence
    assert "the same vector is added" in changed("layers.0.mlp", lambda x: x + x[:1])[0].sentence
    first = changed("layers.2.self_attn.context", lambda x: x.view(16, 12, 8).roll(1, 1).flatten(1))[0]
    assert "heads have the values of others: {1: 0," not in first.sentence  # heads of a group differ
    assert "heads have the values of others" in first.sentence and first.label == "heads"

    only = changed("layers.1.self_attn.context", lambda x: torch.cat((x[:1], x[1:] * torch.linspace(1, 2, 96))))[0]
    assert only.label == "softmax" and "every token but the first, whose only key has all the weight" in only.sentence

    def without_last(x: Tensor) -> Tensor:
        x[-1] = torch.nan
        return x

    assert "not a number for tokens [15]" in changed("layers.1.self_attn", without_last)[0].sentence


def test_a_tap_that_no_model_has_is_refused_by_name() -> None:
    with pytest.raises(NanollamaError, match=r"no value of this model is called layers\.0\.attn; taps are named"):
        name_causes(LLAMA, [Observation(told(LLAMA), {"layers.0.attn": torch.zeros(16, 60)})])


def test_a_coarser_bar_is_for_coarser_engines() -> None:
    taps = {name: tap.float() for name, tap in shown(LLAMA, case(LLAMA).truth).items()}
    assert name_causes(LLAMA, [Observation(told(LLAMA), taps)], float64_excess(1e-4)) == []
    taps = {name: tap.float() for name, tap in shown(LLAMA, engine(LLAMA, eps=1e-6)).items()}
    (cause, *_) = name_causes(LLAMA, [Observation(told(LLAMA), taps)], float64_excess(1e-4))
    assert "1e-06" in cause.sentence


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_in_lower_precision_the_measured_floor_judges(dtype: str) -> None:
    def found(*seeds: str) -> list[Named]:
        with bugs(*seeds):
            run = next(runtime_runs(load_model(rounded.folder, dtype, "cpu"), rounded))
        return name_causes(rounded, [run], floor_excess(dtype), pairs=False)

    rounded = subject(GEMMA, dtype).case
    assert found() == []
    assert found("attn-softcap-dropped")[0].sentence == "The cap 2 of attention scores is not applied"


@pytest.mark.parametrize("name", [LLAMA, GEMMA, MOE, GPT2])
def test_every_hypothesis_is_a_sentence_of_a_known_class_and_another_function(name: str) -> None:
    this, calls = case(name), torch.tensor([0] * 6 + [1] * 6 + [2] * 4)
    ids, positions = this.prompt("near")
    right = this.truth.run(ids, positions)["logits"].log_softmax(-1)
    for h in library(this):
        assert h.label in LABELS and h.sentence and h.sentence[-1] != "."
        wrong = model_of(this.spec, this.truth.tensors, [h], {}, calls).run(ids, positions)["logits"].log_softmax(-1)
        assert not torch.allclose(wrong, right, rtol=1e-9, atol=1e-12), h.sentence


def test_the_reference_behind_an_engines_values_finds_them_right() -> None:
    ids, positions = case(MOE).prompt("near")
    trace = case(MOE).truth.run(ids, positions)
    given = {"layers.0.mlp": trace["layers.0.mlp"] + 1}
    replayed = Reference(case(MOE).spec, case(MOE).truth.tensors, given).run(ids, positions)
    assert torch.equal(replayed["layers.0.mlp"], trace["layers.0.mlp"])  # its own
    assert torch.allclose(replayed["layers.0"], trace["layers.0"] + 1)  # with the engine's


# --- how often it is right


def test_every_bug_has_a_known_class_and_about_half_are_held_out() -> None:
    several = subjects()
    assert {label for _, label in several} <= set(LABELS)
    assert 0.3 < sum(held_out(bug.name) for bug, _ in several) / len(several) < 0.7


def test_a_measurement_goes_on_where_it_was_interrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "trials.jsonl"
    assert main(["--bugs", "1", "--resume", str(kept)]) == 0
    first = capsys.readouterr().out.splitlines()
    assert first[0].split() == ["mask"] and "all, right class among the first 1: 1 of 1 (100.0%" in "\n".join(first)
    (line,) = kept.read_text().splitlines()
    kept.write_text(line.replace('"named": ["mask"', '"named": ["norm"') + "\n")
    assert main(["--bugs", "1", "--resume", str(kept)]) == 0  # what is kept is not measured again
    assert "all, right class among the first 1: 0 of 1 (0.0%" in capsys.readouterr().out


def test_stored_shares_are_given_with_causes() -> None:
    stored = json.loads(STORED.read_text())
    assert stored["rates"]["all"]["first 1"]["right"] <= stored["rates"]["all"]["first 3"]["right"]
    (cause, *_) = causes(GEMMA, [Observation(told(GEMMA), shown(GEMMA, engine(GEMMA, eps=1e-5)))])
    assert cause.share == stored["shares"]["reproduced"]


def test_rates_and_matrix_count_by_class() -> None:
    trials = [
        Trial("a", "norm", False, "c", ("norm",)),
        Trial("b", "mask", True, "c", ("norm", "mask")),
        Trial("d", "mask", True),
    ]
    lines = list(rates(trials[:2], "all"))
    assert lines[0].startswith("all, right class among the first 1: 1 of 2 (50.0%")
    assert lines[1].startswith("all, right class among the first 3: 2 of 2 (100.0%")
    rows = list(matrix(trials[:2]))
    assert [row.split() for row in rows] == [["mask", "norm"], ["mask", "·", "1"], ["norm", "·", "1"]]
    assert CASES

"""The published acceptance rules are what their sources say, on outputs made by hand, and their comparison with ours runs,
keeps its results, and counts what it flags."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conformance.numerics.__main__ import main
from conformance.numerics.acceptance import published, rules, rules_published
from conformance.numerics.acceptance.published import RULES, Outputs, Reference
from conformance.numerics.acceptance.trial import NAMES, OURS, REPLAY, SEMANTICS, Trial, try_subject
from conformance.numerics.variants import AS_IS, HELD_OUT, VARIANTS, put
from conformance.score.published import with_lines
from conformance.score.zoo.entries import Bug
from nanollama.model import layers

LLAMA = "LlamaForCausalLM"


def outputs(logits: Tensor, tokens: list[int] | None = None, tops: list[set[int]] | None = None) -> Outputs:
    """One prompt; the logits double as the only layer's hidden states."""
    return Outputs([logits], [[logits]], [tokens or [1, 2]], [tops or [{1, 5}, {2, 6}]])


LOGITS = torch.tensor([[1.0, -1.0, 2.0, 0.5], [0.0, 3.0, -2.0, 1.0]], dtype=torch.float64)
NOISE = torch.tensor([[0.1, -0.1, 0.1, 0.1], [-0.1, 0.1, 0.1, -0.1]], dtype=torch.float64)
REFERENCE = Reference(outputs(LOGITS), [LOGITS + 0.01 * NOISE])


def test_no_rule_flags_the_reference_itself() -> None:
    assert not [name for name, flags in RULES.items() if flags(REFERENCE.low, REFERENCE)]


def test_every_rule_names_its_source_and_flags_an_engine_that_computes_nothing() -> None:
    silent = outputs(torch.full_like(LOGITS, torch.nan), [0, 0], [{0}, {0}])
    for name, flags in RULES.items():
        assert "https://" in (flags.__doc__ or ""), name
        assert flags(silent, REFERENCE), name


@pytest.mark.parametrize(
    ("tokens", "tops", "flagged"),
    [
        ([1, 2], [{1, 5}, {2, 6}], False),
        ([1, 6], [{1, 5}, {2, 6}], False),  # both are in the other's best
        ([1, 7], [{1, 5}, {2, 7}], True),  # 7 is not in the reference's
        ([1, 6], [{1, 5}, {6, 9}], True),  # 2 is not in the subject's
        ([5, 9], [{1, 5}, {9}], False),  # nothing counts after the first mismatch
    ],
)
def test_vllm_looks_at_the_first_mismatch_only(tokens: list[int], tops: list[set[int]], flagged: bool) -> None:
    assert published.top_five_at_first_mismatch(outputs(LOGITS, tokens, tops), REFERENCE) is flagged
    assert published.greedy_equality(outputs(LOGITS, tokens, tops), REFERENCE) is (tokens != [1, 2])


def test_nmse_is_over_the_variance_of_the_last_row_only() -> None:
    off = LOGITS.clone()
    off[0] += 100
    assert not published.nmse_of_the_last_token(outputs(off), REFERENCE)
    variance = float(LOGITS[1].var(correction=0))  # 3.25
    for share, flagged in ((0.0099, False), (0.0101, True)):
        off = LOGITS.clone()
        off[1] += (share * variance) ** 0.5
        assert published.nmse_of_the_last_token(outputs(off), REFERENCE) is flagged


def test_cosine_is_blind_to_scale_and_flashattention_counts_twice_the_plain_error() -> None:
    assert not published.cosine_of_every_layer(outputs(LOGITS * 3), REFERENCE)
    assert published.cosine_of_every_layer(outputs(LOGITS + 0.5), REFERENCE)
    truth = REFERENCE.truth[0]  # the reference is off by 0.001 everywhere
    assert not published.twice_the_reference_error(outputs(truth + 0.00199), REFERENCE)
    assert published.twice_the_reference_error(outputs(truth + 0.00201), REFERENCE)


def test_kl_takes_the_worst_token_and_sees_no_shift_of_all_logits() -> None:
    assert not published.kl_of_every_token(outputs(LOGITS + 7), REFERENCE)
    assert published.kl_of_every_token(outputs(LOGITS + NOISE), REFERENCE)
    assert not published.kl_of_every_token(outputs(LOGITS + 0.1 * NOISE), REFERENCE)


def test_assert_close_is_relative_and_the_three_ways_excuse_each_other() -> None:
    assert not published.close_by_default(outputs(LOGITS * 1.015), REFERENCE)
    assert published.close_by_default(outputs(LOGITS * 1.017), REFERENCE)
    assert not published.three_way(outputs(LOGITS * 1.005), REFERENCE)  # within the shares
    assert published.three_way(outputs(LOGITS * 1.3), REFERENCE)


# --- the comparison


def test_a_seeded_bug_is_flagged_by_ours_and_the_clean_runtime_by_nothing_that_expects_noise() -> None:
    clean = try_subject("clean", "order", LLAMA, nullcontext())
    assert not any(clean.flagged[name] for name in (SEMANTICS, REPLAY, OURS))
    assert clean.flagged.keys() == set(NAMES)

    def without_eps(self: layers.RMSNorm, x: Tensor) -> Tensor:
        wide = x.to(layers.at_least_float32(x.dtype))
        return (wide * torch.rsqrt((wide * wide).mean(-1, keepdim=True)) * self.weight.to(wide.dtype)).to(x.dtype)

    bug = try_subject("no-eps", "semantic", LLAMA, put(None, (layers.RMSNorm, "forward", without_eps)))
    assert bug.flagged[SEMANTICS] and bug.flagged[OURS]
    assert bug.place == "layers.0.input_layernorm"


def test_an_engine_that_breaks_down_is_flagged_by_every_rule() -> None:
    def broken(*_: object) -> Tensor:
        raise IndexError("no such key")

    found = try_subject("broken", "semantic", LLAMA, put(None, (layers, "linear", broken)))
    assert all(found.flagged.values())
    assert found.place == "IndexError"


def test_a_bug_that_changes_no_bit_here_is_not_counted() -> None:
    silent = try_subject("silent", "semantic", LLAMA, nullcontext())
    assert not silent.exercised


def trial(name: str, kind: str, *flagged: str) -> Trial:
    return Trial(name, kind, LLAMA, {rule: rule in flagged for rule in NAMES}, "")


def test_the_table_counts_subjects_not_runs() -> None:
    results = {
        ("semantic", "a"): [trial("a", "semantic"), trial("a", "semantic", OURS)],
        ("semantic", "b"): [trial("b", "semantic")],
        ("semantic", "changes nothing here"): [replace(trial("c", "semantic"), exercised=False)],
        ("order", "v"): [trial("v", "order", *RULES)],
    }
    assert rules.counts(results, OURS, "semantic") == (1, 2)
    assert rules.counts(results, OURS, "order") == (0, 1)
    lines = list(rules.rules_table(results))
    assert len(lines) == 1 + len(NAMES)
    assert lines[-1].split()[-5:] == ["1/2", "0/0", "0/0", "0/1", "0/0"]
    assert rules.as_json(results, ["x"], [LLAMA], 1.0)["rules"][OURS]["bugs"]["flagged"] == 1


def test_what_is_published_has_every_figure_and_no_trial(tmp_path: Path) -> None:
    results = {
        ("semantic", "a"): [trial("a", "semantic", OURS)],
        ("semantic", "b"): [trial("b", "semantic")],
        ("semantic", "same"): [replace(trial("same", "semantic"), exercised=False)],
        ("order", "v"): [trial("v", "order", *RULES)],
    }
    found = rules.as_json(results, ["x"], [LLAMA], 1.0)
    readme, stored = tmp_path / "README.md", tmp_path / "rules.json"
    readme.write_text("before\n<!-- rules -->\nold\n<!-- /rules -->\nafter\n")
    rules_published.publish(found, stored, readme)
    kept, text = json.loads(stored.read_text()), readme.read_text()
    assert "trials" not in kept and kept["same_bits"]["semantic"] == ["same"] and kept["no_fixture_shows"] == ["x"]
    assert kept["rules"][OURS]["bugs"] == {"flagged": 1, "of": 2, "interval": [0.0945, 0.9055]}  # Wilson's, by hand
    assert text.startswith("before\n<!-- rules -->\n| acceptance rule |") and text.endswith("<!-- /rules -->\nafter\n")
    assert f"| {OURS} | 1 of 2 (50%) | 0 of 0 | 0 of 0 | 0 of 1 | 0 of 0 |" in text and "old" not in text
    with pytest.raises(ValueError, match="<!-- rules -->"):
        with_lines("no markers", "rules", rules_published.rules_lines(kept))


def test_a_part_of_the_bugs_is_not_published(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "--bugs", "2", "--write"]) == 2
    assert "leave out --bugs" in capsys.readouterr().err


def test_the_published_figures_are_those_of_this_suite() -> None:
    kept = json.loads(rules_published.PUBLISHED.read_text())
    assert [*kept["rules"]] == [*NAMES]
    assert "\n".join(rules_published.rules_lines(kept)) in rules_published.README.read_text()
    ours = kept["rules"][OURS]
    assert ours["variants"]["flagged"] + ours["policies"]["flagged"] + ours["decoys"]["flagged"] == 0


def test_a_bug_runs_where_it_can_show() -> None:
    bug = Bug("b", "semantic", "norm", "own", "What.", "normalisation")
    assert rules.families_for(bug, rules.FAMILIES) == list(rules.FAMILIES[:2])
    assert rules.families_for(replace(bug, needs="c.attention_softcap"), rules.FAMILIES) == ["Gemma2ForCausalLM"]
    assert rules.families_for(replace(bug, needs="c.learned_positions"), rules.FAMILIES) == ["GPT2LMHeadModel"]
    assert rules.families_for(replace(bug, needs="c.hidden_act == 'relu'"), rules.FAMILIES) == []
    assert rules.spread([bug] * 9, 3) == [bug] * 3


def test_a_finished_result_is_kept_until_the_source_changes(tmp_path: Path) -> None:
    ran: list[int] = []

    def run() -> Trial:
        ran.append(1)
        return trial("a", "semantic", OURS)

    first = rules.kept(tmp_path, False, "v1", "a", run)
    assert rules.kept(tmp_path, False, "v1", "a", run) == first
    assert len(ran) == 1
    rules.kept(tmp_path, False, "v2", "a", run)
    rules.kept(tmp_path, True, "v1", "a", run)
    assert len(ran) == 3
    assert len(rules.digest()) == 64


def test_the_command_runs_a_few_bugs_and_writes_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "applicable", lambda config: [AS_IS, *HELD_OUT[:2]])
    command = [
        "rules",
        "--bugs",
        "2",
        "--family",
        LLAMA,
        "--cache",
        str(tmp_path / "kept"),
        "--output",
        str(tmp_path / "o.json"),
    ]
    assert main(command) == 0
    first = capsys.readouterr().out
    stored = json.loads((tmp_path / "o.json").read_text())
    assert (
        stored["rules"][OURS]["bugs"]["of"] + stored["rules"][OURS]["precision"]["of"] + stored["rules"][OURS]["decoys"]["of"]
        == 2
    )
    assert stored["rules"][OURS]["variants"]["flagged"] == 0
    assert main(command) == 0  # from the cache
    assert capsys.readouterr().out.splitlines()[:12] == first.splitlines()[:12]


def test_the_commands_list_the_variants_and_check_a_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["variants"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(VARIANTS)
    assert main(["check", "--family", LLAMA, "--dtype", "bfloat16"]) == 0
    assert capsys.readouterr().out.startswith(LLAMA)

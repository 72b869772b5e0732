"""What is in the zoo: every entry applies, every collected bug is there or left out with a reason, mutants are stable."""

import re
from types import CodeType

import pytest
import torch

import nanollama.generation.loop
from conformance.score.zoo.__main__ import main
from conformance.score.zoo.entries import KINDS, ZOO, Bug, ZooBroken, read_toml
from conformance.score.zoo.live import live_function, source_text
from conformance.score.zoo.mutants import MODULES, kept_mutants, mutants
from conformance.score.zoo.seeding import difference, load_zoo, seeded
from conformance.tests.suite.score.test_zoo import runtime_state
from nanollama.generation.sampling import pick, top_k
from nanollama.model.config import read_config

ENTRIES = load_zoo()
LAYERS = "nanollama.model.layers"
COLLECTED = (ZOO / "collected.txt").read_text().split()


def codes(entry: Bug) -> list[CodeType | str]:
    """What stands at an entry's targets now: a function's code, a constant's text."""
    found: list[CodeType | str] = []
    for edit in entry.edits:
        try:
            found.append(live_function(edit.at).__code__)
        except ZooBroken:
            found.append(source_text(edit.at))
    return found


def test_every_entry_applies_changes_what_runs_and_goes_without_a_trace() -> None:
    state = runtime_state()
    for entry in [*ENTRIES, *kept_mutants()]:
        before = codes(entry)
        with seeded(entry):
            assert all(old != new for old, new in zip(before, codes(entry), strict=True)), entry.name
    after = runtime_state()
    assert {place for place in state if state[place] != after[place]} == set()


def test_every_bug_that_was_collected_is_seeded_or_left_out_with_a_reason() -> None:
    left_out = {entry["name"]: entry["reason"] for entry in read_toml(ZOO / "left_out.toml", "left_out")}
    names = {entry.name for entry in ENTRIES}
    assert len(COLLECTED) == len(set(COLLECTED)) == 160
    assert set(COLLECTED) - names == left_out.keys()
    assert not [reason for reason in left_out.values() if not reason.startswith(("not built yet: ", "equivalent: "))]


def test_every_entry_says_what_it_is_in_one_sentence_and_where_it_comes_from() -> None:
    for entry in ENTRIES:
        assert entry.kind in KINDS
        assert entry.what.endswith(".") and len(entry.what) < 200, entry.name
        assert entry.source in ("own", "no thread known") or entry.source.startswith("https://"), entry.name
        assert re.fullmatch("[a-z0-9_-]+", entry.name)
    assert sum(entry.source == "own" and entry.kind == "semantic" for entry in ENTRIES) >= 40


def test_what_an_entry_needs_is_a_question_to_a_config() -> None:
    config = read_config({
        **{"architectures": ["LlamaForCausalLM"], "vocab_size": 9, "hidden_size": 8, "intermediate_size": 8},
        **{"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64},
    })  # fmt: skip
    answers = [eval(entry.needs, {"c": config}) for entry in ENTRIES if entry.needs]
    assert any(answers) and not all(answers)


# --- mutants


def test_a_mutant_by_hand() -> None:
    found = {entry.name: entry for entry in mutants("model.layers") if entry.edits[0].at == f"{LAYERS}:softcap"}
    news = {entry.edits[0].new.strip() for entry in found.values()}
    assert "return x if cap is None else cap / torch.tanh(x / cap)" in news
    assert "return x if cap is None else cap * torch.tanh(x * cap)" in news
    assert "return x if cap is not None else cap * torch.tanh(x / cap)" in news
    assert "return x" in news  # early return
    assert next(iter(found)) == "mutant-layers-softcap-1"


def test_mutants_are_the_same_every_time_and_no_two_are_equal() -> None:
    for module in MODULES:
        every = list(mutants(module))
        assert every == list(mutants(module))
        assert len({entry.name for entry in every}) == len(every)
    kept = kept_mutants()
    assert 200 <= len(kept) <= 400
    assert len({entry.edits for entry in kept}) == len(kept)
    assert kept == kept_mutants()


def test_mutants_leave_messages_and_docstrings_alone() -> None:
    for entry in mutants("generation.sampling"):
        old, new = entry.edits[0].old, entry.edits[0].new
        assert re.findall("raise .*", old) == re.findall("raise .*", new)


def test_mutants_that_are_listed_as_equivalent_exist_and_are_not_kept() -> None:
    listed = {entry["name"]: entry["reason"] for entry in read_toml(ZOO / "equivalent.toml", "mutant")}
    every = {entry.name for module in MODULES for entry in mutants(module)}
    assert listed.keys() <= every
    assert all(listed.values())
    assert not listed.keys() & {entry.name for entry in kept_mutants()}


# --- the command


def test_the_command_counts_checks_and_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "all apply" in out and re.search(r"rope +\d+", out)
    assert main(["--show", "top-k-off-by-one"]) == 0
    assert "-    kth = logits.topk(k).values" in capsys.readouterr().out
    assert main(["--show", "no-such-bug"]) == 2


def test_a_difference_is_that_of_all_edits_of_an_entry() -> None:
    entry = next(entry for entry in ENTRIES if entry.name == "temperature-after-filters")
    assert difference(entry).count("\n-") >= 2


def test_a_bug_of_the_zoo_seen_from_outside() -> None:
    logits = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    off_by_one = next(entry for entry in ENTRIES if entry.name == "top-k-off-by-one")
    assert top_k(logits, 2).isfinite().sum() == 2
    with seeded(off_by_one):
        assert top_k(logits, 2).isfinite().sum() == 3
        assert vars(nanollama.generation.loop)["pick"] is pick
    assert top_k(logits, 2).isfinite().sum() == 2

"""Engines that are not ours: what their adapters share, and that a peer, where it is installed, has the known faults alone."""

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from conformance.engines import compare_with_transformers as comparison
from conformance.engines.engine import Answer, Broken, Engine, Prompt, Unsupported
from conformance.engines.known_deviations import BEYOND, KNOWN
from conformance.engines.prompt_pieces import has_gap, pieces
from conformance.engines.registry import ENGINES, find_engine
from conformance.models.fixtures import FIXTURES, fixture_config, near_prompt, write_fixture
from conformance.models.readable_copy import has_vocabulary, readable_copy
from conformance.numerics.floor import kind_of, load_floors
from conformance.numerics.statistics import measure
from conformance.requirements.results import About
from conformance.truth.golden import load_golden

PEERS = {  # module to import, two families
    "llamacpp": ("llama_cpp", ("MistralForCausalLM", "Phi3ForCausalLM")),
    "mlx": ("mlx_lm", ("LlamaForCausalLM", "Olmo2ForCausalLM")),
    "ctranslate2": ("ctranslate2", ("LlamaForCausalLM", "GPT2LMHeadModel")),
    "onnxgenai": ("onnxruntime_genai", ("MistralForCausalLM", "Gemma2ForCausalLM")),
    "openvino": ("openvino", ("Qwen3MoeForCausalLM", "Phi3ForCausalLM")),
}
CASES = [(name, family) for name, (_, families) in PEERS.items() for family in families]


def peer(name: str) -> Engine:
    """The engine, or a skip that says what is missing."""
    module = PEERS[name][0]
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed here: python -m pip install {ENGINES[name].install}")
    return find_engine(name)


class Fake(Engine):
    """Gives what it was told to give, for any prompt."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    def about(self) -> About:
        return About("fake", "1", ("L2",))

    def load(self, folder: Path) -> None:
        return None

    def run(self, prompt: Prompt, taps: bool = False) -> Answer:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return Answer(self.outcome)


def test_a_prompt_is_cut_at_the_ends_of_its_chunks_and_where_positions_jump() -> None:
    prompt = Prompt(ids=(5, 6, 7, 8, 9), positions=(0, 1, 2, 40, 41), chunks=(2, 2, 1))
    assert [prompt.ids[piece] for piece in pieces(prompt)] == [(5, 6), (7,), (8,), (9,)]
    assert [prompt.ids[piece] for piece in pieces(Prompt((5, 6, 7), (0, 1, 2)))] == [(5, 6, 7)]


def test_only_positions_that_count_up_from_zero_have_no_gap() -> None:
    assert not has_gap(Prompt((5, 6), (0, 1)))
    assert has_gap(Prompt((5, 6), (0, 2)))
    assert has_gap(Prompt((5, 6), (1, 2)))


def test_a_readable_copy_has_float32_numbers_and_words_and_leaves_the_folder_alone(tmp_path: Path) -> None:
    folder = write_fixture(tmp_path / "model", fixture_config("Olmo2ForCausalLM"))
    copy = readable_copy(folder, tmp_path / "copy")
    before, after = load_file(folder / "model.safetensors"), load_file(copy / "model.safetensors")
    assert {tensor.dtype for tensor in before.values()} == {torch.float64}
    assert all(torch.equal(after[name], tensor.float()) for name, tensor in before.items())
    assert json.loads((copy / "config.json").read_text())["dtype"] == "float32"
    assert len(json.loads((copy / "tokenizer.json").read_text())["model"]["vocab"]) == 97
    assert has_vocabulary(copy) and not has_vocabulary(folder)


def test_a_tokenizer_that_is_there_is_kept(tmp_path: Path) -> None:
    folder = write_fixture(tmp_path / "model", fixture_config("Olmo2ForCausalLM"))
    (folder / "tokenizer.json").write_text("{}")
    assert (readable_copy(folder, tmp_path / "copy") / "tokenizer.json").read_text() == "{}"


def judged(outcome: Any) -> comparison.Row:
    """Two tokens, three words; the truth is 0, 0, 0 and transformers' float32 is off by an eighth somewhere."""
    exact, rounded = torch.zeros(2, 3, dtype=torch.float64), torch.tensor([[0.125, 0, 0], [0, 0, 0]])
    return comparison.compare_prompt(Fake(outcome), "LlamaForCausalLM", "near", Prompt((1, 2), (0, 1)), exact, rounded)


def test_an_engine_is_judged_by_what_rounding_costs_transformers() -> None:
    assert judged(torch.zeros(2, 3)).good
    off = judged(torch.tensor([[0.0, 0, 0], [0, 0, 3.0]]))
    assert not off.good and off.worst == 1 and off.flipped == 1 and str(off).endswith("BEYOND")
    assert judged(torch.zeros(2, 4)).error == math.inf
    assert not judged(torch.full((2, 3), math.nan)).good


def test_what_an_engine_cannot_do_is_told_from_what_breaks_it() -> None:
    assert judged(Unsupported("no positions")).good and "UNSUPPORTED no positions" in str(judged(Unsupported("no positions")))
    assert not judged(Broken("it fell over")).good and "BROKEN it fell over" in str(judged(Broken("it fell over")))


def test_the_runtime_beside_the_truth_is_within_rounding_for_every_prompt() -> None:
    rows = list(comparison.compare_family(find_engine("nanollama:float32"), "Gemma2ForCausalLM", {}))
    assert [row.prompt for row in rows] == ["near", "pieces", "far"] and all(row.good and row.error > 0 for row in rows)


def test_a_wrong_request_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["nanollama", "Llama"], "there is no family 'Llama'; there are LlamaForCausalLM"),
        (["nonesuch"], "there is no engine 'nonesuch'"),
        (["nanollama", "--set", "sliding_window=none"], "want KEY=JSON, such as sliding_window=null"),
    ):
        monkeypatch.setattr("sys.argv", ["compare_with_transformers", *words])
        try:
            assert comparison.main() == 2
        except SystemExit as stop:  # argparse's own
            assert stop.code == 2
        assert said in capsys.readouterr().err


def test_known_changes_name_engines_and_families_and_change_something() -> None:
    assert set(KNOWN) | set(BEYOND) <= set(ENGINES)
    for changes in KNOWN.values():
        for family, values in changes.items():
            assert family in FIXTURES
            assert all(fixture_config(family).get(key, "absent") != value for key, value in values.items())


@pytest.mark.parametrize(("name", "family"), CASES)
def test_a_peer_agrees_with_the_truth_where_its_faults_are_left_out(name: str, family: str) -> None:
    rows = list(comparison.compare_family(peer(name), family, KNOWN[name].get(family, {})))
    assert all(row.good for row in rows), "\n".join(map(str, rows))
    assert any(row.error > 0 for row in rows), "nothing was compared"


@pytest.mark.parametrize(("name", "family"), [case for case in CASES if case[1] in KNOWN[case[0]]])
def test_a_peer_does_not_agree_with_them(name: str, family: str) -> None:
    rows = list(comparison.compare_family(peer(name), family, {}))
    assert any(row.unsupported or not row.good for row in rows), (
        "its fault is gone: take it out of known_deviations.py and FINDINGS.md"
    )


def test_every_tap_of_mlx_is_within_the_floor(tmp_path: Path) -> None:
    engine, golden, floors = peer("mlx"), load_golden("Olmo2ForCausalLM"), load_floors("float32")
    engine.load(golden.write_model(tmp_path / "model"))
    ids, positions = golden.prompt("near")
    taps = engine.run(Prompt(tuple(ids[0].tolist()), tuple(positions[0].tolist()), (5, 11)), taps=True).taps
    want = {name: tap[0] for name, tap in golden.part("near").items() if not name.endswith(".weights")}
    assert set(taps) == set(want)
    for name, tap in want.items():
        found = measure(taps[name][..., None], tap[..., None])
        assert floors.excess(found, "accumulated", "all", kind_of(name, want))[1] <= 1, name


def test_a_module_of_mlx_works_on_the_input_that_it_is_given(tmp_path: Path) -> None:
    engine, config = peer("mlx"), fixture_config("Olmo2ForCausalLM")
    engine.load(write_fixture(tmp_path / "model", config))
    ids = tuple(near_prompt(config)[0].tolist())
    prompt, nothing = Prompt(ids, tuple(range(16))), torch.zeros(16, 60, dtype=torch.float64)
    taps, plain = engine.inject(prompt, {"layers.1.mlp": nothing}), engine.run(prompt, taps=True).taps
    assert not taps["layers.1.mlp"].any()  # it has no bias
    assert torch.equal(taps["layers.0"], plain["layers.0"]) and not torch.equal(taps["layers.1"], plain["layers.1"])
    with pytest.raises(Unsupported, match="it has no module"):
        engine.inject(prompt, {"layers.1.input_layernorm": nothing})

"""Engines by name; the two that live in this process, the runtime and transformers, agree with the goldens at every level."""

from pathlib import Path

import pytest
import torch

from conformance.engines.engine import Engine, Prompt, Unsupported, parse_options
from conformance.engines.registry import ENGINES, engine_list, find_engine
from conformance.truth.compare import SEMANTIC_BAR, row_error
from conformance.truth.golden import Golden, load_golden
from nanollama.errors import NanollamaError

FAMILIES = ("Gemma2ForCausalLM", "Qwen3MoeForCausalLM")
NAMES = ("nanollama", "transformers")


def prompt_of(golden: Golden, name: str, chunks: tuple[int, ...] = ()) -> Prompt:
    ids, positions = golden.prompt(name)
    return Prompt(tuple(ids[0].tolist()), tuple(positions[0].tolist()), chunks)


@pytest.fixture(scope="module", params=[(name, family) for name in NAMES for family in FAMILIES], ids="-".join)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Golden]:
    name, family = request.param
    engine, golden = find_engine(name), load_golden(family)
    engine.load(golden.write_model(tmp_path_factory.mktemp(family)))
    return engine, golden


# Names


def test_an_unknown_engine_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(NanollamaError, match=r"there is no engine 'vlm'; there are nanollama, transformers"):
        find_engine("vlm")


def test_an_engine_whose_package_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "conformance.engines.adapters.mlx", None)
    with pytest.raises(NanollamaError, match="mlx"):
        find_engine("mlx")


def test_every_engine_is_listed() -> None:
    assert all(name.partition(":")[0] in engine_list() for name in ENGINES)


@pytest.mark.parametrize(
    ("name", "dtype", "notes"),
    [
        ("nanollama", "float64", ""),
        ("nanollama:bfloat16", "bfloat16", ""),
        ("transformers:sdpa,float16", "float16", "sdpa"),
        ("transformers:float32, eager", "float32", "eager"),
        ("transformers:compiled", "float32", "compiled"),
    ],
)
def test_the_words_of_an_argument_come_in_any_order(name: str, dtype: str, notes: str) -> None:
    about = find_engine(name).about()
    assert (about.dtype, about.notes) == (dtype, notes)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("nanollama:int3", "there is no option of this engine 'int3'; .*here are float64"),
        ("transformers:eager,sdpa", "'eager' and 'sdpa' are both a implementation"),
        ("transformers:compiled,float64", "can't be compiled"),
        ("exec:", "names no command"),
    ],
)
def test_arguments_that_can_not_be_meant_are_refused(name: str, fault: str) -> None:
    with pytest.raises(NanollamaError, match=fault):
        find_engine(name)


def test_of_each_group_the_first_is_the_default() -> None:
    assert parse_options("b", letter=("a", "b"), digit=("1", "2")) == {"letter": "b", "digit": "1"}


# Levels


@pytest.mark.parametrize("name", ["near", "far"])
def test_logits_and_taps_are_those_of_the_golden(name: str, loaded: tuple[Engine, Golden]) -> None:
    engine, golden = loaded
    answer = engine.run(prompt_of(golden, name), taps=True)
    want = {tap: value[0] if value.shape[0] == 1 else value for tap, value in golden.part(name).items()}
    want = {tap: value.transpose(0, 1) if tap.endswith(".weights") else value for tap, value in want.items()}
    assert set(want) <= {*answer.taps, "logits"}
    for tap, value in want.items():
        got = answer.logits.log_softmax(-1) if tap == "logits" else answer.taps[tap]
        assert row_error(got, value) <= SEMANTIC_BAR, tap


def test_pieces_on_one_cache_give_the_logits_of_the_whole(loaded: tuple[Engine, Golden]) -> None:
    engine, golden = loaded
    for chunks in ((5, 5, 5, 1), (1,) * 16, (16,)):
        pieces = engine.run(prompt_of(golden, "near", chunks)).logits
        assert row_error(pieces, engine.run(prompt_of(golden, "near")).logits) <= SEMANTIC_BAR


def test_an_injected_input_replaces_what_arrives_and_goes_no_further(loaded: tuple[Engine, Golden]) -> None:
    engine, golden = loaded
    prompt, taps = prompt_of(golden, "near"), golden.part("near")
    normed = taps["norm"][0]
    found = engine.inject(
        prompt, {"lm_head": 0 * normed, "layers.1.self_attn.o_proj": 0 * taps["layers.1.self_attn.context"][0]}
    )
    vocabulary = golden.recipe["config"]["vocab_size"]
    assert row_error(found["logits"].exp() * vocabulary, torch.ones(16, vocabulary)) <= SEMANTIC_BAR  # nothing in, all alike
    assert not found["layers.1.self_attn"].any()
    assert row_error(found["layers.1.self_attn.context"], taps["layers.1.self_attn.context"][0]) <= SEMANTIC_BAR
    again = engine.run(prompt, taps=True).taps["layers.1.self_attn"]
    assert row_error(again, taps["layers.1.self_attn"][0]) <= SEMANTIC_BAR  # nothing is left of it


def test_what_an_engine_can_not_load_is_unsupported_in_its_own_words(tmp_path: Path) -> None:
    folder = load_golden("Gemma2ForCausalLM").write_model(tmp_path)
    with pytest.raises(Unsupported, match="scaled_dot_product_attention"):
        find_engine("transformers:sdpa,float32").load(folder)
    (folder / "config.json").write_text('{"architectures": ["NewForCausalLM"]}')
    with pytest.raises(Unsupported, match="NewForCausalLM"):
        find_engine("nanollama").load(folder)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_model_nothing_runs(name: str) -> None:
    with pytest.raises(Unsupported, match="no model is loaded"):
        find_engine(name).run(Prompt((1,), (0,)))


def test_transformers_says_that_its_cache_knows_no_gaps(loaded: tuple[Engine, Golden]) -> None:
    engine, golden = loaded
    if engine.about().name == "transformers":
        with pytest.raises(Unsupported, match="positions with a gap"):
            engine.run(prompt_of(golden, "far", (9, 9)))
    else:
        assert engine.run(prompt_of(golden, "far", (9, 9))).logits.isfinite().all()

"""Models that a GGUF file can express, written again: keys for windows, then a config that is read back."""

from dataclasses import replace
from typing import Any

from conformance.katas.testing.compare import answers, refuses
from conformance.models.fixtures import fixture_config
from nanollama.checkpoint.gguf.metadata import check_expressible, close, metadata_of, window_keys
from nanollama.errors import NanollamaError
from nanollama.model.config import ModelConfig, read_config
from nanollama.model.rope import RopeConfig

SIZE, WHICH = "attention.sliding_window", "attention.sliding_window_pattern"


def model(architecture: str = "LlamaForCausalLM", *windows: int | None, **changes: Any) -> ModelConfig:
    """A small model without biases; with these windows, if any are given."""
    keys = {"attention_bias": False, "mlp_bias": False} if architecture.startswith("Llama") else {}
    config = replace(read_config(fixture_config(architecture, **keys)), **changes)
    return replace(config, windows=windows) if windows else config


def checked(config: ModelConfig) -> None:
    """check_expressible, for the file that would be written."""
    table = (config.vocab_size, config.hidden_size)
    shapes = {"token_embd.weight": table} | ({} if config.tie_word_embeddings else {"output.weight": table})
    return check_expressible(config, metadata_of(config), shapes)


def test_gemma_stores_the_window_and_which_layers_have_it() -> None:
    """Three layers, the first and the last with a window of 5."""
    want = {SIZE: 5, WHICH: [True, False, True]}
    answers(window_keys, model("Gemma2ForCausalLM", 5, None, 5), want=want)


def test_without_a_window_the_size_is_0() -> None:
    """Gemma without any: a list of layers would be meaningless."""
    answers(window_keys, model("Gemma2ForCausalLM", None, None, None), want={SIZE: 0})


def test_phi_stores_one_size_for_all_layers() -> None:
    """5, or 0 without a window."""
    answers(window_keys, model("Phi3ForCausalLM", 5, 5, 5), want={SIZE: 5})
    answers(window_keys, model("Phi3ForCausalLM", None, None, None), want={SIZE: 0})


def test_others_have_no_key_for_it() -> None:
    """llama.cpp wouldn't read one in a Llama file."""
    answers(window_keys, model("LlamaForCausalLM", None, None, None), want={})


def test_one_file_has_one_size_of_window() -> None:
    """5 in one layer and 7 in another can't be expressed."""
    refuses(window_keys, model("Gemma2ForCausalLM", 5, None, 7), error=NanollamaError, naming="[5, 7]")


def test_numbers_are_close_up_to_float32() -> None:
    """A float32 has 24 bits: 0.1 comes back as 0.10000000149, one part in 67 million off. 0.1001 is another number."""
    pairs: list[tuple[Any, Any, bool]] = [
        *((0.1, 0.10000000149011612, True), (1e-5, 9.999999747378752e-06, True), (0.1, 0.1001, False)),
        *(("silu", "silu", True), ("silu", "gelu", False), (3, 4, False), (None, 0.5, False), (0.5, None, False)),
    ]
    for ours, theirs, want in pairs:
        answers(close, ours, theirs, want=want)


def test_lists_are_close_item_by_item() -> None:
    """Of equal length, at any depth."""
    answers(close, (0.1, None), (0.10000000149011612, None), want=True)
    answers(close, ((0.1,), 2), ((0.10000000149011612,), 2), want=True)
    answers(close, (0.1, 0.2), (0.1, 0.3), want=False)
    answers(close, (0.1, 0.2), (0.1,), want=False)
    answers(close, (0.1,), (0.1, 0.2), want=False)
    answers(close, (1, 2), None, want=False)
    answers(close, None, (1, 2), want=False)


def test_a_model_that_a_file_can_express_is_accepted() -> None:
    """A Llama with a plain rotation. 0.1 comes back as a float32, slightly larger, and counts as equal."""
    answers(checked, model(ropes=(RopeConfig(8, 12345.0),) * 3, norm_eps=0.1), want=None)


def test_a_rotation_may_come_back_in_another_form() -> None:
    """Llama 3's scaling is written as a list of factors, with the same angles."""
    answers(checked, model(), want=None)
    answers(checked, model("Phi3ForCausalLM"), want=None)


def test_fields_outside_the_mathematics_may_differ() -> None:
    """The dtype of a checkpoint is stored per tensor."""
    answers(checked, model(dtype="float16"), want=None)


def test_fields_that_a_reader_would_lose_are_refused_by_name() -> None:
    """A custom scale, an activation, a bias, windows: a Llama file has no keys for them, and would be read without them."""
    changes: dict[str, Any] = {"attention_scales": (0.5,) * 3, "hidden_act": "gelu", "o_bias": True, "windows": (5, 5, 5)}
    for field, value in changes.items():
        refuses(checked, replace(model(), **{field: value}), error=NanollamaError, naming=field)


def test_a_rotation_that_differs_is_refused() -> None:
    """Only the last layer has another theta; a file has one for all layers."""
    ropes = model().ropes
    assert ropes[-1] is not None
    other = (*ropes[:-1], replace(ropes[-1], theta=99.0))
    refuses(checked, model(ropes=other), error=NanollamaError, naming="ropes")

"""Reading a config.json, written again: missing keys have defaults, and impossible values are refused."""

from typing import Any

from conformance.katas.testing.compare import agree, answers, refuses
from nanollama.errors import NanollamaError
from nanollama.model.config import read_attention_scales, read_heads, read_token_ids
from nanollama.model.config_keys import Keys

SIZES = {
    **{"vocab_size": 10, "hidden_size": 12, "intermediate_size": 8, "num_hidden_layers": 3},
    **{"num_attention_heads": 6, "max_position_embeddings": 64},
}
GPT2_SIZES = {"vocab_size": 10, "n_embd": 12, "n_layer": 3, "n_head": 3, "n_positions": 64}


def llama(**given: Any) -> Keys:
    """Llama's keys: 6 heads, 12 numbers per token, 3 layers, with these changes."""
    return Keys({**SIZES, **given}, "LlamaForCausalLM")


def gemma(**given: Any) -> Keys:
    """Gemma 2's: the same sizes."""
    return Keys({**SIZES, "num_key_value_heads": 3, "head_dim": 4, **given}, "Gemma2ForCausalLM")


def gpt2(**given: Any) -> Keys:
    """GPT-2's: 3 heads, 3 layers, under its own keys."""
    return Keys({**GPT2_SIZES, **given}, "GPT2LMHeadModel")


def heads(**given: Any) -> tuple[int, int, int]:
    """read_heads for Llama's keys."""
    return read_heads(llama(**given))


def refused(naming: str, **given: Any) -> None:
    """read_heads must raise an error that contains this."""
    refuses(read_heads, llama(**given), error=NanollamaError, naming=naming)


def test_heads_share_the_numbers_of_a_token() -> None:
    """12 numbers, 6 heads: 2 each. By default every head has its own keys and values."""
    agree("read_heads", heads(), (6, 6, 2))
    agree("read_heads", heads(num_attention_heads=4), (4, 4, 3))


def test_keys_and_values_may_be_fewer() -> None:
    """6 heads share 3, 2 or 1 of them."""
    for kv in (3, 2, 1, 6):
        agree(f"read_heads with {kv}", heads(num_key_value_heads=kv), (6, kv, 2))


def test_null_is_like_nothing() -> None:
    """null in the file is None here."""
    agree("read_heads", heads(num_key_value_heads=None, head_dim=None), (6, 6, 2))


def test_a_head_size_may_be_given() -> None:
    """head_dim is 5: 6 heads of 5 are 30, and a token has 12. That is valid."""
    agree("read_heads", heads(head_dim=5), (6, 6, 5))
    agree("read_heads", heads(head_dim=5, hidden_size=13), (6, 6, 5))


def test_every_key_head_must_have_the_same_number_of_queries() -> None:
    """4 and 5 don't divide 6; nor does 12, the other way round."""
    for kv in (4, 5, 12):
        refused("num_key_value_heads", num_key_value_heads=kv)


def test_a_token_must_be_shared_without_rest() -> None:
    """13 numbers for 6 heads, and no head_dim."""
    refused("hidden_size", hidden_size=13)


def test_no_head_is_no_model_and_too_many_are_none_either() -> None:
    """From 1 to 65536; not 0, not true, not 2.0, not "6"."""
    for wrong in (0, -6, True, 2.0, "6", 65537):
        refused("num_attention_heads", num_attention_heads=wrong)
        refused("num_key_value_heads", num_key_value_heads=wrong)
        refused("head_dim", head_dim=wrong)
    refused("num_attention_heads", num_attention_heads=65537, hidden_size=65537)
    many = {"num_attention_heads": 65536, "num_key_value_heads": 65536, "head_dim": 65536, "hidden_size": 65536}
    agree("read_heads", heads(**many), (65536, 65536, 65536))


def test_scores_are_scaled_by_the_root_of_the_head_s_size() -> None:
    """1 / sqrt(16) is 1/4, once a layer, of which there are 3."""
    answers(read_attention_scales, llama(), 16, want=(0.25, 0.25, 0.25))


def test_the_size_is_that_of_a_head_and_not_of_a_token() -> None:
    """A head of 4 and a token of 12 with 6 heads: 1/2, whatever 12 / 6 is."""
    answers(read_attention_scales, llama(head_dim=4), 4, want=(0.5, 0.5, 0.5))


def test_gemma_names_another_number() -> None:
    """query_pre_attn_scalar is 64: 1/8, though a head has 4."""
    answers(read_attention_scales, gemma(query_pre_attn_scalar=64), 4, want=(0.125, 0.125, 0.125))


def test_gpt2_may_leave_the_scale_out() -> None:
    """scale_attn_weights is false: a factor of 1."""
    answers(read_attention_scales, gpt2(scale_attn_weights=False), 4, want=(1.0, 1.0, 1.0))
    answers(read_attention_scales, gpt2(), 4, want=(0.5, 0.5, 0.5))


def test_gpt2_may_scale_by_layer() -> None:
    """Layer 0 divides by 1, layer 1 by 2, layer 2 by 3."""
    keys = {"scale_attn_by_inverse_layer_idx": True}
    answers(read_attention_scales, gpt2(**keys), 4, want=(0.5, 0.25, 0.5 / 3))
    both = gpt2(**keys, scale_attn_weights=False)
    answers(read_attention_scales, both, 4, want=(1.0, 0.5, 1 / 3))


def ends(config: dict[str, Any], generation: dict[str, Any]) -> list[Any]:
    """bos and eos."""
    found = read_token_ids(config, generation)
    return [found["bos_token_id"], found["eos_token_ids"]]


def test_one_end_token_and_several() -> None:
    """2 is (2,); a list keeps all of them, in order; without any there are none."""
    answers(ends, {"bos_token_id": 1, "eos_token_id": 2}, {}, want=[1, (2,)])
    answers(ends, {"eos_token_id": [2, 7, 5]}, {}, want=[None, (2, 7, 5)])
    answers(ends, {}, {}, want=[None, ()])
    answers(ends, {"bos_token_id": None, "eos_token_id": None}, {}, want=[None, ()])
    answers(ends, {"eos_token_id": []}, {}, want=[None, ()])


def test_an_id_of_0_is_an_id() -> None:
    """The first token of a vocabulary may be an end token."""
    answers(ends, {"bos_token_id": 0, "eos_token_id": 0}, {}, want=[0, (0,)])


def test_generation_config_wins() -> None:
    """A chat model may have more end tokens than its config.json: 2 there, 2 and 9 in generation_config.json."""
    answers(ends, {"bos_token_id": 1, "eos_token_id": 2}, {"eos_token_id": [2, 9]}, want=[1, (2, 9)])
    answers(ends, {"bos_token_id": 1, "eos_token_id": 2}, {"bos_token_id": 3}, want=[3, (2,)])
    answers(ends, {"bos_token_id": 1, "eos_token_id": 2}, {"bos_token_id": 0, "eos_token_id": []}, want=[0, ()])


def test_invalid_ids_are_refused() -> None:
    """Below 0, a boolean, text, a fraction, a list in a list."""
    none_of_them: list[Any] = [-1, True, "2", 2.0, {}]
    for wrong in none_of_them:
        refuses(ends, {"bos_token_id": wrong}, {}, error=NanollamaError, naming="bos_token_id")
        refuses(ends, {}, {"eos_token_id": wrong}, error=NanollamaError, naming="eos_token_id")
        refuses(ends, {"eos_token_id": [2, wrong]}, {}, error=NanollamaError, naming="eos_token_id")
    refuses(ends, {"bos_token_id": [1]}, {}, error=NanollamaError, naming="bos_token_id")

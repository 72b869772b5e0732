"""Positions and embeddings, written again: positions by counting, small tables, refusals."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree, answers, refuses
from conformance.models.fixtures import fixture_config
from nanollama.errors import NanollamaError
from nanollama.model.config import read_config
from nanollama.model.kv_cache import KVCache
from nanollama.model.transformer import Transformer


def model(**changes: Any) -> Transformer:
    """No layers. Token i is (i, 10 i); if positions are learned there are 8, and position p is (100 p, 0)."""
    config = replace(
        read_config(fixture_config("LlamaForCausalLM")),
        **{"vocab_size": 5, "hidden_size": 2, "num_hidden_layers": 0, "max_position_embeddings": 8, **changes},
    )
    made = Transformer(config)
    made.norm.weight.data = torch.ones(2)
    made.embed_tokens.weight.data = torch.arange(5.0)[:, None] * torch.tensor([1.0, 10.0])
    if config.learned_positions:
        made.embed_positions.weight.data = torch.arange(8.0)[:, None] * torch.tensor([100.0, 0.0])
    return made


def holding(*lengths: int) -> KVCache:
    """A cache of 6 slots per row, with so many tokens in each."""
    cache = model().new_cache(len(lengths), 6)
    cache.lengths = list(lengths)
    return cache


def at(*rows: list[int]) -> Tensor:
    """Ids or positions, int64 [B, T]."""
    return torch.tensor(rows)


def test_positions_are_counted_from_0() -> None:
    """Two rows of three tokens."""
    answers(model().place, at([4, 4, 4], [1, 2, 3]), None, None, want=at([0, 1, 2], [0, 1, 2]))


def test_they_go_on_where_the_cache_ends() -> None:
    """The cache has three tokens: the next two are at 3 and 4."""
    answers(model().place, at([4, 4]), holding(3), None, want=at([3, 4]))


def test_each_row_continues_at_its_own_end() -> None:
    """Rows of three and of one token, and one more for each."""
    answers(model().place, at([4], [4]), holding(3, 1), None, want=at([3], [1]))


def test_given_positions_are_kept() -> None:
    """Given positions override the cache; -1 is padding."""
    answers(model().place, at([4, 4, 4]), holding(3), at([-1, 2, 5]), want=at([-1, 2, 5]))


def test_given_positions_may_stand_for_all_rows() -> None:
    """One row of int32 for two rows of ids: int64 for both."""
    answers(model().place, at([4, 4], [4, 4]), None, at([2, 3]).int(), want=at([2, 3], [2, 3]))


def test_ids_must_be_whole_numbers_in_rows() -> None:
    """A list without rows, a row without tokens, fractional numbers: the error names the shape or the dtype."""
    refuses(model().place, torch.tensor([1, 2, 3]), None, None, error=NanollamaError, naming="[3]")
    refuses(model().place, torch.zeros(2, 0, dtype=torch.int64), None, None, error=NanollamaError, naming="[2, 0]")
    refuses(model().place, torch.tensor([[0.5]]), None, None, error=NanollamaError, naming="float32")


def test_a_cache_must_have_a_row_for_every_row() -> None:
    """Two rows of ids, three rows in the cache."""
    refuses(model().place, at([1], [2]), holding(0, 0, 0), None, error=NanollamaError, naming="3")


def test_a_cache_must_have_room() -> None:
    """Six slots, four of them used: two tokens fit, three don't; the error names the 7 needed."""
    answers(model().place, at([1, 1]), holding(4), None, want=at([4, 5]))
    refuses(model().place, at([1, 1, 1]), holding(4), None, error=NanollamaError, naming="7")


def test_learned_positions_come_to_an_end() -> None:
    """Eight positions are learned. Rotary positions have no limit."""
    learned = model(learned_positions=True)
    answers(learned.place, at([1] * 8), None, None, want=at(list(range(8))))
    refuses(learned.place, at([1] * 9), None, None, error=NanollamaError, naming="9")
    answers(model().place, at([1] * 9), None, None, want=at(list(range(9))))


def test_a_token_begins_as_its_row_of_the_table() -> None:
    """Tokens 3 and 1 are (3, 30) and (1, 10)."""
    answers(model().embed, at([3, 1]), at([0, 1]), want=torch.tensor([[[3.0, 30.0], [1.0, 10.0]]]))


def test_gemma_scales_it() -> None:
    """By a factor of 2."""
    answers(model(embedding_scale=2.0).embed, at([3, 1]), at([0, 1]), want=torch.tensor([[[6.0, 60.0], [2.0, 20.0]]]))


def test_gemmas_scale_is_rounded_to_the_models_dtype() -> None:
    """257 is 256 in bfloat16: 3 · 256 is 768, and 30 · 256 is 7680. Unrounded, 771 and 7710 would be 772 and 7712."""
    want = torch.tensor([[[768.0, 7680.0]]]).bfloat16()
    answers(model(embedding_scale=257.0).bfloat16().embed, at([3]), at([0]), want=want, within=0.0)


def test_learned_positions_are_added() -> None:
    """Token 3 at 0 and token 1 at 5: (3, 30) and (1 + 500, 10)."""
    ours = model(learned_positions=True)
    answers(ours.embed, at([3, 1]), at([0, 5]), want=torch.tensor([[[3.0, 30.0], [501.0, 10.0]]]))


def test_it_is_the_position_that_counts_and_not_the_place_in_the_call() -> None:
    """One token per call: in one row the fifth of its text, in another the first."""
    ours = model(learned_positions=True)
    answers(ours.embed, at([1], [1]), at([4], [0]), want=torch.tensor([[[401.0, 10.0]], [[1.0, 10.0]]]))


def test_padding_does_no_harm() -> None:
    """The table has no position -1: the padded token gets any vector, the next one the right vector."""
    x = model(learned_positions=True).embed(at([0, 1]), at([-1, 0]))
    agree("Transformer.embed, the token next to padding", x[:, 1:], torch.tensor([[[1.0, 10.0]]]))

"""However a sequence is fed to the model, it is the same function: all at once, in chunks, token by token, in a batch of
rows of different lengths. Float64, every family, to 1e-12."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from conformance.models.fixtures import FIXTURES, fixture_config, write_fixture
from conformance.models.weights import derived_ids
from conformance.truth.compare import relative_error
from conformance.truth.taps import eager_attention
from nanollama.errors import NanollamaError
from nanollama.lm import load_model
from nanollama.model.kv_cache import visible
from nanollama.model.transformer import Transformer

CACHE_BAR = 1e-12
LENGTH = 70  # more than one bucket of 64 slots, fourteen windows of 5


@pytest.fixture(scope="module", params=FIXTURES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transformer]:
    folder = write_fixture(tmp_path_factory.mktemp("fixture"), fixture_config(request.param))
    yield load_model(folder)


def prompt(length: int, seed: int = 0) -> Tensor:
    return torch.tensor([derived_ids(seed, "cache prompt", length, 97)])


def whole(model: Transformer, ids: Tensor) -> Tensor:
    """The sequence in one call, through an empty cache of the size all tests here use."""
    return model(ids, cache=model.new_cache(len(ids), LENGTH))


def fed(model: Transformer, ids: Tensor, sizes: Sequence[int]) -> Tensor:
    """The same sequence in pieces."""
    cache = model.new_cache(len(ids), LENGTH)
    return torch.cat([model(piece, cache=cache) for piece in ids.split(list(sizes), 1)], 1)


def test_a_prefill_through_a_cache_equals_the_model_without_one(model: Transformer) -> None:
    ids = prompt(LENGTH)  # as long as the cache: frequencies that depend on the length are the same too
    assert relative_error(whole(model, ids), model(ids)) <= CACHE_BAR


def test_token_by_token_equals_the_prefill(model: Transformer) -> None:
    ids = prompt(LENGTH)
    assert relative_error(fed(model, ids, [1] * LENGTH), whole(model, ids)) <= CACHE_BAR


@pytest.mark.parametrize("sizes", [[4, 66], [5, 5, 60], [6, 1, 63], [64, 6], [69, 1], [3, 1, 1, 2, 13, 50], [7] * 10])
def test_any_chunks_equal_the_prefill(model: Transformer, sizes: list[int]) -> None:
    ids = prompt(LENGTH)
    assert relative_error(fed(model, ids, sizes), whole(model, ids)) <= CACHE_BAR


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_of_a_ragged_batch_equal_each_row_alone(model: Transformer, side: str) -> None:
    lengths, steps, width = [13, 2, 29, 1], 9, 29
    rows = [prompt(n + steps, seed=n) for n in lengths]
    ids, positions = torch.zeros(4, width, dtype=torch.int64), torch.full((4, width), -1)
    for i, n in enumerate(lengths):
        place = slice(0, n) if side == "right" else slice(width - n, width)
        ids[i, place], positions[i, place] = rows[i][0, :n], torch.arange(n)
    cache = model.new_cache(4, LENGTH)
    prefill = model(ids, cache=cache, positions=positions)
    assert cache.lengths == lengths
    last = model(ids, cache=model.new_cache(4, LENGTH), positions=positions, last_only=True)
    decoded = [
        model(torch.cat([r[:, n + s, None] for r, n in zip(rows, lengths, strict=True)]), cache=cache) for s in range(steps)
    ]
    for i, n in enumerate(lengths):
        alone = whole(model, rows[i])[0]
        assert relative_error(prefill[i][positions[i] >= 0], alone[:n]) <= CACHE_BAR
        assert relative_error(last[i, 0], alone[n - 1]) <= CACHE_BAR
        assert relative_error(torch.cat(decoded, 1)[i], alone[n:]) <= CACHE_BAR


def test_a_row_can_pause_while_the_others_go_on(model: Transformer) -> None:
    ids = torch.cat([prompt(20, seed=1), prompt(20, seed=2)])
    cache = model.new_cache(2, LENGTH)
    model(ids[:, :10], cache=cache)
    for t in range(10, 15):  # only row 0
        model(ids[:, t, None], cache=cache, positions=torch.tensor([[t], [-1]]))
    assert cache.lengths == [15, 10]
    late = model(ids[:, [15, 10]].diagonal().view(2, 1), cache=cache)
    alone = [whole(model, ids[:1])[0, 15], whole(model, ids[1:])[0, 10]]
    assert relative_error(late[:, 0], torch.stack(alone)) <= CACHE_BAR


def test_sdpa_equals_the_eager_definition(model: Transformer) -> None:
    ids, sizes = prompt(LENGTH), [30, 1, 1, 8, 30]
    fast = fed(model, ids, sizes), model(ids)
    with eager_attention(model):
        slow = fed(model, ids, sizes), model(ids)
    assert relative_error(fast[0], slow[0]) <= CACHE_BAR
    assert relative_error(fast[1], slow[1]) <= CACHE_BAR


def test_a_sliding_layer_keeps_its_window_and_no_more(model: Transformer) -> None:
    cache = model.new_cache(1, LENGTH)
    for layer, window in zip(cache.layers, model.config.windows, strict=True):
        assert layer.k.shape[2] == (LENGTH if window is None else 5) + 1  # one slot more takes the padding


def test_a_sequence_longer_than_the_cache_is_refused_with_both_lengths(model: Transformer) -> None:
    cache = model.new_cache(1, 8)
    model(prompt(8), cache=cache)
    with pytest.raises(NanollamaError, match=r"9 tokens do not fit a cache of 8.*max_len=9"):
        model(prompt(1), cache=cache)


@settings(max_examples=60)
@given(st.data())
def test_a_key_is_visible_exactly_when_it_is_there_not_later_and_within_the_window(data: st.DataObject) -> None:
    queries = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))
    keys = data.draw(st.lists(st.integers(-1, 9), min_size=1, max_size=6))
    window = data.draw(st.sampled_from([None, 1, 2, 5]))
    got = visible(torch.tensor([queries]), torch.tensor([keys]), window)
    want = [[0 <= k <= q and (window is None or k > q - window) for k in keys] for q in queries]
    assert got.tolist() == [[want]]

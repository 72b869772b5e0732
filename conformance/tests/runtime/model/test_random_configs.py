"""Any valid config of any family, drawn at random, gives transformers' float64 values at every tap."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.models.fixtures import FIXTURES, write_fixture
from conformance.models.strategies import configs
from conformance.models.weights import derived_ids
from conformance.truth.compare import SEMANTIC_BAR, compare_taps, first_beyond
from conformance.truth.oracle import load_oracle, oracle_logits
from conformance.truth.taps import oracle_taps, runtime_taps
from nanollama.lm import load_model

EXAMPLES = 26  # of each of 12 families: 312 configs in a default run


@pytest.mark.parametrize("architecture", FIXTURES)
def test_any_valid_config_gives_transformers_values_at_every_tap(architecture: str) -> None:
    @settings(max_examples=EXAMPLES)
    @given(config=configs(architecture), seed=st.integers(0, 1 << 30), length=st.integers(1, 40))
    def check(config: dict[str, Any], seed: int, length: int) -> None:
        ids = torch.tensor([derived_ids(seed, "prompt", length, config["vocab_size"])])
        with tempfile.TemporaryDirectory() as folder:
            path = write_fixture(Path(folder), config, seed)
            theirs, ours = load_oracle(path), load_model(path)
            want = oracle_taps(theirs, lambda: oracle_logits(theirs, ids))
            got = runtime_taps(ours, lambda: ours(ids))
        assert first_beyond(compare_taps(got, want), SEMANTIC_BAR) is None

    check()

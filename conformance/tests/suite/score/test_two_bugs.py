"""Two bugs at once: one diagnosis names both, for random pairs from different parts of the model."""

import itertools
import random
import re

import pytest

from conformance.checks.model.diagnosis import diagnose
from conformance.score.zoo.seeding import Bug, load_zoo, seeded

LLAMA, GEMMA = "LlamaForCausalLM", "Gemma2ForCausalLM"
NUMERIC = ("normalisation", "rope", "attention", "mlp", "residual", "head", "embedding")


def seen_alone(name: str, bug: Bug) -> bool:
    """Whether a case shows a bug at the place that the zoo says, and nothing else."""
    with seeded(bug):
        places = [fault.place for fault in diagnose(name)]
    return len(places) > 0 and all(re.search(bug.module, place) for place in places)


@pytest.mark.parametrize("name", [LLAMA, GEMMA])
def test_of_random_pairs_of_bugs_both_are_named_in_one_run(name: str) -> None:
    """Two bugs in different functions, of which neither hides the other: their places don't depend on each other."""
    zoo = [bug for bug in load_zoo() if bug.kind == "semantic" and bug.area in NUMERIC and len(bug.edits) == 1]
    shuffled = random.Random(7).sample(zoo, len(zoo))
    shown = list(itertools.islice((bug for bug in shuffled if seen_alone(name, bug)), 8))
    apart = [(a, b) for a, b in itertools.combinations(shown, 2) if a.area != b.area]
    for one, other in random.Random(8).sample(apart, 6):
        with seeded(one), seeded(other):
            places = [fault.place for fault in diagnose(name)]
        for bug in (one, other):
            assert any(re.search(bug.module, place) for place in places), f"{one.name} and {other.name}: {places}"

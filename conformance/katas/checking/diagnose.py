"""Which known mistake a learner's answers look like: one that computes the same in every comparison, if there is just one."""

import importlib
from typing import Any

from conformance.katas.checking.running import Sat, fresh, load_tests, same_answers, sit
from conformance.katas.course import KATAS, Kata

ABOUT_TESTING = KATAS / "about_testing" / "mistakes.toml"


def look_alikes(kata: Kata, mine: list[Sat]) -> list[str]:
    """The names of the kata's mistakes that reproduce these answers, passing ones included.

    Each mistake is seeded into the real runtime, imported afresh, and sits the same tests. What counts is all that was compared
    up to the first wrong answer; where that leaves several, the next test too, and so on. What is unwritten looks like
    everything, so without a wrong answer there is none.
    """
    wrong = next((index for index, sat in enumerate(mine) if sat.error is not None and not sat.unwritten), None)
    if wrong is None:
        return []
    with fresh():
        seeding = importlib.import_module("conformance.score.zoo.seeding")
        known = known_bugs()
        tests = load_tests(kata)
        theirs = {}
        for name in kata.mistakes:
            with seeding.seeded(known[name]):
                theirs[name] = [sit(test) for test in tests]
    found = [name for name, sats in theirs.items() if same_answers(mine[: wrong + 1], sats[: wrong + 1])]
    for end in range(wrong + 2, len(mine) + 1):
        if len(found) > 1:
            found = [name for name in found if same_answers(mine[:end], theirs[name][:end])]
    return found


def known_bugs() -> dict[str, Any]:
    """Every bug that may be a kata's mistake: the zoo's, and those of the exercises."""
    entries = importlib.import_module("conformance.score.zoo.entries")
    own = [entries.read_entry(entry, "exercises") for entry in entries.read_toml(ABOUT_TESTING, "bug")]
    return {bug.name: bug for bug in [*entries.load_zoo(), *own]}

"""Find the known mistake that a learner's answers look like: the only one that computes the same in every comparison."""

import importlib
from typing import Any

from conformance.katas.checking.running import FinishedTest, fresh_runtime, load_tests, run_test, same_answers
from conformance.katas.course import KATAS, Kata

ABOUT_TESTING = KATAS / "about_testing" / "mistakes.toml"


def look_alikes(kata: Kata, mine: list[FinishedTest]) -> list[str]:
    """The names of the kata's mistakes that reproduce these answers, passing ones included.

    Each mistake is seeded into a fresh import of the real runtime and runs the same tests. All comparisons up to the first
    wrong answer count; if several mistakes are left, the next test counts too, and so on. Unwritten functions match every
    mistake, so without a wrong answer the list is empty.
    """
    wrong = next((index for index, test in enumerate(mine) if test.error is not None and not test.unwritten), None)
    if wrong is None:
        return []
    with fresh_runtime():
        seeding = importlib.import_module("conformance.score.zoo.seeding")
        known = known_bugs()
        tests = load_tests(kata)
        theirs = {}
        for name in kata.mistakes:
            with seeding.seeded(known[name]):
                theirs[name] = [run_test(test) for test in tests]
    found = [name for name, finished in theirs.items() if same_answers(mine[: wrong + 1], finished[: wrong + 1])]
    for end in range(wrong + 2, len(mine) + 1):
        if len(found) > 1:
            found = [name for name in found if same_answers(mine[:end], theirs[name][:end])]
    return found


def known_bugs() -> dict[str, Any]:
    """Every bug that may be a kata's mistake: those of the zoo and of the exercises about testing."""
    entries = importlib.import_module("conformance.score.zoo.entries")
    about_testing = [entries.read_entry(entry, "exercises") for entry in entries.read_toml(ABOUT_TESTING, "bug")]
    return {bug.name: bug for bug in [*entries.load_zoo(), *about_testing]}

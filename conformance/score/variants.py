"""False alarms: honest variants of the runtime judged by the noise floor, on weights that the floor was not made from."""

import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from conformance.models.fixtures import FIXTURES
from conformance.numerics.check import HELD_OUT_SEEDS, Alarms, false_alarms
from conformance.truth.golden import LOW_PRECISIONS

Unit = tuple[str, str]  # dtype, family


def units() -> list[Unit]:
    """Every dtype of every family."""
    return [(dtype, family) for dtype in LOW_PRECISIONS for family in FIXTURES]


def judge_unit(unit: Unit) -> Alarms:
    """Every variant of one family in one dtype."""
    dtype, family = unit
    return false_alarms([dtype], families=[family], seeds=HELD_OUT_SEEDS[:1])


def honest_runs(chosen: Sequence[Unit], workers: int, until: float) -> Alarms:
    """Judge the chosen units in forks of this process; those not done at the time `until` of perf_counter are left out."""
    total = Alarms()
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        coming = pool.imap_unordered(judge_unit, chosen)
        for _ in chosen:
            try:
                add_alarms(total, coming.next(min(1e6, max(0.0, until - time.perf_counter()))))
            except multiprocessing.TimeoutError:
                break
    return total


def add_alarms(total: Alarms, more: Alarms) -> None:
    """Add these: numbers are summed, lists concatenated."""
    for field in fields(Alarms):
        value: Any = getattr(total, field.name) + getattr(more, field.name)
        setattr(total, field.name, value)

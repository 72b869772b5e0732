"""The checks of `conformance.checks`, which test the runtime's functions, as results of an engine that is this runtime."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from conformance.checks import Check, Failed, all_checks
from conformance.requirements.requirement import Requirement, load_requirements
from conformance.requirements.results import About, Result, Verdict


def run_check(check: Check) -> list[Result]:
    """One result for each requirement of a check."""
    verdict, place, detail = Verdict.PASS, "", ""
    try:
        check.run()
    except Failed as fault:
        verdict, place, detail = Verdict.FAIL, fault.place, fault.detail
    case = check.case or "runtime"
    return [Result(id, case, check.name, verdict, detail, place, compared=1) for id in check.requirements]


@contextmanager
def check_results(wanted: bool = True, checks: Sequence[Check] | None = None) -> Iterator[Callable[[], list[Result]]]:
    """Run the checks in forks of this process, one for each core, while the caller does something else. Yields a function that
    waits for all results; without `wanted` there are none."""
    found = list(all_checks() if checks is None else checks) if wanted else []
    if not found:
        yield list
        return
    FORKED[:] = found
    with multiprocessing.get_context("fork").Pool(os.cpu_count() or 1, torch.set_num_threads, (1,)) as pool:
        pending = pool.map_async(run_forked_check, range(len(found)), chunksize=1)
        yield lambda: [result for results in pending.get() for result in results]


FORKED: list[Check] = []  # what a fork inherits: checks hold functions that can't be pickled


def run_forked_check(number: int) -> list[Result]:
    """One of the inherited checks."""
    return run_check(FORKED[number])


def not_judged(about: About, judged: set[str], with_checks: bool) -> Iterator[Result]:
    """The requirements that no result in this run is about, each with the reason."""
    for requirement in load_requirements().values():
        if requirement.is_judged and requirement.id not in judged:
            reason = reason_not_judged(requirement, about, with_checks)
            yield Result(requirement.id, "every case", "none", Verdict.UNSUPPORTED, reason)


def reason_not_judged(requirement: Requirement, about: About, with_checks: bool) -> str:
    """Why a requirement was not judged."""
    if requirement.level not in about.levels and requirement.level in ("L0", "L1"):
        return f"needs {requirement.level}; the engine offers {', '.join(about.levels) or 'nothing'}"
    if with_checks:
        return "no check judges it"
    return "only seen from inside: judged by the checks of nanollama's own functions, in float64 and with all families"

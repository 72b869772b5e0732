"""The checks of `conformance.checks`, which know the runtime's own functions, as results of an engine that is this runtime."""

from collections.abc import Iterator

from conformance.checks import Check, Failed, all_checks
from conformance.requirements.requirement import Requirement, load_requirements
from conformance.requirements.results import About, Result, Verdict


def white_box(checks: list[Check] | None = None) -> Iterator[Result]:
    """One result per requirement and check."""
    for check in all_checks() if checks is None else checks:
        verdict, place, detail = Verdict.PASS, "", ""
        try:
            check.run()
        except Failed as fault:
            verdict, place, detail = Verdict.FAIL, fault.place, fault.detail
        case = getattr(check, "case", "") or "runtime"
        for requirement in check.requirements:
            yield Result(requirement, case, check.name, verdict, detail, place, compared=1)


def open_ends(about: About, judged: set[str], white_box_ran: bool) -> Iterator[Result]:
    """The requirements that nothing in this run speaks of, each with the reason."""
    for requirement in load_requirements().values():
        if requirement.is_judged and requirement.id not in judged:
            reason = why_not(requirement, about, white_box_ran)
            yield Result(requirement.id, "every case", "none", Verdict.UNSUPPORTED, reason)


def why_not(requirement: Requirement, about: About, white_box_ran: bool) -> str:
    """Why a requirement was not judged."""
    if requirement.level not in about.levels and requirement.level in ("L0", "L1"):
        return f"needs {requirement.level}; the engine offers {', '.join(about.levels) or 'nothing'}"
    if white_box_ran:
        return "no check judges it"
    return "only seen from inside: judged by the checks of nanollama's own functions, in float64 and with all families"

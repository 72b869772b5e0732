"""Running the probes against a server: what each of them finds becomes one result, whatever the server does."""

from collections.abc import Collection
from dataclasses import replace

from conformance.engines import Unsupported
from conformance.engines.openai_http import OpenAIServer, Refused
from conformance.requirements import Requirement, load_requirements
from conformance.results import Result, Verdict
from conformance.wire import (
    choosing,
    likelihoods,
    limits,
    refusing,
    shape,
    stopping,
    streaming,
    together,
    truthful,
)
from conformance.wire.probe import CHAT, COMPLETIONS, SERVER, Endpoint, Probe, Tally, Undecided, Wrong, probes_of
from conformance.wire.truth import Truth
from nanollama.errors import NanollamaError

PARTS = (shape, limits, stopping, likelihoods, choosing, streaming, together, truthful, refusing)
NOT_THERE = (404, 405, 501)


def all_probes() -> list[Probe]:
    """Every probe; those that may upset a server come last."""
    return probes_of([part.__name__ for part in PARTS])


def judge_server(engine: OpenAIServer, truth: Truth | None = None, only: Collection[str] = ()) -> list[Result]:
    """Ask a server everything, and file a result per requirement and endpoint; NanollamaError if nobody answers at all.

    `truth` is the checkpoint that it serves; without it nothing is said about the model. `only`: these requirements.
    """
    reach(engine)
    requirements = load_requirements()
    ends = [Endpoint(engine, case, truth) for case in (COMPLETIONS, CHAT)]
    reasons = {end.name: why_not(end) for end in ends}
    offered = [end for end in ends if reasons[end.name] is None]
    results = []
    for probe in all_probes():
        if only and probe.requirement not in only:
            continue
        requirement = requirements[probe.requirement]
        reason = reasons[probe.case] if probe.case != SERVER else None if offered else "it offers no text at all"
        if reason is not None:
            results.append(Result(requirement.id, probe.case, probe.name, Verdict.UNSUPPORTED, reason))
        else:
            end = offered[0] if probe.case == SERVER else ends[probe.case == CHAT]
            results.append(judge(probe, end, requirement))
    return results


def reach(engine: OpenAIServer) -> None:
    """Fail early, and in words, if there is no server."""
    try:
        engine.exchange("GET", "/models")
    except OSError as error:
        raise NanollamaError(f"{engine.url} does not answer ({error}); expected a running server there") from error


def why_not(end: Endpoint) -> str | None:
    """Why an endpoint can't be judged, if it can't: it is not there, or it refuses the plainest request."""
    try:
        reply = end.post(end.request(max_tokens=1))
    except OSError:
        return None  # then the probes say what is wrong with it
    if reply.status in NOT_THERE:
        return f"{end.path} is not there: HTTP {reply.status}"
    return f"{end.path} refuses the plainest request: {reply.message()}" if 400 <= reply.status < 500 else None


def judge(probe: Probe, end: Endpoint, requirement: Requirement) -> Result:
    """Run one probe. A wrong answer is a FAIL, a NOTE where the requirement binds nobody; a server that breaks is an ERROR."""
    end.tally = Tally()
    verdict, detail = attempt(probe, end)
    if verdict is Verdict.FAIL and not requirement.is_judged:
        verdict = Verdict.NOTE
    if verdict is Verdict.PASS and end.tally.compared == 0:
        verdict, detail = Verdict.ERROR, "the probe compared nothing"
    if verdict is Verdict.PASS and end.tally.excused:
        verdict = Verdict.EXCUSED
    result = Result(requirement.id, probe.case, probe.name, verdict, detail or end.tally.detail)
    tally = end.tally
    return replace(result, error=tally.error, bar=tally.bar, compared=tally.compared, excused=tally.excused)


def attempt(probe: Probe, end: Endpoint) -> tuple[Verdict, str]:
    """What a probe says, or what came in its way."""
    try:
        probe.run(end)
    except Wrong as wrong:
        return Verdict.FAIL, str(wrong)
    except Undecided as undecided:
        return Verdict.INCONCLUSIVE, str(undecided)
    except Unsupported as unsupported:
        return Verdict.UNSUPPORTED, str(unsupported)
    except Refused as refused:
        if refused.status >= 500:
            return Verdict.ERROR, f"it breaks: {refused}"
        return (Verdict.UNSUPPORTED if probe.optional else Verdict.FAIL), f"it refuses: {refused}"
    except OSError as error:
        return Verdict.ERROR, f"the connection broke: {error!r}"
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        return Verdict.FAIL, f"the answer is not of the shape that it must have: {error!r}"
    return Verdict.PASS, ""

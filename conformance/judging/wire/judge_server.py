"""Run the probes against a text server: one result per requirement and endpoint, whatever the server does."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from conformance.engines.engine import Unsupported
from conformance.engines.protocols.openai_http import OpenAIServer, Refused
from conformance.judging.wire.probe import CHAT, COMPLETIONS, SERVER, Endpoint, Probe, Tally, Undecided, Wrong, probes_of
from conformance.judging.wire.probes import choosing, likelihoods, refusing, shape, stopping, streaming, together, truthful
from conformance.judging.wire.truth import limits
from conformance.judging.wire.truth.truth import Truth
from conformance.requirements.requirement import Requirement, load_requirements
from conformance.requirements.results import Result, Verdict
from nanollama.errors import NanollamaError

PARTS = (shape, limits, stopping, likelihoods, choosing, streaming, truthful, together, refusing)
OK, NOT_THERE = 200, (404, 405, 501)


def all_probes() -> list[Probe]:
    """Every probe; those that may break a server come last."""
    return probes_of([part.__name__ for part in PARTS])


def judge_server(engine: OpenAIServer, truth: Truth | None = None, only: Collection[str] = ()) -> list[Result]:
    """Run all probes and return a result per requirement and endpoint; raises NanollamaError if nothing answers.

    `truth` is the checkpoint that it serves; without it the model is not judged. `only`: these requirements.
    """
    reach(engine)
    requirements, results, broken = load_requirements(), list[Result](), ""
    ends = [Endpoint(engine, case, truth) for case in (COMPLETIONS, CHAT)]
    first = {end.name: simplest_request(end) for end in ends}
    for probe in all_probes():
        if only and probe.requirement not in only:
            continue
        end = endpoint_for(probe, ends, first)
        reason = reason_not_judged(end, first[end.name])
        if reason is not None or broken:
            verdict = Verdict.ERROR if reason is None else Verdict.UNSUPPORTED
            results.append(Result(probe.requirement, probe.case, probe.name, verdict, reason or broken))
            continue
        results.append(run_probe(probe, end, requirements[probe.requirement]))
        if not results[-1].verdict.good and first[end.name][0] == OK and (now := simplest_request(end))[0] != OK:
            broken = f"since {probe.name} the server answers nothing more: {now[1]}"
            results[-1] = replace(results[-1], verdict=Verdict.ERROR, detail=f"{results[-1].detail}; {broken}")
    return results


def endpoint_for(probe: Probe, ends: Sequence[Endpoint], first: Mapping[str, tuple[int, str]]) -> Endpoint:
    """The endpoint of a probe; for a probe of the server as a whole, the first that answers."""
    if probe.case != SERVER:
        return ends[probe.case == CHAT]
    return next((end for end in ends if reason_not_judged(end, first[end.name]) is None), ends[0])


def reach(engine: OpenAIServer) -> None:
    """Raise NanollamaError if there is no server."""
    try:
        engine.exchange("GET", "/models")
    except OSError as error:
        raise NanollamaError(f"{engine.url} does not answer ({error}); expected a running server there") from error


def simplest_request(end: Endpoint) -> tuple[int, str]:
    """The status and message of the simplest request; status 0 if the connection breaks."""
    try:
        reply = end.post(end.request(max_tokens=1))
    except OSError as error:
        return 0, str(error)
    return reply.status, f"HTTP {reply.status}: {reply.message()}"


def reason_not_judged(end: Endpoint, first: tuple[int, str]) -> str | None:
    """Why an endpoint can't be judged: it is missing, or refuses the simplest request. None if it can."""
    status, words = first
    if status in NOT_THERE:
        return f"{end.path} or the model {end.engine.model!r} is not there: {words}"
    return f"{end.path} refuses the simplest request: {words}" if 400 <= status < 500 else None


def run_probe(probe: Probe, end: Endpoint, requirement: Requirement) -> Result:
    """Run one probe. A wrong answer is a FAIL, a NOTE if the requirement is unspecified; a crash is an ERROR."""
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
    """The verdict of a probe, with the reason."""
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

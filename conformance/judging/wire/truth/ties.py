"""Greedy answers that must be the same whatever else a server does at the time.

Batches of other sizes round differently, so a tie may be broken differently. The difference is excused, and counted, if the
server's log-probabilities show the tie; without log-probabilities the probe is undecided.
"""

from conformance.engines.engine import Unsupported
from conformance.engines.protocols.openai_http import Refused
from conformance.judging.wire.probe import Endpoint, Undecided, shown
from conformance.judging.wire.probes.likelihoods import agree, choice_with_logprobs, steps_of


def hold_same_or_tied(end: Endpoint, prompt: str, got: str, want: str, what: str) -> None:
    """Hold that a greedy answer is the same as before, up to a tie."""
    if got == want:
        end.hold(True, "")
        return
    end.hold(parts_at_a_tie(end, prompt, got), f"{what} is {shown(got)}; expected {shown(want)}")
    end.tally.excused += 1


def parts_at_a_tie(end: Endpoint, prompt: str, got: str) -> bool:
    """Whether the first token in which another answer differs from the greedy one is tied with the next likeliest."""
    try:
        steps = steps_of(choice_with_logprobs(end, prompt))
    except (Refused, Unsupported) as error:
        raise Undecided(f"a greedy answer differs, and without log-probabilities a tie can't be seen: {error}") from error
    text = ""
    for token, _, top in steps:
        text += token
        if not got.startswith(text):
            best = sorted(top.values())[-2:]
            return len(best) == 2 and agree(*best)
    return False

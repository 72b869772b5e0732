"""Greedy answers that must be the same whatever else a server does at the time.

Batches of other sizes round otherwise, so that a tie may fall to the other side. Such a difference is excused, and counted,
where the server's own log-probabilities show the tie; where it shows none, nothing can be said.
"""

from conformance.engines.engine import Unsupported
from conformance.engines.protocols.openai_http import Refused
from conformance.judging.wire.probe import Endpoint, Undecided, shown
from conformance.judging.wire.probes.likelihoods import agree, choice_with_logprobs, steps_of


def hold_same_or_tied(end: Endpoint, prompt: str, got: str, want: str, what: str) -> None:
    """Hold that a greedy answer is the one that was given before, but for a tie."""
    if got == want:
        end.hold(True, "")
        return
    end.hold(parts_at_a_tie(end, prompt, got), f"{what} is {shown(got)}; expected {shown(want)}")
    end.tally.excused += 1


def parts_at_a_tie(end: Endpoint, prompt: str, got: str) -> bool:
    """Whether the first token of the greedy answer that another answer does not have is tied with the next likeliest."""
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

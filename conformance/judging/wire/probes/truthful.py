"""Log-probabilities and tokens against the checkpoint in float64, and the formulas of OpenAI's documentation.

Without a checkpoint (`--model`) all of it is UNSUPPORTED. A token that is not the truth's best is excused only if the truth's
margin is less than twice the floor: both sides of a margin may be off.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from conformance.engines.engine import Unsupported
from conformance.judging.wire.probe import COMPLETIONS, PROMPTS, Endpoint, Undecided, Wrong, probe, shown
from conformance.judging.wire.probes.choosing import BIASED
from conformance.judging.wire.probes.likelihoods import choice_with_logprobs, steps_of
from conformance.judging.wire.probes.shape import usage_of
from conformance.judging.wire.truth.floors import Floor, measure_floors
from conformance.judging.wire.truth.truth import Served, Truth

TOKENS = 24
Adjust = Callable[[Tensor, Sequence[int]], Tensor]  # log-probabilities [V] and the ids of the answer so far → [V]


def truth_of(end: Endpoint) -> Truth:
    """The checkpoint; Unsupported if none was given."""
    if end.truth is None:
        raise Unsupported("no checkpoint was given to compare with; give the one that the server serves as --model")
    return end.truth


def ids_of(end: Endpoint, prompt: str) -> list[int]:
    """A prompt's ids, by the checkpoint's own tokenizer and template."""
    lm = truth_of(end).lm
    if end.name == COMPLETIONS:
        return lm.encode(prompt)
    if lm.template is None:
        raise Unsupported("the checkpoint has no chat template, so the server's is its own")
    return lm.encode_chat([{"role": "user", "content": prompt}])


def answers_of(end: Endpoint, **fields: Any) -> list[Served]:
    """The greedy answers to all prompts, with the truth along them."""

    truth_of(end)
    name = f"served {sorted(fields.items())}"
    return end.once(name, lambda: [answer_of(end, prompt, **fields) for prompt in PROMPTS])


def answer_of(end: Endpoint, prompt: str, **fields: Any) -> Served:
    """One of them; Undecided if some of its tokens are not shown."""
    choice = choice_with_logprobs(end, prompt, max_tokens=TOKENS, **fields)
    steps = steps_of(choice)
    if choice["finish_reason"] == "length" and len(steps) != TOKENS:
        raise Undecided(f"of the {TOKENS} tokens after {prompt!r} {len(steps)} are shown: {[token for token, _, _ in steps]}")
    return truth_of(end).follow(ids_of(end, prompt), steps)


def floors_of(end: Endpoint) -> list[Floor]:
    """The floors on the plain greedy answers, finest first."""
    answers = answers_of(end)
    return end.once("floors", lambda: measure_floors(truth_of(end), answers))


@probe("WIRE-080", optional=True)
def a_prompt_has_the_tokens_that_the_checkpoint_gives_it(end: Endpoint) -> None:
    for prompt in PROMPTS:
        count = usage_of(end.ask(prompt, max_tokens=1))["prompt_tokens"]
        end.same(count, len(ids_of(end, prompt)), f"prompt_tokens of {prompt!r}")


@probe("WIRE-081", optional=True)
def log_probabilities_are_the_truth_within_the_floor(end: Endpoint) -> None:
    hold_within(end, max(served.served_error() for served in answers_of(end)), sum(len(s.ids) for s in answers_of(end)))


def hold_within(end: Endpoint, error: float, compared: int) -> None:
    """Hold that an error is within the coarsest usual floor, and say which is the finest that it is within."""
    floors = floors_of(end)
    within = next((floor for floor in floors if error <= floor.bar), None)
    end.tally.error, end.tally.bar = error, floors[-1].bar
    end.tally.compared += compared - 1
    end.hold(within is not None, f"an error of {error:.3g} nats, beyond every floor ({', '.join(map(str, floors))})")
    end.tally.detail = f"{error:.3g} nats, within the floor of {within}"


@probe("LOGP-002", COMPLETIONS, optional=True)
def log_probabilities_of_a_prompt_are_the_truth_too(end: Endpoint) -> None:
    truth, errors, compared = truth_of(end), [0.0], 0
    for prompt in PROMPTS:
        ids = ids_of(end, prompt)
        values = choice_with_logprobs(end, prompt, echo=True, max_tokens=1)["logprobs"]["token_logprobs"][:-1]
        reported = [value for value in values if value is not None]  # not of the first, nor of a BOS that is not shown
        _, rows = truth.rows(ids[:1], len(ids) - 1, lambda step, row, ids=ids: ids[step + 1])
        wanted = rows.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
        if len(reported) < len(ids) - 2:
            raise Wrong(f"{prompt!r} has {len(ids)} tokens, of which {len(reported)} have a log-probability")
        pairs = zip(reported[::-1], wanted[::-1], strict=False)
        errors += [abs(value - want) for value, want in pairs]
        compared += len(reported)
    hold_within(end, max(errors), compared)


@probe("GENR-004", optional=True)
def greedy_tokens_are_those_of_the_truth(end: Endpoint) -> None:
    hold_chosen(end, answers_of(end), lambda row, so_far: row)


def hold_chosen(end: Endpoint, answers: Sequence[Served], adjust: Adjust) -> None:
    """Hold that every token is the likeliest after the adjustment, or tied with it within the floor."""
    allowed = 2 * floors_of(end)[-1].bar
    for served in answers:
        for step, (id, row) in enumerate(zip(served.ids, served.truth, strict=True)):
            scores = adjust(row, served.ids[:step])
            margin = float(scores.max() - scores[id])
            end.tally.excused += 0.0 < margin <= allowed
            best = truth_of(end).tokenizer.decode([int(scores.argmax())])
            wrote = truth_of(end).tokenizer.decode([id])
            end.hold(margin <= allowed, f"step {step} wrote {shown(wrote)}, {margin:.3g} nats less likely than {shown(best)}")


def penalised(presence: float, frequency: float, before: Sequence[int] = ()) -> Adjust:
    """OpenAI's formula: presence once, frequency for each time that a token was sampled before this step."""

    def adjust(row: Tensor, so_far: Sequence[int]) -> Tensor:
        out = row.clone()
        for id, count in Counter([*before, *so_far]).items():
            out[id] -= presence + frequency * count
        return out

    return adjust


@probe("PENA-004", COMPLETIONS, optional=True)
def the_presence_penalty_is_subtracted_once(end: Endpoint) -> None:
    hold_chosen(end, answers_of(end, presence_penalty=1.5), penalised(1.5, 0.0))


@probe("PENA-005", COMPLETIONS, optional=True)
def the_frequency_penalty_is_subtracted_for_each_time(end: Endpoint) -> None:
    hold_chosen(end, answers_of(end, frequency_penalty=0.7), penalised(0.0, 0.7))


@probe("SAMP-003", COMPLETIONS, optional=True)
def a_logit_bias_is_added(end: Endpoint) -> None:
    first = answers_of(end)[0].ids[0]
    bias = {first: -100.0, BIASED[0]: 3.0}

    def adjust(row: Tensor, so_far: Sequence[int]) -> Tensor:
        return row + torch.zeros_like(row).scatter_(0, torch.tensor(list(bias)), torch.tensor(list(bias.values())).double())

    hold_chosen(end, answers_of(end, logit_bias={str(id): value for id, value in bias.items()}), adjust)

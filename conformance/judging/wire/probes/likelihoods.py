"""Log-probabilities: they are a distribution, belong to the tokens shown, and do not depend on the way of asking.

Two measurements of one number may differ by rounding. Where no checkpoint is given, so that no noise floor can be measured,
they may differ by one step of bfloat16, the coarsest that engines compute logits in, at logits between 16 and 32.
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from conformance.engines.engine import Unsupported
from conformance.judging.wire.probe import CHAT, COMPLETIONS, PROMPT, PROMPTS, Endpoint, probe

Step = tuple[str, float, dict[str, float]]
DRAWS = 200
STEP = torch.finfo(torch.bfloat16).eps


def agree(a: float, b: float) -> bool:
    """Whether two log-probabilities may be one, by bfloat16."""
    return abs(a - b) <= 16 * STEP


def choice_with_logprobs(end: Endpoint, prompt: str = PROMPT, count: int = 5, **fields: Any) -> dict[str, Any]:
    """The first choice of an answer, with log-probabilities and so many likely tokens."""
    asked = {"logprobs": True, "top_logprobs": count} if end.name == CHAT else {"logprobs": count}
    choice: dict[str, Any] = end.ask(prompt, **asked, **fields)["choices"][0]
    if not choice.get("logprobs"):
        raise Unsupported("it gives no log-probabilities")
    return choice


def steps_of(choice: Mapping[str, Any]) -> list[Step]:
    """Every token of an answer, its log-probability, and the likeliest, at either endpoint."""
    found = choice["logprobs"]
    if "content" in found:
        return [
            (t["token"], t["logprob"], {top["token"]: top["logprob"] for top in t["top_logprobs"]}) for t in found["content"]
        ]
    return list(zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True))


def is_a_distribution(end: Endpoint, top: Mapping[str, float]) -> None:
    """Nothing is likelier than certain, alone or together."""
    for token, value in top.items():
        end.hold(math.isfinite(value) and value <= STEP, f"the log-probability of {token!r} is {value}")
    total = sum(map(math.exp, top.values()))
    end.hold(total <= 1 + STEP, f"the probabilities of {sorted(top)} add up to {total}")


@probe("LOGP-001", optional=True)
def probabilities_add_up_to_1_at_most(end: Endpoint) -> None:
    for token, value, top in steps_of(choice_with_logprobs(end)):
        is_a_distribution(end, {token: value, **top})


@probe("SAMP-012", optional=True)
def at_temperature_0_the_likeliest_token_is_taken(end: Endpoint) -> None:
    for place, (token, value, top) in enumerate(steps_of(choice_with_logprobs(end))):
        end.hold(value >= max(top.values()), f"token {place} is {token!r} ({value}), where {top} are likelier")


@probe("WIRE-020", COMPLETIONS, optional=True)
def the_lists_of_log_probabilities_are_as_long_as_the_text_has_tokens(end: Endpoint) -> None:
    for tokens in (1, 9):
        answer = choice_with_logprobs(end, max_tokens=tokens)
        found = answer["logprobs"]
        if answer["finish_reason"] != "length":
            raise Unsupported(f"the answer ended before its {tokens} tokens")
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            end.same(len(found[name]), tokens, f"the length of {name} of an answer of {tokens} tokens")


@probe("WIRE-021", COMPLETIONS, optional=True)
def the_tokens_are_the_text(end: Endpoint) -> None:
    for prompt in PROMPTS:
        answer = choice_with_logprobs(end, prompt)
        tokens = answer["logprobs"]["tokens"]
        pattern = "".join(".*" if is_part(token) else re.escape(token) for token in tokens)
        end.hold(re.fullmatch(pattern, answer["text"], re.DOTALL) is not None, f"{tokens} are the tokens of {answer['text']!r}")


def is_part(token: str) -> bool:
    """Whether a token is shown as a part of a character: OpenAI spells its bytes, others show U+FFFD."""
    return "\ufffd" in token or token.startswith("bytes:")


@probe("WIRE-022", COMPLETIONS, optional=True)
def text_offsets_are_where_the_tokens_begin(end: Endpoint) -> None:
    found = choice_with_logprobs(end)["logprobs"]
    for (token, begin), (_, next_begin) in itertools.pairwise(zip(found["tokens"], found["text_offset"], strict=True)):
        if not is_part(token):
            end.same(next_begin, begin + len(token), f"the offset after {token!r} at {begin}")


@probe("WIRE-023", COMPLETIONS, optional=True)
def as_many_likely_tokens_are_shown_as_were_asked_for(end: Endpoint) -> None:
    for count in (1, 2, 5):
        for top in choice_with_logprobs(end, count=count, max_tokens=6)["logprobs"]["top_logprobs"]:
            end.hold(1 <= len(top) <= count + 1, f"with logprobs {count} there are {len(top)}: {sorted(top)}")
    shown = max(len(top) for top in choice_with_logprobs(end, count=5)["logprobs"]["top_logprobs"])
    end.hold(shown >= 4, f"with logprobs 5 at most {shown} tokens are shown")  # two of five may have the same text


@probe("WIRE-024", COMPLETIONS, optional=True)
def the_chosen_token_is_among_those_shown(end: Endpoint) -> None:
    warm: dict[str, Any] = {"temperature": 1.5, "seed": 3}
    for settings in ({}, warm):
        found = choice_with_logprobs(end, **settings)["logprobs"]
        for token, value, top in zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True):
            end.hold(token in top, f"{token!r} was chosen, but shown are {sorted(top)}")
            fewer = len(top) < 5  # then two have the same text, and one of them is not seen
            end.hold(
                fewer or top[token] >= value, f"{token!r} has {value} where it was chosen and {top[token]} where it is shown"
            )


@probe("WIRE-025", CHAT, optional=True)
def chat_tokens_have_their_fields(end: Endpoint) -> None:
    for entry in choice_with_logprobs(end)["logprobs"]["content"]:
        for part in (entry, *entry["top_logprobs"]):
            end.hold(isinstance(part["token"], str) and isinstance(part["logprob"], float | int), f"a token is {part!r}")
            end.hold("bytes" in part, f"a token has no bytes, not even null: {part!r}")
        values = [part["logprob"] for part in entry["top_logprobs"]]
        end.same(values, sorted(values, reverse=True), "the order of top_logprobs")
        end.hold(len(values) <= 5, f"{len(values)} tokens are shown where 5 were asked for")


@probe("WIRE-026", CHAT, optional=True)
def the_bytes_of_chat_tokens_are_the_text(end: Endpoint) -> None:
    choice = choice_with_logprobs(end)
    text, tokens = choice["message"]["content"], choice["logprobs"]["content"]
    if any(token.get("bytes") is None for token in tokens):
        raise Unsupported("its tokens have no bytes")
    spelled = bytes(itertools.chain.from_iterable(token["bytes"] for token in tokens))
    end.same(spelled.decode("utf-8", "replace"), text, "the bytes of the tokens together")


@probe("LOGP-002", COMPLETIONS, optional=True)
def a_token_of_the_prompt_is_as_likely_as_the_same_token_of_an_answer(end: Endpoint) -> None:
    first = choice_with_logprobs(end)
    echoed = choice_with_logprobs(end, PROMPT + first["text"], echo=True, max_tokens=1)["logprobs"]
    end.hold(
        echoed["token_logprobs"][0] is None, f"the first token has the log-probability {echoed['token_logprobs'][0]}, not null"
    )
    tokens, values = first["logprobs"]["tokens"], first["logprobs"]["token_logprobs"]
    begin = len(echoed["tokens"]) - 1 - len(tokens)
    if begin < 1 or echoed["tokens"][begin:-1] != tokens:
        raise Unsupported(f"the text is cut otherwise when it is read again: {echoed['tokens']}, not {tokens}")
    for token, written, read in zip(tokens, values, echoed["token_logprobs"][begin:], strict=False):
        end.hold(agree(written, read), f"{token!r} has {written} in the answer and {read} in the prompt")


@probe("SAMP-001", COMPLETIONS, optional=True)
def tokens_are_drawn_by_their_log_probabilities_over_the_temperature(end: Endpoint) -> None:
    prompt, (likely, other), gap = two_to_draw(end)
    for temperature in (0.5, 2.0):
        drawn = [end.text(prompt, max_tokens=1, temperature=temperature, top_p=1, seed=seed) for seed in range(DRAWS)]
        counts = [sum(text.strip() == token.strip() for text in drawn) for token in (likely, other)]
        chance = 1 / (1 + math.exp(-gap / temperature))
        counted = f"at temperature {temperature} {likely!r} comes {counts[0]} times and {other!r} {counts[1]} times"
        end.hold(is_likely(counts[0], sum(counts), chance), f"{counted}; by the log-probabilities the first has {chance:.3f}")


def two_to_draw(end: Endpoint) -> tuple[str, tuple[str, str], float]:
    """A prompt, the two tokens that are likeliest after it, and by how many nats: whatever filters a server has, both stay."""
    for prompt in beginnings(end):
        _, _, top = steps_of(choice_with_logprobs(end, prompt, max_tokens=1))[0]
        (first, high), (second, low) = sorted(top.items(), key=lambda item: -item[1])[:2]
        if 0.5 <= high - low <= 2.5 and first.strip() != second.strip():
            return prompt, (first, second), high - low
    raise Unsupported("after no prompt are the two likeliest tokens between 0.5 and 2.5 nats apart")


def beginnings(end: Endpoint) -> Iterator[str]:
    """The prompts, and each with the first tokens of its greedy answer."""
    yield from PROMPTS
    for prompt in PROMPTS:
        tokens = [token for token, _, _ in steps_of(choice_with_logprobs(end, prompt))]
        yield from (prompt + "".join(tokens[:count]) for count in range(1, len(tokens), 3))


def is_likely(count: int, total: int, chance: float) -> bool:
    """Whether so many of the draws have a chance of more than 1 in 10000, on either side."""
    weights = [math.comb(total, k) * chance**k * (1 - chance) ** (total - k) for k in range(total + 1)]
    return min(sum(weights[: count + 1]), sum(weights[count:])) > 0.5e-4


@probe("LOGP-003", COMPLETIONS, optional=True)
def log_probabilities_do_not_depend_on_the_temperature(end: Endpoint) -> None:
    warm: dict[str, Any] = {"temperature": 2.0, "seed": 1}
    cold, hot = (choice_with_logprobs(end, max_tokens=1, **each)["logprobs"]["top_logprobs"][0] for each in ({}, warm))
    both = sorted(cold.keys() & hot.keys(), key=lambda token: cold[token])
    if len(both) < 2 or cold[both[-1]] - cold[both[0]] < 8 * STEP:
        raise Unsupported(f"too little to compare: {cold} and {hot}")
    gaps = [values[both[-1]] - values[both[0]] for values in (cold, hot)]
    as_divided = abs(gaps[1] - gaps[0] / 2) < abs(gaps[1] - gaps[0])
    end.hold(not as_divided, f"between {both[-1]!r} and {both[0]!r} are {gaps[0]} nats at temperature 0, {gaps[1]} at 2")

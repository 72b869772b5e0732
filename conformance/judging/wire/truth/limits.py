"""Where an answer ends: at max_tokens, at the model's end token; and the reported reason."""

from typing import Any

from conformance.engines.engine import Unsupported
from conformance.judging.wire.probe import COMPLETIONS, PROMPT, PROMPTS, Endpoint, probe

END_TOKENS = ("</s>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>", "<|end|>", "<eos>", "<end_of_turn>")


def common_beginning(a: str, b: str) -> str:
    """What two texts share from the start."""
    return a[: next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))]


@probe("LIMT-001")
def max_tokens_cuts_the_same_answer(end: Endpoint) -> None:
    whole = end.text(max_tokens=24)
    for tokens in (1, 2, 5, 13):
        text = end.text(max_tokens=tokens).rstrip("\ufffd")
        end.same(common_beginning(text, whole), text, f"what the answer of {tokens} tokens shares with the one of 24")
    end.hold(len(end.text(max_tokens=1)) < len(whole), "an answer of one token is as long as one of 24")


@probe("WIRE-010", COMPLETIONS)
def without_max_tokens_a_completion_has_16(end: Endpoint) -> None:
    end.same(end.text(max_tokens=None), end.text(max_tokens=16), "the answer without max_tokens, beside one of 16,")


@probe("LIMT-003", COMPLETIONS, optional=True)
def max_tokens_0_samples_nothing(end: Endpoint) -> None:
    end.same(end.text(max_tokens=0), "", "the text of max_tokens 0")


@probe("EOSX-004")
def the_reason_tells_a_limit_from_an_end(end: Endpoint) -> None:
    cut = end.ask(max_tokens=1)
    end.same(reason_of(cut), "length", "the reason of an answer of one token that could go on")
    whole = end.baseline()
    stopped = end.ask(stop=[whole[2:5]])
    end.same(reason_of(stopped), "stop", "the reason of an answer that met a stop string")


def reason_of(answer: dict[str, Any]) -> object:
    """Why the first choice ended."""
    return answer["choices"][0]["finish_reason"]


def answer_ended_by_model(end: Endpoint) -> dict[str, Any]:
    """An answer that ended with the model's end token."""
    for prompt in PROMPTS:
        for settings in ({}, {"temperature": 1.0, "seed": 1}):
            answer = end.ask(prompt, max_tokens=200, **settings)
            if reason_of(answer) == "stop":
                return answer
    raise Unsupported("its model ends no answer itself within 200 tokens")


@probe("EOSX-005", optional=True)
def the_end_token_is_not_part_of_the_text(end: Endpoint) -> None:
    [text] = end.texts(answer_ended_by_model(end))
    found = [token for token in END_TOKENS if text.rstrip().endswith(token)]
    end.same(found, [], "the end tokens that the text ends with")


@probe("WIRE-011", COMPLETIONS, optional=True)
def echo_puts_the_prompt_first(end: Endpoint) -> None:
    end.same(end.text(echo=True), PROMPT + end.text(), "the text with echo")

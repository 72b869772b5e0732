"""How tokens are chosen: greedily, by seeds, n times over; and every parameter that is accepted has an effect."""

from typing import Any

from conformance.engines.engine import Unsupported
from conformance.judging.wire.probe import COMPLETIONS, PROMPT, PROMPTS, Endpoint, probe
from conformance.judging.wire.truth.ties import hold_same_or_tied

WARM: dict[str, Any] = {"temperature": 1.5, "max_tokens": 16}
BIASED = (40, 41, 42)  # token ids that every vocabulary has


@probe("WIRE-030")
def a_greedy_answer_is_always_the_same(end: Endpoint) -> None:
    first = end.text()
    for seed in (None, 1, 2):
        end.text("Something else in between", max_tokens=3)
        hold_same_or_tied(end, PROMPT, end.text(seed=seed), first, "the same greedy request, asked again, the answer")


@probe("DRAW-004", optional=True)
def equal_seeds_give_equal_answers_and_others_others(end: Endpoint) -> None:
    answers = {seed: end.text(seed=seed, **WARM) for seed in (1, 2, 3, 4, 5, 6)}
    for seed in (1, 4):
        end.same(end.text(seed=seed, **WARM), answers[seed], f"seed {seed} again, the answer")
    end.hold(len(set(answers.values())) > 1, f"six seeds at temperature 1.5 all give {answers[1]!r}")


@probe("WIRE-031")
def without_a_seed_answers_differ(end: Endpoint) -> None:
    answers = [end.text(**WARM) for _ in range(6)]
    end.hold(len(set(answers)) > 1, f"six answers at temperature 1.5 without a seed are all {answers[0]!r}")


@probe("SAMP-001")
def temperature_has_an_effect(end: Endpoint) -> None:
    greedy = [end.text(prompt, max_tokens=16) for prompt in PROMPTS]
    warm = [end.text(prompt, seed=1, **{**WARM, "temperature": 2.0}) for prompt in PROMPTS]
    end.hold(warm != greedy, f"at temperature 2 all answers are those of temperature 0: {warm}")


@probe("SAMP-006", optional=True)
def top_p_near_0_keeps_the_likeliest_token(end: Endpoint) -> None:
    greedy = end.text(max_tokens=16)
    for seed in (1, 2, 3):
        end.same(end.text(seed=seed, top_p=1e-6, **WARM), greedy, "with top_p 0.000001 the answer, compared to greedy,")


@probe("WIRE-032", optional=True)
def n_gives_n_choices(end: Endpoint) -> None:
    for n in (1, 3):
        answer = end.ask(n=n, seed=5, **WARM)
        end.same(sorted(choice["index"] for choice in answer["choices"]), list(range(n)), f"the indices with n {n}")


@probe("WIRE-033", optional=True)
def n_choices_are_drawn_independently(end: Endpoint) -> None:
    for settings in ({"seed": 5}, {}):
        texts = end.texts(choices(end, **settings))
        end.hold(len(set(texts)) > 1, f"with n 4 and {settings or 'no seed'} at temperature 1.5 all are {texts[0]!r}")


@probe("WIRE-034", optional=True)
def n_choices_with_a_seed_come_again(end: Endpoint) -> None:
    first, again, other = (end.texts(choices(end, seed=seed)) for seed in (5, 5, 6))
    end.same(again, first, "n 4 with the same seed, the answers")
    end.hold(other != first, f"n 4 with another seed gives the same answers {other}")


def choices(end: Endpoint, **settings: Any) -> dict[str, Any]:
    """An answer of four choices."""
    answer = end.ask(n=4, **WARM, **settings)
    if len(answer["choices"]) != 4:
        raise Unsupported(f"n 4 gives {len(answer['choices'])} choices")
    return answer


@probe("SAMP-003", optional=True)
def a_logit_bias_of_100_forces_its_token(end: Endpoint) -> None:
    texts = {token: end.text(logit_bias={str(token): 100}, max_tokens=6) for token in BIASED}
    for token, text in texts.items():
        end.hold(
            is_a_repetition(text), f"with token {token} biased by 100 the answer is {text!r}, not one token again and again"
        )
    end.hold(
        len({end.text(logit_bias={str(token): 100}, max_tokens=6) for token in BIASED}) > 1, "other tokens give the same text"
    )


def is_a_repetition(text: str) -> bool:
    """Whether a text is one piece, again and again; a space before the first may be gone, and nothing is one too."""
    pieces = (text[-size:] for size in range(1, len(text) // 2 + 1))
    return len(text) < 2 or any((piece * len(text)).endswith(text) for piece in pieces)


def influence(end: Endpoint, **settings: Any) -> None:
    """Hold that settings change some greedy answer: repetitive ones, of 64 tokens."""
    plain = [end.text(prompt, max_tokens=64) for prompt in PROMPTS]
    if not any(repeats(text) for text in plain):
        raise Unsupported("no greedy answer repeats itself, so a penalty may change nothing")
    changed = [end.text(prompt, max_tokens=64, **settings) for prompt in PROMPTS]
    end.hold(changed != plain, f"{settings} is accepted and changes no answer")


def repeats(text: str) -> bool:
    """Whether a text has some word three times."""
    words = text.split() or [text]
    return max(map(words.count, words)) > 2 or len(words) == 1


@probe("PENA-004", optional=True)
def the_presence_penalty_has_an_effect(end: Endpoint) -> None:
    influence(end, presence_penalty=2.0)


@probe("PENA-005", optional=True)
def the_frequency_penalty_has_an_effect(end: Endpoint) -> None:
    influence(end, frequency_penalty=2.0)


@probe("WIRE-035")
def fields_that_are_left_out_have_openais_defaults(end: Endpoint) -> None:
    for seed in (1, 2, 3, 4):
        stated = end.text(temperature=1, top_p=1, seed=seed)
        end.same(
            end.text(temperature=None, seed=seed),
            stated,
            "without temperature and top_p, compared with those of 1, the answer",
        )


@probe("WIRE-036", COMPLETIONS, optional=True)
def a_suffix_has_an_effect_or_is_refused(end: Endpoint) -> None:
    plain = end.text(max_tokens=16)
    suffixed = [end.text(suffix=suffix, max_tokens=16) for suffix in (" The end.", "1234567890 and nothing else")]
    end.hold(any(text != plain for text in suffixed), "suffix is accepted and changes nothing")


@probe("WIRE-037")
def an_unknown_field_is_refused(end: Endpoint) -> None:
    reply = end.post(end.request(max_tokens=2, temprature=0.5))
    end.hold(reply.status != 200, "the unknown field 'temprature' is ignored in silence")


@probe("SAMP-013")
def off_values_change_nothing(end: Endpoint) -> None:
    plain = end.text()
    for name, value in (("top_p", 1), ("presence_penalty", 0), ("frequency_penalty", 0), ("n", 1), ("logit_bias", {})):
        reply = end.post(end.request(**{name: value}))
        if reply.status == 200:
            end.same(end.texts(end.object_of(reply)), [plain], f"with {name} {value}, which is off, the texts")

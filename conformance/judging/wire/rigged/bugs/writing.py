"""Bugs in the text: stop strings, limits, seeds, sampling, prompts."""

import json
import random
import threading
from collections.abc import Sequence
from typing import Any

from conformance.judging.wire.rigged.bugs.registry import bug, right
from conformance.judging.wire.rigged.server import RiggedServer
from conformance.judging.wire.rigged.writer import Json, Written

MEETING = threading.Condition()


@bug("STOP-001", "cut")
def the_stop_string_stays(self: RiggedServer, text: str, stops: Sequence[str]) -> str:
    place = len(right.cut(self, text, stops))
    return text[: place + max((len(stop) for stop in stops if text.startswith(stop, place)), default=0)]


@bug("STOP-001", "cut")
def stops_are_looked_for_in_single_tokens(self: RiggedServer, text: str, stops: Sequence[str]) -> str:
    whole = [stop for stop in stops if f" {stop.strip()}".encode() in map(self.model.piece, range(257, 300))]
    return right.cut(self, text, whole)


@bug("WIRE-012", "stops")
def only_the_first_stop_string_counts(self: RiggedServer, request: Json) -> list[str]:
    return right.stops(self, request)[:1]


@bug("WIRE-013", "write")
def the_prompt_is_searched_for_stop_strings_too(self: RiggedServer, written: Written, *rest: Any) -> Written:
    written = right.write(self, written, *rest)
    prompt = self.decode(written.prompt)
    if any(stop in prompt for stop in self.stops(rest[0])):
        written.text, written.reason = "", "stop"
    return written


@bug("STOP-004", "cut")
def what_was_held_back_is_lost(self: RiggedServer, text: str, stops: Sequence[str]) -> str:
    cut = right.cut(self, text, stops)
    held = max(
        (size for stop in stops for size in range(1, len(stop)) if cut == text and text.endswith(stop[:size])), default=0
    )
    return cut[: len(cut) - held]


@bug("WIRE-016", "settled")
def a_stopped_answer_is_generated_to_its_limit(self: RiggedServer, text: str, stops: Sequence[str]) -> bool:
    return False


@bug("LIMT-001", "write")
def max_tokens_changes_the_answer(self: RiggedServer, written: Written, request: Json, source: random.Random) -> Written:
    written.prompt = [*written.prompt, 257 + self.limit(request)]
    return right.write(self, written, request, source)


@bug("LIMT-006", "limit")
def one_token_too_many(self: RiggedServer, request: Json) -> int:
    return right.limit(self, request) + 1


@bug("WIRE-010", "limit")
def completions_have_100_tokens_by_default(self: RiggedServer, request: Json) -> int:
    return int(request.get("max_tokens", 100))


@bug("LIMT-003", "limit")
def max_tokens_0_is_no_limit(self: RiggedServer, request: Json) -> int:
    return right.limit(self, request) or 50


@bug("WIRE-033", "seed_of")
def all_choices_share_the_seed(self: RiggedServer, seed: int, index: int) -> int:
    return seed


@bug("WIRE-034", "seed_of")
def choices_ignore_the_seed(self: RiggedServer, seed: int, index: int) -> int:
    return seed if index == 0 else self.unseeded.getrandbits(32)


@bug("DRAW-004", "first_seed")
def the_seed_is_ignored(self: RiggedServer, request: Json) -> int:
    return self.unseeded.getrandbits(32)


@bug("DRAW-004", "first_seed")
def every_seed_is_the_same(self: RiggedServer, request: Json) -> int:
    return 7


@bug("WIRE-031", "first_seed")
def without_a_seed_it_is_0(self: RiggedServer, request: Json) -> int:
    return int(request.get("seed", 0))


@bug("SAMP-001", "temperature")
def temperature_is_ignored(self: RiggedServer, request: Json) -> float:
    return 0.0


@bug("SAMP-001", "temperature")
def temperature_is_squared(self: RiggedServer, request: Json) -> float:
    return right.temperature(self, request) ** 2


@bug("SAMP-001", "temperature")
def temperature_is_half_of_what_was_asked(self: RiggedServer, request: Json) -> float:
    return right.temperature(self, request) / 2


@bug("WIRE-030", "temperature")
def temperature_0_is_not_greedy(self: RiggedServer, request: Json) -> float:
    return right.temperature(self, request) or 0.7


@bug("SAMP-006", "top_p")
def top_p_is_ignored(self: RiggedServer, request: Json) -> float:
    return 1.0


@bug("SAMP-003", "adjusted")
def logit_bias_is_ignored(self: RiggedServer, written: Written, request: Json) -> list[float]:
    return right.adjusted(self, written, request | {"logit_bias": None})


@bug("PENA-004", "penalty")
def the_presence_penalty_is_ignored(self: RiggedServer, request: Json, count: int) -> float:
    return float(request.get("frequency_penalty", 0) * count)


@bug("PENA-005", "penalty")
def the_frequency_penalty_is_ignored(self: RiggedServer, request: Json, count: int) -> float:
    return float(request.get("presence_penalty", 0))


@bug("SAMP-013", "penalty")
def a_penalty_of_0_is_the_default(self: RiggedServer, request: Json, count: int) -> float:
    return right.penalty(self, request, count) or ("frequency_penalty" in request) * 5.0


@bug("WIRE-008", "content")
def parts_are_spelled(self: RiggedServer, content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content)


@bug("WIRE-009", "render")
def the_system_message_is_dropped(self: RiggedServer, messages: Sequence[Json]) -> str:
    return right.render(self, [message for message in messages if message["role"] != "system"])


@bug("WIRE-051", "prompts")
def the_newest_prompt_answers_all(self: RiggedServer, request: Json) -> list[list[int]]:
    with MEETING:
        latest: list[list[list[int]]] = self.__dict__.setdefault("latest", [])
        latest.append(right.prompts(self, request))
        mine = len(latest)
        MEETING.notify_all()
        MEETING.wait_for(lambda: len(latest) > mine, timeout=0.1)  # for somebody else's to come in
        return latest[-1]


@bug("LIMT-004", "check_room")
def long_prompts_are_cut(self: RiggedServer, prompts: Sequence[list[int]]) -> None:
    for prompt in prompts:
        del prompt[: -self.model.context + 1]

"""Things that servers get wrong, each as the rigged server with one method replaced, and the requirement that must catch it."""

import itertools
import json
import math
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from conformance.wire.rigged.fields import Bad
from conformance.wire.rigged.server import RiggedServer
from conformance.wire.rigged.writer import Json, Written

BUGS: dict[str, tuple[type[RiggedServer], str]] = {}  # by name: the server, and the requirement


def bug(requirement: str, method: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as a server's method; its name says what is wrong."""

    def register(wrong: Callable[..., Any]) -> Callable[..., Any]:
        BUGS[wrong.__name__] = type("Wrong", (RiggedServer,), {method: wrong}), requirement
        return wrong

    return register


MEETING = threading.Condition()
right = RiggedServer  # what a wrong method falls back on


@bug("STOP-001", "cut")
def the_stop_string_stays(self: RiggedServer, text: str, stops: Sequence[str]) -> str:
    place = len(right.cut(self, text, stops))
    return text[: place + max((len(stop) for stop in stops if text.startswith(stop, place)), default=0)]


@bug("STOP-001", "cut")
def stops_are_looked_for_in_single_tokens(self: RiggedServer, text: str, stops: Sequence[str]) -> str:
    whole = [stop for stop in stops if f" {stop.strip()}".encode() in map(self.model.piece, range(257, 300))]
    return right.cut(self, text, whole)


@bug("STOP-002", "pieces")
def what_began_a_stop_string_was_streamed_already(self: RiggedServer, written: Written) -> list[str]:
    return self.shortened([self.decode([id]) for id in written.ids], written.text + "?" * (written.reason == "stop"))


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


@bug("LIMT-006", "usage")
def usage_lacks_the_last_token(self: RiggedServer, choices: Sequence[Written], request: Json) -> Json:
    usage = right.usage(self, choices, request)
    return usage | {"completion_tokens": usage["completion_tokens"] - 1, "total_tokens": usage["total_tokens"] - 1}


@bug("WIRE-005", "usage")
def the_total_lacks_the_prompt(self: RiggedServer, choices: Sequence[Written], request: Json) -> Json:
    usage = right.usage(self, choices, request)
    return usage | {"total_tokens": usage["completion_tokens"]}


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


@bug("EOSX-004", "reason")
def the_reason_is_always_stop(self: RiggedServer, written: Written) -> str:
    return "stop"


@bug("EOSX-005", "decode")
def the_end_token_is_spelled(self: RiggedServer, ids: Sequence[int]) -> str:
    return right.decode(self, ids) + "</s>" * (list(ids)[-1:] == [self.model.end])


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


@bug("WIRE-032", "answer")
def there_is_only_one_choice(self: RiggedServer, request: Json) -> Json:
    return right.answer(self, request | {"n": 1})


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


@bug("LOGP-001", "log_probs")
def logits_are_shown_as_log_probabilities(self: RiggedServer, ids: Sequence[int], request: Json) -> list[float]:
    return self.model.scores(ids)


@bug("LOGP-003", "log_probs")
def log_probabilities_are_those_after_temperature(self: RiggedServer, ids: Sequence[int], request: Json) -> list[float]:
    temperature = self.temperature(request) or 1.0
    shifted = [p / temperature for p in right.log_probs(self, ids, request)]
    total = math.log(sum(map(math.exp, shifted)))
    return [p - total for p in shifted]


@bug("LOGP-002", "log_probs")
def log_probabilities_of_a_prompt_are_one_token_late(self: RiggedServer, ids: Sequence[int], request: Json) -> list[float]:
    return right.log_probs(self, ids[:-1] if request.get("echo") and len(ids) > 1 else ids, request)


@bug("SAMP-012", "tops")
def the_likeliest_token_is_left_out(self: RiggedServer, row: Sequence[float], id: int, count: int) -> list[tuple[int, float]]:
    return [(each, value + 0.5 * (each != id)) for each, value in right.tops(self, row, id, count)]


@bug("WIRE-024", "tops")
def the_chosen_token_is_not_shown(self: RiggedServer, row: Sequence[float], id: int, count: int) -> list[tuple[int, float]]:
    return [top for top in right.tops(self, row, id, count + 1) if top[0] != id]


@bug("WIRE-023", "tops")
def one_token_is_shown_however_many_were_asked_for(
    self: RiggedServer, row: Sequence[float], id: int, count: int
) -> list[tuple[int, float]]:
    return right.tops(self, row, id, 1)


@bug("WIRE-022", "offsets")
def offsets_count_tokens(self: RiggedServer, texts: Sequence[str]) -> list[int]:
    return list(range(len(texts)))


@bug("WIRE-022", "offsets")
def offsets_are_where_tokens_end(self: RiggedServer, texts: Sequence[str]) -> list[int]:
    return list(itertools.accumulate(len(text.strip()) for text in texts))


@bug("WIRE-026", "entry")
def bytes_lack_the_space(self: RiggedServer, id: int, log_prob: float | None) -> Json:
    return right.entry(self, id, log_prob) | {"bytes": list(self.model.piece(id).strip())}


@bug("WIRE-011", "echoed")
def echo_is_ignored(self: RiggedServer, written: Written, request: Json) -> str:
    return ""


@bug("WIRE-007", "answer")
def prompts_are_answered_in_another_order(self: RiggedServer, request: Json) -> Json:
    answer = right.answer(self, request)
    for choice in answer["choices"]:
        choice["index"] = len(answer["choices"]) - 1 - choice["index"]
    return answer


@bug("WIRE-008", "content")
def parts_are_spelled(self: RiggedServer, content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content)


@bug("WIRE-009", "render")
def the_system_message_is_dropped(self: RiggedServer, messages: Sequence[Json]) -> str:
    return right.render(self, [message for message in messages if message["role"] != "system"])


@bug("WIRE-004", "number")
def all_answers_have_one_id(self: RiggedServer) -> int:
    return 1


@bug("WIRE-042", "ending")
def done_is_missing(self: RiggedServer) -> list[bytes]:
    return []


@bug("WIRE-041", "frame")
def events_end_with_one_newline(self: RiggedServer, data: bytes) -> bytes:
    return b"data: " + data + b"\n"


@bug("WIRE-041", "ending")
def the_last_blank_line_is_missing(self: RiggedServer) -> list[bytes]:
    return [b"data: [DONE]"]


@bug("WIRE-050", "pieces")
def characters_are_split(self: RiggedServer, written: Written) -> list[str]:
    return [self.decode([id]) for id in written.ids]


@bug("STRM-001", "pieces")
def pieces_lose_their_spaces(self: RiggedServer, written: Written) -> list[str]:
    return [piece.strip() for piece in right.pieces(self, written)]


@bug("WIRE-044", "pieces")
def a_stream_is_one_piece(self: RiggedServer, written: Written) -> list[str]:
    return [written.text]


@bug("WIRE-043", "chunks")
def every_chunk_has_another_id(self: RiggedServer, request: Json) -> Iterator[Json]:
    return (chunk | {"id": str(self.number())} for chunk in right.chunks(self, request))


@bug("WIRE-045", "part")
def every_chunk_has_a_reason(self: RiggedServer, written: Written, *rest: Any) -> Json:
    return right.part(self, written, *rest) | {"finish_reason": written.reason}


@bug("WIRE-046", "delta")
def deltas_have_no_role(self: RiggedServer, written: Written, delta: Json, reason: str | None) -> Json:
    return right.delta(self, written, {name: value for name, value in delta.items() if name != "role"}, reason)


@bug("WIRE-047", "chunks")
def usage_is_not_streamed(self: RiggedServer, request: Json) -> Iterator[Json]:
    return right.chunks(self, request | {"stream_options": {}})


@bug("WIRE-048", "part")
def all_streamed_choices_have_index_0(self: RiggedServer, *rest: Any) -> Json:
    return right.part(self, *rest) | {"index": 0}


@bug("WIRE-049", "part")
def streams_have_no_log_probabilities(self: RiggedServer, *rest: Any) -> Json:
    return right.part(self, *rest) | {"logprobs": None}


@bug("WIRE-053", "hung_up")
def a_client_that_leaves_breaks_the_server(self: RiggedServer) -> None:
    self.model = None  # type: ignore[assignment]


@bug("WIRE-051", "prompts")
def the_newest_prompt_answers_all(self: RiggedServer, request: Json) -> list[list[int]]:
    with MEETING:
        latest: list[list[list[int]]] = self.__dict__.setdefault("latest", [])
        latest.append(right.prompts(self, request))
        mine = len(latest)
        MEETING.notify_all()
        MEETING.wait_for(lambda: len(latest) > mine, timeout=0.1)  # for somebody else's to come in
        return latest[-1]


@bug("WIRE-061", "read")
def bad_json_is_an_internal_error(self: RiggedServer, body: bytes, chat: bool) -> Json:
    try:
        return right.read(self, body, chat)
    except Bad as bad:
        raise Bad(500, bad.message) from bad


@bug("WIRE-061", "refusal")
def errors_are_plain_text(self: RiggedServer, bad: Bad) -> bytes:
    return bad.message.encode()


@bug("WIRE-063", "check")
def types_are_not_checked(self: RiggedServer, request: Any, chat: bool) -> None:
    return None


@bug("LIMT-004", "check_room")
def long_prompts_are_cut(self: RiggedServer, prompts: Sequence[list[int]]) -> None:
    for prompt in prompts:
        del prompt[: -self.model.context + 1]

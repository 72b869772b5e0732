"""Bugs in reporting: usage, reasons, log-probabilities, the fields of answers."""

import itertools
import math
from collections.abc import Sequence

from conformance.judging.wire.rigged.bugs.registry import bug, right
from conformance.judging.wire.rigged.server import RiggedServer
from conformance.judging.wire.rigged.writer import Json, Written


@bug("LIMT-006", "usage")
def usage_lacks_the_last_token(self: RiggedServer, choices: Sequence[Written], request: Json) -> Json:
    usage = right.usage(self, choices, request)
    return usage | {"completion_tokens": usage["completion_tokens"] - 1, "total_tokens": usage["total_tokens"] - 1}


@bug("WIRE-005", "usage")
def the_total_lacks_the_prompt(self: RiggedServer, choices: Sequence[Written], request: Json) -> Json:
    usage = right.usage(self, choices, request)
    return usage | {"total_tokens": usage["completion_tokens"]}


@bug("EOSX-004", "reason")
def the_reason_is_always_stop(self: RiggedServer, written: Written) -> str:
    return "stop"


@bug("EOSX-005", "decode")
def the_end_token_is_spelled(self: RiggedServer, ids: Sequence[int]) -> str:
    return right.decode(self, ids) + "</s>" * (list(ids)[-1:] == [self.model.end])


@bug("WIRE-032", "answer")
def there_is_only_one_choice(self: RiggedServer, request: Json) -> Json:
    return right.answer(self, request | {"n": 1})


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


@bug("WIRE-004", "number")
def all_answers_have_one_id(self: RiggedServer) -> int:
    return 1

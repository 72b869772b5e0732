"""From a request to its choices: prompts, the generation loop, stop strings, and how each token is chosen."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from conformance.judging.wire.rigged.fields import Bad
from conformance.judging.wire.rigged.model import log_softmax

Json = dict[str, Any]


class TextModel(Protocol):
    """What the server needs of a model."""

    end: int
    context: int

    def encode(self, text: str) -> list[int]: ...
    def piece(self, id: int) -> bytes: ...
    def scores(self, ids: Sequence[int]) -> list[float]: ...


@dataclass
class Written:
    """One choice as it was generated: the prompt, the ids, their text, and why it ended."""

    index: int
    prompt: list[int]
    ids: list[int] = field(default_factory=list)
    text: str = ""
    reason: str = "length"


class Writer:
    """Writes what requests ask for."""

    def __init__(self, model: TextModel) -> None:
        self.model = model
        self.unseeded = random.Random(0)

    def prompts(self, request: Json) -> list[list[int]]:
        """The ids of every prompt."""
        if "messages" in request:
            return [self.model.encode(self.render(request["messages"]))]
        prompt = request["prompt"]
        return [self.model.encode(text) for text in ([prompt] if isinstance(prompt, str) else prompt)]

    def render(self, messages: Sequence[Json]) -> str:
        """A conversation as text."""
        return "\n".join(f"<{message['role']}> {self.content(message['content'])}" for message in messages)

    def content(self, content: str | list[Json]) -> str:
        """A message's text, whole or in parts."""
        return content if isinstance(content, str) else "".join(part["text"] for part in content)

    def write_all(self, request: Json) -> list[Written]:
        """All choices of all prompts."""
        prompts, n = self.prompts(request), request.get("n", 1)
        self.check_room(prompts)
        seed = self.first_seed(request)
        return [
            self.write(Written(index, prompts[index // n]), request, random.Random(self.seed_of(seed, index)))
            for index in range(n * len(prompts))
        ]

    def check_room(self, prompts: Sequence[Sequence[int]]) -> None:
        """Refuse a prompt that is longer than the context."""
        longest = max(map(len, prompts))
        if longest >= self.model.context:
            raise Bad(400, f"the prompt has {longest} tokens; the context is {self.model.context}")

    def first_seed(self, request: Json) -> int:
        """The request's own seed, else a new one."""
        seed: int = request["seed"] if "seed" in request else self.unseeded.getrandbits(32)
        return seed

    def seed_of(self, seed: int, index: int) -> int:
        """The seed of one of several choices."""
        return seed * 1000 + index

    def write(self, written: Written, request: Json, source: random.Random) -> Written:
        """The generation loop."""
        stops = self.stops(request)
        for _ in range(self.limit(request)):
            written.ids.append(self.choose(self.adjusted(written, request), request, source))
            if written.ids[-1] == self.model.end:
                written.reason = "stop"
                break
            if self.settled(self.decode(written.ids), stops):
                break
        text = self.decode(written.ids)
        written.text = self.cut(text, stops)
        if written.text != text:
            written.reason = "stop"
        return written

    def limit(self, request: Json) -> int:
        """How many tokens may be sampled."""
        return int(request.get("max_tokens", 16))

    def stops(self, request: Json) -> list[str]:
        """The stop strings."""
        stop = request.get("stop") or []
        return [stop] if isinstance(stop, str) else list(stop)

    def cut(self, text: str, stops: Sequence[str]) -> str:
        """The text before the stop string that begins first."""
        return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]

    def settled(self, text: str, stops: Sequence[str]) -> bool:
        """Whether there is a stop string, and none that begins earlier can come any more."""
        place = len(self.cut(text, stops))
        pending = any(
            len(stop) > len(text) - begin and stop.startswith(text[begin:]) for begin in range(place) for stop in stops
        )
        return place < len(text) and not pending

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        return b"".join(self.model.piece(id) for id in ids).decode("utf-8", "replace")

    def adjusted(self, written: Written, request: Json) -> list[float]:
        """Logits after bias and penalties."""
        scores = list(self.model.scores([*written.prompt, *written.ids]))
        for id, bias in (request.get("logit_bias") or {}).items():
            scores[int(id)] += bias
        for id, count in Counter(self.penalised(written)).items():
            scores[id] -= self.penalty(request, count)
        return scores

    def penalised(self, written: Written) -> Sequence[int]:
        """The tokens that penalties count."""
        return written.ids

    def penalty(self, request: Json, count: int) -> float:
        """What a token that was sampled `count` times loses."""
        return float(request.get("presence_penalty", 0) + request.get("frequency_penalty", 0) * count)

    def choose(self, scores: Sequence[float], request: Json, source: random.Random) -> int:
        """The likeliest at temperature 0, else a draw among the top p."""
        temperature = self.temperature(request)
        if temperature == 0:
            return max(range(len(scores)), key=lambda id: scores[id])
        likely = sorted(
            ((math.exp(p), id) for id, p in enumerate(log_softmax([s / temperature for s in scores]))), reverse=True
        )
        kept, total = list[tuple[float, int]](), 0.0
        while not kept or (total < self.top_p(request) and len(kept) < len(likely)):
            kept.append(likely[len(kept)])
            total += kept[-1][0]
        return source.choices([id for _, id in kept], [p for p, _ in kept])[0]

    def temperature(self, request: Json) -> float:
        """OpenAI's default is 1."""
        return float(request.get("temperature", 1))

    def top_p(self, request: Json) -> float:
        """OpenAI's default is 1."""
        return float(request.get("top_p", 1))

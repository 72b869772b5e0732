"""The runtime observed as its users call it, to measure on the zoo how often causes are named correctly."""

from collections.abc import Iterator, Sequence

import torch

from conformance.diagnosis.causes.observed import Observation
from conformance.engines.engine import Prompt
from conformance.numerics import observe as watching
from conformance.numerics.observe import Observed, Way
from conformance.numerics.ways import DECODED, batch, chunks, ragged, whole
from conformance.truth.cases import Case
from conformance.truth.taps import eager_attention
from nanollama.model.transformer import Transformer

LONG = 70  # tokens: more than one bucket of the cache, and many windows


def runtime_runs(model: Transformer, case: Case) -> Iterator[Observation]:
    """Near and far, whole; a long prompt in pieces and a short one token by token, from the cache; a batch of unequal rows."""
    near, far = (watching.Prompt(*case.prompt(name)) for name in ("near", "far"))
    length = min(LONG, case.spec.max_length)
    long = watching.Prompt(case.long(length), torch.arange(length))
    with torch.inference_mode():
        with eager_attention(model):
            yield from seen(model, whole, [near, far], [(), ()])
        yield from seen(model, whole, [near], [()])
        yield from seen(model, chunks(5), [long], [pieces(length, 5)])
        yield from seen(model, chunks(1), [near], [pieces(len(near.ids), 1)])
        yield from seen(model, batch(left=True), [near, long], [(), ()])
        ones = (1,) * DECODED
        late = [(len(near.ids) - DECODED, *ones), *((len(p.ids) - DECODED - 1, 1, *ones) for p in (long, near))]
        yield from seen(model, ragged, [near, long, near], late)


def pieces(length: int, size: int) -> tuple[int, ...]:
    """How many tokens go in with each call."""
    return tuple(len(piece) for piece in torch.arange(length).split(size))


def seen(
    model: Transformer, way: Way, prompts: Sequence[watching.Prompt], calls: Sequence[tuple[int, ...]]
) -> Iterator[Observation]:
    """One observation a prompt of a way of calling; `calls`: how many tokens of each go in with each call."""
    found, _ = watching.observe(model, way, prompts)
    for start, prompt, sizes in zip(watching.offsets(prompts), prompts, calls, strict=True):
        engine_prompt = Prompt(tuple(prompt.ids.tolist()), tuple(prompt.positions.tolist()), sizes)
        rows = 1 if way is whole else len(prompts)
        yield Observation(engine_prompt, dict(taps_of_tokens(found, start, len(prompt.ids))), rows=rows)


def taps_of_tokens(found: Observed, start: int, count: int) -> Iterator[tuple[str, torch.Tensor]]:
    """The taps of the tokens from `start` on, as engines give them; only taps that every token passed."""
    for name, each in found.items():
        order = [(each.token == start + t).nonzero().flatten() for t in range(count)]
        if all(len(places) for places in order):
            values = each.values[torch.stack([places[-1] for places in order])]
            yield name, values[..., :count] if name.endswith(".weights") else values[..., 0]

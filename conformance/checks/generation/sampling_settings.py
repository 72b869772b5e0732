"""Random settings of all parameters at once: the remaining logits and the chosen token against plain arithmetic.

The other checks test one step each; these draw from the whole range of each parameter. Logits have no ties, and settings that
decide by less than 1e-9 are drawn again.
"""

import dataclasses
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch

from conformance.checks import check
from conformance.checks.assertions import at, expect, expect_close, expect_equal
from nanollama.generation import sampling
from nanollama.generation.sampling import SamplingParams

SIZE, INF = 23, math.inf
BAR, NEAR = 1e-12, 1e-9
SETTINGS = 60  # of each kind
RANGES: dict[str, Callable[[random.Random], float | int]] = {
    "temperature": lambda r: 10 ** r.uniform(-6, 3),
    "top_k": lambda r: r.randrange(1, SIZE + 9),
    "top_p": lambda r: r.random(),
    "min_p": lambda r: 10 ** r.uniform(-6, 0),
    "typical_p": lambda r: r.random(),
    "repetition_penalty": lambda r: 10 ** r.uniform(-2, 2),
    "presence_penalty": lambda r: r.uniform(-2, 2),
    "frequency_penalty": lambda r: r.uniform(-2, 2),
    "penalty_window": lambda r: r.randrange(0, 40),
}
ABOUT = {
    **{"SAMP-001": ["temperature"], "SAMP-004": ["top_k"], "SAMP-006": ["top_p"], "SAMP-008": ["min_p"]},
    **{"SAMP-009": ["typical_p"], "PENA-002": ["repetition_penalty"], "PENA-004": ["presence_penalty"]},
    **{"PENA-005": ["frequency_penalty"], "PENA-006": ["penalty_window"]},
}


class Undecided(Exception):
    """A border that rounding may cross."""


def softmax(logits: list[float]) -> list[float]:
    """Probabilities of logits; -inf gives 0."""
    top = max(logits)
    weights = [math.exp(x - top) for x in logits]
    return [weight / sum(weights) for weight in weights]


def clear(*pairs: tuple[float, float]) -> None:
    """Two numbers that decide something must differ by more than rounding."""
    if any(abs(a - b) < NEAR for a, b in pairs):
        raise Undecided


def penalised(logits: list[float], p: SamplingParams, prompt: list[int], answer: list[int]) -> list[float]:
    """Logits after bias and penalties."""
    out = [x + p.logit_bias.get(id, 0.0) for id, x in enumerate(logits)]
    window = None if p.penalty_window == -1 else p.penalty_window
    seen = [*prompt, *answer][::-1][:window]
    for id in set(seen):
        out[id] = out[id] / p.repetition_penalty if out[id] >= 0 else out[id] * p.repetition_penalty
    for id, count in Counter(answer[::-1][:window]).items():
        out[id] -= count * p.frequency_penalty + p.presence_penalty
    return out


def filtered(logits: list[float], p: SamplingParams) -> list[float]:
    """Temperature, then top-k, top-p, min-p and typical-p, each on the softmax of the logits that the one before keeps."""
    out = [x / p.temperature for x in logits]
    if p.top_k:
        kept = sorted(range(len(out)), key=lambda id: -out[id])[: p.top_k]
        out = [x if id in kept else -INF for id, x in enumerate(out)]
    for name, rule in (("top_p", nucleus), ("min_p", likely), ("typical_p", typical)):
        if getattr(p, name) != getattr(SamplingParams(), name):
            kept = rule(softmax(out), getattr(p, name))
            out = [x if id in kept else -INF for id, x in enumerate(out)]
    return out


def nucleus(probs: list[float], p: float) -> list[int]:
    """The likeliest tokens, up to the one with which their sum reaches p."""
    return until(sorted(range(len(probs)), key=lambda id: -probs[id]), probs, p)


def likely(probs: list[float], p: float) -> list[int]:
    """The tokens at least p times as likely as the likeliest."""
    clear(*((each / max(probs), p) for each in probs if each))
    return [id for id, each in enumerate(probs) if each >= p * max(probs)]


def typical(probs: list[float], p: float) -> list[int]:
    """The tokens whose surprise is nearest to the entropy, until their sum reaches p."""
    entropy = -sum(each * math.log(each) for each in probs if each)
    off = {id: abs(-math.log(each) - entropy) for id, each in enumerate(probs) if each}
    order = sorted(off, key=lambda id: off[id])
    clear(*((off[a], off[b]) for a, b in itertools.pairwise(order)))
    return until(order, probs, p)


def until(order: list[int], probs: list[float], p: float) -> list[int]:
    """The first tokens of an order, up to the one with which the sum reaches p."""
    total, kept = 0.0, list[int]()
    for id in order:
        if kept and total >= p:
            break
        kept.append(id)
        total += probs[id]
        clear((total, p))
    return kept


def drawn(seed: int, names: list[str]) -> Iterator[tuple[SamplingParams, list[float], list[int], list[int]]]:
    """Settings of these parameters, each with logits, a prompt and an answer so far."""
    r = random.Random(seed)
    for _ in range(SETTINGS):
        values: dict[str, Any] = {name: RANGES[name](r) for name in names}
        bias = {r.randrange(SIZE): r.uniform(-9, 9) for _ in range(r.randrange(3))}
        prompt, answer = ([r.randrange(SIZE) for _ in range(r.randrange(1, 20))] for _ in range(2))
        yield SamplingParams(**values, logit_bias=bias), [r.gauss(0, 3) for _ in range(SIZE)], prompt, answer


@check("SAMP-002", "SAMP-010", area="sampling", each=(*RANGES, "all"), also=ABOUT)
def any_setting_follows_its_definition(name: str) -> None:
    decided = 0
    for params, logits, prompt, answer in drawn(len(name), [*RANGES] if name == "all" else [name]):
        before = penalised(logits, params, prompt, answer)
        try:
            want = filtered(before, params)
        except Undecided:
            continue
        decided += 1
        tensor = torch.tensor([logits], dtype=torch.float64)
        with at("generation.sampling.process"):
            got = sampling.process(tensor, params, prompt, answer)[0]
            greedy = sampling.process(tensor, dataclasses.replace(params, temperature=0.0), prompt, answer)[0]
        expect_close(
            "generation.sampling.penalise",
            greedy,
            torch.tensor(before, dtype=torch.float64),
            BAR,
            f"penalised logits with {params}",
        )
        kept, wanted = ([id for id, x in enumerate(each) if x > -INF] for each in (got.tolist(), want))
        expect_equal("generation.sampling.process", kept, wanted, f"tokens left by {params}")
        expect_close("generation.sampling.process", got, torch.tensor(want, dtype=torch.float64), BAR, f"logits with {params}")
    expect("conformance", decided > SETTINGS // 2, f"only {decided} of {SETTINGS} settings were clear")


@check("DRAW-002", "SAMP-012", area="sampling")
def any_setting_draws_by_the_number_of_its_request() -> None:
    """The token at which the sum of probabilities reaches the request's uniform number, for any setting."""
    for number, (params, logits, prompt, answer) in enumerate(drawn(77, [*RANGES])):
        try:
            probs = softmax(filtered(penalised(logits, params, prompt, answer), params))
        except Undecided:
            continue
        u = 1.0 - float(torch.rand((), dtype=torch.float64, generator=torch.Generator().manual_seed(number)))
        sums = [sum(probs[: id + 1]) for id in range(SIZE)]
        want = next(id for id, total in enumerate(sums) if probs[id] > 0 and total >= u * sums[-1])
        if min(abs(total - u) for total in sums) < NEAR:
            continue
        tensor, generator = torch.tensor([logits], dtype=torch.float64), torch.Generator().manual_seed(number)
        with at("generation.sampling.pick"):
            got = sampling.pick(tensor, params, prompt, answer, generator).tolist()
        expect_equal("generation.sampling.pick", got, [want], f"the token that {u:.4f} draws with {params}")
        cold = dataclasses.replace(params, temperature=0.0)
        best = penalised(logits, params, prompt, answer)
        expect_equal(
            "generation.sampling.pick",
            sampling.pick(tensor, cold, prompt, answer, generator).tolist(),
            [best.index(max(best))],
            "greedy",
        )


@check("SAMP-014", area="sampling")
def no_row_reads_another() -> None:
    """Every step must give the same for many rows at once and for each alone."""
    rows = torch.tensor([[random.Random(seed).gauss(0, 3) for _ in range(SIZE)] for seed in range(60)], dtype=torch.float64)
    counts = torch.arange(SIZE, dtype=torch.float64) % 3
    steps: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "add_bias": lambda x: sampling.add_bias(x, {2: 1.5, 5: -3.0}),
        "repetition_penalty": lambda x: sampling.repetition_penalty(x, counts, 1.7),
        "presence_penalty": lambda x: sampling.presence_penalty(x, counts, 0.7),
        "frequency_penalty": lambda x: sampling.frequency_penalty(x, counts, 0.7),
        "temperature": lambda x: sampling.temperature(x, 0.3),
        "top_k": lambda x: sampling.top_k(x, 4),
        "top_p": lambda x: sampling.top_p(x, 0.6),
        "min_p": lambda x: sampling.min_p(x, 0.2),
        "typical_p": lambda x: sampling.typical_p(x, 0.6),
        "greedy": sampling.greedy,
        "draw": lambda x: sampling.draw(x, 0.4),
        "process": lambda x: sampling.process(x, SamplingParams(top_k=9, top_p=0.8, repetition_penalty=2.0), [1, 2], [3]),
    }
    for name, step in steps.items():
        with at(f"generation.sampling.{name}"):
            alone = torch.cat([step(row[None]) for row in rows])
            together = step(rows).double()
            expect_close(f"generation.sampling.{name}", together, alone.double(), BAR, f"rows of a batch through {name}")

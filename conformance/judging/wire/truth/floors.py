"""The tolerance of a correct server: measured, on the checkpoint and the tokens in question.

The runtime runs them in every honest order of computation (`conformance.numerics.variants`), called in every way that servers
do: whole, in chunks, token by token, padded, in a batch that decodes together. It rounds where servers do, from the finest
class to the coarsest that is usual for such a file:

* float32
* attention in float16 (llama.cpp's default cache) and the rest in float32
* everything in the 16 bits in which the file is stored (vLLM, transformers)
* quantized files: activations rounded to 8 bits, too (ggml multiplies such weights so)

A class's floor is the largest error of its ensemble. How much more another honest engine may need is measured twice, and the
larger is the factor by which the floor is multiplied:

* *leave-one-out*: each run on each answer is judged by the others on the other answers; the largest excess.
* *spread*: orders of sums that round the same values are judged by each other, one by one; the largest excess. Which kernels
  a processor runs decides how many variants are the same bits: one that is left out may have a twin that stays in, and a
  server has kernels that this processor has not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from conformance.judging.wire.truth.roundings import ATTENTION, EIGHT_BITS, Rounding, rounded
from conformance.judging.wire.truth.truth import Served, Truth
from conformance.numerics import ways
from conformance.numerics.check import BATCHED, EAGER, SINGLE
from conformance.numerics.observe import Prompt, Step, Way, token_count
from conformance.numerics.variants import AS_IS, Variant, applicable, fixed_positions, wide_activations
from nanollama.lm import load
from nanollama.model.transformer import Transformer
from nanollama.quant.modules import QuantLinear

ANGLES = ("float32 angles", "float32 frequencies")  # policies of most servers that differ in float32, too, far from the start
SHIFTS = (1, 7, 100, 1000)  # of all positions: the same function, with other keys to round


@dataclass(frozen=True)
class Floor:
    """A class of precision and what it allows: the ensemble's largest error in nats, and the factor for engines unseen."""

    name: str
    nats: float
    factor: float

    @property
    def bar(self) -> float:
        """The largest error that is allowed."""
        return self.nats * self.factor

    def __str__(self) -> str:
        return f"{self.name}: {self.nats:.2g} nats × {self.factor:.2g}"


@dataclass(frozen=True)
class Run:
    """One honest way to compute: what is rounded, how it is computed and called, and by how much positions are shifted."""

    rounding: Rounding
    variant: Variant
    shift: int = 0


def measure_floors(truth: Truth, answers: Sequence[Served]) -> list[Floor]:
    """The floors of all classes that are usual for this checkpoint, each at least as wide as the one before."""
    found: list[Floor] = []
    for name, dtype, roundings in classes(truth):
        model = load(truth.source, dtype=dtype, device="cpu").model
        runs = [*honest(model, roundings, answers)]
        errors = torch.tensor([errors_of(model, run, answers) for run in runs])
        alike = [run.rounding is roundings[0] and not run.variant.policy and not run.shift for run in runs]
        floor = Floor(name, float(errors.max()), max(leave_one_out(errors), spread(errors[torch.tensor(alike)])))
        found.append(floor if not found or floor.bar > found[-1].bar else replace(found[-1], name=name))
    return found


def classes(truth: Truth) -> Iterator[tuple[str, str, list[Rounding]]]:
    """Name, dtype and possible roundings of each class: a server may round at any of these places."""
    quantized = any(isinstance(module, QuantLinear) for module in truth.lm.model.modules())
    stored = str(load(truth.source, device="cpu").model.dtype).removeprefix("torch.")
    yield "float32", "float32", [Rounding()]
    yield "attention in float16", "float32", [Rounding(places) for places in ATTENTION]
    if stored in ("float16", "bfloat16"):
        yield stored, stored, [Rounding()]
    if quantized:
        places = (*ATTENTION, frozenset[str]())
        yield "activations in 8 bits", "float32", [Rounding(each, how) for how in EIGHT_BITS for each in places]


def honest(model: Transformer, roundings: Sequence[Rounding], answers: Sequence[Served]) -> Iterator[Run]:
    """Every variant and way to serve with the first rounding, every other rounding, and each of them at shifted positions."""
    for variant in (*applicable(model.config), *serving(answers)):
        if pooled(variant, model) and variant.reason(model.config) is None:
            yield Run(roundings[0], variant)
    for rounding in roundings:
        for shift in (0, *SHIFTS) if fixed_positions(model.config) is None else (0,):
            if shift or rounding is not roundings[0]:
                yield Run(rounding, AS_IS, shift)


def pooled(variant: Variant, model: Transformer) -> bool:
    """Whether a floor is made from a variant. Shifts are made for every rounding, and `serving` has what decodes. Policies of
    rounding to the model's dtype round nothing in float32, and float32 activations are that class, not one of 16 bits."""
    if variant.held_out or variant.patch is wide_activations or variant.reason is fixed_positions:
        return False
    if variant.policy and model.dtype is torch.float32:
        return variant.name in ANGLES
    return variant not in (SINGLE, BATCHED)


def serving(answers: Sequence[Served]) -> list[Variant]:
    """How servers decode these answers: one after the other, and in one batch by attention of either kind."""
    alone, together = decoded_alone(answers), decoded_together(answers)
    return [
        Variant("served alone", "A prompt at once, then token by token.", way=alone),
        Variant("served together", "All prompts at once, then a token of each answer.", way=together),
        replace(EAGER, name="served together, eager", way=together),
    ]


def decoded_alone(answers: Sequence[Served]) -> Way:
    """Each answer by itself: its prompt at once, then token by token from the cache."""

    def way(model: Transformer, prompts: Sequence[Prompt]) -> Iterator[Step]:
        for served, prompt, tokens in zip(answers, prompts, ways.tokens_of(prompts), strict=True):
            cache, sizes = model.new_cache(1, len(tokens)), [len(served.prompt), *[1] * len(served.ids[1:])]
            for ids, positions, numbers in zip(*(x.split(sizes) for x in (prompt.ids, prompt.positions, tokens)), strict=True):
                yield Step(ids[None], positions[None], numbers[None], cache)

    return way


def decoded_together(answers: Sequence[Served]) -> Way:
    """All answers in one batch: their prompts at once, then a token of each from the cache, until the longest is done."""

    def way(model: Transformer, prompts: Sequence[Prompt]) -> Iterator[Step]:
        begins, ends = [0] * len(prompts), [len(served.prompt) for served in answers]
        lengths = [len(prompt.ids) for prompt in prompts]
        cache = model.new_cache(len(prompts), max(lengths))
        while begins != lengths:
            yield replace(ways.spans(prompts, begins, ends, False, 0), cache=cache)
            begins, ends = ends, [min(end + 1, length) for end, length in zip(ends, lengths, strict=True)]

    return way


def errors_of(model: Transformer, run: Run, answers: Sequence[Served]) -> list[float]:
    """How far a run is from the truth, on every answer."""
    with torch.inference_mode(), run.variant.patch(model) as changed, rounded(changed, run.rounding):
        found = log_probs(changed, answers, run.variant.way, run.shift)
        return [served.error(rows) for served, rows in zip(answers, found, strict=True)]


def log_probs(model: Transformer, answers: Sequence[Served], way: Way = ways.whole, shift: int = 0) -> list[Tensor]:
    """Of every step of every answer: float64 [T, V]."""
    whole = [torch.tensor([*served.prompt, *served.ids[:-1]]) for served in answers]
    prompts = [Prompt(ids, torch.arange(len(ids)) + shift) for ids in whole]
    logits = torch.empty(token_count(prompts), model.config.vocab_size, dtype=model.dtype)
    for step in way(model, prompts):
        out = step.run(model)
        tokens = step.tokens_of(out)
        logits[tokens[tokens >= 0]] = out[tokens >= 0]
    rows = logits.split([len(ids) for ids in whole])
    return [each[len(served.prompt) - 1 :].double().log_softmax(-1) for each, served in zip(rows, answers, strict=True)]


def leave_one_out(errors: Tensor) -> float:
    """The largest excess of a variant on an answer over the others on the others; errors [V, A]; at least 1."""
    worst = 1.0
    for v, a in torch.cartesian_prod(*(torch.arange(size) for size in errors.shape)).tolist():
        others = torch.cat((errors[:v], errors[v + 1 :]))
        others = torch.cat((others[:, :a], others[:, a + 1 :]), 1)
        if others.numel() and float(others.max()) > 0:
            worst = max(worst, float(errors[v, a] / others.max()))
    return worst


def spread(errors: Tensor) -> float:
    """The largest excess of a variant over another one; errors [V, A]; at least 1."""
    worst = errors.amax(1)
    worst = worst[worst > 0]
    return float(worst.max() / worst.min()) if len(worst) else 1.0

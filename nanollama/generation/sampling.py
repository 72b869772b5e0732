"""From logits to one token id: pure functions logits → logits, their order, and the draw.

Every function returns new logits (dropped tokens are -inf) and edits none of its inputs; none depends on models, text or
batches. `process` fixes the order, `pick` draws. Shapes are at the end of each docstring: B rows, V tokens.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nanollama.errors import NanollamaError

MIN_TEMPERATURE = 1e-6  # below it a float32 logit of 1e33 divided by the temperature overflows to infinity

# field: lowest, highest, meaning of the ends. presence and frequency penalty have OpenAI's range.
RANGES: dict[str, tuple[float, float, str]] = {
    "temperature": (0.0, 1e6, f"0 is greedy, otherwise at least {MIN_TEMPERATURE:g}"),
    "top_p": (0.0, 1.0, "1 is off"),
    "min_p": (0.0, 1.0, "0 is off"),
    "typical_p": (0.0, 1.0, "1 is off"),
    "repetition_penalty": (0.01, 100.0, "1 is off"),
    "presence_penalty": (-2.0, 2.0, "0 is off"),
    "frequency_penalty": (-2.0, 2.0, "0 is off"),
}
WHOLE_RANGES: dict[str, tuple[int, float, str]] = {
    "top_k": (0, math.inf, "0 is off"),
    "penalty_window": (-1, math.inf, "-1 counts every token, 0 none"),
    "seed": (0, 2**32 - 1, "None draws a fresh one; torch's CPU generator ignores higher bits"),
}


@dataclass(frozen=True)
class SamplingParams:
    """The settings that turn logits into ids; the defaults sample from the model's distribution.

    `logit_bias` maps token ids to a number from -100 to 100 that is added to the logit (OpenAI), or to -inf, which bans
    the token, or to +inf, which bans every token that is not +inf. Raises NanollamaError for a value out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_window: int = -1
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, (low, high, note) in RANGES.items():
            check_number(name, getattr(self, name), low, high, note)
        for name, (lowest, highest, note) in WHOLE_RANGES.items():
            if name != "seed" or self.seed is not None:
                check_number(name, getattr(self, name), lowest, highest, note, whole=True)
        if 0 < self.temperature < MIN_TEMPERATURE:
            raise NanollamaError(f"temperature is {self.temperature!r}; {RANGES['temperature'][2]}")
        check_logit_bias(self.logit_bias)
        object.__setattr__(self, "logit_bias", dict(self.logit_bias))  # the caller's dict may change later


def check_number(name: str, value: object, low: float, high: float, note: str, *, whole: bool = False) -> None:
    """Raise NanollamaError unless value is a number (`whole`: an integer) from low to high; True is not a number."""
    kind = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        noun = "a whole number" if whole else "a number"
        span = f"from {low:g} to {high:.10g}" if high < math.inf else f"of at least {low:g}"
        raise NanollamaError(f"{name} is {value!r}; expected {noun} {span} ({note})")


def check_logit_bias(bias: object) -> None:
    """Raise NanollamaError unless bias maps token ids (int ≥ 0) to numbers from -100 to 100, -inf or +inf."""
    if not isinstance(bias, Mapping):
        raise NanollamaError(f"logit_bias is {bias!r}; expected a mapping of token id to bias, such as {{42: -100.0}}")
    for token, value in bias.items():
        check_number("a token id in logit_bias", token, 0, math.inf, "use the tokenizer's ids", whole=True)
        if isinstance(value, float) and math.isinf(value):
            continue
        check_number(f"logit_bias of token {token}", value, -100.0, 100.0, "or -inf to ban it, +inf to force it")


def add_bias(logits: Tensor, bias: Mapping[int, float]) -> Tensor:
    """Add bias[id] to the logit of each id; -inf bans the id, +inf bans all ids that are not +inf.

    Some servers do otherwise: +100 and -100 mean "always" and "never". Here they are added, nothing more.
    logits: [B, V] → [B, V]
    """
    if not bias:
        return logits
    row = torch.zeros(logits.shape[-1], dtype=logits.dtype)
    forced = [token for token, value in bias.items() if value == math.inf]
    if forced:
        row.fill_(-math.inf)
        row[forced] = 0.0
    else:
        row[list(bias)] = torch.tensor(list(bias.values()), dtype=logits.dtype)
    return logits + row.to(logits.device, non_blocking=True)


def token_counts(ids: Sequence[int], logits: Tensor) -> Tensor:
    """How often each token of the vocabulary occurs in ids, on the device and in the dtype of logits.
    logits: [B, V] → [V]
    """
    counts = torch.bincount(torch.tensor(ids, dtype=torch.int64), minlength=logits.shape[-1])
    return counts.to(logits.dtype).to(logits.device, non_blocking=True)


def repetition_penalty(logits: Tensor, counts: Tensor, penalty: float) -> Tensor:
    """Make every token seen (count > 0) less likely: positive logits are divided by penalty, negative multiplied.

    Once per token, however often it was seen. Source: Keskar et al. 2019, arXiv 1909.05858, with the sign rule of
    transformers (dividing a negative logit would make the token *more* likely).
    logits: [B, V], counts: [V] → [B, V]
    """
    penalised = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(counts > 0, penalised, logits)


def presence_penalty(logits: Tensor, counts: Tensor, penalty: float) -> Tensor:
    """Subtract penalty from the logit of every token that occurred, once. Source: OpenAI API reference.
    logits: [B, V], counts: [V] → [B, V]
    """
    return logits - penalty * (counts > 0).to(logits.dtype)


def frequency_penalty(logits: Tensor, counts: Tensor, penalty: float) -> Tensor:
    """Subtract penalty from a token's logit for each time it occurred. Source: OpenAI API reference.
    logits: [B, V], counts: [V] → [B, V]
    """
    return logits - penalty * counts.to(logits.dtype)


def last(ids: Sequence[int], window: int) -> Sequence[int]:
    """The last `window` ids; all of them for -1, none for 0 (ids[-0:] would be all)."""
    return ids if window == -1 else ids[max(0, len(ids) - window) :]


def penalise(logits: Tensor, params: SamplingParams, prompt: Sequence[int], generated: Sequence[int]) -> Tensor:
    """Apply the three penalties over the last `penalty_window` tokens of prompt + generated.

    The repetition penalty counts prompt and generated tokens (as transformers and vLLM), presence and frequency count
    generated tokens only (as OpenAI and vLLM). llama.cpp does otherwise: it counts both for all three.
    logits: [B, V] → [B, V]
    """
    if params.repetition_penalty != 1:
        seen = token_counts(last([*prompt, *generated], params.penalty_window), logits)
        logits = repetition_penalty(logits, seen, params.repetition_penalty)
    if params.presence_penalty or params.frequency_penalty:
        sampled = token_counts(last(generated, params.penalty_window), logits)
        logits = frequency_penalty(logits, sampled, params.frequency_penalty)
        logits = presence_penalty(logits, sampled, params.presence_penalty)
    return logits


def temperature(logits: Tensor, t: float) -> Tensor:
    """Divide the logits by t > 0: below 1 sharpens the distribution, above 1 flattens it.
    logits: [B, V] → [B, V]
    """
    return logits / t


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest logits; tokens tied with the k-th all stay, so the order of the vocabulary plays no part.

    k = 0 or k ≥ V keeps everything. llama.cpp does otherwise: it keeps exactly k, the first of the tied ones.
    logits: [B, V] → [B, V]
    """
    if k == 0 or k >= logits.shape[-1]:
        return logits
    kth = logits.topk(k).values[..., -1:]
    return logits.masked_fill(logits < kth, -math.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of most likely tokens whose probabilities add up to at least p, and at least one token.

    The token that crosses p stays; a sum of exactly p is enough. Of tied tokens the lower id ranks first. p ≥ 1 keeps
    everything. Source: Holtzman et al. 2020, arXiv 1904.09751. Others drop the crossing token (mass ≤ p).
    logits: [B, V] → [B, V]
    """
    if p >= 1:
        return logits
    ranked, order = logits.sort(dim=-1, descending=True, stable=True)
    mass = ranked.softmax(-1).cumsum(-1)
    cut = torch.zeros_like(logits, dtype=torch.bool)
    cut[..., 1:] = mass[..., :-1] >= p  # the mass before a token decides
    return logits.masked_fill(torch.zeros_like(cut).scatter(-1, order, cut), -math.inf)


def min_p(logits: Tensor, p: float) -> Tensor:
    """Keep tokens at least p times as probable as the most probable one. Source: Nguyen et al. 2024, arXiv 2407.01082.

    A probability of exactly p times the largest stays. p = 0 keeps everything, p = 1 the largest and its ties.
    logits: [B, V] → [B, V]
    """
    if p == 0:
        return logits
    probs = logits.softmax(-1)
    return logits.masked_fill(probs < p * probs.amax(-1, keepdim=True), -math.inf)


def typical_p(logits: Tensor, p: float) -> Tensor:
    """Keep the tokens whose surprise -log(prob) is nearest to the entropy, until their probabilities reach p.

    The token that crosses p stays, and so do its ties. The most probable token may go. p ≥ 1 keeps everything.
    Source: Meister et al. 2023, arXiv 2202.00666, eq. 10.
    logits: [B, V] → [B, V]
    """
    if p >= 1:
        return logits
    log_probs = logits.log_softmax(-1)
    probs = log_probs.exp()
    entropy = -(probs * log_probs).nansum(-1, keepdim=True)  # 0 · -inf is NaN; a banned token adds nothing
    distance = (-log_probs - entropy).abs()
    ranked, order = distance.sort(dim=-1, stable=True)
    before = (probs.gather(-1, order).cumsum(-1) < p).sum(-1, keepdim=True)
    return logits.masked_fill(distance > ranked.gather(-1, before.clamp(max=logits.shape[-1] - 1)), -math.inf)


def process(logits: Tensor, params: SamplingParams, prompt: Sequence[int], generated: Sequence[int]) -> Tensor:
    """Apply bias, penalties, temperature and filters, in at least float32. The order is fixed here:

    bias → repetition → frequency → presence → temperature → top-k → top-p → min-p → typical-p.
    That is transformers' `generate` where it defines an order (5.x, `_get_logits_processor`), and vLLM's for the
    penalties. llama.cpp does otherwise: it filters first and applies the temperature last. Greedy (temperature 0) ends
    after the penalties. Each filter's softmax renormalises, so the probabilities that it sees add up to 1.
    logits: [B, V] → [B, V]
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    logits = add_bias(logits, params.logit_bias)
    logits = penalise(logits, params, prompt, generated)
    if params.temperature == 0:
        return logits
    logits = temperature(logits, params.temperature)
    logits = top_k(logits, params.top_k)
    logits = top_p(logits, params.top_p)
    logits = min_p(logits, params.min_p)
    return typical_p(logits, params.typical_p)


def greedy(logits: Tensor) -> Tensor:
    """The id of the largest logit; of tied logits the lowest id (torch.argmax returns the first).
    logits: [B, V] → int64 [B]
    """
    return logits.argmax(-1)


def uniform(generator: torch.Generator) -> float:
    """The next number of a request's CPU generator, in [2^-53, 1]: the same for every device and every batch."""
    return 1.0 - float(torch.rand((), dtype=torch.float64, generator=generator))


def draw(logits: Tensor, u: float) -> Tensor:
    """Inverse CDF: the first token at which the probabilities, summed by id, reach u in [2^-53, 1].

    A token of probability 0 is never drawn, although a parallel scan may round: its sum is set to 0, and u is not.
    logits: [B, V] → int64 [B]
    """
    probs = logits.softmax(-1)
    cdf = probs.cumsum(-1).masked_fill(probs == 0, 0.0)
    target = u * cdf.amax(-1, keepdim=True)  # the sum may round to less than 1
    return (cdf >= target).to(torch.uint8).argmax(-1)


def pick(
    logits: Tensor, params: SamplingParams, prompt: Sequence[int], generated: Sequence[int], generator: torch.Generator
) -> Tensor:
    """Choose the next id of one request; the id stays on the device, so nothing waits here.

    -1 means "no choice": the largest logit is NaN, -inf or +inf. The caller finds it in the ids that it fetches anyway
    (`no_choice` then words the error); a check here would cost a second wait for the device per token. One request at a
    time: its filters see one row in every batch, so its choice can't depend on the batch.
    logits: [1, V] → int64 [1]
    """
    scores = process(logits, params, prompt, generated)
    chosen = greedy(scores) if params.temperature == 0 else draw(scores, uniform(generator))
    return torch.where(scores.amax(-1).isfinite(), chosen, -1)


def no_choice(logits: Tensor, params: SamplingParams) -> str:
    """The error message when no token can be chosen. It waits for the device, so call it for an error only.
    logits: [1, V]
    """
    nan, high, low = (int(test(logits).sum()) for test in (torch.isnan, torch.isposinf, torch.isneginf))
    absolute = sum(math.isinf(value) for value in params.logit_bias.values())
    return (
        f"no token can be chosen: {nan} NaN, {high} +inf and {low} -inf among {logits.shape[-1]} logits, and "
        f"logit_bias bans or forces {absolute} tokens; expected a largest logit that is finite. If the logits are at fault, "
        "check the weights or use a dtype with a wider range than float16; otherwise let logit_bias leave a token"
    )

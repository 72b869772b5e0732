"""Acceptance rules that projects publish for "is this engine right?", each re-implemented from its source.

A rule gets what its project gives it: the subject's and the reference's outputs in bfloat16, and for some the truth. It
returns True if it flags the subject. The comparison is of rules, not of projects: each was made for another purpose, and two
(MaxText's, for float32 runs; assert_close, for single operators) are used here outside of it, as people use them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

TOP = 5
NEW_TOKENS = 32


@dataclass(frozen=True)
class Outputs:
    """One engine's outputs for every prompt: logits float64 [T, V], hidden states after each layer [T, size], and 32 greedy
    tokens with the top five of each step."""

    logits: list[Tensor]
    layers: list[list[Tensor]]
    tokens: list[list[int]]
    tops: list[list[set[int]]]


@dataclass(frozen=True)
class Reference:
    """transformers in bfloat16, as the rules use it, and in float64, as the truth."""

    low: Outputs
    truth: list[Tensor]


Rule = Callable[[Outputs, Reference], bool]


def greedy_equality(subject: Outputs, reference: Reference) -> bool:
    """Greedy tokens must be equal: vLLM's `check_outputs_equal`,
    https://github.com/vllm-project/vllm/blob/main/tests/models/utils.py (here 32 tokens)."""
    return subject.tokens != reference.low.tokens


def top_five_at_first_mismatch(subject: Outputs, reference: Reference) -> bool:
    """vLLM's `check_logprobs_close`: at the first token that differs, each must be in the other's top 5 log-probabilities;
    nothing after it counts. https://github.com/vllm-project/vllm/blob/main/tests/models/utils.py (32 tokens, 5 logprobs)."""
    low = reference.low
    for ours, theirs, our_tops, their_tops in zip(subject.tokens, low.tokens, subject.tops, low.tops, strict=True):
        for a, b, top_a, top_b in zip(ours, theirs, our_tops, their_tops, strict=True):
            if a != b:
                if a not in top_b or b not in top_a:
                    return True
                break
    return False


def cosine_of_every_layer(subject: Outputs, reference: Reference) -> bool:
    """Modular's debug-model protocol: cosine similarity of at least 0.99 after every layer,
    https://github.com/modular/skills (skill debug-model)."""
    for ours, theirs in zip(subject.layers, reference.low.layers, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            if not torch.cosine_similarity(a.flatten(), b.flatten(), 0) >= 0.99:
                return True
    return False


def nmse_of_the_last_token(subject: Outputs, reference: Reference) -> bool:
    """llama.cpp's model conversion: mean square error over the reference's variance below 1e-2, of the last token's logits of
    one prompt. https://github.com/ggml-org/llama.cpp/blob/master/examples/model-conversion/scripts/utils/check-nmse.py"""
    ours, theirs = subject.logits[0][-1], reference.low.logits[0][-1]
    return not float((ours - theirs).square().mean() / theirs.var(correction=0)) < 1e-2


def twice_the_reference_error(subject: Outputs, reference: Reference) -> bool:
    """FlashAttention's tests: the largest error to the exact result at most twice that of a plain low-precision
    implementation. https://github.com/Dao-AILab/flash-attention/blob/main/tests/test_flash_attn.py (here on logits)."""
    ours = max(float((a - t).abs().max()) for a, t in zip(subject.logits, reference.truth, strict=True))
    plain = max(float((b - t).abs().max()) for b, t in zip(reference.low.logits, reference.truth, strict=True))
    return not ours <= 2 * plain


def kl_of_every_token(subject: Outputs, reference: Reference) -> bool:
    """MaxText's forward_pass_logit_checker with --max_kl_div=3e-4: KL(reference || subject) of any token,
    https://github.com/AI-Hypercomputer/maxtext/blob/main/tests/utils/forward_pass_logit_checker.py"""
    for a, b in zip(subject.logits, reference.low.logits, strict=True):
        ours, theirs = a.log_softmax(-1), b.log_softmax(-1)
        if not float((theirs.exp() * (theirs - ours)).sum(-1).max()) <= 3e-4:
            return True
    return False


def close_by_default(subject: Outputs, reference: Reference) -> bool:
    """torch.testing.assert_close with its defaults for bfloat16, rtol 1.6e-2 and atol 1e-5, on logits,
    https://docs.pytorch.org/docs/stable/testing.html"""
    pairs = zip(subject.logits, reference.low.logits, strict=True)
    return not all(torch.allclose(a, b, rtol=1.6e-2, atol=1e-5) for a, b in pairs)


def three_way(subject: Outputs, reference: Reference) -> bool:
    """AWS Neuron's logit validation: passes by any of three routes. Errors of the top 5, 50, 1000 and all logits within
    1.1, 2, 3 and 5 % of the largest; an error spread no larger than the reference's; or error histograms that overlap
    (Bhattacharyya coefficient at least 0.99).
    https://awsdocs-neuron.readthedocs-hosted.com/en/latest/vllm-neuron/docs/design/accuracy/logit_validation_design.html"""
    ours, theirs, truth = torch.cat(subject.logits), torch.cat(reference.low.logits), torch.cat(reference.truth)
    mine, plain = ours - truth, theirs - truth
    if not ours.isfinite().all():
        return True
    order = truth.argsort(-1, descending=True)
    two_way = True
    for count, share in ((5, 0.011), (50, 0.02), (1000, 0.03), (truth.shape[-1], 0.05)):
        top = order[:, :count]
        error, size = mine.gather(-1, top).abs().amax(-1), truth.gather(-1, top).abs().amax(-1)
        two_way = two_way and bool((error <= share * size).all())
    if two_way or mine.square().mean() <= plain.square().mean():
        return False
    low, high = float(min(mine.min(), plain.min())), float(max(mine.max(), plain.max()))
    shares = [torch.histc(e.flatten(), 100, low, high) / e.numel() for e in (mine, plain)]
    return not float((shares[0] * shares[1]).sqrt().sum()) >= 0.99


RULES: dict[str, Rule] = {
    "vLLM: top 5 at the first mismatch, 32 tokens": top_five_at_first_mismatch,
    "Modular: cosine ≥ 0.99 after every layer": cosine_of_every_layer,
    "llama.cpp: NMSE < 1e-2, last token": nmse_of_the_last_token,
    "Neuron: logit three-way": three_way,
    "FlashAttention: 2x the error of plain bfloat16": twice_the_reference_error,
    "MaxText: KL ≤ 3e-4 at every token": kl_of_every_token,
    "greedy text equality, 32 tokens": greedy_equality,
    "assert_close defaults on logits": close_by_default,
}

"""The two engines of the comparison of rules: the live runtime, with a bug seeded or not, and transformers."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from conformance.models.fixtures import fixture_config
from conformance.models.weights import derived_ids
from conformance.numerics.acceptance.published import NEW_TOKENS, TOP, Outputs, Reference
from conformance.numerics.recording import write_rounded
from conformance.numerics.variants import AS_IS, Variant
from conformance.truth.taps import blocks, hooks
from nanollama.model.transformer import Transformer

LENGTHS = (18, 21, 27)  # beyond every fixture's first 16 positions, after which some change their frequencies
DTYPE = "bfloat16"


def prompts(architecture: str) -> list[Tensor]:
    """A few prompts, int64 [T]."""
    vocabulary = int(fixture_config(architecture)["vocab_size"])
    return [torch.tensor(derived_ids(0, f"rules prompt {n}", n, vocabulary)) for n in LENGTHS]


def top_tokens(logits: Tensor) -> set[int]:
    """The five best tokens of one step; logits [V]."""
    return set(logits.topk(TOP).indices.tolist())


def subject_outputs(model: Transformer, texts: Sequence[Tensor], variant: Variant = AS_IS) -> Outputs:
    """The runtime: every prompt whole, then all of them in one padded batch, decoded from its cache."""
    logits: list[Tensor] = []
    layers: list[list[Tensor]] = []
    with torch.inference_mode(), variant.patch(model) as changed:
        for ids in texts:
            seen: list[Tensor] = []
            watch: list[Any] = [
                (layer, lambda _, out, seen=seen: seen.append(out[0].double().cpu()), False) for layer in blocks(changed)
            ]
            with hooks(watch):
                logits.append(changed(ids[None])[0].double().cpu())
            layers.append(seen)
        tokens, tops = greedy(changed, texts)
    return Outputs(logits, layers, tokens, tops)


def greedy(model: Transformer, texts: Sequence[Tensor]) -> tuple[list[list[int]], list[list[set[int]]]]:
    """32 tokens for every prompt, all in one batch."""
    longest, count = max(map(len, texts)), len(texts)
    ids, positions = torch.zeros(count, longest, dtype=torch.int64), torch.full((count, longest), -1)
    for row, text in enumerate(texts):
        ids[row, : len(text)], positions[row, : len(text)] = text, torch.arange(len(text))
    cache = model.new_cache(count, longest + NEW_TOKENS)
    logits = model(ids, cache=cache, positions=positions, last_only=True)[:, 0].double().cpu()
    tokens: list[list[int]] = [[] for _ in texts]
    tops: list[list[set[int]]] = [[] for _ in texts]
    for _ in range(NEW_TOKENS):
        best = logits.argmax(-1)
        for row in range(count):
            tokens[row].append(int(best[row]))
            tops[row].append(top_tokens(logits[row]))
        logits = model(best[:, None], cache=cache)[:, 0].double().cpu()
    return tokens, tops


@lru_cache
def reference(architecture: str) -> Reference:
    """transformers on the same stored weights: bfloat16 as the rules use it, float64 as the truth."""
    from conformance.truth.oracle import load_oracle, oracle_logits

    texts = prompts(architecture)
    with TemporaryDirectory() as folder:
        path = write_rounded(Path(folder), architecture, DTYPE)
        low, exact = load_oracle(path, torch.bfloat16), load_oracle(path)
    truth = [oracle_logits(exact, ids[None])[0].double() for ids in texts]
    logits, layers = zip(*(states_of(low, ids) for ids in texts), strict=True)
    tokens: list[list[int]] = []
    tops: list[list[set[int]]] = []
    for ids in texts:
        written, best = ids.tolist(), []
        for _ in range(NEW_TOKENS):
            last = oracle_logits(low, torch.tensor([written]))[0, -1].double()
            written.append(int(last.argmax()))
            best.append(top_tokens(last))
        tokens.append(written[len(ids) :])
        tops.append(best)
    return Reference(Outputs(list(logits), list(layers), tokens, tops), truth)


def states_of(model: Any, ids: Tensor) -> tuple[Tensor, list[Tensor]]:
    """transformers' logits [T, V] and the hidden states after every layer."""
    seen: list[Tensor] = []
    stack = model.base_model.h if model.config.model_type == "gpt2" else model.base_model.layers

    def see(_: Any, out: Any) -> None:
        seen.append((out[0] if isinstance(out, tuple) else out)[0].double())

    from conformance.truth.oracle import oracle_logits

    with hooks([(layer, see, False) for layer in stack]):
        logits = oracle_logits(model, ids[None])[0].double()
    return logits, seen

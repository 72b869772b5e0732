"""The subjects that engines run: checkpoints in the engine's dtype, prompts, and the float64 truth of every value inside.

The truth comes from `conformance.truth.reference`, which never calls the code of any engine. For a lower precision the
weights are rounded first, as real checkpoints are stored: an engine then holds exactly the weights of the truth, and only
its arithmetic counts.
"""

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from conformance.engines.engine import Prompt, Taps
from conformance.models.fixtures import FAR_POSITIONS, NEAR, SEED
from conformance.models.weights import derived_ids
from conformance.numerics.recording import SHORT
from conformance.truth.cases import Case, case, make_case, scratch
from conformance.truth.reference import Reference, Trace, cap
from conformance.truth.spec import Spec
from conformance.truth.stored import module_tensors
from conformance.truth.taps import NORMS
from nanollama.model.dtypes import DTYPES

SHIFT = 37  # how far the shifted prompt begins from 0
TAP = re.compile(
    r"(embeddings|norm|layers\.\d+(\.(mlp|mlp\.gate|self_attn|self_attn\.context|self_attn\.attend\.scores|\w+_layernorm))?)"
)


@dataclass(frozen=True)
class Truth:
    """One prompt through one model: every tap of the whole, the input of every module in the engine's dtype, and every
    tap of the modules on those inputs, each by itself."""

    taps: Taps
    inputs: Taps
    local: Taps


@dataclass(frozen=True)
class Subject:
    """A checkpoint folder stored in `dtype`, and its truth."""

    case: Case
    dtype: str

    @property
    def name(self) -> str:
        """The family or the variation."""
        return self.case.name

    @property
    def raw(self) -> Mapping[str, Any]:
        """The keys of config.json."""
        return self.case.raw

    @property
    def spec(self) -> Spec:
        """The config as a Spec."""
        return self.case.spec

    @property
    def reference(self) -> Reference:
        """The reference model."""
        return self.case.truth

    @property
    def length_dependent(self) -> bool:
        """Whether frequencies depend on how long the sequence is."""
        return any(rope is not None and rope.kind in ("dynamic", "longrope") for rope in self.spec.ropes)

    def prompt(self, name: str) -> Prompt:
        """ "near": 16 tokens, "far": 18 of them half beyond position 4096, "short": 7; these three are what noise floors were
        measured on. "shifted": the near ones from another start."""
        begin = SHIFT if name == "shifted" else 0
        positions = FAR_POSITIONS if name == "far" else [*range(begin, begin + (SHORT if name == "short" else NEAR))]
        ids = derived_ids(SEED, f"{'near' if name == 'shifted' else name} prompt", len(positions), self.spec.vocab)
        return Prompt(tuple(ids), tuple(positions))

    def truth(self, prompt: Prompt) -> Truth:
        """Computed anew each time: it takes milliseconds."""
        positions = torch.tensor(prompt.positions)
        trace = self.reference.run(torch.tensor(prompt.ids), positions)
        inputs = {name: value.to(DTYPES[self.dtype]).double() for name, value in inputs_of(trace, self.spec).items()}
        taps = taps_of(trace) | {"logits": trace["logits"].log_softmax(-1)}
        local = local_taps(self.reference, trace["embeddings"], inputs, positions)
        return Truth(with_masks(taps), inputs, with_masks(local))


@functools.cache
def subject(name: str, dtype: str) -> Subject:
    """A family's fixture or one of the variations of `conformance.truth.cases`."""
    return rounded(name, case(name).raw, dtype)


def changed(base: Subject, name: str, changes: Mapping[str, Any]) -> Subject:
    """The same family with another config.json."""
    return rounded(f"{base.name} {name}", {**base.raw, **changes}, base.dtype)


def rounded(name: str, raw: Mapping[str, Any], dtype: str) -> Subject:
    """A subject of any sound config.json."""
    whole = make_case(name, dict(raw))
    if dtype == "float64":
        return Subject(whole, dtype)
    raw, narrow = {**raw, "dtype": dtype}, DTYPES[dtype]
    stored = {key: value.to(narrow) for key, value in whole.stored.items()}
    folder = scratch() / dtype / whole.folder.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw))
    save_file({key: value.contiguous() for key, value in stored.items()}, folder / "model.safetensors", {"format": "pt"})
    scale = float(torch.tensor(whole.spec.embedding_scale, dtype=narrow))  # Gemma's definition rounds it
    spec = replace(whole.spec, embedding_scale=scale)
    truth = Reference(spec, module_tensors(spec, stored))
    return Subject(replace(whole, raw=raw, stored=stored, spec=spec, truth=truth, folder=folder), dtype)


def log_weights(scores: Tensor) -> Tensor:
    """Scores [H, T, S] → logarithms of attention weights [T, H, S]."""
    return scores.log_softmax(-1).transpose(0, 1)


def taps_of(trace: Trace) -> Taps:
    """The values that every correct engine shares, in the order of the data path."""
    taps: Taps = {}
    for name, value in trace.items():
        if TAP.fullmatch(name):
            scores, gate = name.endswith(".attend.scores"), name.endswith(".gate")
            tap = name.replace(".attend.scores", ".weights")
            taps[tap] = log_weights(value) if scores else value.log_softmax(-1) if gate else value
    return taps


def with_masks(taps: Taps) -> Taps:
    """The same with a mask before all attention weights: 1 for every key that a query does not see."""
    out: Taps = {}
    for name, value in taps.items():
        if name.endswith(".weights"):
            out[name.removesuffix("weights") + "mask"] = (value == -torch.inf).double()
        out[name] = value
    return out


def inputs_of(trace: Trace, spec: Spec) -> Taps:
    """The true input of every module whose input can be replaced."""
    inputs = {name.removesuffix(".in"): value for name, value in trace.items() if name.endswith(".in")}
    for i in range(spec.layers):
        inputs[f"layers.{i}.self_attn.o_proj"] = trace[f"layers.{i}.self_attn.context"]
    return inputs | {"lm_head": trace["norm"]}


def local_taps(reference: Reference, embeddings: Tensor, inputs: Taps, positions: Tensor) -> Taps:
    """The output of every module on its own input."""
    taps: Taps = {"embeddings": embeddings}
    for i in range(reference.spec.layers):
        taps |= local_layer(reference, i, inputs, positions)
    taps["norm"] = reference.norm("norm", inputs["norm"])
    logits = cap(reference.linear("lm_head", inputs["lm_head"]), reference.spec.logit_cap)
    return taps | {"logits": logits.log_softmax(-1)}


def local_layer(reference: Reference, i: int, inputs: Taps, positions: Tensor) -> Taps:
    """The modules of layer i; the layer itself adds what its modules gave to its own input."""
    at, trace = f"layers.{i}", Trace()
    reference.attention(i, inputs[f"{at}.self_attn"], positions, int(positions.max()) + 1, trace)
    reference.feed_forward(i, inputs[f"{at}.mlp"], trace)
    norms = {f"{at}.{norm}": inputs.get(f"{at}.{norm}") for norm in NORMS}
    taps = {name: reference.norm(name, x) for name, x in norms.items() if x is not None} | taps_of(trace)
    taps[f"{at}.self_attn"] = reference.linear(f"{at}.self_attn.o_proj", inputs[f"{at}.self_attn.o_proj"])
    added = ("self_attn", "mlp") if reference.spec.placement == "pre" else NORMS[1::2]
    taps[at] = inputs[at] + taps[f"{at}.{added[0]}"] + taps[f"{at}.{added[1]}"]
    return taps

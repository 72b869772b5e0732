"""The inputs of a run: prompts, and injected inputs of modules, each designed to amplify some fields."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from conformance.engines.engine import Prompt
from conformance.truth.cases import Case

WITHIN = 4  # tokens that no fixture's window or trained length is crossed by
TINY, LOUD = 1e-3, 4.0


@dataclass(frozen=True)
class Probe:
    """One run; `inputs` replace what goes into the modules of these names (L4)."""

    name: str
    prompt: Prompt
    inputs: Mapping[str, Tensor] = field(default_factory=dict)


def prompt_of(case: Case, name: str) -> Prompt:
    """ "near", "far", or "within": the beginning of the near one."""
    ids, positions = case.prompt("near" if name == "within" else name)
    count = WITHIN if name == "within" else len(ids)
    return Prompt(tuple(ids[:count].tolist()), tuple(positions[:count].tolist()))


def prompts(case: Case) -> list[Probe]:
    """For any engine: a near prompt longer than three windows, and one with positions beyond 4096."""
    return [Probe(name, prompt_of(case, name)) for name in ("near", "far")]


def designed(case: Case) -> list[Probe]:
    """The prompts, and inputs that amplify: rows of tiny norm for epsilon, loud ones for the caps and for what multiplies
    q·k or turns it."""
    near, far = prompts(case)
    return [near, far, tiny_rows(case, near.prompt), *(loud_rows(case, each) for each in (near, far))]


def inputs(case: Case, prompt: Prompt) -> Mapping[str, Tensor]:
    """The true input of every module."""
    trace = case.truth.run(torch.tensor(prompt.ids), torch.tensor(prompt.positions))
    return {name.removesuffix(".in"): value for name, value in trace.items() if name.endswith(".in")}


def tiny_rows(case: Case, prompt: Prompt) -> Probe:
    """Every norm gets rows so small that epsilon decides what comes out."""
    small = {name: TINY * value for name, value in inputs(case, prompt).items() if name.endswith("norm")}
    return Probe("tiny rows", prompt, small)


def loud_rows(case: Case, probe: Probe) -> Probe:
    """Attention and head get large rows: scores and logits reach their caps, and angles decide between keys."""
    names = {
        name: value for name, value in inputs(case, probe.prompt).items() if name.endswith("self_attn") or name == "lm_head"
    }
    return Probe(f"loud rows, {probe.name}", probe.prompt, {name: LOUD * value for name, value in names.items()})

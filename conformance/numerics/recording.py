"""The float64 truth for low-precision engines, recorded from the clean runtime once, before anything is judged.

The checkpoint's weights are rounded to the dtype first, as real checkpoints are stored, so that an engine holds exactly the
weights of the truth and only its arithmetic counts. A test compares the float64 runtime with transformers on such weights; at
the moment of recording it is compared with the golden here.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from conformance.models.fixtures import FAR_POSITIONS, NEAR, SEED, fixture_config, fixture_tensors, write_fixture
from conformance.models.weights import derived_ids
from conformance.numerics.observe import Inputs, Observed, Prompt, observe, recorded_inputs
from conformance.numerics.ways import whole
from conformance.truth.compare import SEMANTIC_BAR, compare_taps, worst
from conformance.truth.golden import load_golden
from conformance.truth.taps import eager_attention, runtime_taps
from nanollama.lm import load_model
from nanollama.model.config import ModelConfig
from nanollama.model.dtypes import DTYPES
from nanollama.model.transformer import Transformer

SHORT = 7  # tokens of a prompt shorter than the others, so that batches are ragged
Want = dict[str, Tensor]  # every tap of every token, float64 [tokens, columns, rest]


@dataclass(frozen=True)
class Recording:
    """One family's truth in one dtype: the rounded inputs of all modules, and the expected outputs."""

    architecture: str
    dtype: str
    seed: int
    prompts: tuple[Prompt, ...]
    inputs: Inputs
    local: Want  # every module on the recorded inputs
    accumulated: Want  # the whole model without injected inputs


def workload(architecture: str, seed: int = SEED) -> tuple[Prompt, ...]:
    """Three prompts: 16 tokens, 18 of them half beyond position 4096, and a short one."""
    vocabulary = int(fixture_config(architecture)["vocab_size"])

    def prompt(name: str, positions: Sequence[int]) -> Prompt:
        return Prompt(torch.tensor(derived_ids(seed, name, len(positions), vocabulary)), torch.tensor(positions))

    return prompt("near prompt", range(NEAR)), prompt("far prompt", FAR_POSITIONS), prompt("short prompt", range(SHORT))


def write_rounded(folder: Path, architecture: str, dtype: str, seed: int = SEED) -> Path:
    """A fixture whose checkpoint is stored in `dtype`."""
    config = fixture_config(architecture, dtype=dtype)
    write_fixture(folder, config, seed)
    tensors = {name: tensor.to(DTYPES[dtype]) for name, tensor in fixture_tensors(config, seed).items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@contextmanager
def fixture_model(
    architecture: str, dtype: str, seed: int = SEED, device: str = "cpu"
) -> Iterator[Callable[[str], Transformer]]:
    """A rounded fixture on disk while inside; call it with a dtype to load it."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_rounded(Path(folder), architecture, dtype, seed)
        yield lambda wanted: load_model(path, wanted, device)


@lru_cache
def model_config(architecture: str) -> ModelConfig:
    """The config of a fixture."""
    with fixture_model(architecture, "float32") as load:
        return load("float32").config


@lru_cache
def prove_clean(architecture: str) -> None:
    """RuntimeError unless the live runtime equals the golden; a truth recorded from a faulty runtime would hide the fault."""
    golden = load_golden(architecture)
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(golden.write_model(Path(folder)), "float64", "cpu")
    for name in ("near", "far"):
        ids, positions = golden.prompt(name)
        taps, want = runtime_taps(model, partial(model, ids, positions=positions)), golden.part(name)
        off = worst(compare_taps({tap: taps[tap] for tap in want}, want))
        if not off.error <= SEMANTIC_BAR:
            raise RuntimeError(f"the runtime is not clean: {architecture} {name}/{off.name} is off by {off.error:.1e}")


@lru_cache(maxsize=64)
def record(architecture: str, dtype: str, seed: int = SEED) -> Recording:
    """Run the float64 model, round every module's input, and run it again with those inputs."""
    prove_clean(architecture)
    prompts, narrow = workload(architecture, seed), DTYPES[dtype]
    with fixture_model(architecture, dtype, seed) as load, torch.inference_mode():
        exact = load("float64")
        scale = torch.tensor(exact.config.embedding_scale, dtype=narrow)  # Gemma's definition rounds it to the model's dtype
        exact.config = replace(exact.config, embedding_scale=float(scale))
        with eager_attention(exact):  # so that there are attention weights to record
            accumulated, inputs = observe(exact, whole, prompts)
            rounded = {name: x.to(narrow).double() for name, x in recorded_inputs(inputs, prompts).items()}
            local, _ = observe(exact, whole, prompts, rounded)
    return Recording(architecture, dtype, seed, prompts, rounded, in_order(local), in_order(accumulated))


def in_order(observed: Observed) -> Want:
    """Values by token number, from a run in which every token passed every tap once."""
    out = {}
    for name, seen in observed.items():
        if not torch.equal(seen.token.sort().values, torch.arange(len(seen.token))):
            raise RuntimeError(f"{name} was not seen once for every token")
        out[name] = seen.values[seen.token.argsort()]
    return out

"""Goldens: transformers' float64 values for each family's fixture, stored so that any machine can check itself.

`golden/<architecture>/recipe.json` holds the config and seed of the model (weights are derived, see `models/weights.py`), the
prompts, the provenance of the values, and the error of transformers itself in lower precisions. `taps.safetensors` holds the
values: "near/…" for the main prompt, "far/…" for positions beyond 4096.
"""

import hashlib
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from conformance import GOLDEN
from conformance.models.fixtures import FIXTURES, SEED, far_prompt, fixture_config, near_prompt, write_fixture
from conformance.truth.compare import SEMANTIC_BAR, compare_taps, rms_error, worst
from conformance.truth.taps import Taps

FAR_TAPS = ("logits", "embeddings", "layers.0.self_attn.weights")  # the other taps of the far prompt follow from these
NUMERIC_FACTOR = 2.0
"""FlashAttention's published rule: at most twice the error of a plain implementation of the same precision."""
LOW_PRECISIONS = ("float32", "bfloat16", "float16")
MEASURED = ("quant", "floor.json", "score.json", "rules.json", "diagnosis.json")  # written by other commands


@dataclass(frozen=True)
class Golden:
    """One family's fixture, its prompts and its true values."""

    architecture: str
    recipe: dict[str, Any]
    taps: Taps

    def prompt(self, name: str) -> tuple[Tensor, Tensor]:
        """Token ids and positions, int64 [1, T]."""
        prompt = self.recipe["prompts"][name]
        return torch.tensor([prompt["ids"]]), torch.tensor([prompt["positions"]])

    def part(self, name: str) -> Taps:
        """The taps of one prompt."""
        return {tap.removeprefix(f"{name}/"): value for tap, value in self.taps.items() if tap.startswith(f"{name}/")}

    def write_model(self, folder: Path) -> Path:
        """The fixture as a checkpoint folder."""
        return write_fixture(folder, self.recipe["config"], self.recipe["seed"])


def load_golden(architecture: str) -> Golden:
    """Read a golden; raises RuntimeError if its values don't have the hash of its recipe."""
    folder = GOLDEN / architecture
    recipe = json.loads((folder / "recipe.json").read_text())
    if sha256(folder / "taps.safetensors") != recipe["taps_sha256"]:
        raise RuntimeError(
            f"golden/{architecture}/taps.safetensors is not the file its recipe.json describes; run nox -s golden"
        )
    with safe_open(folder / "taps.safetensors", "pt") as file:
        return Golden(architecture, recipe, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def sha256(path: Path) -> str:
    """Hash of a file's bytes, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_golden(architecture: str) -> Golden:
    """Compute a family's golden with transformers."""
    from conformance.truth.oracle import load_oracle, oracle_logits
    from conformance.truth.taps import oracle_taps

    config = fixture_config(architecture)
    near, (far, positions) = near_prompt(config), far_prompt(config)
    with tempfile.TemporaryDirectory() as folder:
        path = write_fixture(Path(folder), config)
        model = load_oracle(path)
        taps = {f"near/{name}": tap for name, tap in oracle_taps(model, lambda: oracle_logits(model, near)).items()}
        distant = oracle_taps(model, lambda: oracle_logits(model, far, positions))
        taps |= {f"far/{name}": distant[name] for name in FAR_TAPS}
        error = {}
        for name in LOW_PRECISIONS:
            low = load_oracle(path, getattr(torch, name))
            error[name] = rms_error(oracle_logits(low, near).double().log_softmax(-1), taps["near/logits"])
    recipe = {
        "config": config,
        "seed": SEED,
        "prompts": {
            "near": {"ids": near[0].tolist(), "positions": list(range(near.shape[1]))},
            "far": {"ids": far[0].tolist(), "positions": positions[0].tolist()},
        },
        "transformers_rms_error_nats": error,
        "provenance": provenance(),
    }
    return Golden(architecture, recipe, taps)


def provenance() -> dict[str, str]:
    """The programs and versions that computed the values, and the command that does it again."""
    import transformers

    return {
        "by": "transformers in float64 (conformance/truth/oracle.py)",
        "command": "nox -s golden",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }


def write_golden(golden: Golden) -> None:
    """Store a golden under `golden/`."""
    folder = GOLDEN / golden.architecture
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in golden.taps.items()}, folder / "taps.safetensors")
    recipe = golden.recipe | {"taps_sha256": sha256(folder / "taps.safetensors")}
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n")


def drift(architecture: str) -> list[str]:
    """The differences between the stored golden and one computed now."""
    stored, fresh = load_golden(architecture), make_golden(architecture)
    found = [f"recipe.json: {key} differs" for key in ("config", "seed", "prompts") if stored.recipe[key] != fresh.recipe[key]]
    off = worst(compare_taps(fresh.taps, stored.taps))
    if off.error > SEMANTIC_BAR:
        found.append(f"{off.name} is off by {off.error:.1e} (bar {SEMANTIC_BAR:.0e})")
    for dtype, stated in stored.recipe["transformers_rms_error_nats"].items():
        now = fresh.recipe["transformers_rms_error_nats"][dtype]
        if not stated / 2 <= now <= stated * 2:
            found.append(f"transformers' own error in {dtype} was {stated:.1e} nats and is {now:.1e}")
    return found


def golden_command(check: bool) -> int:
    """Write all goldens, or compare them with freshly computed ones; the exit status."""
    wrong = 0
    for architecture in FIXTURES:
        if check:
            found = drift(architecture)
            wrong += bool(found)
            print(f"{architecture:22} {'; '.join(found) or 'as stored'}")
        else:
            write_golden(make_golden(architecture))
            print(f"{architecture:22} written")
    size = sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file())
    stale = [path.name for path in GOLDEN.iterdir() if path.name not in (*FIXTURES, *MEASURED)]
    print(f"{len(FIXTURES)} families, {size / 1e6:.2f} MB" + (f"; not of any family: {stale}" if stale else ""))
    return 1 if wrong or stale else 0

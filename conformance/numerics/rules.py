"""Published acceptance rules beside ours, on the same bugs and the same honest variants, in real bfloat16.

Every bug of the zoo's numeric areas is seeded into the live runtime and run on fixtures of one or two families that can show
it; every variant runs on the default families. A rule catches a bug if it flags it on any of its families, and raises a false
alarm if it flags a variant on any. A bug that changes no bit of any output here (it is in reading a config that no fixture has,
or a file format) is nobody's to catch: it is listed, not counted. Ours: the same function in float64 at every tap and in every
way of calling it, or local replay in bfloat16 against the measured noise floor. Results are kept per subject, so that an
interrupted run continues.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from conformance.fixtures import FIXTURES
from conformance.numerics.floor import FLOOR
from conformance.numerics.recording import model_config
from conformance.numerics.statistics import interval
from conformance.numerics.trial import NAMES, Trial, try_subject
from conformance.numerics.variants import VARIANTS, Variant, applicable
from conformance.zoo.seeding import Bug, load_zoo, seeded

AREAS = ("normalisation", "rope", "attention", "mlp", "embedding", "head", "residual", "moe", "kv_cache", "numerics")
FAMILIES = ("LlamaForCausalLM", "Gemma2ForCausalLM", "Qwen3MoeForCausalLM")
PER_BUG = 2  # families
ROOT = Path(__file__).parents[2]
COLUMNS = {"semantic": "bugs", "precision": "precision", "decoy": "decoys", "order": "variants", "policy": "policies"}
Results = dict[tuple[str, str], list[Trial]]  # by kind and name


def can_show(bug: Bug, architecture: str) -> bool:
    """Whether a family's fixture has what the bug is about; the expression is the zoo's own."""
    return bug.needs is None or bool(eval(bug.needs, {"c": model_config(architecture)}))


def families_for(bug: Bug, families: Sequence[str]) -> list[str]:
    """Where a bug is run: on the given families that can show it, else on the first of all that can."""
    able = [a for a in families if can_show(bug, a)]
    return able[:PER_BUG] or [a for a in FIXTURES if can_show(bug, a)][:1]


def spread(bugs: list[Bug], count: int) -> list[Bug]:
    """So many bugs, evenly over the list; 0: all."""
    return bugs if not 0 < count < len(bugs) else [bugs[i * len(bugs) // count] for i in range(count)]


def digest() -> str:
    """What a stored result depends on besides its subject."""
    files = [*sorted((ROOT / "nanollama").rglob("*.py")), *sorted(Path(__file__).parent.glob("*.py")), FLOOR]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files) + torch.__version__.encode()).hexdigest()


def kept(folder: Path, fresh: bool, version: str, what: str, run: Any) -> Trial:
    """A result from the cache, or a new one put there."""
    path = folder / f"{hashlib.sha256((version + what).encode()).hexdigest()[:32]}.json"
    if path.is_file() and not fresh:
        return Trial(**json.loads(path.read_text()))
    trial: Trial = run()
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(asdict(trial)))
    partial.replace(path)
    return trial


def subjects(bugs: Sequence[Bug], families: Sequence[str], device: str) -> Iterator[tuple[str, str, str, Any]]:
    """Every trial to run: what it depends on, kind, name and how to run it."""
    for bug in bugs:
        for architecture in families_for(bug, families):
            yield (
                f"{bug} {architecture} {device}",
                bug.kind,
                bug.name,
                lambda b=bug, a=architecture: try_subject(b.name, b.kind, a, seeded(b), device=device),
            )
    for architecture in families:
        for variant in applicable(model_config(architecture))[1:]:
            yield (
                f"variant {variant.name} {architecture} {device}",
                kind_of_variant(variant),
                variant.name,
                lambda v=variant, a=architecture: try_subject(v.name, kind_of_variant(v), a, nullcontext(), v, device),
            )


def kind_of_variant(variant: Variant) -> str:
    """Which of the two scores it counts for."""
    return "policy" if variant.policy else "order"


def compare(bugs: Sequence[Bug], families: Sequence[str], device: str, folder: Path, fresh: bool = False) -> Results:
    """Run what is not stored yet."""
    folder.mkdir(parents=True, exist_ok=True)
    results: Results = {}
    version = digest()
    for what, kind, name, run in subjects(bugs, families, device):
        results.setdefault((kind, name), []).append(kept(folder, fresh, version, what, run))
    return results


def counts(results: Results, rule: str, kind: str) -> tuple[int, int]:
    """How many subjects of a kind a rule flags, on any family, of how many."""
    of_kind = [trials for (k, _), trials in results.items() if k == kind and any(t.exercised for t in trials)]
    return sum(any(t.flagged[rule] for t in trials) for trials in of_kind), len(of_kind)


def table(results: Results) -> Iterator[str]:
    """One line a rule."""
    yield f"{'acceptance rule':48}" + "".join(f"{title:>12}" for title in COLUMNS.values())
    for rule in NAMES:
        pairs = [counts(results, rule, kind) for kind in COLUMNS]
        yield f"{rule:48}" + "".join(f"{f'{hits}/{total}':>12}" for hits, total in pairs)


def as_json(results: Results, left: Sequence[str], families: Sequence[str], seconds: float) -> dict[str, Any]:
    """The same, with intervals, and every trial."""
    rules = {
        rule: {
            title: {"flagged": hits, "of": total, "interval": interval(hits, total)}
            for kind, title in COLUMNS.items()
            for hits, total in [counts(results, rule, kind)]
        }
        for rule in NAMES
    }
    trials = [asdict(t) for several in results.values() for t in several]
    unshown = list(left)
    return {"families": list(families), "rules": rules, "no_fixture_shows": unshown, "seconds": seconds, "trials": trials}


def default_cache() -> Path:
    """Outside the repository: what is measured is nobody's source."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nanollama-rules"


def rules_command(
    families: list[str], device: str, count: int, cache: Path | None, output: Path | None, fresh: bool = False
) -> int:
    """Compare and print; the exit status is 1 where nothing was compared."""
    started, families = time.perf_counter(), families or list(FAMILIES)
    bugs = [bug for bug in load_zoo() if bug.area in AREAS]
    left = [bug.name for bug in bugs if not families_for(bug, families)]
    chosen = spread([bug for bug in bugs if bug.name not in left], count)
    results = compare(chosen, families, device, cache or default_cache(), fresh)
    for line in table(results):
        print(line)
    runs, seconds = sum(map(len, results.values())), time.perf_counter() - started
    print(f"\n{runs} runs on {', '.join(families)} and, for bugs that they cannot show, others; {seconds:.0f} s")
    if left:
        print(f"no fixture can show {len(left)}: {', '.join(left)}")
    silent = {name: kind for (kind, name), trials in results.items() if not any(t.exercised for t in trials)}
    for kind in ("semantic", "precision", "decoy"):
        names = [name for name, its in silent.items() if its == kind]
        print(f"{kind}, not counted, as these models give the same bits with it, {len(names)}: {', '.join(names) or 'none'}")
    missed = [name for (kind, name), t in results.items() if kind == "semantic" and name not in silent and not flags_any(t)]
    alarms = [name for (kind, name), t in results.items() if kind not in ("semantic", "precision") and flags_any(t)]
    print(f"missed by ours: {', '.join(missed) or 'none'}\nflagged wrongly by ours: {', '.join(alarms) or 'none'}")
    if output is not None:
        output.write_text(json.dumps(as_json(results, left, families, seconds), indent=1) + "\n")
    return 0 if runs and VARIANTS else 1


def flags_any(trials: Sequence[Trial]) -> bool:
    """Whether ours flags any of these."""
    return any(t.flagged[NAMES[-1]] for t in trials)

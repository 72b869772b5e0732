"""Published acceptance rules and the suite's, on the same bugs and the same honest variants, in real bfloat16.

Every bug of the zoo's numeric areas is seeded into the live runtime and run on fixtures of one or two families that can show
it; every variant runs on the default families. A rule catches a bug if it flags it on any of its families, and raises a false
alarm if it flags a variant on any. A bug that changes no bit of any output here (in a config key that no fixture has, or in a
file format) is listed, not counted. The suite's rules ("ours"): the same function in float64 at every tap for every way of
calling it, or local replay in bfloat16 against the measured noise floor. Results are cached per subject, so that an interrupted
run continues.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from conformance.models.fixtures import FIXTURES
from conformance.numerics.acceptance.rules_published import publish
from conformance.numerics.acceptance.trial import NAMES, Trial, try_subject
from conformance.numerics.floor import FLOOR
from conformance.numerics.recording import model_config
from conformance.numerics.statistics import interval
from conformance.numerics.variants import VARIANTS, Variant, applicable
from conformance.score.zoo.seeding import Bug, load_zoo, seeded
from nanollama.errors import NanollamaError

AREAS = ("normalisation", "rope", "attention", "mlp", "embedding", "head", "residual", "moe", "kv_cache", "numerics")
FAMILIES = ("LlamaForCausalLM", "Gemma2ForCausalLM", "Qwen3MoeForCausalLM")
PER_BUG = 2  # families
UNUSED = (
    "nanollama.cli.run",
    "nanollama.cli.options",
    "nanollama.cli.suite",
)  # modules that no model runs
COLUMNS = {"semantic": "bugs", "precision": "precision", "decoy": "decoys", "order": "variants", "policy": "policies"}
Results = dict[tuple[str, str], list[Trial]]  # by kind and name


def can_show(bug: Bug, architecture: str) -> bool:
    """Whether a family's fixture can show the bug, by the `needs` of its zoo entry."""
    return bug.needs is None or bool(eval(bug.needs, {"c": model_config(architecture)}))


def families_for(bug: Bug, families: Sequence[str]) -> list[str]:
    """The families to run a bug on: of the given ones those that can show it, else the first of all that can."""
    able = [a for a in families if can_show(bug, a)]
    return able[:PER_BUG] or [a for a in FIXTURES if can_show(bug, a)][:1]


def spread(bugs: list[Bug], count: int) -> list[Bug]:
    """`count` bugs, evenly over the list; 0: all."""
    return bugs if not 0 < count < len(bugs) else [bugs[i * len(bugs) // count] for i in range(count)]


def digest() -> str:
    """A hash of everything that a cached result depends on besides its subject: the runtime and the judging code."""
    loaded = {str(m.__file__) for name, m in sys.modules.items() if name.split(".")[0] == "nanollama" and name not in UNUSED}
    judging = {str(path) for path in Path(__file__).parents[1].rglob("*.py") if not path.name.startswith(("rules", "__main__"))}
    files = [*map(Path, sorted(loaded | judging)), FLOOR]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files) + torch.__version__.encode()).hexdigest()


def kept(folder: Path, fresh: bool, version: str, what: str, run: Any) -> Trial:
    """A cached result, or a new one, which is then cached."""
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


def compare_rules(bugs: Sequence[Bug], families: Sequence[str], device: str, folder: Path, fresh: bool = False) -> Results:
    """Run every trial that is not cached."""
    folder.mkdir(parents=True, exist_ok=True)
    results: Results = {}
    version = digest()
    for what, kind, name, run in subjects(bugs, families, device):
        results.setdefault((kind, name), []).append(kept(folder, fresh, version, what, run))
    return results


def counts(results: Results, rule: str, kind: str) -> tuple[int, int]:
    """How many subjects of a kind a rule flags on any family, and how many there are."""
    of_kind = [trials for (k, _), trials in results.items() if k == kind and any(t.exercised for t in trials)]
    return sum(any(t.flagged[rule] for t in trials) for trials in of_kind), len(of_kind)


def rules_table(results: Results) -> Iterator[str]:
    """One line per rule."""
    yield f"{'acceptance rule':48}" + "".join(f"{title:>12}" for title in COLUMNS.values())
    for rule in NAMES:
        pairs = [counts(results, rule, kind) for kind in COLUMNS]
        yield f"{rule:48}" + "".join(f"{f'{hits}/{total}':>12}" for hits, total in pairs)


def as_json(results: Results, left: Sequence[str], families: Sequence[str], seconds: float) -> dict[str, Any]:
    """The same, with intervals, what could not be counted, and every trial."""
    rules = {
        rule: {
            title: {"flagged": hits, "of": total, "interval": [round(each, 4) for each in interval(hits, total)]}
            for kind, title in COLUMNS.items()
            for hits, total in [counts(results, rule, kind)]
        }
        for rule in NAMES
    }
    facts = {
        "no_fixture_shows": [*left],
        "same_bits": {kind: unchanged(results, kind) for kind in ("semantic", "precision", "decoy")},
    }
    trials = [asdict(t) for several in results.values() for t in several]
    return {"families": list(families), "rules": rules, **facts, "seconds": seconds, "trials": trials}


def unchanged(results: Results, kind: str) -> list[str]:
    """Bugs that change no bit of any output here."""
    return [name for (k, name), trials in results.items() if k == kind and not any(t.exercised for t in trials)]


def default_cache() -> Path:
    """The cache folder, outside the repository."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nanollama-rules"


def rules_command(
    families: list[str],
    device: str,
    count: int,
    cache: Path | None,
    output: Path | None,
    fresh: bool = False,
    write: bool = False,
) -> int:
    """Compare and print; the exit status is 1 if nothing was compared."""
    if write and count:
        raise NanollamaError(f"--write publishes all bugs, not {count} of them: leave out --bugs")
    started, families = time.perf_counter(), families or list(FAMILIES)
    bugs = [bug for bug in load_zoo() if bug.area in AREAS]
    left = [bug.name for bug in bugs if not families_for(bug, families)]
    chosen = spread([bug for bug in bugs if bug.name not in left], count)
    results = compare_rules(chosen, families, device, cache or default_cache(), fresh)
    found = as_json(results, left, families, time.perf_counter() - started)
    for line in [*rules_table(results), "", *remarks(results, found)]:
        print(line)
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n")
    if write:
        publish(found)
    return 0 if results and VARIANTS else 1


def remarks(results: Results, found: Mapping[str, Any]) -> Iterator[str]:
    """The runs, the bugs that could not be counted, and the errors of the suite's rules."""
    runs = sum(map(len, results.values()))
    yield f"{runs} runs on {', '.join(found['families'])} and, for bugs that they cannot show, others; {found['seconds']:.0f} s"
    if left := found["no_fixture_shows"]:
        yield f"no fixture can show {len(left)}: {', '.join(left)}"
    for kind, names in found["same_bits"].items():
        yield f"{kind}, not counted, as these models give the same bits with it, {len(names)}: {', '.join(names) or 'none'}"
    silent = found["same_bits"]["semantic"]
    missed = [name for (kind, name), t in results.items() if kind == "semantic" and name not in silent and not flags_any(t)]
    alarms = [name for (kind, name), t in results.items() if kind not in ("semantic", "precision") and flags_any(t)]
    yield f"missed by ours: {', '.join(missed) or 'none'}"
    yield f"flagged wrongly by ours: {', '.join(alarms) or 'none'}"


def flags_any(trials: Sequence[Trial]) -> bool:
    """Whether the suite's rules flag any of these."""
    return any(t.flagged[NAMES[-1]] for t in trials)

"""How often the named cause is the right one: every bug of the zoo's numeric areas, seeded into the runtime.

The zoo has the area of each bug, `classes.toml` the class in an area with several. Hypotheses were written from the
requirements and one half of the zoo (names with an even hash); the other half is held out and reported separately. A bug that
changes no tap of any case, or stops the engine with an error, can't be named; these are listed.
"""

import json
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

from conformance.diagnosis.causes.hypotheses.runtime import runtime_runs
from conformance.diagnosis.causes.likely_causes import name_causes
from conformance.numerics.statistics import interval
from conformance.score.zoo.seeding import Bug, load_zoo, seeded
from conformance.truth.cases import CASES, case

AREAS = {  # the class of a bug that classes.toml does not list
    "attention": "mask",
    "rope": "frequencies",
    "normalisation": "norm",
    "mlp": "activation",
    "moe": "routing",
    "residual": "residual",
    "embedding": "embedding",
    "head": "head",
    "kv_cache": "cache",
}
CLASSES = Path(__file__).with_name("classes.toml")


@dataclass(frozen=True)
class Trial:
    """One bug: its class, the first three classes named, the first sentence. Without a case, `unshown` is the reason."""

    bug: str
    label: str
    held_out: bool
    case: str = ""
    named: tuple[str, ...] = ()
    sentence: str = ""
    certain: bool = False
    unshown: str = ""

    def within(self, count: int) -> bool:
        """Whether the right class is among the first so many."""
        return self.label in self.named[:count]


def subjects() -> list[tuple[Bug, str]]:
    """Every semantic bug of the numeric areas with its class."""
    special = tomllib.loads(CLASSES.read_text(encoding="utf-8"))
    classes = {name: label for label, names in special.items() for name in names}
    zoo = [bug for bug in load_zoo() if bug.area in AREAS and bug.kind == "semantic"]
    return [(bug, classes.get(bug.name, AREAS[bug.area])) for bug in zoo]


def held_out(name: str) -> bool:
    """Whether no hypothesis was written for it."""
    return sha256(name.encode()).digest()[0] % 2 == 1


def try_bug(bug: Bug, label: str) -> Trial:
    """Name the cause of one bug on the first case that shows it."""
    stopped = ""
    for name in CASES:
        this = case(name)
        if bug.needs and not eval(bug.needs, {"c": this.load().config}):
            continue
        with seeded(bug):
            try:
                runs = list(runtime_runs(this.load(), this))
            except Exception as error:
                stopped = f"stops with {type(error).__name__}"
                continue
        found = name_causes(name, runs, pairs=False)
        if found:
            labels = tuple(dict.fromkeys(each.label for each in found))
            return Trial(bug.name, label, held_out(bug.name), name, labels[:3], found[0].sentence, found[0].certain)
    return Trial(bug.name, label, held_out(bug.name), unshown=stopped or "changes no tap")


def measure(resume: Path | None = None, count: int = 0) -> list[Trial]:
    """All trials, kept in a file line by line so that an interrupted measurement goes on."""
    kept: dict[str, Trial] = {}
    if resume and resume.is_file():
        for line in resume.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            kept[entry["bug"]] = Trial(**entry | {"named": tuple(entry["named"])})
    trials = []
    for bug, label in subjects()[: count or None]:
        trial = replace(kept[bug.name], label=label) if bug.name in kept else try_bug(bug, label)
        trials.append(trial)
        if resume and bug.name not in kept:
            with resume.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(trial)) + "\n")
    return trials


def rates(trials: Sequence[Trial], what: str) -> Iterator[str]:
    """Top 1 and top 3 with their intervals."""
    for count in (1, 3):
        hits, total = sum(t.within(count) for t in trials), len(trials)
        low, high = interval(hits, total)
        share = hits / total if total else 0.0
        counted = f"{hits} of {total} ({share:.1%}, 95 % interval {low:.1%} to {high:.1%})"
        yield f"{what}, right class among the first {count}: {counted}"


def report(trials: Sequence[Trial]) -> Iterator[str]:
    """The matrix, rates, wrong names, and bugs that could not be named."""
    shown = [trial for trial in trials if trial.case]
    yield from matrix(shown)
    yield ""
    yield from rates(shown, "all")
    yield from rates([t for t in shown if not t.held_out], "half used to write hypotheses")
    yield from rates([t for t in shown if t.held_out], "half held out")
    yield from rates([t for t in shown if t.certain], "reproduced")
    yield from rates([t for t in shown if not t.certain], "by features")
    for trial in shown:
        if not trial.within(1):
            yield f"  {trial.bug} ({trial.label}) on {trial.case}: {', '.join(trial.named)}: {trial.sentence}"
    for why, names in grouped([trial for trial in trials if not trial.case]):
        yield f"{why}, {len(names)}: {', '.join(names)}"


def grouped(trials: Sequence[Trial]) -> list[tuple[str, list[str]]]:
    """Trials that could not be named, by why."""
    reasons = dict.fromkeys(trial.unshown for trial in trials)
    return [(why, [trial.bug for trial in trials if trial.unshown == why]) for why in reasons]


def matrix(trials: Sequence[Trial]) -> Iterator[str]:
    """Rows: the class of the bug. Columns: the class named first."""
    pairs = Counter((trial.label, trial.named[0]) for trial in trials)
    labels = [label for label in dict.fromkeys(AREAS.values()) if any(label in pair for pair in pairs)]
    labels += sorted({label for pair in pairs for label in pair} - set(labels))
    width = max(map(len, labels), default=0) + 1
    yield " " * width + "".join(f"{label[:6]:>7}" for label in labels)
    for mine in labels:
        yield f"{mine:{width}}" + "".join(f"{pairs[mine, other] or '·':>7}" for other in labels)

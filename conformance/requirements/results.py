"""The results of a run as plain data: written as JSON, drawn by `conformance.report`, compared between two runs.

One `Result` per requirement and case. Nothing is skipped silently: if the engine lacks the means, the verdict is UNSUPPORTED
with the reason; if the run could not decide, INCONCLUSIVE. A run in which nothing was compared has failed.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

NUMBERS = ("error", "bar", "floor", "smallest", "golden", "transformers")  # fields that may be infinite or undefined
FORMAT = 1  # of the JSON; raised when a reader of the old one would misread the new one


class Verdict(StrEnum):
    """The verdict on one requirement in one case; in order of severity, so that the worst of several is their maximum."""

    UNSUPPORTED = "UNSUPPORTED"  # the engine does not offer the level that the requirement needs
    PASS = "PASS"
    NOTE = "NOTE"  # a difference that engines are free to have: recorded, never judged
    EXCUSED = "EXCUSED"  # other tokens, all at ties within the noise floor; they are counted
    INCONCLUSIVE = "INCONCLUSIVE"  # something is wrong, but this level can't show whether it is this
    FAIL = "FAIL"
    ERROR = "ERROR"  # the engine or its adapter broke down

    @property
    def good(self) -> bool:
        """Whether an engine with this verdict may be called conforming."""
        return self in (Verdict.PASS, Verdict.EXCUSED, Verdict.NOTE, Verdict.UNSUPPORTED)


@dataclass(frozen=True)
class About:
    """Name, version and means of an engine. `levels`: L0 text, L1 log-probabilities, L2 logits, L3 taps, L4 injection."""

    name: str
    version: str
    levels: tuple[str, ...]
    dtype: str = "float32"
    device: str = "cpu"
    notes: str = ""


@dataclass(frozen=True)
class Result:
    """One verdict. `compared` counts comparisons, `excused` those of them that were ties within the floor."""

    requirement: str
    case: str  # a family ("LlamaForCausalLM"), a variation of one, or a part of the wire ("completions")
    test: str
    verdict: Verdict
    detail: str = ""
    place: str = ""  # the first module or tap that is wrong
    error: float | None = None
    bar: float | None = None
    compared: int = 0
    excused: int = 0


@dataclass(frozen=True)
class Point:
    """One tap of one case along the data path: its error to the float64 truth, and the floor: the error of correct engines."""

    tap: str
    kind: str
    error: float
    floor: float


@dataclass(frozen=True)
class Detectable:
    """The smallest change of a config field that this run would have detected; None: no change."""

    case: str
    field: str
    value: float
    smallest: float | None  # relative where the value is not 0: 0.01 is one per cent
    place: str = ""  # the first tap that it changes
    needs: str = ""  # what it takes to detect it, if smallest is None


@dataclass(frozen=True)
class Cause:
    """A likely cause of what is wrong in one case, most likely first. `share`: how often such a cause was right on the zoo."""

    case: str
    place: str
    sentence: str
    share: float | None = None


@dataclass
class FamilyErrors:
    """One family beside its golden: worst relative errors over `taps` taps, to the stored values and to transformers as
    installed; None: not compared. `ratios`: by lower precision, the error over transformers' own in that precision."""

    architecture: str
    golden: float | None = None
    transformers: float | None = None
    taps: int = 0
    worst_tap: str = ""  # "near/layers.0.mlp": the prompt, and the tap with the largest error
    first_beyond: str = ""  # the first tap on the data path that is beyond its bar
    ratios: dict[str, float] = field(default_factory=dict)
    good: bool = True  # nothing is beyond its bar


@dataclass
class Run:
    """The results of one run of one engine."""

    engine: About
    started: str = ""  # ISO 8601, UTC
    seconds: float = 0.0
    results: list[Result] = field(default_factory=list)
    growth: dict[str, list[Point]] = field(default_factory=dict)  # by case
    detectable: list[Detectable] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)
    families: list[FamilyErrors] = field(default_factory=list)
    controls: dict[str, bool] = field(default_factory=dict)  # negative control → whether it was flagged, as it must be
    command: str = ""  # the command line of this run
    versions: dict[str, str] = field(default_factory=dict)  # "torch" → "2.13.0"

    @property
    def compared(self) -> int:
        """How many comparisons were made."""
        return sum(result.compared for result in self.results)

    @property
    def passed(self) -> bool:
        """Something was compared, every verdict is good, and every negative control was flagged."""
        return self.compared > 0 and all(r.verdict.good for r in self.results) and all(self.controls.values())


def worst(results: Iterable[Result]) -> Verdict:
    """The worst verdict of several; UNSUPPORTED if there is none."""
    order = list(Verdict)
    return max((result.verdict for result in results), key=order.index, default=Verdict.UNSUPPORTED)


def write_run(run: Run, path: Path) -> None:
    """Write a run as JSON. Infinite and undefined numbers become the strings "inf" and "nan": JSON has no such numbers."""
    path.write_text(json.dumps(plain({"format": FORMAT, **asdict(run)}), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """Nested data with infinite and undefined numbers as strings."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))) else value


def read_run(path: Path) -> Run:
    """Read a run that `write_run` wrote; raises ValueError, with the reason, for any other file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        engine = data.pop("engine")
        return Run(
            engine=About(**engine | {"levels": tuple(engine["levels"])}),
            results=[Result(**numbers(each) | {"verdict": Verdict(each["verdict"])}) for each in data.pop("results")],
            growth={case: [Point(**numbers(each)) for each in points] for case, points in data.pop("growth").items()},
            detectable=[Detectable(**numbers(each)) for each in data.pop("detectable")],
            causes=[Cause(**each) for each in data.pop("causes")],
            families=[family_of(each) for each in data.pop("families", [])],
            **data,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not a run of this suite: {error}") from error


def family_of(entry: dict[str, Any]) -> FamilyErrors:
    """One entry of "families"."""
    return FamilyErrors(**numbers(entry) | {"ratios": {dtype: float(ratio) for dtype, ratio in entry["ratios"].items()}})


def numbers(entry: dict[str, Any]) -> dict[str, Any]:
    """The same with the numbers that `plain` wrote as strings."""
    texts = ("inf", "-inf", "nan")
    return {k: float(v) if k in NUMBERS and v in texts else v for k, v in entry.items()}

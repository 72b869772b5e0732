"""The sections of the page next to the matrix, each from one run: faults, growth of errors, detectability."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup

from conformance.report.parts.chart import growth_chart, power_of_ten
from conformance.report.parts.growth import first_beyond, in_words
from conformance.report.parts.tally import Group, Outcome, by_requirement, cases_of, counts_of, grouped, outcome, sentence
from conformance.requirements.requirement import Requirement
from conformance.requirements.results import Cause, Detectable, Point, Result, Run, Verdict

RequirementGroup = tuple[str, Requirement | None, Group]  # id, its entry, results with one verdict


@dataclass(frozen=True)
class Growth:
    """One family's chart; `first` is the tap that is beyond its floor."""

    case: str
    chart: Markup
    words: str
    first: Point | None

    @property
    def is_prominent(self) -> bool:
        """Whether it is of a family itself, not of a variation of one, or something in it is beyond the floor."""
        return self.first is not None or ":" not in self.case


@dataclass(frozen=True)
class Wrong:
    """One fault, as far as results distinguish faults."""

    place: str
    results: list[Result]

    @property
    def first(self) -> Result:
        """An example; all of them have its verdict."""
        return self.results[0]

    @property
    def verdict(self) -> Verdict:
        """The verdict."""
        return self.first.verdict

    @property
    def ids(self) -> list[str]:
        """The requirements that are not fulfilled."""
        return once(result.requirement for result in self.results)

    @property
    def cases(self) -> list[str]:
        """Where it is seen."""
        return cases_of(self.results)

    @property
    def places(self) -> list[str]:
        """The place in every layer in which it is the first that is wrong."""
        return once(result.place for result in self.results if result.place)


@dataclass(frozen=True)
class Findings:
    """One run as the page shows it."""

    label: str
    run: Run
    known: Mapping[str, Requirement]

    @property
    def outcome(self) -> Outcome:
        """The verdict in a few words."""
        return outcome(self.run)

    @property
    def sentence(self) -> str:
        """What passed, what did not, and what was not judged."""
        return sentence(self.run)

    @property
    def counts(self) -> Counter[Verdict]:
        """How many requirements have which verdict."""
        return counts_of(self.run)

    def groups_of(self, *verdicts: Verdict) -> list[RequirementGroup]:
        """Everything with one of these verdicts, by requirement."""
        found = by_requirement((result for result in self.run.results if result.verdict in verdicts), self.known)
        return [(id, self.known.get(id), group) for id, results in found.items() for group in grouped(results)]

    @property
    def controls(self) -> str:
        """How many of the negative controls were flagged, as they must be."""
        flagged = list(self.run.controls.values())
        return f"{sum(flagged)} of {len(flagged)} negative controls flagged" if flagged else "no negative control ran"

    @cached_property
    def wrong(self) -> list[Wrong]:
        """The faults, by verdict and place; undecided ones come last."""
        found: dict[tuple[object, ...], list[Result]] = {}
        for id, results in by_requirement((r for r in self.run.results if not r.verdict.good), self.known).items():
            for group in grouped(results):
                found.setdefault(fault_key(id, group), []).extend(group.results)
        wrong = [Wrong(module_of(results[0].place) or results[0].requirement, results) for results in found.values()]
        return sorted(wrong, key=lambda each: each.verdict is Verdict.INCONCLUSIVE)

    @property
    def causes(self) -> list[tuple[Cause, list[str], list[str]]]:
        """Every likely cause once, with its cases and places."""
        found: dict[str, list[Cause]] = {}
        for cause in self.run.causes:
            found.setdefault(cause.sentence, []).append(cause)
        return [(each[0], once(c.case for c in each), once(c.place for c in each)) for each in found.values()]

    @cached_property
    def not_judged(self) -> list[RequirementGroup]:
        """Results that are excused or only noted."""
        return self.groups_of(Verdict.EXCUSED, Verdict.NOTE)

    @cached_property
    def not_offered(self) -> dict[str, list[str]]:
        """The requirements that the engine does not offer the means for, by reason."""
        reasons: dict[str, dict[str, None]] = {}
        for id, _, group in self.groups_of(Verdict.UNSUPPORTED):
            reasons.setdefault(group.first.detail or "no reason was given", {})[id] = None
        return {reason: list(ids) for reason, ids in reasons.items()}

    @cached_property
    def growth(self) -> list[Growth]:
        """A chart for every family."""
        drawn = {case: points for case, points in self.run.growth.items() if points}
        return [Growth(case, growth_chart(case, p), in_words(p), first_beyond(p)) for case, p in drawn.items()]

    @property
    def provenance(self) -> dict[str, str]:
        """Engine, date, duration, versions and command."""
        engine, versions = self.run.engine, self.run.versions.items()
        facts = {
            "Engine": f"{engine.name} {engine.version}",
            "Dtype, device": f"{engine.dtype} on {engine.device}",
            "Date": self.run.started,
            "Took": f"{self.run.seconds:.1f} s, {self.run.compared:,} comparisons",
            "Versions": ", ".join(f"{name} {version}" for name, version in versions),
            "Notes": engine.notes,
            "Command": self.run.command,
        }
        return {name: fact for name, fact in facts.items() if fact}

    @property
    def detectability(self) -> tuple[list[str], dict[str, list[Detectable | None]]]:
        """The cases, and for each field what is known of it in each of them."""
        cases = once(found.case for found in self.run.detectable)
        by_place = {(found.field, found.case): found for found in self.run.detectable}
        fields = once(found.field for found in self.run.detectable)
        return cases, {field: [by_place.get((field, case)) for case in cases] for field in fields}


def fault_key(id: str, group: Group) -> tuple[object, ...]:
    """The key of a fault: verdict and place, or the requirement if the place is unknown. Every fault shows in the logits, so
    there faults are the same if they are in the same cases."""
    place = module_of(group.place)
    return (group.first.verdict, place or id, *(group.cases if place == "logits" else ()))


def module_of(place: str) -> str:
    """A place without the layer's number."""
    return re.sub(r"^layers\.\d+\.", "", place)


def once(texts: Iterable[str]) -> list[str]:
    """Each of them once, in order."""
    return list(dict.fromkeys(texts))


def smallest(found: Detectable) -> str:
    """The smallest change that is detected: "0.04 %", "3·10⁻⁹" of the value, or a number where the value is 0."""
    if found.smallest is None:
        return "none"
    if not found.value:
        return f"{found.smallest:.2g}"
    if found.smallest >= 1e-5:
        share = 100 * found.smallest
        return f"{share:.0f}\N{NO-BREAK SPACE}%" if share >= 100 else f"{share:.2g}\N{NO-BREAK SPACE}%"
    mantissa, _, power = f"{found.smallest:.0e}".partition("e")
    return f"{mantissa}·{power_of_ten(int(power))}"


def source_link(source: str) -> str:
    """The address of a requirement's source; empty if it has none."""
    paper = re.fullmatch(r"arXiv ([0-9]{4}\.[0-9]{4,5}).*", source)
    return f"https://arxiv.org/abs/{paper[1]}" if paper else source if source.startswith("https://") else ""


def levels_offered(run: Run) -> Sequence[tuple[str, str, bool]]:
    """Every level, what it is, and whether the engine offers it."""
    names = {"L0": "text", "L1": "log-probabilities", "L2": "logits", "L3": "taps", "L4": "injection"}
    return [(level, name, level in run.engine.levels) for level, name in names.items()]

"""The numbered requirements (requirements.toml): read, checked, and laid beside the checks that judge them.

`python -m conformance.requirements.requirement` prints how many there are per area, tier and level, and every gap: what nothing
judges, and what is judged by checks that have never been seen to kill a bug (as the last published score stored it).

A requirement's tier says how binding it is: *specified* by a specification, a paper, a checkpoint's format or a reference
implementation; *implied* by what this project's interface promises; *unspecified*: engines differ legitimately, so it is
recorded and never judged. Its level says what an engine must offer to be judged: L0 text, L1 log-probabilities, L2 logits,
L3 taps within the model, L4 injection into it.
"""

import argparse
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from conformance.checks import Check, all_checks
from conformance.score.ranking import read_ranking

FILE = Path(__file__).with_name("requirements.toml")
SUITE = Path(__file__).parents[1]
ENGINE_CODE = ("judging", "engines")
NAMED = re.compile(r'"([A-Z]{4}-[0-9]{3})"')
PREFIXES = """
    NORM ROPE ATTN MASK WIND CACHE BATCH MLP MOE EMBD HEAD RESI CONF WGHT SAFE GGUF QUNT TOKN DETO STRM STOP SAMP DRAW PENA
    LOGP TMPL CHAT GENR EOSX LIMT ERRS NUMR VRFY CLIX WIRE
    """.split()  # noqa: SIM905
TIERS = ("specified", "implied", "unspecified")
LEVELS = ("L0", "L1", "L2", "L3", "L4")
AREAS = """
    normalisation rope attention mlp embedding head residual moe kv_cache batching weights quantization tokenization
    chat_template sampling stop eos logprobs generation streaming security numerics
    """.split()  # noqa: SIM905
ID = re.compile(r"([A-Z]+)-[0-9]{3}")
SOURCES = ("https://", "arXiv ", "contract: ")
"""How a source begins; "contract: " names the part of this project's interface that promises it."""


@dataclass(frozen=True)
class Requirement:
    """One sentence that a correct engine fulfils, with where it comes from."""

    id: str
    text: str
    tier: str
    level: str
    area: str
    source: str

    @property
    def is_judged(self) -> bool:
        """Whether a check may fail an engine for it."""
        return self.tier != "unspecified"


class RequirementsBroken(ValueError):
    """The file of requirements, or a check that refers to it, is not as it must be."""


def load_requirements(path: Path = FILE) -> dict[str, Requirement]:
    """All requirements by id, in the order of the file; RequirementsBroken names the first that is malformed."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise RequirementsBroken(f"{path} is not TOML: {error}") from error
    if set(entries) != {"requirement"} or not isinstance(entries["requirement"], list):
        raise RequirementsBroken(f"{path} holds {sorted(entries)}; expected [[requirement]] tables only")
    found: dict[str, Requirement] = {}
    for entry in entries["requirement"]:
        requirement = read_entry(entry)
        if requirement.id in found:
            raise RequirementsBroken(f"{requirement.id} occurs twice; expected every id once")
        found[requirement.id] = requirement
    return found


def read_entry(entry: dict[str, Any]) -> Requirement:
    """One table of the file, checked."""
    names = {field.name for field in fields(Requirement)}
    where = str(entry.get("id", entry))[:80]
    if set(entry) != names or not all(isinstance(value, str) for value in entry.values()):
        raise RequirementsBroken(f"{where}: has {sorted(entry)}; expected texts for {sorted(names)}")
    requirement = Requirement(**entry)
    match = ID.fullmatch(requirement.id)
    if not match or match[1] not in PREFIXES:
        raise RequirementsBroken(f"{where}: expected an id such as ROPE-003, beginning with one of {', '.join(PREFIXES)}")
    for name, known in (("tier", TIERS), ("level", LEVELS), ("area", AREAS)):
        if getattr(requirement, name) not in known:
            raise RequirementsBroken(f"{where}: {name} is {getattr(requirement, name)!r}; expected one of {', '.join(known)}")
    if not is_one_sentence(requirement.text):
        raise RequirementsBroken(f"{where}: expected one sentence of 20 to 300 characters: {requirement.text!r}")
    if not requirement.source.startswith(SOURCES) or len(requirement.source) < 12:
        raise RequirementsBroken(f"{where}: its source {requirement.source!r} begins with none of {', '.join(SOURCES)}")
    return requirement


def is_one_sentence(text: str) -> bool:
    """Whether a text begins with a capital or a sign, ends with a full stop, and has no second sentence."""
    return 20 <= len(text) <= 300 and text == text.strip() and text.endswith(".") and not re.search(r"[a-z)]{2}\. [A-Z]", text)


def dangling(checks: Iterable[Check], requirements: dict[str, Requirement]) -> list[str]:
    """What is wrong with the ids that checks give: unknown ones, none at all, and those that must not be judged."""
    problems = []
    for check in checks:
        if not check.requirements:
            problems.append(f"{check.name} names no requirement")
        if check.area not in AREAS:
            problems.append(f"{check.name} has the area {check.area!r}, which is not known")
        for id in check.requirements:
            if id not in requirements:
                problems.append(f"{check.name} names {id}, which requirements.toml does not have")
            elif not requirements[id].is_judged:
                problems.append(f"{check.name} judges {id}, which is unspecified")
    return problems


def unjudged(checks: Iterable[Check], requirements: dict[str, Requirement]) -> list[Requirement]:
    """The requirements that no check names, although they may be judged: the open gaps."""
    named = {id for check in checks for id in check.requirements}
    return [requirement for id, requirement in requirements.items() if id not in named and requirement.is_judged]


def judged_on_engines(folder: Path = SUITE) -> frozenset[str]:
    """The requirements that are judged on engines from outside, over a wire or by their taps: those that its code names."""
    files = (path for part in ENGINE_CODE for path in (folder / part).rglob("*.py"))
    return frozenset(id for path in files for id in NAMED.findall(path.read_text(encoding="utf-8")))


def toothless(checks: Iterable[Check], requirements: dict[str, Requirement], caught: Collection[str]) -> list[Requirement]:
    """The requirements whose checks were never seen to kill a bug of the zoo; `caught` are those that have one."""
    named = {id for check in checks for id in check.requirements}
    return [requirement for id, requirement in requirements.items() if id in named and id not in caught]


def table(requirements: Sequence[Requirement], checks: Sequence[Check]) -> str:
    """Counts per area: requirements by tier and by level, and checks."""
    per_area: dict[str, Counter[str]] = {area: Counter() for area in AREAS}
    for requirement in requirements:
        per_area[requirement.area].update((requirement.tier, requirement.level, "all"))
    for check in checks:
        per_area.setdefault(check.area, Counter())["checks"] += 1
    columns = ("all", *TIERS, *LEVELS, "checks")
    total = sum(per_area.values(), Counter[str]())
    lines = ["area".ljust(15) + "".join(column.rjust(12) for column in columns)]
    for area, counts in [*per_area.items(), ("total", total)]:
        lines.append(area.ljust(15) + "".join(str(counts[column]).rjust(12) for column in columns))
    return "\n".join(lines)


def listed(title: str, requirements: Sequence[Requirement]) -> None:
    """Print some requirements."""
    print(f"\n{title}: {len(requirements) or 'none'}")
    for requirement in requirements:
        print(f"  {requirement.id} ({requirement.level}, {requirement.tier}): {requirement.text}")


def main(arguments: list[str] | None = None) -> int:
    """Print the table, the gaps and the problems; the exit status is 1 if there are problems."""
    argparse.ArgumentParser(prog="python -m conformance.requirements.requirement", description=__doc__).parse_args(arguments)
    requirements, checks = load_requirements(), all_checks()
    print(table(list(requirements.values()), checks))
    outside, problems = judged_on_engines(), dangling(checks, requirements)
    gaps = [gap for gap in unjudged(checks, requirements) if gap.id not in outside]
    print(
        f"\n{len(outside)} requirements are judged on engines from outside (conformance/{', conformance/'.join(ENGINE_CODE)})"
    )
    listed(f"of {len(requirements)} requirements nothing judges", gaps)
    listed("no bug of the zoo was killed by the checks of", toothless(checks, requirements, read_ranking().caught))
    if problems:
        print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())

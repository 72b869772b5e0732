"""The laws for every kata and for the course; `python -m conformance.katas.laws [KATA …]` tests them all and counts.

1 no drift: the stub with the cut bodies put back is the runtime's file, byte for byte.
2 red: on the stub every test fails, because a function is unwritten.
3 green: the runtime's own functions pass.
4 power: every mistake fails and is diagnosed as that mistake only; every other semantic zoo bug in the targets fails.
5 fairness: every alternative passes.
6 fail closed: a file that is empty, broken, renamed, ends the process or patches the tests does not pass.
7 mutants: every mechanical mutant of the targets fails, except those listed with a reason.
8 form: hints hold no line of the solution, every test catches something, all names exist, every ROADMAP item has a kata.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

import torch

from conformance.katas.checking.running import import_dependencies
from conformance.katas.course import Kata, course, find_kata, without_kata
from conformance.katas.laws.canaries import canaries, with_body
from conformance.katas.laws.trials import as_learner, check_source, failing, forked, mutants_of, sweep, zoo_of
from conformance.katas.roadmap import roadmap
from conformance.katas.stub import bodies, header, replace, stub, variants, without_header
from conformance.score.zoo.entries import ZOO, Bug, read_toml

SHORTEST = 12  # characters of a line of the solution that no hint may hold


@dataclass
class Findings:
    """The breaches and counts of one kata."""

    kata: Kata
    breaches: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def need(self, holds: object, breach: str) -> None:
        """Note a breach unless this holds."""
        if not holds:
            self.breaches.append(breach)


def no_drift(found: Findings) -> None:
    """Nothing is stored twice: the stub is the runtime's file with gaps."""
    kata = found.kata
    source, cut = kata.source, stub(kata)
    found.need(replace(cut, bodies(source, kata.targets)) == source, "the stub with its bodies is not the runtime's file")
    found.need(without_header(header(kata) + cut) == cut, "the header line can't be separated from the rest")


def red(found: Findings) -> None:
    """A test that passes before anything is written tests nothing."""
    report = check_source(found.kata, stub(found.kata))
    tests = report.tests if report else []
    found.need(tests, f"no test runs on the stub: {failing(report)}")
    other = [test.name for test in tests if not test.unwritten]
    found.need(not other, f"on the stub these tests fail for another reason: {', '.join(other)}")
    found.counts["tests"] = len(found.kata.test_names)


def green(found: Findings) -> None:
    """The runtime's functions pass."""
    bad = failing(check_source(found.kata, found.kata.source))
    found.need(not bad, f"the reference fails {', '.join(bad)}")


def power(found: Findings) -> None:
    """At least four mistakes, each caught and diagnosed."""
    kata, zoo = found.kata, zoo_of(found.kata)
    found.need(len(kata.mistakes) >= 4, f"{len(kata.mistakes)} mistakes, want at least 4")
    for name in kata.mistakes:
        if name not in zoo:
            found.breaches.append(f"mistake {name} is not in the zoo, or edits more than the targets")
            continue
        mistake(found, zoo[name])


def mistake(found: Findings, bug: Bug) -> None:
    """A learner who makes this mistake fails and reads its sentence."""
    source = forked(lambda: as_learner(found.kata, bug))
    report = check_source(found.kata, source, diagnosed=True) if source else None
    found.counts["mistakes"] += 1
    killed = report is not None and bool(failing(report))
    found.counts["killed"] += killed
    found.need(killed, f"mistake {bug.name} passes")
    named = report is not None and report.looks_like == bug.what
    found.counts["named"] += named
    found.need(named, f"mistake {bug.name} is diagnosed as {report and report.looks_like!r}")


def fairness(found: Findings) -> None:
    """At least two other right answers, none refused."""
    others = variants(found.kata)
    found.need(len(others) >= 2, f"{len(others)} alternatives, want at least 2")
    for how, texts in others.items():
        bad = failing(check_source(found.kata, replace(found.kata.source, texts)))
        found.need(not bad, f"alternative {how} fails {', '.join(bad)}")
        found.counts["alternatives"] += not bad


def fail_closed(found: Findings) -> None:
    """Files that are no answer do not pass."""
    for name, source in canaries(found.kata).items():
        caught = bool(failing(check_source(found.kata, source)))
        found.need(caught, f"this canary passes: {name}")
        found.counts["canaries"] += caught


def one_canary(found: Findings) -> None:
    """The most common canary."""
    found.need(failing(check_source(found.kata, with_body(found.kata, "pass"))), "a body that returns nothing passes")


def kills(found: Findings) -> None:
    """Semantic bugs and mutants of the targets fail, and every test fails on one of them."""
    kata, zoo, made = found.kata, zoo_of(found.kata), mutants_of(found.kata)
    bugs = {name: bug for name, bug in zoo.items() if bug.kind == "semantic" or name in kata.mistakes}
    killed = sweep(kata, [*bugs.values(), *made.values()])
    listed = {entry["name"]: entry["reason"] for entry in read_toml(ZOO / "equivalent.toml", "mutant")} | kata.equivalent
    for name in bugs:
        spared(found, name, killed[name], kata.elsewhere)
    for name in made:
        spared(found, name, killed[name], listed)
        found.counts["mutants"] += 1
        found.counts["mutants killed"] += bool(killed[name])
        found.counts["mutants spared"] += not killed[name] and name in listed
    found.counts["bugs"] = len(bugs)
    stale = [*(kata.elsewhere.keys() - bugs.keys()), *(kata.equivalent.keys() - made.keys())]
    found.need(not stale, f"listed as spared, but not in the zoo: {', '.join(stale)}")
    idle = set(kata.test_names) - {test for tests in killed.values() for test in tests}
    found.need(not idle, f"no mistake, bug or mutant fails {', '.join(sorted(idle))}")


def spared(found: Findings, name: str, tests: list[str], listed: dict[str, str]) -> None:
    """Survivors must be listed, and entries of the kata's lists must survive."""
    if not tests:
        found.need(name in listed, f"{name} survives")
    elif name in {**found.kata.elsewhere, **found.kata.equivalent}:
        found.breaches.append(f"{name} is listed as spared, but {tests[0]} fails")


def form(found: Findings) -> None:
    """The entry in katas.toml is complete and consistent."""
    kata = found.kata
    lines = {line.strip() for text in bodies(kata.source, kata.targets).values() for line in text.splitlines()}
    leaked = [line for line in lines if len(line) >= SHORTEST and any(line in hint for hint in kata.hints)]
    found.need(not leaked, f"a hint holds a line of the solution: {leaked}")
    found.need(len(kata.hints) == 3 and all(kata.hints), "want three hints")
    found.need(len(kata.reads) == 2 and "https://" in kata.reads[0], "want a paper with its address, and an implementation")
    found.need(set(kata.after) <= course().keys(), f"`after` names unknown katas: {kata.after}")
    found.need(kata.items and set(kata.items) <= set(roadmap()), f"`items` names what ROADMAP.md doesn't have: {kata.items}")
    found.need(0 < kata.minutes <= 90 and len(kata.title) <= 40, "want minutes up to 90, and a title up to 40 characters")


def course_form() -> list[str]:
    """Every item that is done has either a kata or a reason."""
    taught = {item for kata in course().values() for item in kata.items}
    excused = without_kata()
    left = [item for item, state in roadmap().items() if state == "done" and item not in taught and item not in excused]
    both = [f"{item}: has a kata and a reason to have none" for item in taught & excused.keys()]
    gone = [f"{item}: is excused, but not in ROADMAP.md" for item in excused.keys() - roadmap().keys()]
    return [f"{item}: has neither a kata nor a reason" for item in left] + both + gone


LAWS: tuple[Callable[[Findings], None], ...] = (no_drift, red, green, power, fairness, fail_closed, kills, form)
FAST: tuple[Callable[[Findings], None], ...] = (no_drift, red, green, one_canary, form)


def findings(name: str, laws: tuple[Callable[[Findings], None], ...] = LAWS) -> Findings:
    """Test one kata."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    found = Findings(find_kata(name))
    import_dependencies(found.kata)
    for law in laws:
        law(found)
    found.seconds = time.perf_counter() - start
    return found


def row(found: Findings) -> str:
    """One kata's line of the report."""
    c = found.counts
    counts = [f"{c['tests']:3} tests"]
    if c["mistakes"]:
        counts += [f"{c['named']}/{c['mistakes']} mistakes named", f"{c['alternatives']} alternatives pass"]
        counts += [f"{c['mutants killed']}/{c['mutants']} mutants killed"]
    return f"{found.kata.name:16} {'  '.join(counts)}  {found.seconds:5.1f} s  {'BROKEN' if found.breaches else ''}".rstrip()


def summary(all_found: list[Findings], breaches: list[str]) -> str:
    """All breaches, and the counts of all katas together."""
    c = sum((found.counts for found in all_found), Counter[str]())
    counts = [f"{len(all_found)} katas, {c['tests']} tests"]
    if c["mistakes"]:
        counts += [
            f"{c['mistakes']} mistakes: {c['killed']} killed, {c['named']} diagnosed; {c['bugs']} zoo bugs in the targets",
            f"{c['alternatives']} alternatives pass, {c['canaries']} canaries fail",
            f"{c['mutants']} mutants: {c['mutants killed']} killed, {c['mutants spared']} spared with a reason",
        ]
    counts += [f"{len(breaches)} breaches" if breaches else "all laws hold"]
    return "\n".join(["", *breaches, *([""] if breaches else []), *counts])


def main(arguments: list[str] | None = None) -> int:
    """Test the laws; the exit status is 1 if one is broken."""
    parser = argparse.ArgumentParser(prog="python -m conformance.katas.laws", description=str(__doc__).splitlines()[0])
    parser.add_argument("katas", nargs="*", metavar="KATA", help="only these (all)")
    parser.add_argument("--fast", action="store_true", help="no drift, red, green, one canary, form; no mistakes or mutants")
    options = parser.parse_args(arguments)
    names = options.katas or list(course())
    breaches = [] if options.katas else course_form()
    with ProcessPoolExecutor(min(len(names), os.cpu_count() or 1), mp_context=get_context("spawn")) as pool:
        all_found = []
        for found in pool.map(findings, names, [FAST if options.fast else LAWS] * len(names)):
            print(row(found), flush=True)
            all_found.append(found)
    breaches += [f"{found.kata.name}: {breach}" for found in all_found for breach in found.breaches]
    print(summary(all_found, breaches))
    return int(bool(breaches))


if __name__ == "__main__":
    sys.exit(main())

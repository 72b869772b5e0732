"""The command: choose what is run, run it, print, compare with the published score."""

import argparse
import json
import math
import os
import random
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

import conformance.score
from conformance.checks import Check, Failed, all_checks
from conformance.numerics.check import Alarms
from conformance.score.controls import WHOLE, Void, run_controls
from conformance.score.coverage import tried
from conformance.score.impact import Survey, survey
from conformance.score.judge import Result, score
from conformance.score.published import explanations, publish, read_published, stale, summary, worse
from conformance.score.ranking import in_their_reach, most_telling, read_telling, spread, write_telling
from conformance.score.report import GROUPS, needs_a_look, on_models, table
from conformance.score.variants import honest_runs, units
from conformance.score.zoo.mutants import kept_mutants
from conformance.score.zoo.seeding import Bug, ZooBroken, load_zoo

# What a budget is spent on: until which part of it checks are run on the clean runtime, bugs are judged, variants are judged.
CHECKS_UNTIL, BUGS_UNTIL, VARIANTS_UNTIL = 0.35, 0.8, 0.95


@dataclass
class Plan:
    """What a run has chosen to do."""

    checks: list[Check]
    surveys: dict[str, Survey]
    bugs: list[Bug]
    told: str  # how they were chosen, in words
    until: float = math.inf  # for bugs; variants have until `variants_until`
    variants_until: float = math.inf
    units: list[tuple[str, str]] = field(default_factory=units)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m conformance score",
        description=(conformance.score.__doc__ or "").partition("\n")[0],
        epilog="example: python -m conformance score --budget 60",
    )
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="smoke: the most telling checks, as many bugs as fit")
    parser.add_argument("--seed", type=int, default=0, help="which bugs and variants a budget is spent on (0)")
    parser.add_argument("--area", help="only bugs of this area")
    parser.add_argument("--kind", choices=["semantic", "precision", "decoy"], help="only bugs of this kind")
    parser.add_argument("--name", action="append", help="only this bug (may be repeated)")
    parser.add_argument("--mutants", type=int, default=300, metavar="N", help="about so many mechanical mutants (300)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (all cores)")
    parser.add_argument("--in-order", action="store_true", help="ask all checks in order, not the last time's killer first")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="keep results there, and take those that are there")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="all results as JSON (to stdout instead of tables)"
    )
    parser.add_argument("--write", action="store_true", help="publish: golden/score.json, the table of README.md")
    options = parser.parse_args(arguments)
    options.selected = bool(options.area or options.kind or options.name)
    if options.write and (options.selected or options.budget or options.mutants < 300):
        parser.error("--write publishes the score of everything; leave out --budget, --area, --kind, --name and --mutants")
    return options


def score_command(arguments: Sequence[str]) -> int:
    """Score, print, and return 1 if anything is worse than it should be, 2 if the score is void."""
    torch.set_num_threads(1)
    options = parse(arguments)
    try:
        return run(options)
    except (Void, ZooBroken) as error:
        print(f"void: {error}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    """One run from the choice to the exit status."""
    reasons, everything = explanations(), select(options)
    if not options.selected and options.mutants >= 300:
        stale(reasons, [bug.name for bug in everything])
    plan = smoke(options, everything) if options.budget else full(options, everything)
    impact = {name: each.functions for name, each in plan.surveys.items()}
    known = read_results(options.resume)
    controls = run_controls(plan.checks, impact, options.workers)
    results = judge_all(options, plan, impact, known)
    if not results:
        raise Void("no bug was judged; choose others, or give more time")
    alarms = Alarms() if options.selected else honest_runs(plan.units, options.workers, plan.variants_until)
    now = summary(results, alarms, controls, len(plan.checks), spent(known))
    if options.json != "-":
        show(results, alarms, now, plan, reasons)
    if options.json:
        write_json(options.json, now, results)
    whole = not (options.selected or options.budget)
    problems = list(worse(now, read_published(), reasons, whole and options.mutants >= 300))
    problems += [line for line in needs_a_look(results, reasons) if line.startswith("EXPLAINED")]
    if options.write:
        publish(now)
        caught = tried(results, plan.bugs, plan.checks, impact, options.workers)
        write_telling(results, plan.surveys, caught)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return int(bool(problems))


def select(options: argparse.Namespace) -> list[Bug]:
    """The entries that the options ask for."""
    bugs = load_zoo()
    if options.mutants:
        kept = kept_mutants()
        bugs += kept[:: max(1, len(kept) // options.mutants)]
    if options.name:
        return [bug for bug in bugs if bug.name in options.name]
    wanted = [bug for bug in bugs if options.kind in (None, bug.kind)]
    return [bug for bug in wanted if options.area in (None, bug.area)]


def full(options: argparse.Namespace, bugs: list[Bug]) -> Plan:
    """Everything that was selected, by every check."""
    checks = all_checks()
    return Plan(checks, on_clean(checks), bugs, f"{len(checks)} checks, {len(bugs)} entries of the zoo")


def smoke(options: argparse.Namespace, bugs: list[Bug]) -> Plan:
    """As much as fits, the most telling first."""
    started, telling, checks = conformance.score.STARTED, read_telling(), all_checks()
    controls = [check for check in checks if check.function == WHOLE]
    surveys = on_clean([*controls, *most_telling(checks, telling)], started + CHECKS_UNTIL * options.budget)
    chosen = [check for check in checks if check.name in surveys]
    reach = in_their_reach(bugs, [check for check in chosen if check.name in telling], telling)
    some = units()
    random.Random(options.seed).shuffle(some)
    told = (
        f"{len(chosen)} of {len(checks)} checks, the most telling for their time; of {len(bugs)} entries of the zoo "
        f"{len(reach)} are theirs to judge, run in an order of seed {options.seed} as far as {options.budget:g} s go"
    )
    until, variants_until = (started + part * options.budget for part in (BUGS_UNTIL, VARIANTS_UNTIL))
    return Plan(chosen, surveys, spread(reach, options.seed), told, until, variants_until, some)


def on_clean(checks: Sequence[Check], until: float = math.inf) -> dict[str, Survey]:
    """Every check must pass on the runtime as it is."""
    try:
        return survey(checks, until)
    except Failed as failure:
        raise Void(f"a check fails on the runtime as it is: {failure}") from failure


def spent(known: dict[str, Result]) -> tuple[float, float]:
    """Seconds on the clock, and of CPU: this process's, its children's, and those of results that were there already."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = time.process_time() + children.ru_utime + children.ru_stime
    return time.perf_counter() - conformance.score.STARTED, cpu + sum(result.seconds for result in known.values())


def judge_all(
    options: argparse.Namespace, plan: Plan, impact: dict[str, frozenset[str]], known: dict[str, Result]
) -> list[Result]:
    """Results for all bugs, those of an earlier run included."""
    telling = {} if options.in_order else read_telling()
    expected = {bug: check for check, entry in telling.items() for bug in entry["kills"]}
    results = [known[bug.name] for bug in plan.bugs if bug.name in known]
    left = [bug for bug in plan.bugs if bug.name not in known]
    for result in score(left, plan.checks, impact, options.workers, plan.until, not options.budget, expected):
        results.append(result)
        if options.resume:
            with options.resume.open("a") as file:
                file.write(json.dumps(asdict(result)) + "\n")
    return results


def read_results(path: Path | None) -> dict[str, Result]:
    """The results of an earlier run."""
    lines = path.read_text().splitlines() if path is not None and path.exists() else []
    return {result.name: result for result in (Result(**json.loads(line)) for line in lines)}


def show(results: Sequence[Result], alarms: Alarms, now: dict[str, Any], plan: Plan, reasons: dict[str, str]) -> None:
    """The tables, then what needs a look."""
    print(f"{plan.told}\n")
    for group in GROUPS:
        if any(result.group == group for result in results):
            print("\n".join(table(results, group)) + "\n")
    print(f"decoys flagged: {len(now['decoys']['flagged'])} of {now['decoys']['runs']}")
    if alarms.runs:
        print("variants: " + "\n".join(alarms.lines()))
    if now["fixtures"]["pairs"]:
        print(on_models(results))
    print("controls: " + "; ".join(f"{name} {what}" for name, what in now["controls"].items()))
    time_spent = f"{now['seconds']} s, {now['cpu_seconds']} s of CPU"
    print(f"{len(results)} entries run, {now['golden_bytes'] / 1e6:.2f} MB of goldens, {time_spent}\n")
    print("\n".join(needs_a_look(results, reasons)))


def write_json(path: str, now: dict[str, Any], results: Sequence[Result]) -> None:
    """Everything, to a file or to stdout."""
    text = json.dumps({"summary": now, "results": [asdict(result) for result in results]}, indent=1) + "\n"
    if path == "-":
        print(text, end="")
    else:
        Path(path).write_text(text, encoding="utf-8")

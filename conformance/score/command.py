"""The command: choose checks and bugs, run them, print the result, compare it with the published score."""

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

import torch

import conformance.score
from conformance.checks import Check, Failed, all_checks
from conformance.numerics.check import Alarms
from conformance.score.controls import CONTROL_CHECK, VoidScore, run_controls
from conformance.score.coverage import caught_in_trials
from conformance.score.impact import Survey, survey
from conformance.score.judge import Jury, Result, judge_bugs
from conformance.score.published import (
    Score,
    Spent,
    explanations,
    publish,
    read_published,
    refuse_stale,
    score_to_json,
    summary,
    worse,
)
from conformance.score.ranking import killed_first_by, ranked, read_ranking, shuffled_by_area, write_ranking
from conformance.score.report import GROUPS, group_table, needs_a_look, on_models
from conformance.score.variants import honest_runs, units
from conformance.score.zoo.mutants import kept_mutants
from conformance.score.zoo.seeding import Bug, ZooBroken, load_zoo

# Ends of the phases, as shares of a budget: checks on the clean runtime, bugs, variants.
CHECKS_UNTIL, BUGS_UNTIL, VARIANTS_UNTIL = 0.35, 0.8, 0.95


@dataclass
class Plan:
    """What a run will do. Deadlines are times of perf_counter."""

    checks: list[Check]
    surveys: dict[str, Survey]
    bugs: list[Bug]
    description: str  # how they were chosen
    bugs_until: float = math.inf
    variants_until: float = math.inf
    units: list[tuple[str, str]] = field(default_factory=units)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m conformance score",
        description=(conformance.score.__doc__ or "").partition("\n")[0],
        epilog="example: python -m conformance score --budget 60",
    )
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="smoke run: what fits, most kills per second first")
    parser.add_argument("--seed", type=int, default=0, help="order of bugs and variants in a smoke run (0)")
    parser.add_argument("--area", help="only bugs of this area")
    parser.add_argument("--kind", choices=["semantic", "precision", "decoy"], help="only bugs of this kind")
    parser.add_argument("--name", action="append", help="only this bug (may be repeated)")
    parser.add_argument("--mutants", type=int, default=300, metavar="N", help="number of mechanical mutants, about (300)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (all cores)")
    parser.add_argument("--in-order", action="store_true", help="run checks in order, not the last killer first")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="store results in this file, and reuse those in it")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="all results as JSON (to stdout instead of tables)"
    )
    parser.add_argument("--write", action="store_true", help="publish: golden/score.json, the table of conformance/README.md")
    options = parser.parse_args(arguments)
    options.selected = bool(options.area or options.kind or options.name)
    if options.write and (options.selected or options.budget or options.mutants < 300):
        parser.error("--write publishes the score of everything; leave out --budget, --area, --kind, --name and --mutants")
    return options


def score_command(arguments: Sequence[str]) -> int:
    """Score and print; the exit status: 1 if the score is not good enough, 2 if it is void."""
    torch.set_num_threads(1)
    options = parse(arguments)
    try:
        return run(options)
    except (VoidScore, ZooBroken) as error:
        print(f"void: {error}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    """One run from the choice to the exit status."""
    reasons, everything = explanations(), select(options)
    if not options.selected and options.mutants >= 300:
        refuse_stale(reasons, [bug.name for bug in everything])
    plan = smoke(options, everything) if options.budget else full(everything)
    impact = {name: each.functions for name, each in plan.surveys.items()}
    known = read_results(options.resume)
    controls = run_controls(plan.checks, impact, options.workers)
    jury = make_jury(options, plan, impact)
    results = judge_all(options.resume, plan.bugs, jury, known)
    if not results:
        raise VoidScore("no bug was judged; select others, or give a larger budget")
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
        write_ranking(results, plan.surveys, caught_in_trials(results, plan.bugs, jury))
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


def full(bugs: list[Bug]) -> Plan:
    """Everything that was selected, by every check."""
    checks = all_checks()
    return Plan(checks, on_clean(checks), bugs, f"{len(checks)} checks, {len(bugs)} entries of the zoo")


def smoke(options: argparse.Namespace, bugs: list[Bug]) -> Plan:
    """As much as fits, the checks with most kills per second first."""
    started, ranking, checks = conformance.score.STARTED, read_ranking(), all_checks()
    controls = [check for check in checks if check.function == CONTROL_CHECK]
    surveys = on_clean([*controls, *ranked(checks, ranking)], started + CHECKS_UNTIL * options.budget)
    chosen = [check for check in checks if check.name in surveys]
    killable = killed_first_by([check for check in chosen if check.name in ranking.checks], bugs, ranking)
    some = units()
    random.Random(options.seed).shuffle(some)
    description = (
        f"{len(chosen)} of {len(checks)} checks, those with most kills per second; {len(killable)} of {len(bugs)} entries of "
        f"the zoo, which these checks kill first, in the order of seed {options.seed}, as many as fit in {options.budget:g} s"
    )
    bugs_until, variants_until = (started + part * options.budget for part in (BUGS_UNTIL, VARIANTS_UNTIL))
    return Plan(chosen, surveys, shuffled_by_area(killable, options.seed), description, bugs_until, variants_until, some)


def on_clean(checks: Sequence[Check], until: float = math.inf) -> dict[str, Survey]:
    """Run the checks on the clean runtime; VoidScore if one fails."""
    try:
        return survey(checks, until)
    except Failed as failure:
        raise VoidScore(f"a check fails on the clean runtime: {failure}") from failure


def spent(known: dict[str, Result]) -> Spent:
    """Wall time of this process; CPU of this process, its children and the results that were reused."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = time.process_time() + children.ru_utime + children.ru_stime
    return Spent(time.perf_counter() - conformance.score.STARTED, cpu + sum(result.seconds for result in known.values()))


def make_jury(options: argparse.Namespace, plan: Plan, impact: dict[str, frozenset[str]]) -> Jury:
    """How the bugs of this run are judged."""
    first = {} if options.in_order else read_ranking().killers()
    return Jury(plan.checks, impact, options.workers, plan.bugs_until, not options.budget, first)


def judge_all(store: Path | None, bugs: Sequence[Bug], jury: Jury, known: dict[str, Result]) -> list[Result]:
    """Results for all bugs, `known` ones reused; new ones are appended to the file `store`."""
    results = [known[bug.name] for bug in bugs if bug.name in known]
    for result in judge_bugs([bug for bug in bugs if bug.name not in known], jury):
        results.append(result)
        if store:
            with store.open("a") as file:
                file.write(json.dumps(asdict(result)) + "\n")
    return results


def read_results(path: Path | None) -> dict[str, Result]:
    """The results of an earlier run."""
    lines = path.read_text().splitlines() if path is not None and path.exists() else []
    return {result.name: result for result in (Result(**json.loads(line)) for line in lines)}


def show(results: Sequence[Result], alarms: Alarms, now: Score, plan: Plan, reasons: dict[str, str]) -> None:
    """Print the tables, then the entries that need a look."""
    print(f"{plan.description}\n")
    for group in GROUPS:
        if any(result.group == group for result in results):
            print("\n".join(group_table(results, group)) + "\n")
    print(f"decoys flagged: {len(now.decoys.flagged)} of {now.decoys.runs}")
    if alarms.runs:
        print("variants: " + "\n".join(alarms.lines()))
    if now.fixtures.pairs:
        print(on_models(results))
    print("controls: " + "; ".join(f"{name} {found}" for name, found in now.controls.items()))
    time_spent = f"{now.seconds} s, {now.cpu_seconds} s of CPU"
    print(f"{len(results)} entries run, {now.golden_bytes / 1e6:.2f} MB of goldens, {time_spent}\n")
    print("\n".join(needs_a_look(results, reasons)))


def write_json(path: str, now: Score, results: Sequence[Result]) -> None:
    """Everything, to a file or to stdout."""
    text = json.dumps({"summary": score_to_json(now), "results": [asdict(result) for result in results]}, indent=1) + "\n"
    if path == "-":
        print(text, end="")
    else:
        Path(path).write_text(text, encoding="utf-8")

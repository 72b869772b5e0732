"""The suite's own score: how many seeded bugs its checks kill, whether they name the right place, and what they flag wrongly.

    python -m conformance score [--area rope] [--name BUG …] [--mutants 60] [--json FILE]

Every bug of the zoo is seeded into a fork of this process, and the checks that can see it run in their order until one fails.
*Killed*: a check failed. *Localised*: the place that this first check named is the one that the zoo says is wrong. Decoys,
which are reported as bugs somewhere and are none, must pass all of them. Two scores, never mixed: semantic faults, and
precision policy. Results go to --resume FILE as they come, one JSON object a line; a second run does what is missing.
"""

import argparse
import json
import math
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType

from conformance.checks import Check, Failed, all_checks
from conformance.impact import impacts, reached
from conformance.zoo.seeding import Bug, ZooBroken, load_zoo, seeded

LIMIT = 20  # seconds for one check on a runtime with a bug; a clean one takes less than one


@dataclass(frozen=True)
class Result:
    """What the checks said of one entry of the zoo."""

    name: str
    kind: str
    area: str
    killed_by: str = ""
    place: str = ""
    detail: str = ""
    localised: bool = False
    checks: int = 0
    seconds: float = 0.0

    @property
    def killed(self) -> bool:
        """Whether any check failed."""
        return bool(self.killed_by)


def judge(bug: Bug, checks: Sequence[Check]) -> Result:
    """Seed a bug in this process and run the checks until one fails; the process may be spoilt afterwards."""
    signal.signal(signal.SIGALRM, out_of_time)
    started = time.perf_counter()
    ran = 0
    try:
        with seeded(bug):
            for check in checks:
                ran += 1
                signal.alarm(LIMIT)
                check.run()
            signal.alarm(0)
    except Failed as failure:
        signal.alarm(0)
        localised = re.search(bug.module, failure.place) is not None
        told = (checks[ran - 1].name, failure.place, failure.detail[:300], localised)
        return Result(bug.name, bug.kind, bug.area, *told, ran, time.perf_counter() - started)
    return Result(bug.name, bug.kind, bug.area, checks=ran, seconds=time.perf_counter() - started)


def out_of_time(_: int, frame: FrameType | None) -> None:
    """A check that hangs fails, where it hangs."""
    raise TimeoutError(f"the check takes longer than {LIMIT} s")


def judge_in_child(bug: Bug, checks: Sequence[Check], pipe: Connection) -> None:
    """Judge, and send the result; a bug may end the process instead."""
    try:
        pipe.send(judge(bug, checks))
    except ZooBroken as error:
        pipe.send(error)


def score(bugs: Sequence[Bug], checks: Sequence[Check], workers: int) -> Iterator[Result]:
    """Judge every bug in a fork of its own, `workers` at a time; results as they come."""
    impact = impacts(checks)
    context = multiprocessing.get_context("fork")
    waiting, running = list(reversed(bugs)), dict[Connection, Bug]()
    while waiting or running:
        while waiting and len(running) < workers:
            bug = waiting.pop()
            ours, theirs = context.Pipe(duplex=False)
            context.Process(target=judge_in_child, args=(bug, reached(bug, checks, impact), theirs), daemon=True).start()
            theirs.close()
            running[ours] = bug
        for pipe in wait(list(running)):
            assert isinstance(pipe, Connection)
            yield received(pipe, running.pop(pipe))


def received(pipe: Connection, bug: Bug) -> Result:
    """The result of a child; one that died without a word was killed by the bug, nobody knows where."""
    try:
        result = pipe.recv()
    except EOFError:
        return Result(bug.name, bug.kind, bug.area, "the process died", "unknown")
    if isinstance(result, ZooBroken):
        raise result
    found: Result = result
    return found


def interval(hits: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927)."""
    if not total:
        return 0.0, 1.0
    z, share = 1.96, hits / total
    centre, spread = share + z * z / (2 * total), z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (centre - spread) / (1 + z * z / total), (centre + spread) / (1 + z * z / total)


def share(hits: int, total: int) -> str:
    """ "97.5 % (95.0–99.0), 195 of 200"."""
    low, high = interval(hits, total)
    return f"{100 * hits / max(1, total):5.1f} % ({100 * low:.1f}–{100 * high:.1f}), {hits} of {total}"


def table(results: Sequence[Result], kind: str) -> Iterator[str]:
    """One line an area, then the sum."""
    found = [result for result in results if result.kind == kind]
    areas = {result.area: [other for other in found if other.area == result.area] for result in found}
    yield f"{kind:18} {'bugs':>5} {'killed':>7} {'localised':>10}"
    for area, each in sorted(areas.items()):
        killed = [result for result in each if result.killed]
        yield f"  {area:16} {len(each):5} {len(killed):7} {sum(result.localised for result in killed):10}"
    killed = [result for result in found if result.killed]
    yield f"  killed     {share(len(killed), len(found))}"
    yield f"  localised  {share(sum(result.localised for result in killed), len(killed))}"


def survivors(results: Iterable[Result]) -> Iterator[str]:
    """What was not killed, and what was, but somewhere else."""
    for result in results:
        if result.kind == "decoy" and result.killed:
            yield f"FALSE ALARM {result.name}: {result.killed_by} says {result.place}: {result.detail}"
        elif result.kind != "decoy" and not result.killed:
            yield f"SURVIVES    {result.name} ({result.area}), {result.checks} checks"
        elif result.kind != "decoy" and not result.localised:
            yield f"ELSEWHERE   {result.name} ({result.area}): {result.killed_by} says {result.place}"


def select(options: argparse.Namespace) -> list[Bug]:
    """The entries that the options ask for."""
    bugs = load_zoo()
    if options.mutants:
        from conformance.zoo.mutants import kept_mutants

        kept = list(kept_mutants())
        bugs += kept[:: max(1, len(kept) // options.mutants)]
    if options.name:
        return [bug for bug in bugs if bug.name in options.name]
    wanted = [bug for bug in bugs if options.kind in (None, bug.kind)]
    return [bug for bug in wanted if options.area in (None, bug.area)]


def read_results(path: Path | None) -> dict[str, Result]:
    """The results of an earlier run."""
    lines = path.read_text().splitlines() if path is not None and path.exists() else []
    return {result.name: result for result in (Result(**json.loads(line)) for line in lines)}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m conformance score", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--area", help="only bugs of this area")
    parser.add_argument("--kind", choices=["semantic", "precision", "decoy"], help="only bugs of this kind")
    parser.add_argument("--name", action="append", help="only this bug (may be repeated)")
    parser.add_argument("--mutants", type=int, default=0, metavar="N", help="also about so many mechanical mutants")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (all cores)")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="keep results there, and take those that are there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there")
    return parser.parse_args(arguments)


def score_command(arguments: Sequence[str]) -> int:
    """Score, print, and return 1 if anything survives or is flagged wrongly."""
    import torch

    torch.set_num_threads(1)
    options, started = parse(arguments), time.perf_counter()
    bugs, known = select(options), read_results(options.resume)
    checks = all_checks()
    clean(checks)
    results = [known[bug.name] for bug in bugs if bug.name in known]
    for result in score([bug for bug in bugs if bug.name not in known], checks, options.workers):
        results.append(result)
        if options.resume:
            with options.resume.open("a") as file:
                file.write(json.dumps(asdict(result)) + "\n")
    show(results, len(checks), time.perf_counter() - started)
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    return int(any(survivors(results)))


def clean(checks: Sequence[Check]) -> None:
    """Every check must pass on the runtime as it is, or a kill would mean nothing."""
    for check in checks:
        try:
            check.run()
        except Failed as failure:
            sys.exit(f"{check.name} fails on the clean runtime: {failure}")


def show(results: Sequence[Result], checks: int, seconds: float) -> None:
    """The tables, then what needs a look."""
    for kind in ("semantic", "precision"):
        if any(result.kind == kind for result in results):
            print("\n".join(table(results, kind)) + "\n")
    decoys: Mapping[bool, int] = {flag: sum(r.killed is flag for r in results if r.kind == "decoy") for flag in (True, False)}
    print(f"decoys flagged: {decoys[True]} of {decoys[True] + decoys[False]}")
    print(f"{checks} checks, {len(results)} entries, {seconds:.0f} s\n")
    print("\n".join(survivors(results)))

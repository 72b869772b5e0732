"""The hostile-checkpoint fuzz: loading any folder gives a model or a NanollamaError.

    python -m conformance.fuzz.checkpoint --cases 10000 --workers 2
    python -m conformance.fuzz.checkpoint --target model --cases 10000
    python -m conformance.fuzz.checkpoint --target model --case 4711      # one case again, with its traceback

Case i of seed s draws from Random(f"{s}:{i}") only, so a run can be split, resumed (--start) and run in parallel without
changing any case. Every case runs in a worker process that can be killed. Findings are: another exception, more time or more
resident memory than the limit (an address-space limit 1 GiB above the start turns large untouched allocations into exceptions),
a worker that dies.
"""

import argparse
import contextlib
import importlib
import multiprocessing
import os
import queue
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from conformance.fuzz.mutations import MUTATIONS, mutate
from conformance.fuzz.valid_checkpoint import build

TARGETS = {
    "weights": "conformance.fuzz.targets:read_weights",
    "model": "nanollama.lm:load_model",
    "all": "nanollama.lm:load",
}
KINDS = {"weights": ["weights", "index", "folder"], "model": ["weights", "index", "folder", "config"]}
ADDRESS_SPACE = 2**30  # bytes a case may map or allocate beyond what the warm worker has


@dataclass(frozen=True)
class Job:
    """The target of a run and its limits."""

    target: str = "weights"
    seed: int = 0
    seconds: float = 5.0
    growth: int = 200_000_000  # bytes of resident memory above the warm worker's

    @property
    def kinds(self) -> list[str]:
        return KINDS.get(self.target, list(MUTATIONS))


@dataclass(frozen=True)
class Outcome:
    """kind: loaded, refused, or a finding: raised, hung, died, memory. detail: the place of the refusal, or the traceback."""

    case: int
    kind: str
    detail: str
    seconds: float = 0.0
    growth: int = 0

    @property
    def is_finding(self) -> bool:
        return self.kind not in ("loaded", "refused")


def make_case(folder: Path, job: Job, case: int) -> None:
    """Write the mutated checkpoint of one case into `folder`, which must not exist."""
    rng = random.Random(f"{job.seed}:{case}")
    build(folder, rng)
    mutate(folder, rng, job.kinds)


def load_target(name: str) -> Callable[[Path], object]:
    module, _, function = TARGETS.get(name, name).partition(":")
    target: Callable[[Path], object] = getattr(importlib.import_module(module), function)
    return target


def run_case(target: Callable[[Path], object], folder: Path, case: int) -> Outcome:
    """Load one folder in this process."""
    start = time.monotonic()
    try:
        target(folder)
        kind, detail = "loaded", ""
    except BaseException as error:  # a panic of a Rust library is not an Exception
        errors = sys.modules.get("nanollama.errors")  # absent: the target never imported it, so it can't have raised it
        if errors and isinstance(error, errors.NanollamaError):
            frame = traceback.extract_tb(error.__traceback__)[-1]
            kind, detail = "refused", f"{Path(frame.filename).name}:{frame.lineno}"
        else:
            kind, detail = "raised", traceback.format_exc()
    return Outcome(case, kind, detail, time.monotonic() - start)


def memory(field: str) -> int:
    """Bytes in a field of /proc/self/status: VmHWM, the peak of resident memory, or VmSize, the address space."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def work(pipe: Connection, job: Job, scratch: Path) -> None:
    """A worker: load a valid checkpoint, then send an Outcome for every case number on the pipe."""
    import resource

    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, if the target needs it
    target, folder = load_target(job.target), scratch / "case"
    build(scratch / "sound", random.Random(job.seed))
    pipe.send(run_case(target, scratch / "sound", -1))
    base = memory("VmHWM")
    limit = memory("VmSize") + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    while True:
        case = pipe.recv()
        shutil.rmtree(folder, ignore_errors=True)
        make_case(folder, job, case)
        outcome = run_case(target, folder, case)
        pipe.send(Outcome(case, outcome.kind, outcome.detail, outcome.seconds, memory("VmHWM") - base))


class Worker:
    """A worker process and its scratch folder; `run` starts another process if it dies."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.process: multiprocessing.process.BaseProcess | None = None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.scratch = tempfile.TemporaryDirectory()
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, self.job, Path(self.scratch.name)), daemon=True)
        self.process.start()
        theirs.close()
        sound = Outcome(-1, "died", "before the first answer")
        with contextlib.suppress(EOFError):
            sound = self.pipe.recv()
        if sound.kind != "loaded":
            raise RuntimeError(f"the target {self.job.target} does not load a sound checkpoint: {sound}")

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.join()
            self.pipe.close()
            self.scratch.cleanup()
        self.process = None

    def run(self, case: int) -> Outcome:
        if not self.process:
            self.start()
        try:
            self.pipe.send(case)
            outcome: Outcome = self.pipe.recv() if self.pipe.poll(self.job.seconds) else Outcome(case, "hung", "")
        except (EOFError, OSError):
            outcome = Outcome(case, "died", "")
        if outcome.growth > self.job.growth:
            outcome = Outcome(case, "memory", f"{outcome.growth:,} bytes; then {outcome.kind} {outcome.detail}")
        if outcome.kind in ("hung", "died", "memory"):
            self.stop()
        return outcome


def fuzz(job: Job, cases: Iterable[int], workers: int = 1) -> Iterator[Outcome]:
    """The outcomes of these cases, in their order."""
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()

    def run(case: int) -> Outcome:
        worker = idle.get()
        try:
            return worker.run(case)
        finally:
            idle.put(worker)

    with contextlib.ExitStack() as stack:
        for _ in range(workers):
            idle.put(stack.enter_context(Worker(job)))
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        yield from pool.map(run, cases)  # closing the generator cancels what has not started


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m conformance.fuzz.checkpoint", description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="weights", help=f"{', '.join(TARGETS)}, or module:function of a folder's path")
    parser.add_argument("--cases", type=int, default=10_000, help="how many (default: %(default)s)")
    parser.add_argument("--start", type=int, default=0, help="the first case, to resume or to split a run")
    parser.add_argument("--case", type=int, help="run only this case, in this process, and show its traceback")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--save", type=Path, help="folder to write the findings' checkpoints to")
    options = parser.parse_args(arguments)
    job = Job(options.target, options.seed)
    if options.case is not None:
        with tempfile.TemporaryDirectory() as scratch:
            make_case(Path(scratch) / "case", job, options.case)
            load_target(job.target)(Path(scratch) / "case")
        return 0
    return report(job, range(options.start, options.start + options.cases), options.workers, options.save)


def report(job: Job, cases: range, workers: int, save: Path | None) -> int:
    """Run, print findings as they occur and totals at the end; returns the exit status: 1 if there are findings."""
    print(f"target {job.target}, seed {job.seed}, cases {cases.start:,} to {cases.stop - 1:,}, {workers} workers", flush=True)
    start, kinds, refusals = time.monotonic(), Counter[str](), Counter[str]()
    findings, slowest, growth = 0, 0.0, 0
    for outcome in fuzz(job, cases, workers):
        kinds[outcome.kind] += 1
        refusals[outcome.detail] += outcome.kind == "refused"
        slowest, growth = max(slowest, outcome.seconds), max(growth, outcome.growth)
        if outcome.is_finding:
            findings += 1
            print(f"\ncase {outcome.case} {outcome.kind}: {outcome.detail}", flush=True)
            if save:
                save.mkdir(parents=True, exist_ok=True)
                make_case(save / f"{job.target.replace(':', '.')}-{job.seed}-{outcome.case}", job, outcome.case)
        if (outcome.case + 1) % 1000 == 0:
            print(f"{outcome.case + 1:,} done, {time.monotonic() - start:.0f} s", flush=True)
    print("refused at:", ", ".join(f"{place} ({count})" for place, count in (+refusals).most_common()))
    print(f"{kinds.total():,} cases: {', '.join(f'{count:,} {kind}' for kind, count in kinds.most_common())}; "
          f"{len(+refusals)} places of refusal; {findings} findings")  # fmt: skip
    print(f"slowest {slowest:.2f} s, peak memory +{growth / 1e6:.0f} MB, {time.monotonic() - start:.0f} s in all")
    return min(1, findings)


if __name__ == "__main__":
    raise SystemExit(main())

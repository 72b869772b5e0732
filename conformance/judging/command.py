"""`python -m conformance run --engine NAME`: judge one engine, print the table, write what others read."""

import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from conformance.engines.engine import Engine
from conformance.engines.registry import find_engine
from conformance.judging.judge_engine import judge, versions
from conformance.judging.runtime_checks import open_ends
from conformance.report.page import write_report
from conformance.report.terminal import terminal
from conformance.requirements.results import Run, plain, read_run, write_run
from nanollama.errors import NanollamaError


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for. `json`: a file, or "-" for the terminal; `model`: what a server serves."""

    engine: str
    families: Sequence[str] = ()
    json: str | None = None
    report: Path | None = None
    against: Path | None = None
    model: str | None = None


def judge_command(wanted: Wanted) -> int:
    """Judge, print, write; the exit status."""
    before = earlier(wanted.against)
    for path in (wanted.report, Path(wanted.json) if wanted.json not in (None, "-") else None):
        if path is not None and not path.absolute().parent.is_dir():
            raise NanollamaError(f"{path} can't be written: there is no folder {path.absolute().parent}")
    engine = find_engine(wanted.engine)
    try:
        run = of_server(engine, wanted) if served(wanted.engine) else of_model(engine, wanted)
    finally:
        engine.close()
    run.command = f"python -m conformance run {shlex.join(arguments(wanted))}"
    if wanted.json == "-":
        print(json.dumps(plain(asdict(run)), indent=1))
    else:
        print(terminal(run))
    if wanted.json not in (None, "-"):
        write_run(run, Path(str(wanted.json)))
    if wanted.report is not None:
        write_report(run, wanted.report, before)
    return 0 if run.passed else 1


def served(name: str) -> bool:
    """Whether an engine is a server of text, which is judged by what it says."""
    return name.startswith(("http:", "https:"))


def of_model(engine: Engine, wanted: Wanted) -> Run:
    """Everything inside a model; progress goes to stderr."""
    if wanted.model is not None:
        raise NanollamaError("--model names the checkpoint of a server; this engine is judged on the suite's own models")
    return judge(engine, wanted.families, lambda line: print(line, file=sys.stderr, flush=True))


def of_server(engine: Engine, wanted: Wanted) -> Run:
    """Everything that a client sees."""
    from conformance.engines.protocols.openai_http import OpenAIServer
    from conformance.judging.wire.judge_server import judge_server
    from conformance.judging.wire.truth.truth import Truth

    assert isinstance(engine, OpenAIServer)
    if wanted.families:
        raise NanollamaError("--family chooses among the suite's models; a server is judged on the one that it serves")
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    results = judge_server(engine, Truth(wanted.model) if wanted.model else None)
    run = Run(engine.about(), started, results=results, versions=versions())
    run.results += open_ends(run.engine, {result.requirement for result in results}, False)
    run.seconds = time.perf_counter() - clock
    return run


def earlier(path: Path | None) -> Run | None:
    """The run to compare with."""
    try:
        return None if path is None else read_run(path)
    except (OSError, ValueError) as error:
        raise NanollamaError(f"--against {path}: {error}; expected a file that --json wrote") from error


def arguments(wanted: Wanted) -> list[str]:
    """The command line of a run."""
    families = [word for family in wanted.families for word in ("--family", family)]
    return ["--engine", wanted.engine, *families, *(["--model", wanted.model] if wanted.model else [])]

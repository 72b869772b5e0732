"""`python -m conformance run [--engine NAME]`: judge one engine, print the report, write what others read, generate text."""

import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from conformance.engines.engine import Engine
from conformance.engines.registry import find_engine
from conformance.judging.judge_engine import judge_engine, versions
from conformance.judging.runtime_checks import not_judged
from conformance.report.page import write_report
from conformance.report.terminal import terminal
from conformance.requirements.results import Run, plain, read_run, write_run
from nanollama.errors import NanollamaError

RUNTIME = "nanollama"
STORY = "weights/stories260K-hf"  # in the folder NANOLLAMA_DATA


@dataclass(frozen=True)
class RunOptions:
    """The options of the command. `json`: a file, or "-" for the terminal; `model`: a checkpoint, served by the server
    or for the runtime to generate text with; `live`: compare with transformers as it is installed here."""

    engine: str = RUNTIME
    families: Sequence[str] = ()
    json: str | None = None
    report: Path | None = None
    against: Path | None = None
    model: str | None = None
    live: bool = True


def run_command(options: RunOptions) -> int:
    """Judge, print, write; the exit status: 0 if the run passed, else 1."""
    check_options(options)
    before = earlier_run(options.against)
    engine = find_engine(options.engine)
    try:
        run = run_of_server(engine, options) if is_server(options.engine) else run_of_model(engine, options)
    finally:
        engine.close()
    run.command = f"python -m conformance run {shlex.join(command_line(options))}".strip()
    if options.json == "-":
        print(json.dumps(plain(asdict(run)), indent=1))
    else:
        print(terminal(run))
    if options.json not in (None, "-"):
        write_run(run, Path(str(options.json)))
    if options.report is not None:
        write_report(run, options.report, before)
    if is_runtime(options.engine) and options.json != "-":
        print_generated_text(options.model)
    return 0 if run.passed else 1


def check_options(options: RunOptions) -> None:
    """Refuse options that mean nothing for this engine, and files that can't be written, before anything runs."""
    if is_server(options.engine):
        if options.families:
            raise NanollamaError("--family chooses among the suite's models; a server is judged on the one that it serves")
        if not options.live:
            raise NanollamaError("--no-transformers is about the suite's models; a server is judged on the one that it serves")
    elif options.model is not None and not is_runtime(options.engine):
        raise NanollamaError(
            "--model names the checkpoint of a server, or one for nanollama to generate text with; "
            "this engine is judged on the suite's models"
        )
    for path in (options.report, Path(options.json) if options.json not in (None, "-") else None):
        if path is not None and not path.absolute().parent.is_dir():
            raise NanollamaError(f"{path} can't be written: there is no folder {path.absolute().parent}")


def is_server(name: str) -> bool:
    """Whether an engine is a text server, which is judged as its client sees it."""
    return name.startswith(("http:", "https:"))


def is_runtime(name: str) -> bool:
    """Whether an engine is this project's runtime."""
    return name.partition(":")[0] == RUNTIME


def run_of_model(engine: Engine, options: RunOptions) -> Run:
    """The run of an engine that loads checkpoints; progress goes to stderr if that is a terminal."""

    def progress(line: str) -> None:
        if sys.stderr.isatty():
            print(line, file=sys.stderr, flush=True)

    return judge_engine(engine, options.families, progress, options.live)


def run_of_server(engine: Engine, options: RunOptions) -> Run:
    """The run of a text server."""
    from conformance.engines.protocols.openai_http import OpenAIServer
    from conformance.judging.wire.judge_server import judge_server
    from conformance.judging.wire.truth.truth import Truth

    assert isinstance(engine, OpenAIServer)
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    results = judge_server(engine, Truth(options.model) if options.model else None)
    run = Run(engine.about(), started, results=results, versions=versions())
    run.results += not_judged(run.engine, {result.requirement for result in results}, False)
    run.seconds = time.perf_counter() - clock
    return run


def earlier_run(path: Path | None) -> Run | None:
    """The run to compare with."""
    try:
        return None if path is None else read_run(path)
    except (OSError, ValueError) as error:
        raise NanollamaError(f"--against {path}: {error}; expected a file that --json wrote") from error


def command_line(options: RunOptions) -> list[str]:
    """The arguments that make this run again."""
    families = [word for family in options.families for word in ("--family", family)]
    live = [] if options.live else ["--no-transformers"]
    return ["--engine", options.engine, *families, *live, *(["--model", options.model] if options.model else [])]


def print_generated_text(source: str | None) -> None:
    """Generate 60 tokens with a real checkpoint, if there is one: --model, NANOLLAMA_MODEL, or the one in NANOLLAMA_DATA."""
    data = os.environ.get("NANOLLAMA_DATA")
    source = source or os.environ.get("NANOLLAMA_MODEL") or (f"{data}/{STORY}" if data else None)
    if source is None:
        print("\nno text: no model was given. Name a checkpoint folder: nox -s conformance -- --model FOLDER")
        return
    import nanollama

    lm = nanollama.load(source, device="cpu")
    prompt = "Once upon a time"
    print(f"\n{Path(source).name}, greedy:\n{prompt}{''.join(lm.generate(prompt, max_tokens=60, temperature=0.0))}")

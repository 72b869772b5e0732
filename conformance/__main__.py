"""The suite's command line: run, smoke, doctor, verify, golden, fixture, score."""

import argparse
import json
import sys
from pathlib import Path

from conformance.truth.compare import SEMANTIC_BAR
from nanollama.errors import NanollamaError, unknown_name


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="judge the runtime, or another engine, requirement by requirement")
    run.add_argument("--engine", metavar="NAME", help="the engine to judge (nanollama; --engines lists all)")
    run.add_argument("--engines", action="store_true", help="list the engines")
    run.add_argument("--family", action="append", default=[], help="only this architecture (may be repeated)")
    run.add_argument("--model", help="checkpoint that a server serves, or that nanollama generates text with at the end")
    run.add_argument("--no-transformers", action="store_true", help="goldens alone, no live transformers")
    run.add_argument("--json", nargs="?", const="-", metavar="FILE", help="the run as JSON, printed or in FILE")
    run.add_argument("--report", type=Path, metavar="FILE", help="write the report as one HTML page")
    run.add_argument("--against", type=Path, metavar="FILE", help="an earlier run's JSON, to report what changed")
    smoke = commands.add_parser("smoke", help="test the adapter of an engine: shapes, names, determinism")
    smoke.add_argument("--engine", required=True, metavar="NAME", help="as in run")
    doctor = commands.add_parser("doctor", help="the goldens on this device, per dtype, one verdict")
    doctor.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    verify = commands.add_parser("verify", help="compare two models layer by layer, name the first module that differs")
    verify.add_argument("a", metavar="A", help="folder, GGUF file or hub id, or transformers:FOLDER, q8:…, q4:…")
    verify.add_argument("b", metavar="B")
    verify.add_argument("--dtype", default="float64", choices=["float64", "float32", "bfloat16", "float16"])
    verify.add_argument("--bar", type=float, default=SEMANTIC_BAR, help="largest relative error that counts as equal")
    verify.add_argument("--ids", help="prompt as token ids, comma-separated")
    verify.add_argument("--text", type=Path, help="also KL, top-1 agreement and perplexity on this text file")
    verify.add_argument("--tokens", type=int, default=2048, help="how many tokens of it (2048)")
    golden = commands.add_parser("golden", help="write golden/, or check that it is what would be written now")
    golden.add_argument("--check", action="store_true")
    fixture = commands.add_parser("fixture", help="write a family's tiny model as a checkpoint folder, to try things on")
    fixture.add_argument("folder", metavar="FOLDER", type=Path)
    fixture.add_argument("--family", default="LlamaForCausalLM", help="architecture (LlamaForCausalLM)")
    fixture.add_argument("--set", action="append", default=[], metavar="KEY=JSON", help="change a key of config.json")
    commands.add_parser("score", help="the suite's own score on seeded bugs (score --help)")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status (2: bad input)."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["score"]:
        from conformance.score.command import score_command

        return score_command(given[1:])
    options = parser().parse_args(given)
    try:
        return dispatch(options)
    except NanollamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def dispatch(options: argparse.Namespace) -> int:
    """Call the command's function; imports are local because transformers takes seconds."""
    if options.command == "golden":
        from conformance.truth.golden import golden_command

        return golden_command(options.check)
    if options.command == "fixture":
        return fixture_command(options.folder, options.family, options.set)
    if options.command == "verify":
        from conformance.verify.compare_models import verify_command

        ids = parse_ids(options.ids) if options.ids else None
        return verify_command(options.a, options.b, options.dtype, options.bar, ids, options.text, options.tokens)
    if options.command == "smoke":
        from conformance.judging.smoke import smoke_command

        return smoke_command(options.engine)
    if options.command == "doctor":
        from conformance.judging.doctor import doctor_command

        return doctor_command(options.device)
    return run(options)


def run(options: argparse.Namespace) -> int:
    """Judge an engine, the runtime unless another is named."""
    if options.engines:
        from conformance.engines.registry import engine_list

        print(engine_list())
        return 0
    from conformance.judging.command import RUNTIME, RunOptions, run_command

    return run_command(
        RunOptions(
            engine=options.engine or RUNTIME,
            families=options.family,
            json=options.json,
            report=options.report,
            against=options.against,
            model=options.model,
            live=not options.no_transformers,
        )
    )


def fixture_command(folder: Path, family: str, changes: list[str]) -> int:
    """Write a fixture with changed config keys."""
    from conformance.models.fixtures import FIXTURES, fixture_config, write_fixture

    if family not in FIXTURES:
        raise unknown_name("family", family, FIXTURES)
    changed = {}
    for change in changes:
        key, _, text = change.partition("=")
        try:
            changed[key] = json.loads(text)
        except ValueError as error:
            raise NanollamaError(f"--set {change!r} is not KEY=JSON, such as rms_norm_eps=1e-3") from error
    write_fixture(folder, fixture_config(family) | changed)
    print(f"{folder}: {family}, derived weights in float64")
    return 0


def parse_ids(text: str) -> list[int]:
    """Comma-separated token ids."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise NanollamaError(f"--ids {text!r} is not a comma-separated list of token ids, such as 1,17,4") from error


if __name__ == "__main__":
    sys.exit(main())

"""`nanollama verify`, `doctor` and `kata`: the conformance suite, run in a process of its own.

This package never imports the suite, and only a clone of the project has it.
"""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

from nanollama.errors import NanollamaError

ROOT = Path(__file__).parents[2]  # of the clone, if this is one


def verify_command(options: Namespace) -> int:
    """Compare two models with the suite."""
    return run_with_options("verify", options)


def doctor_command(options: Namespace) -> int:
    """Check this machine with the suite."""
    return run_with_options("doctor", options)


def kata_command(options: Namespace) -> int:
    """Do one action on one kata. Ctrl-C reaches the suite too, where it ends `watch` without an error."""
    words = [] if options.folder is None else [f"--folder={options.folder}"]
    words += [options.action, *([] if options.kata is None else ["--", options.kata])]
    return run_suite("kata", "conformance.katas", words)


def run_with_options(command: str, options: Namespace) -> int:
    """Run `python -m conformance COMMAND` with these options; its exit status."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    places = ["--", given.pop("a"), given.pop("b")] if "a" in given else []
    flags = [f"--{name}={value}" for name, value in given.items()]
    # in a process group of its own, Ctrl-C reaches this process alone, which then ends the suite without a traceback
    return run_suite(command, "conformance", [command, *flags, *places], process_group=0)


def run_suite(command: str, module: str, words: list[str], *, process_group: int | None = None) -> int:
    """`python -m MODULE WORDS …` for `nanollama COMMAND`; its exit status."""
    if not (ROOT / "conformance" / "__main__.py").is_file():
        raise NanollamaError(
            f"`nanollama {command}` needs the conformance suite, which only a clone of the project has: in the clone, run "
            f"`pip install -e .[dev]` and then this again"
        )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep)}
    line = [sys.executable, "-P", "-m", module, *words]
    status = subprocess.run(line, env=environment, check=False, process_group=process_group).returncode
    return status if status >= 0 else 128 - status

"""The conformance suite, run in a process of its own: this package never imports it, and only a clone of the project has it."""

import os
import subprocess
import sys
from pathlib import Path

from nanollama.errors import NanollamaError

ROOT = Path(__file__).parents[2]  # of the clone, if this is one


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

"""The transcripts in the documents: every ```console block is run, and must print the text of the document.

`python -m conformance.report.docs` compares, `--write` updates the output of the commands. Blocks run from top to bottom in an
empty folder per file, so that a later block can use what an earlier one made. Numbers that differ between machines
(rounding errors, speeds, seconds) are compared as "a number". Blocks that name $NANOLLAMA_DATA need that folder. `--write`
also writes which katas teach each item of ROADMAP.md.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conformance import ROOT
from conformance.katas.roadmap import with_katas

DOCUMENTS = ("README.md", "ROADMAP.md", "conformance/README.md")
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VARIABLE = [
    (re.compile(r"\b\d\.\de[+-]\d\d\b"), "#e"),  # a rounding error
    (re.compile(r"\b(near|far)/\S+ *"), "#tap "),  # where it was largest
    (re.compile(r" *\b\d+\.\d\dx"), " #x"),
    (re.compile(r"\b[\d.]+ (tok/s|t/s|s|GB)\b"), r"# \1"),
]


@dataclass(frozen=True)
class Command:
    """One `$ command` of a block and its output in the document."""

    line: str
    output: str

    @property
    def needs_data(self) -> bool:
        """Whether it uses the folder of real checkpoints."""
        return "$NANOLLAMA_DATA" in self.line


def commands(block: str) -> list[Command]:
    """The commands of one block."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
    if parts[0].strip():
        raise ValueError(f"a console block must begin with '$ command', not {parts[0]!r}")
    return [Command(*part.partition("\n")[::2]) for part in parts[1:]]


def run(line: str, folder: Path) -> str:
    """The output of a command, stdout and stderr interleaved as in a terminal."""
    bin_folder = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    env = os.environ | {"PYTHONPATH": str(ROOT), "PATH": bin_folder, "COLUMNS": "120", "HF_HUB_OFFLINE": "1"}
    env["OMP_NUM_THREADS"] = "1"  # several of these run at once in the tests, and threads that wait for each other are slow
    if "$NANOLLAMA_DATA" not in line:  # what it prints may not depend on whether the folder is there
        env.pop("NANOLLAMA_DATA", None)
    shell = re.sub(r"^nanollama ", "python -m nanollama ", line)
    done = subprocess.run(
        shell, shell=True, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    data = os.environ.get("NANOLLAMA_DATA")
    printed = done.stdout.replace(data, "$NANOLLAMA_DATA") if data else done.stdout  # documents don't name folders of a machine
    return printed if printed.endswith("\n") or not printed else printed + "\n"


def comparable(output: str) -> str:
    """Output without the numbers that depend on the machine."""
    for pattern, replacement in VARIABLE:
        output = pattern.sub(replacement, output)
    return "\n".join(line.rstrip() for line in output.splitlines())


def fresh_blocks(text: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Every block that can run here: the document's text, and the current output."""
    for match in BLOCK.finditer(text):
        found = commands(match.group(1))
        if any(c.needs_data for c in found) and not os.environ.get("NANOLLAMA_DATA"):
            continue
        yield match.group(1), "".join(f"$ {c.line}\n{run(c.line, folder)}" for c in found)


def main() -> int:
    """Compare or write; returns the exit status."""
    wrong = 0
    for name in DOCUMENTS:
        text = (ROOT / name).read_text()
        with tempfile.TemporaryDirectory() as folder:
            for stands, prints in fresh_blocks(text, Path(folder)):
                text = text.replace(stands, prints)
                if comparable(stands) != comparable(prints):
                    wrong += 1
                    print(f"{name}: differs\n--- stands\n{stands}--- prints\n{prints}")
        text = with_katas(text) if name == "ROADMAP.md" else text
        if "--write" in sys.argv:
            (ROOT / name).write_text(text)
    return 0 if "--write" in sys.argv else int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

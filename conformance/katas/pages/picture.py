"""The README's picture of a terminal: a learner's mistake, and the real output of `nanollama kata check`.

`python -m conformance.katas.pages.picture` writes picture.svg; with --check it reports whether the picture is up to date.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

from conformance import ROOT
from conformance.katas.course import find_kata
from conformance.katas.laws.canaries import with_body

PICTURE = Path(__file__).with_suffix(".svg")
MISTAKE = "return x / (x.pow(2).mean(-1, keepdim=True).sqrt() + self.eps) * self.weight"
COLOURS = {"$ ": "#7ee787", "FAILED": "#ff7b72", "looks like": "#f2cc60", "next:": "#79c0ff"}
STYLE = "font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:14px"
SPACE = "\N{NO-BREAK SPACE}"  # SVG does not draw plain spaces at the beginning of a line


def transcript() -> str:
    """The screen after a check of a file with the mistake."""
    kata = find_kata("rmsnorm")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kata", kata.name, kata.reference.name)
        file.parent.mkdir(parents=True)
        file.write_text(with_body(kata, MISTAKE), encoding="utf-8")
        line = [sys.executable, "-m", "nanollama", "kata", "check", kata.name, "--folder", "kata"]
        here = os.environ | {"PYTHONPATH": str(ROOT)}
        run = subprocess.run(line, cwd=folder, env=here, capture_output=True, encoding="utf-8", check=False)
    if run.returncode != 1:
        raise RuntimeError(f"the check should fail, but ended with status {run.returncode}: {run.stderr}")
    return f"    def forward(self, x: Tensor) -> Tensor:\n        {MISTAKE}\n\n$ nanollama kata check {kata.name}\n{run.stdout}"


def svg(text: str) -> str:
    """A text drawn as a terminal."""
    lines = text.rstrip("\n").splitlines()
    width, height = 9 * max(map(len, lines)) + 40, 20 * len(lines) + 40
    rows = []
    for number, line in enumerate(lines):
        colour = next((colour for start, colour in COLOURS.items() if line.startswith(start)), "#e6edf3")
        rows.append(f'<text x="20" y="{20 * number + 34}" fill="{colour}">{escape(line).replace(" ", SPACE)}</text>')
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="nanollama kata check, of a mistake">'
    back = f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>'
    return "\n".join([head, back, f'<g style="{STYLE}">', *rows, "</g>", "</svg>", ""])


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 1 if the picture is out of date."""
    parser = argparse.ArgumentParser(prog="python -m conformance.katas.pages.picture", description=str(__doc__).splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; report whether the picture is up to date")
    now = svg(transcript())
    if not parser.parse_args(arguments).check:
        PICTURE.write_text(now, encoding="utf-8", newline="\n")
        return 0
    current = PICTURE.read_text(encoding="utf-8") == now
    print(f"{PICTURE.name} is {'up to date' if current else 'out of date: run python -m conformance.katas.pages.picture'}")
    return int(not current)


if __name__ == "__main__":
    sys.exit(main())

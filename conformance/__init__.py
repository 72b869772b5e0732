"""The conformance suite: proves a runtime layer by layer. Needs the clone; the wheel does not contain it."""

from pathlib import Path

ROOT = Path(__file__).parents[1]  # of the clone
GOLDEN = ROOT / "golden"

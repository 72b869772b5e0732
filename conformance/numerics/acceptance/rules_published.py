"""The comparison of acceptance rules as it is published: kept in golden/rules.json, shown in README.md."""

import datetime
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from conformance import GOLDEN, ROOT

PUBLISHED = GOLDEN / "rules.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- rules -->\n", "<!-- /rules -->"
HEADS = {
    "bugs": "bugs found",
    "precision": "precision faults found",
    "decoys": "decoys flagged",
    "variants": "correct engines flagged",
    "policies": "those that round elsewhere flagged",
}
STRETCHED = (
    "Transplanted: MaxText publishes its bound for float32 runs, assert_close its defaults for single operators, "
    "FlashAttention its factor for one kernel; here all three judge the logits of whole bfloat16 models, as people use them."
)


def published(found: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a comparison: every figure, no single trial."""
    seen = {
        "command": "python -m conformance.numerics rules --write",
        "torch": torch.__version__.partition("+")[0],
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    return {key: value for key, value in found.items() if key not in ("trials", "seconds")} | {"provenance": seen}


def markdown(found: Mapping[str, Any]) -> Iterator[str]:
    """The table of README.md."""
    yield "| acceptance rule | " + " | ".join(HEADS.values()) + " |"
    yield "|---|" + "---|" * len(HEADS)
    for rule, by_kind in found["rules"].items():
        cells = (cell(by_kind[kind]) for kind in HEADS)
        yield f"| {rule} | {' | '.join(cells)} |"
    yield ""
    yield f"{STRETCHED} Run on {', '.join(found['families'])} and, for bugs that these cannot show, others."
    seen = found["provenance"]
    yield f"`{seen['command']}`, torch {seen['torch']}, {seen['date']}."


def cell(rate: Mapping[str, Any]) -> str:
    """How many of how many, and the share."""
    hits, total = rate["flagged"], rate["of"]
    return f"{hits} of {total}" + (f" ({hits / total:.0%})" if total and hits else "")


def with_table(text: str, found: Mapping[str, Any]) -> str:
    """README.md with the table of this comparison between its markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md has no lines {BEGIN.strip()} and {END}")
    return before + begin + "\n".join(markdown(found)) + "\n" + end + after


def publish(found: Mapping[str, Any], path: Path = PUBLISHED, readme: Path = README) -> None:
    """Store a comparison and show it in README.md."""
    kept = published(found)
    readme.write_text(with_table(readme.read_text(encoding="utf-8"), kept), encoding="utf-8")
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

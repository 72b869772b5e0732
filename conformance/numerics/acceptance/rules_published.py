"""The published comparison of acceptance rules: stored in golden/rules.json, shown in conformance/README.md."""

import datetime
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from conformance import GOLDEN, ROOT
from conformance.score.published import with_lines

PUBLISHED = GOLDEN / "rules.json"
README = ROOT / "conformance" / "README.md"
HEADS = {
    "bugs": "bugs found",
    "precision": "precision faults found",
    "decoys": "decoys flagged",
    "variants": "correct engines flagged",
    "policies": "correct engines with other roundings flagged",
}
OTHER_PURPOSE = (
    "Three rules are used outside their purpose: MaxText publishes its bound for float32 runs, assert_close its defaults for "
    "single operators, FlashAttention its factor for one kernel; here all three judge the logits of whole bfloat16 models, as "
    "people use them."
)


def published(found: Mapping[str, Any]) -> dict[str, Any]:
    """The stored part of a comparison: every figure, without the single trials."""
    seen = {
        "command": "python -m conformance.numerics rules --write",
        "torch": torch.__version__.partition("+")[0],
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    return {key: value for key, value in found.items() if key not in ("trials", "seconds")} | {"provenance": seen}


def rules_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The table of conformance/README.md."""
    yield "| acceptance rule | " + " | ".join(HEADS.values()) + " |"
    yield "|---|" + "---|" * len(HEADS)
    for rule, by_kind in found["rules"].items():
        cells = (cell(by_kind[kind]) for kind in HEADS)
        yield f"| {rule} | {' | '.join(cells)} |"
    yield ""
    yield f"{OTHER_PURPOSE} Run on {', '.join(found['families'])} and, for bugs that these cannot show, others."
    seen = found["provenance"]
    yield f"`{seen['command']}`, torch {seen['torch']}, {seen['date']}."


def cell(rate: Mapping[str, Any]) -> str:
    """A count, its total, and the share."""
    hits, total = rate["flagged"], rate["of"]
    return f"{hits} of {total}" + (f" ({hits / total:.0%})" if total and hits else "")


def publish(found: Mapping[str, Any], path: Path = PUBLISHED, readme: Path = README) -> None:
    """Store a comparison and show it in conformance/README.md."""
    kept = published(found)
    readme.write_text(with_lines(readme.read_text(encoding="utf-8"), "rules", rules_lines(kept)), encoding="utf-8")
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

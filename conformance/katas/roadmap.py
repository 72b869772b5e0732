"""ROADMAP.md: its items, and under each the line with its state and the katas that teach it.

That line is generated from katas.toml (`python -m conformance.report.docs --write`), and a test compares the two.
"""

import re

from conformance import ROOT
from conformance.katas.course import course, without_kata

ROADMAP = ROOT / "ROADMAP.md"
ITEM = re.compile(r"^### (?P<item>.+)\n\n(?P<text>(?:.+\n)+)\n(?P<line>.* · (?P<state>done)|planned)$", re.MULTILINE)


def roadmap() -> dict[str, str]:
    """The items of ROADMAP.md, and their state: "done" or "planned"."""
    return {found["item"]: found["state"] or "planned" for found in ITEM.finditer(ROADMAP.read_text(encoding="utf-8"))}


def with_katas(text: str) -> str:
    """The text of ROADMAP.md with the generated line under every item that is done."""

    def written(found: re.Match[str]) -> str:
        if found["state"] != "done":
            return found[0]
        where = found["line"].split(" · ")[0]
        return found[0].removesuffix(found["line"]) + f"{where} · {taught_by(found['item'])} · done"

    return ITEM.sub(written, text)


def taught_by(item: str) -> str:
    """The katas that teach an item, or the reason why there is none."""
    names = [f"`{name}`" for name, kata in course().items() if item in kata.items]
    if names:
        return f"{'kata' if len(names) == 1 else 'katas'} {', '.join(names)}"
    return f"no kata: {without_kata()[item]}"

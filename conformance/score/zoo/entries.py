"""The record of a zoo entry, and the reader of the zoo's TOML files, one per area."""

import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

ZOO = Path(__file__).parent
BUGS = ZOO / "bugs"  # one file per area
KINDS = ("semantic", "precision", "decoy")


class ZooBroken(Exception):
    """A zoo entry that is not well formed, or no longer fits the runtime."""


@dataclass(frozen=True)
class Edit:
    """One text for another, in one function or constant of the runtime."""

    at: str  # "nanollama.model.layers:RMSNorm.forward"
    old: str  # occurs exactly once in the text of `at`
    new: str


@dataclass(frozen=True)
class Bug:
    """A named change of the runtime: wrong, rounded differently, or as a decoy, equivalent."""

    name: str
    kind: str  # "semantic": another function; "precision": the same, rounded differently; "decoy": equivalent, must pass
    module: str  # regular expression on the place that a good suite names first
    source: str  # the thread where it was a real bug; "own"; "mutant"
    what: str  # one sentence
    area: str
    edits: tuple[Edit, ...] = ()
    custom: str | None = None  # "module:function" of a context manager, for a change that is not an edit
    needs: str | None = None  # Python expression on the ModelConfig `c`: which models can show it


def load_zoo() -> list[Bug]:
    """Every entry of the zoo, by area and in the order of the files."""
    zoo = [read_entry(entry, path.stem) for path in sorted(BUGS.glob("*.toml")) for entry in read_toml(path, "bug")]
    names = [bug.name for bug in zoo]
    for name in names:
        if names.count(name) > 1:
            raise ZooBroken(f"zoo entry {name} occurs {names.count(name)} times")
    return zoo


def read_toml(path: Path, table: str) -> list[dict[str, Any]]:
    """The entries of one file, all of which are [[table]]."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    if set(content) != {table}:
        raise ZooBroken(f"{path.name} has {sorted(content)}; expected nothing but [[{table}]]")
    entries: list[dict[str, Any]] = content[table]
    return entries


def read_entry(entry: dict[str, Any], area: str) -> Bug:
    """One [[bug]] of a file."""
    name = entry.get("name", "without a name")
    known = {field.name for field in fields(Bug)} - {"edits", "area"} | {"edit"}
    if unknown := entry.keys() - known:
        raise ZooBroken(f"zoo entry {name} has {sorted(unknown)}; there are {sorted(known)}")
    try:
        edits = tuple(Edit(**edit) for edit in entry.pop("edit", []))
        bug = Bug(**entry, area=area, edits=edits)
        re.compile(bug.module)
    except (TypeError, re.error) as error:
        raise ZooBroken(f"zoo entry {name}: {error}") from error
    if bug.kind not in KINDS:
        raise ZooBroken(f"zoo entry {name} is of kind {bug.kind!r}; there are {', '.join(KINDS)}")
    if bool(bug.edits) == bool(bug.custom):
        raise ZooBroken(f"zoo entry {name} needs either edits or custom")
    return bug

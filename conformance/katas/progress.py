"""A learner's progress: one small text file, a line per kata, the latest kata last."""

from dataclasses import dataclass
from pathlib import Path

from nanollama.errors import NanollamaError

FIRST_LINE = "# kata, started or passed, hints seen; the latest kata is last. Written by `nanollama kata`."


@dataclass
class Entry:
    """One kata that was started."""

    passed: bool = False
    hints: int = 0


class Progress:
    """The file: read once, written at every change."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "progress.txt"
        self.entries: dict[str, Entry] = {}
        if self.file.exists():
            for line in self.file.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.strip() and not line.startswith("#"):
                    name, entry = self.read(line)
                    self.entries[name] = entry

    def read(self, line: str) -> tuple[str, Entry]:
        """One line of the file."""
        match line.split():
            case [name, ("started" | "passed") as state, hints] if hints.isdecimal():
                return name, Entry(state == "passed", int(hints))
        raise NanollamaError(
            f"{self.file}: {line!r} is not a valid line; expected a kata, started or passed, and a number: correct or delete it"
        )

    @property
    def latest(self) -> str | None:
        """The kata that was worked on last."""
        return next(reversed(self.entries), None)

    def note(self, name: str, *, passed: bool | None = None, hint: bool = False) -> Entry:
        """Record that this kata was worked on; returns its entry."""
        entry = self.entries.pop(name, Entry())
        entry.passed = entry.passed if passed is None else passed
        entry.hints += hint
        self.entries[name] = entry
        lines = [f"{each} {'passed' if at.passed else 'started'} {at.hints}" for each, at in self.entries.items()]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text("\n".join([FIRST_LINE, *lines, ""]), encoding="utf-8")
        return entry

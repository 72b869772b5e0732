"""What a learner has done so far: one small text file, a line for each kata, the one worked at last at the end."""

from dataclasses import dataclass
from pathlib import Path

from nanollama.errors import NanollamaError

FIRST_LINE = "# kata, started or passed, hints seen; the last line is the one worked at last. Written by `nanollama kata`."


@dataclass
class Entry:
    """One kata that was begun."""

    passed: bool = False
    hints: int = 0


class Progress:
    """The file, read when it is made and written at every change."""

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
            f"{self.file}: {line!r} is not a line of it; expected a kata, started or passed, and a number: mend or delete it"
        )

    @property
    def latest(self) -> str | None:
        """The kata worked at last."""
        return next(reversed(self.entries), None)

    def note(self, name: str, *, passed: bool | None = None, hint: bool = False) -> Entry:
        """Put down that this kata was worked at; returns its entry."""
        entry = self.entries.pop(name, Entry())
        entry.passed = entry.passed if passed is None else passed
        entry.hints += hint
        self.entries[name] = entry
        lines = [f"{each} {'passed' if at.passed else 'started'} {at.hints}" for each, at in self.entries.items()]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text("\n".join([FIRST_LINE, *lines, ""]), encoding="utf-8")
        return entry

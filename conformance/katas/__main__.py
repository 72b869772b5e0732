"""`nanollama kata`: learn a piece of the runtime by taking it out and writing it again, until its tests pass."""

import argparse
import difflib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import wrap

from conformance import ROOT
from conformance.katas.checking.check import check
from conformance.katas.course import Kata, course, find_kata
from conformance.katas.pages.page import near, page
from conformance.katas.progress import Progress
from conformance.katas.stub import function_text, has_moved, header, own_lines, spans, stub
from nanollama.cli.output import open_streams, write
from nanollama.errors import NanollamaError

POLL = 0.3  # seconds between two looks at a file that is watched


class Desk:
    """Where a learner works: the folder with their files and their progress."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.progress = folder, Progress(folder)

    def file(self, kata: Kata) -> Path:
        """The learner's file of a kata."""
        return self.folder / kata.name / kata.reference.name

    def begun(self, kata: Kata) -> Path:
        """The learner's file of a kata, which must be there."""
        file = self.file(kata)
        if not file.is_file():
            raise NanollamaError(f"there is no {near(file)}: begin with `nanollama kata start {kata.name}`")
        return file

    def state(self, kata: Kata) -> str:
        """How far a kata is."""
        if not self.file(kata).is_file():
            return ""
        entry = self.progress.entries.get(kata.name)
        if entry is None or not entry.passed:
            return "started"
        moved = has_moved(kata, self.file(kata).read_text(encoding="utf-8", errors="replace"))
        return "passed; the runtime has changed since" if moved else "passed"

    def follower(self) -> str | None:
        """The next kata of the course that isn't passed yet: behind the latest, else from the beginning."""
        names = list(course())
        start = names.index(self.progress.latest) if self.progress.latest in names else 0
        order = names[start:] + names[:start]
        return next((name for name in order if not self.state(course()[name]).startswith("passed")), None)

    def kata(self, name: str | None, *, new: bool = False) -> Kata:
        """The kata of this name; without one the latest, or for a new one the next that isn't passed."""
        name = name or (self.follower() if new else self.progress.latest)
        if name is None:
            raise NanollamaError("every kata is passed; name one" if new else "name a kata (`nanollama kata list`)")
        return find_kata(name)


def list_command(desk: Desk, name: str | None) -> int:
    """The course, with what is done and what comes next."""
    width = max(map(len, course()))
    for kata in course().values():
        write(f"{kata.name:{width}}  {kata.title:40} {kata.minutes:3} min  {desk.state(kata)}".rstrip() + "\n")
    done = sum(desk.state(kata).startswith("passed") for kata in course().values())
    follower = desk.follower()
    verb = "check" if follower and desk.state(course()[follower]) else "start"
    write(f"\n{done} of {len(course())} passed" + (f"; next: nanollama kata {verb} {follower}" if follower else "") + "\n")
    return 0


def start_command(desk: Desk, name: str | None) -> int:
    """Cut a kata's functions out of a copy of their module."""
    kata = desk.kata(name, new=True)
    file = desk.file(kata)
    if file.exists():
        raise NanollamaError(f"{near(file)} exists: go on with it, or begin again with `nanollama kata reset {kata.name}`")
    begin(desk, kata)
    return 0


def begin(desk: Desk, kata: Kata) -> None:
    """Write a fresh file for a kata, and say what to do with it."""
    file = desk.file(kata)
    file.parent.mkdir(parents=True, exist_ok=True)
    text = header(kata) + stub(kata)
    file.write_bytes(text.encode())
    desk.progress.note(kata.name, passed=False)
    write(f"kata {kata.name} ({kata.title}), about {kata.minutes} minutes\n")
    missing = [each for each in kata.after if not desk.state(course()[each]).startswith("passed")]
    if missing:
        write(f"easier after: {', '.join(missing)}\n")
    for target, place in spans(text, kata.targets).items():
        write(f"write {target} at {near(file)}:{place.first + 1}\n")
    write("the tests\n" + "".join(f"  {test}\n" for test in kata.test_names))
    write(f"next: nanollama kata check {kata.name}\n")


def check_command(desk: Desk, name: str | None) -> int:
    """Run a kata's tests on the learner's file."""
    kata = desk.kata(name)
    file = desk.begun(kata)
    outcome = check(kata, file)
    desk.progress.note(kata.name, passed=outcome.passed)
    write(page(kata, file, outcome, desk.follower()))
    if has_moved(kata, file.read_text(encoding="utf-8", errors="replace")):
        write(
            f"note: {kata.module} has changed since; `nanollama kata reset {kata.name}` cuts your file anew, and keeps a copy\n"
        )
    return 0 if outcome.passed else 1


def hint_command(desk: Desk, name: str | None) -> int:
    """The first hint, then the second, then the third."""
    kata = desk.kata(name)
    number = min(desk.progress.note(kata.name, hint=True).hints, len(kata.hints))
    write("\n".join([f"hint {number} of {len(kata.hints)} for {kata.name}", *wrap(kata.hints[number - 1], 100)]) + "\n")
    further = f"hint {kata.name}" if number < len(kata.hints) else f"solution {kata.name}    (there is no further hint)"
    write(f"\nnext: nanollama kata check {kata.name}, or nanollama kata {further}\n")
    return 0


def watch_command(desk: Desk, name: str | None) -> int:
    """Check the file whenever it is saved, until it passes."""
    kata = desk.kata(name)
    file = desk.begun(kata)
    for _ in saves(file):
        if check_command(desk, kata.name) == 0:
            break
        write(f"\nwatching {near(file)}; Ctrl-C ends\n\n")
    return 0


def saves(file: Path) -> Iterator[None]:
    """Once now, and then each time the file has changed."""
    before = None
    while True:
        now = file.stat().st_mtime_ns if file.exists() else None
        if now is not None and now != before:
            before = now
            yield
        time.sleep(POLL)


def solution_command(desk: Desk, name: str | None) -> int:
    """The functions as the runtime has them."""
    kata = desk.kata(name)
    write("\n".join(function_text(kata.source, target) for target in kata.targets))
    return 0


def diff_command(desk: Desk, name: str | None) -> int:
    """The learner's functions beside the runtime's."""
    kata = desk.kata(name)
    file = desk.begun(kata)
    texts = own_lines(file.read_text(encoding="utf-8", errors="replace")), kata.source
    try:
        yours, theirs = ("".join(function_text(text, target) for target in kata.targets) for text in texts)
    except (SyntaxError, ValueError, KeyError) as error:
        raise NanollamaError(f"{near(file)} can't be compared before it is whole ({error}): check it first") from None
    lines = difflib.unified_diff(yours.splitlines(True), theirs.splitlines(True), near(file), kata.module)
    write("".join(lines) or "the same, to the letter\n")
    return 0


def reset_command(desk: Desk, name: str | None) -> int:
    """A fresh file; the old one is kept beside it."""
    kata = desk.kata(name)
    file = desk.begun(kata)
    copies = (file.with_name(f"{file.name}.{number}.bak") for number in range(1, 10_000))
    copy = next(path for path in copies if not path.exists())
    shutil.copy2(file, copy)
    write(f"yours is kept as {near(copy)}\n")
    begin(desk, kata)
    return 0


COMMANDS: dict[str, Callable[[Desk, str | None], int]] = {
    "list": list_command,
    "start": start_command,
    "check": check_command,
    "hint": hint_command,
    "watch": watch_command,
    "solution": solution_command,
    "diff": diff_command,
    "reset": reset_command,
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status: 0 done or passed, 1 not passed, 2 bad input, 130 Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m conformance.katas", description=__doc__)
    parser.add_argument("action", choices=COMMANDS)
    parser.add_argument("name", nargs="?", metavar="KATA")
    parser.add_argument("--folder", type=Path, default=ROOT / "kata", help="where your files are (kata/ in the clone)")
    options = parser.parse_args(arguments)
    open_streams()
    try:
        return COMMANDS[options.action](Desk(options.folder), options.name)
    except NanollamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except OSError as error:
        print(f"error: {error.strerror}: {error.filename}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

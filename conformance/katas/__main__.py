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
from conformance.katas.pages.page import page, short_path
from conformance.katas.progress import Progress
from conformance.katas.stub import function_text, has_moved, header, spans, stub, without_header
from nanollama.cli.output import open_streams, write
from nanollama.errors import NanollamaError

POLL = 0.3  # seconds between two checks of a watched file's time


class Workspace:
    """The folder with a learner's files and progress."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.progress = folder, Progress(folder)

    def file(self, kata: Kata) -> Path:
        """The learner's file of a kata."""
        return self.folder / kata.name / kata.reference.name

    def started_file(self, kata: Kata) -> Path:
        """The learner's file of a kata; NanollamaError if there is none."""
        file = self.file(kata)
        if not file.is_file():
            raise NanollamaError(f"there is no {short_path(file)}: start it with `nanollama kata start {kata.name}`")
        return file

    def state(self, kata: Kata) -> str:
        """ "", "started" or "passed", with a note if the runtime has changed since."""
        if not self.file(kata).is_file():
            return ""
        entry = self.progress.entries.get(kata.name)
        if entry is None or not entry.passed:
            return "started"
        moved = has_moved(kata, self.file(kata).read_text(encoding="utf-8", errors="replace"))
        return "passed; the runtime has changed since" if moved else "passed"

    def following(self) -> str | None:
        """The next kata of the course that isn't passed: after the latest, else from the beginning; None if all are passed."""
        names = list(course())
        start = names.index(self.progress.latest) if self.progress.latest in names else 0
        order = names[start:] + names[:start]
        return next((name for name in order if not self.state(course()[name]).startswith("passed")), None)

    def kata(self, name: str | None, *, new: bool = False) -> Kata:
        """The kata of this name; without a name the latest one, or if `new`, the next one that isn't passed."""
        name = name or (self.following() if new else self.progress.latest)
        if name is None:
            raise NanollamaError("every kata is passed; name one" if new else "name a kata (`nanollama kata list`)")
        return find_kata(name)


def list_command(workspace: Workspace, name: str | None) -> int:
    """Print the course, with the state of every kata and the next command."""
    width = max(map(len, course()))
    for kata in course().values():
        write(f"{kata.name:{width}}  {kata.title:40} {kata.minutes:3} min  {workspace.state(kata)}".rstrip() + "\n")
    done = sum(workspace.state(kata).startswith("passed") for kata in course().values())
    following = workspace.following()
    verb = "check" if following and workspace.state(course()[following]) else "start"
    write(f"\n{done} of {len(course())} passed" + (f"; next: nanollama kata {verb} {following}" if following else "") + "\n")
    return 0


def start_command(workspace: Workspace, name: str | None) -> int:
    """Write the learner's file: a copy of the module with the kata's functions cut out."""
    kata = workspace.kata(name, new=True)
    file = workspace.file(kata)
    if file.exists():
        raise NanollamaError(
            f"{short_path(file)} exists: continue with it, or start again with `nanollama kata reset {kata.name}`"
        )
    begin(workspace, kata)
    return 0


def begin(workspace: Workspace, kata: Kata) -> None:
    """Write a new file for a kata, and print what to do with it."""
    file = workspace.file(kata)
    file.parent.mkdir(parents=True, exist_ok=True)
    text = header(kata) + stub(kata)
    file.write_bytes(text.encode())
    workspace.progress.note(kata.name, passed=False)
    write(f"kata {kata.name} ({kata.title}), about {kata.minutes} minutes\n")
    missing = [each for each in kata.after if not workspace.state(course()[each]).startswith("passed")]
    if missing:
        write(f"easier after: {', '.join(missing)}\n")
    for target, place in spans(text, kata.targets).items():
        write(f"write {target} at {short_path(file)}:{place.first + 1}\n")
    write("the tests\n" + "".join(f"  {test}\n" for test in kata.test_names))
    write(f"next: nanollama kata check {kata.name}\n")


def check_command(workspace: Workspace, name: str | None) -> int:
    """Run a kata's tests on the learner's file."""
    kata = workspace.kata(name)
    file = workspace.started_file(kata)
    outcome = check(kata, file)
    workspace.progress.note(kata.name, passed=outcome.passed)
    write(page(kata, file, outcome, workspace.following()))
    if has_moved(kata, file.read_text(encoding="utf-8", errors="replace")):
        write(f"note: {kata.module} has changed since; `nanollama kata reset {kata.name}` writes a new file, and keeps yours\n")
    return 0 if outcome.passed else 1


def hint_command(workspace: Workspace, name: str | None) -> int:
    """Print the next hint: the first, then the second, then the third."""
    kata = workspace.kata(name)
    number = min(workspace.progress.note(kata.name, hint=True).hints, len(kata.hints))
    write("\n".join([f"hint {number} of {len(kata.hints)} for {kata.name}", *wrap(kata.hints[number - 1], 100)]) + "\n")
    further = f"hint {kata.name}" if number < len(kata.hints) else f"solution {kata.name}    (this was the last hint)"
    write(f"\nnext: nanollama kata check {kata.name}, or nanollama kata {further}\n")
    return 0


def watch_command(workspace: Workspace, name: str | None) -> int:
    """Check the file whenever it is saved, until it passes."""
    kata = workspace.kata(name)
    file = workspace.started_file(kata)
    for _ in saves(file):
        if check_command(workspace, kata.name) == 0:
            break
        write(f"\nwatching {short_path(file)}; Ctrl-C ends\n\n")
    return 0


def saves(file: Path) -> Iterator[None]:
    """Yields once at the start, then each time the file has changed."""
    before = None
    while True:
        now = file.stat().st_mtime_ns if file.exists() else None
        if now is not None and now != before:
            before = now
            yield
        time.sleep(POLL)


def solution_command(workspace: Workspace, name: str | None) -> int:
    """Print the runtime's functions."""
    kata = workspace.kata(name)
    write("\n".join(function_text(kata.source, target) for target in kata.targets))
    return 0


def diff_command(workspace: Workspace, name: str | None) -> int:
    """Print the difference between the learner's functions and the runtime's."""
    kata = workspace.kata(name)
    file = workspace.started_file(kata)
    texts = without_header(file.read_text(encoding="utf-8", errors="replace")), kata.source
    try:
        yours, theirs = ("".join(function_text(text, target) for target in kata.targets) for text in texts)
    except (SyntaxError, ValueError, KeyError) as error:
        raise NanollamaError(f"{short_path(file)} is not complete Python ({error}): run `nanollama kata check` first") from None
    lines = difflib.unified_diff(yours.splitlines(True), theirs.splitlines(True), short_path(file), kata.module)
    write("".join(lines) or "no difference\n")
    return 0


def reset_command(workspace: Workspace, name: str | None) -> int:
    """Write a new file; the old one is kept next to it."""
    kata = workspace.kata(name)
    file = workspace.started_file(kata)
    copies = (file.with_name(f"{file.name}.{number}.bak") for number in range(1, 10_000))
    copy = next(path for path in copies if not path.exists())
    shutil.copy2(file, copy)
    write(f"your file is kept as {short_path(copy)}\n")
    begin(workspace, kata)
    return 0


COMMANDS: dict[str, Callable[[Workspace, str | None], int]] = {
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
    parser.add_argument("--folder", type=Path, default=ROOT / "kata", help="the folder with your files (kata/ in the clone)")
    options = parser.parse_args(arguments)
    open_streams()
    try:
        return COMMANDS[options.action](Workspace(options.folder), options.name)
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

"""Files that appear under their name whole or not at all.

The bytes are written to `.NAME.xxxxxxxx.part` in the target's folder and synced; then rename(2) replaces the target in one
step. After an error, a full disk or Ctrl-C the part is removed. `kill -9` and a power cut can't be caught: they leave the old
file and a dead part. The next writer of that name removes it: a writer holds a lock on its part (flock), which ends with the
process, so a part without a lock is dead.
"""

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from nanollama.errors import NanollamaError, quote

try:
    import fcntl
except ImportError:  # Windows has other locks; dead parts stay there
    fcntl = None  # type: ignore[assignment]


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yields a binary file that replaces `path` if the block succeeds, and is removed if it raises.

    If `path` is a link, its target is replaced. The new file has the permissions of the old one, else those of the umask.
    Every OSError in the block becomes a NanollamaError.
    """
    if "\0" in str(path):
        raise NanollamaError(f"{quote(str(path))} can't be written: no file name has a zero character")
    part: Path | None = None
    try:
        target = Path(os.path.realpath(path))
        mode = check_target(target)
        remove_dead_parts(target)
        part = target.with_name(f".{target.name[:50]}.{secrets.token_hex(4)}.part")
        with part.open("xb") as file:
            lock(file.fileno())
            if mode is not None:
                os.chmod(part, mode)  # noqa: PTH101  # before there is anything to read
            yield file
            file.flush()
            os.fsync(file.fileno())
            part.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise NanollamaError(f"{quote(str(path))} can't be written: {error.strerror or error}") from error
    finally:
        if part is not None:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def check_target(target: Path) -> int | None:
    """The permissions of the file to replace, None if there is no file; raises if it can't be replaced."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        raise NanollamaError(f"{target} is not a plain file, so it can't be replaced; choose another name")
    if not os.access(target, os.W_OK):
        raise NanollamaError(f"{target} is write-protected; choose another name, or allow writing to it")
    return stat.S_IMODE(mode)


def remove_dead_parts(target: Path) -> None:
    """Remove the parts of `target` that no process writes any more."""
    if fcntl is None:
        return
    name = re.compile(rf"\.{re.escape(target.name[:50])}\.[0-9a-f]{{8}}\.part", re.DOTALL)
    for path in target.parent.iterdir():
        if name.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            with suppress(OSError), path.open("rb") as file:
                lock(file.fileno())
                path.unlink()


def lock(descriptor: int) -> None:
    """Lock this open file for this process; OSError if another process holds the lock."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that new names in it survive a power cut."""
    if os.name != "posix":  # Windows can't open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

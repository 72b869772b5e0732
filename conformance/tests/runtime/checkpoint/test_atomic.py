"""Files that are written whole or not at all: errors, Ctrl-C, a full disk, and `kill -9` at every step."""

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from nanollama.checkpoint.atomic import new_file
from nanollama.errors import NanollamaError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="locks, limits and mounts of Linux")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put(path: Path, content: bytes) -> None:
    with new_file(path) as file:
        file.write(content)


def test_the_file_is_there_when_the_block_has_ended_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with new_file(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new" and names_in(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "error", [NanollamaError("no"), KeyboardInterrupt(), MemoryError(), OSError(28, "No space left on device")]
)
def test_whatever_goes_wrong_the_old_file_stays_and_nothing_else(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    expected = NanollamaError if isinstance(error, OSError) else type(error)
    with (
        pytest.raises(expected, match="a' can't be written: No space left" if isinstance(error, OSError) else None),
        new_file(path) as file,
    ):
        file.write(b"new")
        raise error
    assert path.read_bytes() == b"old" and names_in(tmp_path) == ["a"]


def test_a_new_file_has_the_permissions_of_the_umask_and_a_replaced_one_keeps_its_own(tmp_path: Path) -> None:
    path, before = tmp_path / "a", os.umask(0o027)
    try:
        put(path, b"1")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        put(path, b"2")
        assert stat.S_IMODE(path.stat().st_mode) == 0o604 and path.read_bytes() == b"2"
    finally:
        os.umask(before)


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link, target = tmp_path / "link", tmp_path / "folder" / "target"
    link.symlink_to(target)
    for content in (b"made", b"replaced"):
        put(link, content)
        assert link.is_symlink() and target.read_bytes() == content and not target.is_symlink()
    assert names_in(tmp_path) == ["folder", "link"] and names_in(tmp_path / "folder") == ["target"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "loop", "nowhere", "long name", "nul"])
def test_what_is_no_place_for_a_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/null")
    elif kind == "loop":
        path.symlink_to(path)
    else:
        path = {"nowhere": path / "b", "long name": tmp_path / ("x" * 300), "nul": tmp_path / "\0"}[kind]
    before = names_in(tmp_path)
    with pytest.raises(NanollamaError, match=r"can't be (written|replaced)"):
        put(path, b"x")
    assert names_in(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_write_protected_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o444)
    with pytest.raises(NanollamaError, match="is write-protected"):
        put(path, b"new")


def test_dead_parts_are_removed_and_living_and_other_ones_are_not(tmp_path: Path) -> None:
    names = [".a.01234567.part", ".a.89abcdef.part", ".b.01234567.part", ".a.0123.part", "a.01234567.part"]
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    with (tmp_path / names[1]).open("rb") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        put(tmp_path / "a", b"new")
    assert names_in(tmp_path) == sorted(["a", *names[1:]])
    put(tmp_path / "a", b"newer")
    assert names_in(tmp_path) == sorted(["a", *names[2:]])


def test_two_writers_of_one_name_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with new_file(path) as first:
        first.write(b"first")
        put(path, b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first" and names_in(tmp_path) == ["a"]


# A full disk

MOUNT = r"""
import ctypes, os, pathlib, sys
folder = pathlib.Path(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x00020000) or libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None) \
   or libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, b"size=64k"):  # a mount that ends with this process
    sys.exit(f"no mount: {os.strerror(ctypes.get_errno())}")
from nanollama.checkpoint.atomic import new_file
from nanollama.errors import NanollamaError
path = folder / "a"
path.write_bytes(b"old")
try:
    with new_file(path) as file:
        file.write(bytes(int(sys.argv[2])))
except NanollamaError as error:
    print(error)
print(len(path.read_bytes()), os.listdir(folder))
"""


@pytest.mark.parametrize("size", [50_000, 100_000, 5_000_000])
def test_a_disk_that_is_really_full_leaves_the_old_file(size: int, tmp_path: Path) -> None:
    """A tmpfs of 64 kB, mounted in a namespace of the child's own, where this user may mount."""
    done = subprocess.run([sys.executable, "-c", MOUNT, tmp_path, str(size)], capture_output=True, text=True, check=False)
    if "no mount" in done.stderr:
        pytest.skip(f"a disk can't be made here, the limit on file sizes has to do: {done.stderr.strip()}")
    out = done.stdout.splitlines()
    if size < 65_536:
        assert out == ["50000 ['a']"], done.stderr
    else:
        assert out == [f"'{tmp_path}/a' can't be written: No space left on device", "3 ['a']"], done.stderr


LIMIT = r"""
import os, pathlib, resource, sys
from nanollama.checkpoint.atomic import new_file
from nanollama.errors import NanollamaError
path = pathlib.Path(sys.argv[1])
path.write_bytes(b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    with new_file(path) as file:
        for _ in range(100):
            file.write(bytes(1000))
except NanollamaError as error:
    print(error)
print(path.read_bytes(), os.listdir(path.parent))
"""


def test_a_limit_on_file_sizes_leaves_the_old_file(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMIT, tmp_path / "a"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"'{tmp_path}/a' can't be written: File too large", "b'old' ['a']"]


def test_an_error_of_the_last_steps_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(122, "Disk quota exceeded")

    for owner, name in ((os, "fsync"), (Path, "replace")):
        with monkeypatch.context() as patch, pytest.raises(NanollamaError, match="can't be written: Disk quota exceeded"):
            patch.setattr(owner, name, full)
            put(path, b"new")
        assert path.read_bytes() == b"old" and names_in(tmp_path) == ["a"]


# kill -9

KILL = r"""
import os, pathlib, signal, sys, torch
from nanollama.checkpoint.gguf.writer import NewTensor, write_gguf
from nanollama.quant import FORMATS
folder = pathlib.Path(sys.argv[1])
path, events, ones = folder / "a.gguf", 0, torch.ones(10_000).view(torch.uint8)

def pieces():
    for _ in range(4):
        yield ones  # more than a buffer holds: each piece is a system call

def write(content):
    tensors = [NewTensor(f"x{i}", (4, 10_000), FORMATS["F32"], pieces) for i in range(2)]
    write_gguf(path, {"general.architecture": "llama", "content": content}, tensors)

def kill_at(number):
    def count(frame, event, argument):
        global events
        events += 1
        if events == number:
            os.kill(os.getpid(), signal.SIGKILL)
    return count

write("old")
old = path.read_bytes()
write("new")
new = path.read_bytes()
seen, number = {"old": 0, "new": 0, "part": 0, "whole part": 0}, 0
while True:
    number += 1
    path.write_bytes(old)
    child = os.fork()
    if child == 0:
        sys.setprofile(kill_at(number))
        write("new")
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = path.read_bytes()
    seen["old"] += found == old
    seen["new"] += found == new
    assert found in (old, new), f"a file of {len(found)} bytes after call {number}"
    parts = [name for name in os.listdir(folder) if name != "a.gguf"]
    assert all(name.startswith(".a.gguf.") and name.endswith(".part") for name in parts) and len(parts) <= 1, parts
    seen["part"] += len(parts)
    seen["whole part"] += any((folder / name).read_bytes() == new for name in parts)
    if status == 0:
        break
    assert status == -signal.SIGKILL
write("new")
assert os.listdir(folder) == ["a.gguf"], "the next writer removes what the last one left"
print(number - 1, *seen.values())
"""


def test_kill_at_every_call_that_writing_makes_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """SIGKILL before and after each function call of Python or C, one process per call."""
    done = subprocess.run([sys.executable, "-c", KILL, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kills, old, new, part, whole = map(int, done.stdout.split())
    assert kills > 300 and old + new == kills + 1
    assert old > 100 and new > 5 and part > 100 and whole > 3, f"every kind of moment must be met: {done.stdout}"

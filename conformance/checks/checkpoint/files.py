"""Files from strangers: plain files only, names that stay in their folder, JSON within limits."""

# mypy: disable-error-code="dict-item,misc"
# tables mix good and bad arguments

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from conformance.checks import Failed, check
from conformance.checks.assertions import expect, expect_equal, expect_refused
from nanollama.checkpoint import files


@contextmanager
def folder(**contents: bytes) -> Iterator[Path]:
    """A folder with these files; "__" in a name is a dot."""
    with tempfile.TemporaryDirectory() as path:
        for name, data in contents.items():
            (Path(path) / name.replace("__", ".")).write_bytes(data)
        yield Path(path)


@check("SAFE-017", "SAFE-018", area="security")
def names_stay_in_the_folder_and_files_are_plain() -> None:
    base = Path("/x")
    for name in ("a.safetensors", "model-00001-of-00002.safetensors", "..a", "é"):
        expect_equal("checkpoint.files.member", files.member(base, name), base / name, f"the path of {name!r}")
    for name in ("", ".", "..", "../a", "a/b", "/a", "a\\b", "C:a", "C:\\a", "a\0", "a/"):
        expect_refused("checkpoint.files.member", lambda name=name: files.member(base, name), "leads out", f"the name {name!r}")

    def read(path: Path) -> bytes:
        with files.open_plain(path) as file:
            return file.read()

    place = "checkpoint.files.open_plain"
    with folder(x=b"abc", lfs=b"version https://git-lfs.github.com/spec/v1\noid 1", short=b"version https://git") as path:
        os.mkfifo(path / "pipe")
        (path / "link").symlink_to(path / "x")
        expect_equal(
            place,
            (read(path / "x"), read(path / "link"), read(path / "short")),
            (b"abc", b"abc", b"version https://git"),
            "bytes of files",
        )
        opener = threading.Thread(target=lambda: suppressed(lambda: read(path / "pipe")), daemon=True)
        opener.start()
        opener.join(2)
        if opener.is_alive():
            os.close(os.open(path / "pipe", os.O_WRONLY | os.O_NONBLOCK))  # ends the wait of the reader
            raise Failed(place, "a pipe is opened, and waits for ever")
        for name, part in (("pipe", "plain file"), ("", "plain file"), ("none", "none"), ("lfs", "git-lfs")):
            expect_refused(place, lambda path=path / name: read(path), part, f"opening {name!r}")


def suppressed(action: Callable[[], object]) -> None:
    with suppress(Exception):
        action()


@check("SAFE-019", "CONF-009", area="security")
def json_is_read_strictly_and_within_limits() -> None:
    place = "checkpoint.files.parse_object"
    good = {b'{"a": [1, -2.5, "x", null, true], "b": {"a": 1}}': {"a": [1, -2.5, "x", None, True], "b": {"a": 1}}, b"{}": {}}
    good[b'{"a": 1000000000000000019884624838656}'] = {"a": 1000000000000000019884624838656}
    for raw, value in good.items():
        expect_equal(place, files.parse_object(raw, "it"), value, f"{raw!r}")
    for raw, part in (
        (b"[]", "list"),
        (b"3", "int"),
        (b"", "JSON"),
        (b'{"a": 1', "JSON"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": -1e999}', "too large"),
        (b'{"a": ' + b"1" * 41 + b"}", "41 characters"),
        (b'{"a": {"b": 1, "b": 2}}', "twice"),
        (b'{"\\ud800": 1}', "surrogate"),
        (b'{"a": "\xff"}', "JSON"),
        (b'{"a":' * 100_000, "nested"),
    ):
        expect_refused(place, lambda raw=raw: files.parse_object(raw, "this file"), part, f"{raw[:40]!r}")
        expect_refused(place, lambda raw=raw: files.parse_object(raw, "this file"), "this file", f"{raw[:40]!r}")
    expect_refused(place, lambda: files.parse_object(b'{"a": [[],[],[]]}', "it", 4), "items", "more items than allowed")
    expect_equal(place, files.parse_object(b'{"a": [[],[]]}', "it", 6), {"a": [[], []]}, "as many items as allowed")
    with folder(x=b'{"a": 1}') as path:
        expect_equal("checkpoint.files.read_json", files.read_json(path / "x", 8), {"a": 1}, "a file of eight bytes")
        expect_refused(
            "checkpoint.files.read_json", lambda: files.read_json(path / "x", 7), "7 bytes", "a file of more bytes than allowed"
        )
        expect("checkpoint.files.read_json", "x" in str(path / "x"), "")

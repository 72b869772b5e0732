"""The parent's side of template rendering: starts the process (jinja_child.py), sends requests, kills it after a time limit."""

import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nanollama.errors import NanollamaError

CHILD = Path(__file__).with_name("jinja_child.py")


def _start(command: list[str]) -> "subprocess.Popen[str]":
    """Start the process and wait until it is ready."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="ascii",
            start_new_session=True,  # the terminal's Ctrl-C does not reach it
        )
    except OSError as error:
        raise NanollamaError(f"the process for chat templates can't be started by {command}: {error}") from None
    assert process.stdout is not None
    if not process.stdout.readline():
        _close(process)
        raise NanollamaError(f"the process for chat templates ended at once; run {command} to see why")
    return process


def _close(process: "subprocess.Popen[str]") -> None:
    """End a process that waits for a request: it leaves when its stdin closes."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # bytes that it did not read
                pipe.close()
    process.wait()


class Sandbox:
    """Renders templates in one helper process, started at the first request and again after it had to be killed.

    seconds: wall-clock time one rendering may take. megabytes: address space of the process, where the system can limit it.
    Threads take turns. A forked copy of this program starts its own process.
    """

    def __init__(self, seconds: float = 5.0, megabytes: int = 1024) -> None:
        self.seconds, self.megabytes = seconds, megabytes
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0  # the id of the process that started it
        self._close: Callable[[], object] = lambda: None

    def render(self, source: str, variables: dict[str, Any], now: str) -> str:
        """The rendered text. NanollamaError with the template's line if it fails. now: the time in ISO format."""
        try:
            request = json.dumps({"source": source, "variables": variables, "now": now})
        except (ValueError, RecursionError) as error:  # an int of more than 4,300 digits, for one
            raise NanollamaError(f"the conversation can't be passed to the chat template: {error}") from None
        with self._lock:
            reply = self._ask(request)
        if "text" in reply:
            return str(reply["text"])
        where = f"line {reply['line']}: " if reply.get("line") else ""
        raise NanollamaError(f"chat template: {where}{reply['error']}")

    def _ask(self, request: str) -> dict[str, Any]:
        """Send one request and read its reply; any interruption (Ctrl-C too) ends the process."""
        process, reply, expired = self._running(), "", threading.Event()
        assert process.stdin is not None and process.stdout is not None

        def expire() -> None:
            expired.set()
            process.kill()

        timer = threading.Timer(self.seconds, expire)
        timer.start()
        try:
            with suppress(OSError):  # it died during the write
                process.stdin.write(request + "\n")
                process.stdin.flush()
                reply = process.stdout.readline()
        finally:
            timer.cancel()
            timer.join()
            if expired.is_set() or not reply.endswith("\n"):
                process.kill()
                self._close()
        if reply.endswith("\n"):
            return dict(json.loads(reply))
        if expired.is_set():
            return {"error": f"it did not finish within {self.seconds:g} s; is there a loop without an end?"}
        return {"error": f"the process that renders it ended (status {process.returncode}); it may have run out of memory"}

    def _running(self) -> "subprocess.Popen[str]":
        """The process, started if this process has none."""
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        process = _start([sys.executable, "-P", str(CHILD), str(int(self.seconds) + 10), str(self.megabytes)])
        self._process, self._owner = process, os.getpid()
        self._close = weakref.finalize(self, _close, process)
        return process

"""Any program as an engine: it reads one JSON request a line on stdin and writes one JSON answer a line on stdout.

Five verbs: hello, load, run, inject, bye. `protocol.schema.json` says what each request and answer looks like; both are
checked against it. Instead of an answer a program may write {"unsupported": "why"} or {"error": "what broke"}. Whatever else it
does (ends, hangs, writes something that is no answer, or without end) breaks one request and not the run: the program is
ended, and started again for the next model. What it writes to stderr is shown when it breaks.
"""

import contextlib
import json
import queue
import shlex
import subprocess
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from torch import Tensor

from conformance.engines.engine import Answer, Broken, Engine, Prompt, Taps, Unsupported
from conformance.engines.protocols.messages import Message, check, pack, parsed, shown, unpack, unpacked
from conformance.requirements.results import About
from nanollama.errors import NanollamaError

LONGEST = 1 << 26  # bytes of an answer: the suite's models give a hundredth of that
SECONDS = 120.0  # for an answer
PATIENCE = 2  # answers that never came, after which nothing more is asked
LAST_WORDS = 5  # lines of stderr that are shown


class Program(Engine):
    """A command that speaks the protocol, started when it is needed, and again after it broke."""

    def __init__(self, command: str, seconds: float = SECONDS, longest: int = LONGEST) -> None:
        self.command, self.seconds, self.longest = shlex.split(command), seconds, longest
        if not self.command:
            raise NanollamaError("exec: names no command; expected for example exec:python adapter.py")
        self.process: Process | None = None
        self.known: About | None = None
        self.fault = ""  # what broke it last
        self.waited = 0  # how often no answer came

    def about(self) -> About:
        """What the program says of itself; nothing but its command where it can't even say that."""
        if self.known is None:
            try:
                self.start()
            except Broken as fault:
                self.waited = PATIENCE  # a program that can't say hello won't say more
                self.known = About(self.command[0], "unknown", (), "float64", notes=str(fault))
        assert self.known is not None
        return self.known

    def start(self) -> None:
        """A new process, and its hello."""
        if self.waited >= PATIENCE:
            raise Broken(f"it is not asked any more: {self.fault}")
        self.process = Process(self.command, self.longest)
        answer = self.ask({"verb": "hello", "protocol": 1})
        self.known = About(**{**answer, "levels": tuple(answer["levels"])})

    def load(self, folder: Path) -> None:
        """A folder, in a process that is started if there is none."""
        if self.process is None:
            self.start()
        self.ask({"verb": "load", "folder": str(folder)})

    def run(self, prompt: Prompt, taps: bool = False) -> Answer:
        """Logits, and taps if the program offers them."""
        request = {"verb": "run", "ids": [*prompt.ids], "positions": [*prompt.positions], "chunks": [*prompt.chunks]}
        answer = self.ask({**request, "taps": taps})
        return Answer(unpack(answer["logits"]), unpacked(answer.get("taps", {})))

    def inject(self, prompt: Prompt, inputs: Mapping[str, Tensor]) -> Taps:
        """Inputs of modules, and the taps that come of them."""
        given = {name: pack(value) for name, value in inputs.items()}
        request = {"verb": "inject", "ids": [*prompt.ids], "positions": [*prompt.positions], "inputs": given}
        return unpacked(self.ask(request)["taps"])

    def close(self) -> None:
        """Say bye, and see to it that the program ends."""
        if self.process is not None:
            with contextlib.suppress(Broken, Unsupported):
                self.ask({"verb": "bye"})
        self.end()

    def ask(self, request: Message) -> Message:
        """One request and its answer, both as the schema has them. Whatever breaks ends the process."""
        if self.process is None:
            raise Broken(f"the program has ended: {self.fault}")
        check(request, "request")
        try:
            answer = parsed(self.process.exchange(json.dumps(request), self.seconds))
            kind = next((name for name in ("unsupported", "error") if name in answer), f"answer to {request['verb']}")
            check(answer, kind)
        except TimeoutError:
            self.waited += 1
            raise self.broken(f"no answer to {request['verb']} within {self.seconds:g} s") from None
        except Broken as fault:
            raise self.broken(str(fault)) from None
        if "unsupported" in answer:
            raise Unsupported(answer["unsupported"])
        if "error" in answer:
            raise Broken(f"the program says: {answer['error'][:300]}")
        return answer

    def broken(self, fault: str) -> Broken:
        """The process is ended; the error, with its last words."""
        words = self.end()
        self.fault = fault + (f"; its last words: {' | '.join(words)}" if words else "")
        return Broken(self.fault)

    def end(self) -> list[str]:
        """No process any more; what it wrote to stderr last."""
        process, self.process = self.process, None
        return process.end() if process is not None else []


class Process:
    """A running command. Threads read and write its pipes, so that nothing it does or leaves undone can block the suite."""

    def __init__(self, command: list[str], longest: int) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        try:
            self.child = subprocess.Popen(command, **pipes)  # type: ignore[call-overload]
        except OSError as error:
            raise Broken(f"{command[0]!r} can't be started: {error}") from error
        self.longest = longest
        self.requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.words: deque[str] = deque(maxlen=LAST_WORDS)
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self.write, self.read, self.listen)]
        for thread in self.threads:
            thread.start()

    def write(self) -> None:
        """Requests to stdin, until there are no more or nobody reads them."""
        with contextlib.suppress(OSError, ValueError):
            while (line := self.requests.get()) is not None:
                self.child.stdin.write(line)
                self.child.stdin.flush()

    def read(self) -> None:
        """Lines of stdout; an empty one at its end. A line that is too long is the last that is read."""
        while line := self.child.stdout.readline(self.longest + 1):
            self.lines.put(line)
            if len(line) > self.longest:
                return
        self.lines.put(b"")

    def listen(self) -> None:
        """The last lines of stderr."""
        while line := self.child.stderr.readline(500):
            if text := line.decode("utf-8", "replace").strip():
                self.words.append(text)

    def exchange(self, request: str, seconds: float) -> bytes:
        """Send a line, wait for a line; TimeoutError if none comes."""
        if not self.lines.empty() and (early := self.lines.get()):
            raise Broken(f"it wrote {shown(early)} before it was asked")
        self.requests.put(request.encode() + b"\n")
        try:
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        if not line:
            raise Broken(f"it ended with status {self.status()} instead of an answer")
        if len(line) > self.longest:
            raise Broken(f"it wrote a line of more than {self.longest} bytes")
        return line

    def status(self) -> int | str:
        """The exit status of a process that closed its stdout."""
        try:
            return int(self.child.wait(timeout=5))
        except subprocess.TimeoutExpired:
            return "unknown, with stdout closed"

    def end(self) -> list[str]:
        """Not running any more, nothing left open; its last words."""
        self.requests.put(None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(timeout=0.5)
        self.child.kill()
        self.child.wait()
        for thread, pipe in zip(self.threads, (self.child.stdin, self.child.stdout, self.child.stderr), strict=True):
            thread.join(timeout=5)
            if not thread.is_alive():
                close(pipe)
        return [*self.words]


def close(pipe: IO[bytes]) -> None:
    """Close a pipe that may be broken already."""
    with contextlib.suppress(OSError):
        pipe.close()


ENGINE = Program

"""The command line: finds the command, calls its function, and makes one line on stderr of whatever goes wrong.

Exit status: 0 done, 1 done with a bad result (`verify` found a difference, a line of `batch` failed), 2 bad input, 130 Ctrl-C,
141 whoever read stdout went away. Whatever takes long to import is imported by the command that needs it.
"""

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from nanollama.cli.options import COMMANDS, parse
from nanollama.cli.output import notice, open_streams, without_number, write
from nanollama.errors import NanollamaError


def overview() -> str:
    """What `nanollama --help` prints."""
    commands = "\n".join(f"  {name:8} {command.what}" for name, command in COMMANDS.items())
    return (
        f"usage: nanollama COMMAND …\n\nA minimal LLM runtime, proven layer by layer.\n\ncommands:\n{commands}\n\n"
        "`nanollama COMMAND --help` shows options and an example. `nanollama --version` prints the version."
    )


def dispatch(arguments: Sequence[str]) -> int:
    """Do what the arguments say; the exit status."""
    name, *rest = arguments or [""]
    if name in ("-h", "--help", "--version"):
        from nanollama import __version__

        write(f"{__version__ if name == '--version' else overview()}\n")
        return 0
    if name not in COMMANDS:
        what = f"there is no command {name!r}" if name else "a command is missing"
        raise NanollamaError(f"{what}; there are {', '.join(COMMANDS)} (`nanollama --help`)")
    options = parse(name, rest)
    with ended_by_interrupt():
        home = import_module(f"nanollama.{COMMANDS[name].home}")
    command: Callable[[Namespace], int] = getattr(home, f"{name}_command")
    return command(options)


@contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """Ctrl-C ends the program on the spot: while torch is imported, there is code that would swallow a KeyboardInterrupt."""
    before = signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status. Bad input is one line on stderr."""
    try:
        open_streams()
        try:
            status = dispatch(sys.argv[1:] if arguments is None else arguments)
        except SystemExit as leave:  # argparse, after --help
            status = int(leave.code or 0)
        write("")  # what argparse printed goes out here, where it may fail
        return status
    except NanollamaError as error:
        return fail(without_number(error))
    except KeyboardInterrupt:
        notice("")
        return 130
    except BrokenPipeError:
        return 141
    except (MemoryError, RuntimeError) as error:
        reason = explain(error)
        if reason is None:
            raise
        return fail(reason)


def fail(message: str) -> int:
    """Say what was wrong, in one line."""
    notice("error: " + " ".join(message.split()))
    return 2


def explain(error: Exception) -> str | None:
    """What to say of an error that the machine is to blame for; None for one that is a bug of ours."""
    text = str(error)
    first = text.partition("\n")[0]
    if (
        isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
    ):  # torch has no class for it
        return f"not enough memory: lower --max-tokens, --context or --batch-size, or take a smaller dtype ({first})"
    if type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
        return f"torch.compile does not work here: leave --compile out, or mend it ({first})"
    return None

"""The command line: finds the command, calls its function, and prints every error as one line on stderr.

Exit status: 0 done, 1 done with a bad result (`verify` found a difference, a line of `batch` failed), 2 bad input, 130 Ctrl-C,
141 the reader of stdout went away. Modules that take long to import are imported by the command that needs them.
"""

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from nanollama.cli.options import COMMANDS, home_of, parse
from nanollama.cli.output import notice, open_streams, write
from nanollama.errors import NanollamaError, unknown_name


def overview() -> str:
    """The text of `nanollama --help`."""
    commands = "\n".join(f"  {name:8} {command.what}" for name, command in COMMANDS.items())
    return (
        f"usage: nanollama COMMAND …\n\nA minimal LLM runtime, proven layer by layer.\n\ncommands:\n{commands}\n\n"
        "`nanollama COMMAND --help` shows options and an example. `nanollama --version` prints the version."
    )


def dispatch(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name; the exit status."""
    name, *rest = arguments or [""]
    if name in ("-h", "--help", "--version"):
        from nanollama import __version__

        write(f"{__version__ if name == '--version' else overview()}\n")
        return 0
    if name not in COMMANDS:
        if not name:
            raise NanollamaError(f"a command is missing; there are {', '.join(COMMANDS)} (`nanollama --help`)")
        raise unknown_name("command", name, COMMANDS, "`nanollama --help`")
    options = parse(name, rest)
    with ended_by_interrupt():
        module = import_module(f"nanollama.{home_of(name)}")
    command: Callable[[Namespace], int] = getattr(module, f"{name}_command")
    return command(options)


@contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """Ctrl-C ends the program at once: some code that runs while torch is imported swallows a KeyboardInterrupt."""
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
        return fail(error.problem)
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
    """Print the error as one line; the exit status."""
    notice("error: " + " ".join(message.split()))
    return 2


def explain(error: Exception) -> str | None:
    """The message for an error that the machine caused; None if it is a bug of this package."""
    text = str(error)
    first = text.partition("\n")[0]
    if (
        isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
    ):  # torch has no class for it
        return f"not enough memory: lower --max-tokens, --context or --batch-size, or take a smaller dtype ({first})"
    if type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
        return f"torch.compile does not work here: leave --compile out, or mend it ({first})"
    return None

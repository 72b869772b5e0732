"""The command line: finds the command, calls its function, and makes one line on stderr of whatever goes wrong.

Exit status: 0 done, 1 done with a bad result (`verify` found a difference, a line of `batch` failed), 2 bad input, 130 Ctrl-C,
141 whoever read stdout went away. Whatever takes long to import is imported by the command that needs it.
"""

import sys
from collections.abc import Sequence

from nanollama.errors import NanollamaError
from nanollama.options import COMMANDS, command_parser
from nanollama.output import notice, open_streams, without_number, write


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
    options = command_parser(name).parse_args(rest)
    if name == "chat":
        from nanollama.repl import chat_command as command
    elif name == "batch":
        from nanollama.batch import batch_command as command
    else:
        from nanollama import commands

        command = getattr(commands, f"{name}_command")
    return command(options)


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
        if not out_of_memory(error):
            raise
        return fail(f"not enough memory: lower --max-tokens, --context or --batch-size, or take a smaller dtype ({error})")


def fail(message: str) -> int:
    """Say what was wrong, in one line."""
    notice("error: " + " ".join(message.split()))
    return 2


def out_of_memory(error: Exception) -> bool:
    """Whether torch (whose errors for it are RuntimeErrors, on the CPU without a class of their own) found no memory."""
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text

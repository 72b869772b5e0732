"""`nanollama kata`: exercises on this runtime's own functions. The exercises, and what tests them, are part of the suite."""

from argparse import Namespace

from nanollama.cli.suite import run_suite


def kata_command(options: Namespace) -> int:
    """Do one action on one kata; Ctrl-C reaches whatever runs there, and is no error."""
    words = [] if options.folder is None else [f"--folder={options.folder}"]
    words += [options.action, *([] if options.kata is None else ["--", options.kata])]
    return run_suite("kata", "conformance.katas", words)

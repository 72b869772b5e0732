"""`nanollama pull`: a model from the hub into the cache."""

import os
from argparse import Namespace

from nanollama.checkpoint.hub import resolve
from nanollama.cli.output import write
from nanollama.errors import NanollamaError


def pull_command(options: Namespace) -> int:
    """Download a model, or find it in the cache; print its folder."""
    if os.path.lexists(os.path.expanduser(options.model)):  # noqa: PTH111  # Path.expanduser raises for an unknown ~user
        raise NanollamaError(f"{options.model} is a local path, there is nothing to pull; expected a hub id, org/name")
    write(f"{resolve(options.model)}\n")
    return 0

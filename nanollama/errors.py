"""The one exception that this package raises on purpose, and the wording of its messages.

Any other exception that escapes is a bug of this package.
"""

import difflib
import reprlib
from collections.abc import Iterable


class NanollamaError(ValueError):
    """Bad input. The message names what was wrong (with the value), what was expected and what to do next.

    `problem` is the message for a caller with one request: without the number that a subclass may put first.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.problem = message


_shortened = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = 160
quote = _shortened.repr  # repr for error messages: a hostile name of a megabyte is shortened


def unknown_name(kind: str, name: object, known: Iterable[str], hint: str = "") -> NanollamaError:
    """The error for a name that is not one of the known ones: it suggests the nearest, and lists them all.

    >>> str(unknown_name("command", "rum", ["run", "chat"]))
    "there is no command 'rum'; did you mean 'run'? There are run, chat"
    """
    names = list(known)
    near = difflib.get_close_matches(str(name)[:160], names, n=1)
    guess = f"; did you mean {near[0]!r}? There are" if near else "; there are"
    return NanollamaError(f"there is no {kind} {quote(name)}{guess} {', '.join(names)}{f' ({hint})' if hint else ''}")

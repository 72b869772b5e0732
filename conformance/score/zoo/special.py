"""Bugs in the process that renders chat templates (jinja_child.py), which edits in this process can't reach.

Each is a context manager: new sandboxes start an edited copy of that program; running ones are not affected.
"""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from conformance.score.zoo.entries import ZooBroken
from nanollama.text.chat import sandbox

ENVIRONMENT = "environment = ImmutableSandboxedEnvironment("
TOJSON = "return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)"


@contextmanager
def edited_child(old: str, new: str) -> Iterator[None]:
    """New sandboxes run jinja_child.py with `old` replaced by `new`."""
    before = sandbox.CHILD
    source = before.read_text(encoding="utf-8")
    if source.count(old) != 1:
        raise ZooBroken(f"{before.name}: the text {old!r} is there {source.count(old)} times, expected once")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, before.name)
        copy.write_text(source.replace(old, new), encoding="utf-8")
        sandbox.CHILD = copy
        try:
            yield
        finally:
            sandbox.CHILD = before


def jinja_without_trimming() -> AbstractContextManager[None]:
    """Jinja2's defaults for white space."""
    return edited_child("trim_blocks=True, lstrip_blocks=True, ", "")


def jinja_without_generation_tag() -> AbstractContextManager[None]:
    """The extension for the generation tag is not loaded."""
    return edited_child("extensions=[GenerationTag, jinja2.ext.loopcontrols]", "extensions=[jinja2.ext.loopcontrols]")


def jinja_own_tojson() -> AbstractContextManager[None]:
    """Jinja2's tojson, which escapes for HTML."""
    return edited_child('    environment.filters["tojson"] = tojson\n', "")


def jinja_ascii_tojson() -> AbstractContextManager[None]:
    """json.dumps with Python's default for non-ASCII characters."""
    return edited_child(TOJSON, TOJSON.replace("ensure_ascii=ensure_ascii, ", ""))


def jinja_sorted_tojson() -> AbstractContextManager[None]:
    """Keys in alphabetical order, as in Jinja2's filter."""
    return edited_child(TOJSON, TOJSON.replace("sort_keys=sort_keys", "sort_keys=True"))


def jinja_without_sandbox() -> AbstractContextManager[None]:
    """The plain environment, in which a template reaches Python's internals."""
    return edited_child(ENVIRONMENT, ENVIRONMENT.replace("ImmutableSandboxedEnvironment", "jinja2.Environment"))

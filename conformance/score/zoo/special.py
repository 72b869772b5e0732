"""Bugs that are no edits of a function in this process: those of the process that renders chat templates (jinja_child.py).

Each is a context manager that lets new sandboxes start an edited copy of that program; sandboxes that run already keep theirs.
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
    """Templates are rendered by the child with this text for that one."""
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
    """Jinja2's own tojson, which escapes for HTML."""
    return edited_child('    environment.filters["tojson"] = tojson\n', "")


def jinja_ascii_tojson() -> AbstractContextManager[None]:
    """json.dumps with its default, as Python has it."""
    return edited_child(TOJSON, TOJSON.replace("ensure_ascii=ensure_ascii, ", ""))


def jinja_sorted_tojson() -> AbstractContextManager[None]:
    """Keys in alphabetical order, as Jinja2's own filter has them."""
    return edited_child(TOJSON, TOJSON.replace("sort_keys=sort_keys", "sort_keys=True"))


def jinja_without_sandbox() -> AbstractContextManager[None]:
    """The plain environment, in which a template reaches Python's internals."""
    return edited_child(ENVIRONMENT, ENVIRONMENT.replace("ImmutableSandboxedEnvironment", "jinja2.Environment"))
